"""The one way a per-leaf function is mapped over trees: traced once per shape."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lion_jax._dtypes import at_least_float32, cast


def map_leaves(
    function: Callable[..., Any],
    written: tuple[Any, ...],
    read: tuple[Any, ...] = (),
    **hyperparameters: Any,
) -> tuple[Any, ...]:
    """Maps `function` over the leaves of several trees, in at least float32.

    A leaf that is None in the first tree (a parameter without a gradient) leaves that leaf of
    every written tree as it was.

    Each leaf goes through one jitted function, which JAX traces and lowers once for all leaves of
    a shape and dtype; a thousand leaves are then a thousand calls rather than a thousand copies.

    Args:
      function: `(*written_leaves, *read_leaves, **hyperparameters) -> new_written_leaves`, a tuple.
        A function of a module, not a closure: JAX remembers what it has traced by its identity.
      written: trees to replace; the structure of the first decides.
      read: trees that are only read.
      **hyperparameters: numbers, the same for all leaves. Those in a `jax.Array` are traced, any
        others are constants.

    Returns:
      The new written trees, each leaf in the dtype of the one it replaces.
    """
    constants, traced = _split(hyperparameters)
    first, *others = (*written, *read)
    leaves, treedef = jax.tree.flatten(first, is_leaf=lambda x: x is None)
    columns = [leaves, *(treedef.flatten_up_to(tree) for tree in others)]
    count = len(written)
    rows = [
        row[:count] if row[0] is None else _map_leaf(function, count, constants, traced, row)
        for row in zip(*columns, strict=True)
    ]
    return tuple(treedef.unflatten([row[i] for row in rows]) for i in range(count))


def sum_leaves(function: Callable[..., Any], tree: Any) -> jax.Array:
    """Sums a function's scalars over all leaves of `tree`, in at least float32.

    The terms are added as one array behind a barrier. As a chain of scalar additions XLA:CPU puts
    them into a single kernel, and before it refuses each further leaf's reduction it counts the
    instructions gathered so far, anew: the time to compile grows with the cube of the leaves.

    Args:
      function: `leaf -> scalar`, a function of a module, as in `map_leaves`.
      tree: any tree; the sum over an empty one is 0.

    Returns:
      The sum, of shape () and of the widest dtype among the terms.
    """
    terms = [_evaluate_leaf(function, leaf) for leaf in jax.tree.leaves(tree)]
    if not terms:
        return jnp.zeros(())
    return jnp.sum(jax.lax.optimization_barrier(jnp.stack(terms)))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _map_leaf(
    function: Callable[..., Any],
    count: int,
    constants: tuple[tuple[str, float], ...],
    traced: dict[str, jax.Array],
    leaves: tuple[Any, ...],
) -> tuple[jax.Array, ...]:
    dtype = at_least_float32(*leaves)
    results = function(*(jnp.asarray(leaf, dtype) for leaf in leaves), **dict(constants), **traced)
    return tuple(
        cast(result, jnp.result_type(leaf))
        for result, leaf in zip(results, leaves[:count], strict=True)
    )


@functools.partial(jax.jit, static_argnums=0)
def _evaluate_leaf(function: Callable[..., Any], leaf: Any) -> jax.Array:
    return function(jnp.asarray(leaf, at_least_float32(leaf)))


def _split(
    hyperparameters: dict[str, Any],
) -> tuple[tuple[tuple[str, float], ...], dict[str, jax.Array]]:
    """Numbers as Python's, so that they can be part of a key, and arrays apart from them."""
    traced = {k: v for k, v in hyperparameters.items() if isinstance(v, jax.Array)}
    return tuple((k, float(v)) for k, v in hyperparameters.items() if k not in traced), traced
