"""The one way a per-leaf function is mapped over trees: traced once per shape."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from lion_jax._dtypes import at_least_float32, cast
from lion_jax._matching import path_of, refuse_shape

_RATES = ("b1", "b2", "b3")


def map_leaves(
    function: Callable[..., Any],
    written: tuple[Any, ...],
    read: tuple[Any, ...] = (),
    *,
    static: tuple[tuple[str, Any], ...] = (),
    **hyperparameters: Any,
) -> tuple[Any, ...]:
    """Maps `function` over the leaves of several trees, in at least float32.

    A leaf that is None in the first tree (a parameter without a gradient) leaves that leaf of
    every written tree as it was.

    Each leaf goes through one jitted function, which JAX traces and lowers once for all leaves of
    a shape and dtype. Within a trace, n leaves alike go through it in sqrt(n) calls of sqrt(n)
    leaves each: a thousand leaves are then some tens of calls rather than a thousand copies.
    Outside, numbers are arguments of the compiled function: a sweep over them compiles nothing new.

    Args:
      function: `(*written_leaves, *read_leaves, **hyperparameters) -> new_written_leaves`, a tuple.
        A function of a module, not a closure: JAX remembers what it has traced by its identity.
      written: trees to replace; the structure of the first decides.
      read: trees that are only read, or :class:`PerLeaf`.
      static: names and values of further keyword arguments, which are no numbers to compute with:
        flags and axes.
      **hyperparameters: numbers, the same for all leaves. Those in a `jax.Array` are traced, any
        others are constants. Outside a trace they are arguments; decay rates have the names b1, b2
        and b3, so that one minus them is exact there too.

    Returns:
      The new written trees, each leaf in the dtype of the one it replaces.

    Raises:
      ValueError: leaves that would broadcast: written ones of several shapes, by their path.
    """
    constants, traced = _split(hyperparameters)
    first, *others = (*written, *read)
    leaves, treedef = jax.tree.flatten(first, is_leaf=lambda x: x is None)
    columns = [leaves, *(in_order_of(treedef, tree) for tree in others)]
    count = len(written)
    rows = list(zip(*columns, strict=True))
    present = [i for i, row in enumerate(rows) if row[0] is not None]
    for i in present:
        _check_alike(first, i, rows[i][:count])
    results = _map_rows(
        _Rule(function, count, constants, static), traced, [rows[i] for i in present]
    )
    for i, result in zip(present, results, strict=True):
        rows[i] = result
    return tuple(treedef.unflatten([row[i] for row in rows]) for i in range(count))


class PerLeaf(list[Any]):
    """Something for each leaf of the first tree, in their order, None included.

    It is no tree of their structure: a node may take nothing but the arrays that it checks.
    """


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
      constants: its hyperparameters that are Python numbers.
      static: its arguments that are no numbers.
    """

    function: Callable[..., Any]
    written: int
    constants: tuple[tuple[str, float], ...] = ()
    static: tuple[tuple[str, Any], ...] = ()


def _map_rows(
    rule: _Rule, traced: dict[str, jax.Array], rows: Sequence[tuple[Any, ...]]
) -> list[tuple[jax.Array, ...]]:
    """The results of the rule's function for each row of leaves."""
    if rule.constants and not any(isinstance(x, Tracer) for x in jax.tree.leaves((traced, rows))):
        numbers = dict(rule.constants)
        complements = {name: 1 - x for name, x in numbers.items() if name in _RATES}
        rule = rule._replace(constants=())
        return [_map_leaf_eagerly(rule, numbers, complements, traced, row) for row in rows]
    results: list[tuple[jax.Array, ...]] = [()] * len(rows)
    for batch in _batches(rows):
        if len(batch) == 1:
            of_batch = [_map_leaf(rule, traced, rows[batch[0]])]
        else:
            of_batch = _map_alike(rule, traced, [rows[i] for i in batch])
        for i, result in zip(batch, of_batch, strict=True):
            results[i] = result
    return results


def in_order_of(treedef: Any, tree: Any) -> list[Any]:
    """Lists what a tree has for each leaf of a structure."""
    return tree if isinstance(tree, PerLeaf) else treedef.flatten_up_to(tree)


def _check_alike(tree: Any, i: int, row: Sequence[Any]) -> None:
    """Refuses leaves to be written together whose shapes differ; scalars go with any."""
    for leaf in row:
        if jnp.shape(leaf) not in ((), jnp.shape(row[0])):
            refuse_shape("gradients", "the state's", row[0], leaf, path_of(tree, i))


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
    return _apply(rule, dict(rule.constants) | traced, row)


@functools.partial(jax.jit, static_argnums=0)
def _map_leaf_eagerly(
    rule: _Rule,
    numbers: dict[str, jax.Array],
    complements: dict[str, jax.Array],
    traced: dict[str, jax.Array],
    row: tuple[Any, ...],
) -> tuple[jax.Array, ...]:
    rates = {name: _Rate(numbers[name], x) for name, x in complements.items()}
    return _apply(rule, numbers | rates | traced, row)


def _apply(
    rule: _Rule, hyperparameters: dict[str, Any], row: tuple[Any, ...]
) -> tuple[jax.Array, ...]:
    dtype = at_least_float32(*row)
    wide = (jnp.asarray(leaf, dtype) for leaf in row)
    results = rule.function(*wide, **dict(rule.static), **hyperparameters)
    replacing = zip(results[: rule.written], row[: rule.written], strict=True)
    narrow = (cast(x, jnp.result_type(leaf)) for x, leaf in replacing)
    return (*narrow, *results[rule.written :])


class _Rate:
    """A decay rate as an argument of compiled code, which knows one minus it exactly.

    Worked out in float32, 1 - 0.999 would be off by 5e-5.
    """

    def __init__(self, value: jax.Array, complement: jax.Array):
        self._value, self._complement = value, complement

    def __jax_array__(self) -> jax.Array:
        return self._value

    def __rsub__(self, other: Any) -> jax.Array:
        is_complement = isinstance(other, int) and other == 1
        return self._complement if is_complement else other - self._value


def _delegate(name: str) -> Callable[..., jax.Array]:
    return lambda self, *others: getattr(self.__jax_array__(), name)(*others)


for _operation in (
    "add",
    "radd",
    "sub",
    "mul",
    "rmul",
    "truediv",
    "rtruediv",
    "pow",
    "rpow",
    "neg",
):
    setattr(_Rate, f"__{_operation}__", _delegate(f"__{_operation}__"))


def _split(
    hyperparameters: dict[str, Any],
) -> tuple[tuple[tuple[str, float], ...], dict[str, jax.Array]]:
    """Numbers as Python's, so that they can be part of a key, and arrays apart from them."""
    traced = {k: v for k, v in hyperparameters.items() if isinstance(v, jax.Array)}
    return tuple((k, float(v)) for k, v in hyperparameters.items() if k not in traced), traced
