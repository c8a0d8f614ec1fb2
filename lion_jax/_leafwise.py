"""The one way a per-leaf function is mapped over trees: traced once per shape."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

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
    a shape and dtype. Within a trace, n leaves alike go through it in sqrt(n) calls of sqrt(n)
    leaves each: a thousand leaves are then some tens of calls rather than a thousand copies.

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
    rows = list(zip(*columns, strict=True))
    present = [i for i, row in enumerate(rows) if row[0] is not None]
    results = _map_rows(_Rule(function, count, constants), traced, [rows[i] for i in present])
    for i, result in zip(present, results, strict=True):
        rows[i] = result
    return tuple(treedef.unflatten([row[i] for row in rows]) for i in range(count))


def sum_leaves(function: Callable[..., Any], tree: Any) -> jax.Array:
    """Sums a function's scalars over all leaves of `tree`, in at least float32.

    The terms are added as one array behind a barrier. As a chain of scalar additions XLA:CPU puts
    them into a single kernel, and before it refuses each further leaf's reduction it counts the
    instructions gathered so far, anew: the time to compile grows with the cube of the leaves.

    Args:
      function: `leaf -> (scalar,)`, a function of a module, as in `map_leaves`.
      tree: any tree; the sum over an empty one is 0.

    Returns:
      The sum, of shape () and of the widest dtype among the terms.
    """
    terms = [term for (term,) in of_leaves(function, tree)]
    return jnp.sum(jax.lax.optimization_barrier(jnp.stack(terms))) if terms else jnp.zeros(())


def of_leaves(
    function: Callable[..., Any], *trees: Any, **hyperparameters: Any
) -> list[tuple[jax.Array, ...]]:
    """What a function makes of each leaf, in at least float32.

    Args:
      function: `(*leaves, **hyperparameters) -> results`, a tuple; a function of a module, as in
        `map_leaves`.
      *trees: trees with the same leaves; the structure of the first decides.
      **hyperparameters: as in `map_leaves`.

    Returns:
      The results for each leaf, in the order of the leaves.
    """
    constants, traced = _split(hyperparameters)
    leaves, treedef = jax.tree.flatten(trees[0])
    columns = [leaves, *(treedef.flatten_up_to(tree) for tree in trees[1:])]
    return _map_rows(_Rule(function, 0, constants), traced, list(zip(*columns, strict=True)))


class _Rule(NamedTuple):
    """What JAX remembers a traced leaf by, besides shapes and dtypes.

    Attributes:
      function: of the leaves of a row.
      written: how many of its results replace leaves, and take their dtypes.
      constants: its hyperparameters that are constants.
    """

    function: Callable[..., Any]
    written: int
    constants: tuple[tuple[str, float], ...] = ()


def _map_rows(
    rule: _Rule, traced: dict[str, jax.Array], rows: Sequence[tuple[Any, ...]]
) -> list[tuple[jax.Array, ...]]:
    """The results of the rule's function for each row of leaves."""
    results: list[tuple[jax.Array, ...]] = [()] * len(rows)
    for batch in _batches(rows):
        if len(batch) == 1:
            of_batch = [_map_leaf(rule, traced, rows[batch[0]])]
        else:
            of_batch = _map_alike(rule, traced, [rows[i] for i in batch])
        for i, result in zip(batch, of_batch, strict=True):
            results[i] = result
    return results


def _batches(rows: Sequence[tuple[Any, ...]]) -> list[list[int]]:
    """Which rows share a call.

    Outside a trace each row has its own: its leaves may lie on devices of their own.
    """
    if not any(isinstance(x, Tracer) for row in rows for x in row):
        return [[i] for i in range(len(rows))]
    alike: dict[Any, list[int]] = {}
    for i, row in enumerate(rows):
        alike.setdefault(tuple(jax.typeof(x) for x in row), []).append(i)
    batches = []
    for indices in alike.values():
        size = math.isqrt(len(indices))
        rest = len(indices) % size
        batches += [[i] for i in indices[:rest]]
        batches += [indices[i : i + size] for i in range(rest, len(indices), size)]
    return batches


@functools.partial(jax.jit, static_argnums=0)
def _map_alike(
    rule: _Rule, traced: dict[str, jax.Array], rows: list[tuple[Any, ...]]
) -> list[tuple[jax.Array, ...]]:
    return [_map_leaf(rule, traced, row) for row in rows]


@functools.partial(jax.jit, static_argnums=0)
def _map_leaf(
    rule: _Rule, traced: dict[str, jax.Array], row: tuple[Any, ...]
) -> tuple[jax.Array, ...]:
    function, written, constants = rule
    dtype = at_least_float32(*row)
    results = function(*(jnp.asarray(leaf, dtype) for leaf in row), **dict(constants), **traced)
    replacing = zip(results[:written], row[:written], strict=True)
    return (*(cast(x, leaf.dtype) for x, leaf in replacing), *results[written:])


def _split(
    hyperparameters: dict[str, Any],
) -> tuple[tuple[tuple[str, float], ...], dict[str, jax.Array]]:
    """Numbers as Python's, so that they can be part of a key, and arrays apart from them."""
    traced = {k: v for k, v in hyperparameters.items() if isinstance(v, jax.Array)}
    return tuple((k, float(v)) for k, v in hyperparameters.items() if k not in traced), traced
