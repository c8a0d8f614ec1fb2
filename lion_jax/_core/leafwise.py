"""Maps a per-leaf function over trees, traced once per shape."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from lion_jax._core.checks import check_has_params, check_real, path_of, refuse_shape
from lion_jax._core.counters import next_count, zero
from lion_jax._core.dtypes import at_least_float32, cast
from lion_jax._core.rates import Rate, bias
from lion_jax._core.types import DType, Leaf, LeafRule, PyTree

_RATES = ("b1", "b2", "b3")
Row = tuple[Leaf, ...]


def leafwise(
    rule: LeafRule,
    state: Callable[..., Any] = optax.EmptyState,
    *,
    real_for: str = "",
    params_for: str = "",
    start: Mapping[str, Callable[..., PyTree] | None] | None = None,
    bias: Callable[..., jax.Array] = bias,
    shared: Callable[..., dict[str, jax.Array]] | None = None,
    **hyperparameters: Any,
) -> optax.GradientTransformationExtraArgs:
    """The transformation that applies one rule to every leaf.

    Args:
      rule: the equation: `(gradient, *moments, [parameter], *, **hyperparameters)` to the update
        and the new moments, as a tuple. If the state has a `count`, it may also ask for `t`, the
        count of updates with this one, and for `bias1`, which is 1 - b1**t, `bias2` and `bias3`.
        A function of a module, as in `map_leaves`.
      state: the NamedTuple of the moments, in the order in which the rule takes them, which may
        begin with a `count`.
      real_for: the public name of a rule that only real leaves have; complex ones are refused.
      params_for: the public name of a rule that reads the parameter too; without it is refused.
      start: what a moment starts from, where it is not a zero of at least float32: a function of
        the parameter, or None for a moment that is not kept.
      bias: from b and t to 1 - b**t.
      shared: further numbers that all leaves share, from t and the hyperparameters.
      **hyperparameters: as in `map_leaves`; those that are None are left out.

    Returns:
      The transformation, without the surround of :func:`lion_jax._core.rule.primitive`.
    """
    fields = getattr(state, "_fields", ())
    starts = {name: zeros_like for name in fields if name != "count"} | {
        name: one and functools.partial(jax.tree.map, one) for name, one in (start or {}).items()
    }
    given = {name: value for name, value in hyperparameters.items() if value is not None}
    asked = inspect.signature(rule).parameters

    def numbers_at(t):
        """The numbers of a step, each computed once for all leaves."""
        biases = {f"bias{i}": given[f"b{i}"] for i in (1, 2, 3) if f"bias{i}" in asked}
        numbers = {"t": t} | {name: bias(b, t) for name, b in biases.items()}
        numbers = {name: x for name, x in numbers.items() if name in asked}
        return numbers | (shared(t, **given) if shared else {})

    def init_fn(params):
        if real_for:
            check_real(params, real_for)
        count = {"count": zero()} if "count" in fields else {}
        return state(**count, **{name: of and of(params) for name, of in starts.items()})

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        if real_for:
            check_real(updates, real_for)
        if params_for:
            check_has_params(params, params_for)
        count = {"count": next_count(state.count)} if "count" in fields else {}
        numbers = numbers_at(count["count"]) if count else {}
        kept = [name for name in starts if getattr(state, name) is not None]
        moments = (getattr(state, name) for name in kept)
        read = (params,) if params_for else ()
        updates, *moments = map_leaves(rule, (updates, *moments), read, **given, **numbers)
        return updates, state._replace(**count, **dict(zip(kept, moments, strict=True)))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def zeros_like(params: optax.Params, dtype: DType | None = None) -> optax.Updates:
    """A moment of no gradients: a tree like the parameters, in `dtype` or at least float32."""
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype or at_least_float32(p)), params)


def map_leaves(
    function: LeafRule,
    written: tuple[PyTree, ...],
    read: tuple[PyTree, ...] = (),
    **hyperparameters: Any,
) -> tuple[PyTree, ...]:
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
      **hyperparameters: numbers, the same for all leaves. Those in a `jax.Array` are traced, any
        others are constants. Outside a trace they are arguments; decay rates have the names b1, b2
        and b3, so that one minus them is exact there too. Flags and tuples, which are no numbers to
        compute with, are always constants.

    Returns:
      The new written trees, each leaf in the dtype of the one it replaces.

    Raises:
      ValueError: leaves that would broadcast: written ones of several shapes, by their path.
    """
    constants, static, traced = _split(hyperparameters)
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


def map_by_rule(
    rules: Sequence[LeafRule | None],
    leaves: Sequence[Leaf],
    *read: Sequence[Leaf],
    **hyperparameters: Any,
) -> list[Leaf]:
    """Maps over each leaf a rule of its own, as `map_leaves` does; those without a rule stay.

    Args:
      rules: the rule of each leaf, or None.
      leaves: to replace; None stays None.
      *read: further leaves that the rules read.
      **hyperparameters: as in `map_leaves`.
    """
    new = list(leaves)
    for rule in [rule for rule in dict.fromkeys(rules) if rule is not None]:
        chosen = [x if own is rule else None for x, own in zip(leaves, rules, strict=True)]
        (moved,) = map_leaves(rule, (chosen,), tuple(map(list, read)), **hyperparameters)
        new = [x if y is None else y for x, y in zip(new, moved, strict=True)]
    return new


class PerLeaf(list[Leaf]):
    """Something for each leaf of the first tree, in their order, None included.

    It is no tree of their structure: a node may take nothing but the arrays that it checks.
    """


def sum_leaves(function: LeafRule, tree: PyTree) -> jax.Array:
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
    function: LeafRule, *trees: PyTree, **hyperparameters: Any
) -> list[tuple[jax.Array, ...]]:
    """Calls a function on each leaf, in at least float32.

    Args:
      function: `(*leaves, **hyperparameters) -> results`, a tuple; a function of a module, as in
        `map_leaves`.
      *trees: trees with the same leaves; the structure of the first decides.
      **hyperparameters: as in `map_leaves`.

    Returns:
      The results for each leaf, in the order of the leaves.
    """
    constants, static, traced = _split(hyperparameters)
    leaves, treedef = jax.tree.flatten(trees[0])
    columns = [leaves, *(treedef.flatten_up_to(tree) for tree in trees[1:])]
    return _map_rows(
        _Rule(function, 0, constants, static), traced, list(zip(*columns, strict=True))
    )


class _Rule(NamedTuple):
    """The key by which JAX remembers a traced leaf, besides shapes and dtypes.

    Attributes:
      function: of the leaves of a row.
      written: how many of its results replace leaves, and take their dtypes.
      constants: its hyperparameters that are Python numbers.
      static: its arguments that are no numbers.
    """

    function: LeafRule
    written: int
    constants: tuple[tuple[str, float], ...] = ()
    static: tuple[tuple[str, Any], ...] = ()


def _map_rows(
    rule: _Rule, traced: dict[str, jax.Array], rows: Sequence[Row]
) -> list[tuple[jax.Array, ...]]:
    """The results of the rule's function for each row of leaves."""
    if rule.constants and not any(isinstance(x, Tracer) for x in jax.tree.leaves((traced, rows))):
        numbers = dict(rule.constants)
        rates = {b: (numbers[b], 1 - numbers[b]) for b in _RATES if b in numbers}
        rule = rule._replace(constants=())
        return [_map_leaf_eagerly(rule, numbers, rates, traced, row) for row in rows]
    results: list[tuple[jax.Array, ...]] = [()] * len(rows)
    for batch in _batches(rows):
        if len(batch) == 1:
            of_batch = [_map_leaf(rule, traced, rows[batch[0]])]
        else:
            of_batch = _map_alike(rule, traced, [rows[i] for i in batch])
        for i, result in zip(batch, of_batch, strict=True):
            results[i] = result
    return results


def in_order_of(treedef: Any, tree: PyTree) -> list[Leaf]:
    """Lists what a tree has for each leaf of a structure."""
    return tree if isinstance(tree, PerLeaf) else treedef.flatten_up_to(tree)


def _check_alike(tree: PyTree, i: int, row: Sequence[Leaf]) -> None:
    """Refuses leaves to be written together whose shapes differ; scalars go with any."""
    for leaf in row:
        if jnp.shape(leaf) not in ((), jnp.shape(row[0])):
            refuse_shape("gradients", "the state's", row[0], leaf, path_of(tree, i))


def _batches(rows: Sequence[Row]) -> list[list[int]]:
    """Groups rows that share a call, by their numbers.

    Outside a trace each row has its own: its leaves may lie on devices of their own.
    """
    if not any(isinstance(x, Tracer) for row in rows for x in row):
        return [[i] for i in range(len(rows))]
    alike: dict[tuple[Leaf, ...], list[int]] = {}
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
    rule: _Rule, traced: dict[str, jax.Array], rows: list[Row]
) -> list[tuple[jax.Array, ...]]:
    return [_map_leaf(rule, traced, row) for row in rows]


@functools.partial(jax.jit, static_argnums=0)
def _map_leaf(rule: _Rule, traced: dict[str, jax.Array], row: Row) -> tuple[jax.Array, ...]:
    return _apply(rule, dict(rule.constants) | traced, row)


@functools.partial(jax.jit, static_argnums=0)
def _map_leaf_eagerly(
    rule: _Rule,
    numbers: dict[str, jax.Array],
    rates: dict[str, tuple[jax.Array, ...]],
    traced: dict[str, jax.Array],
    row: Row,
) -> tuple[jax.Array, ...]:
    return _apply(rule, numbers | {b: Rate(*parts) for b, parts in rates.items()} | traced, row)


def _apply(rule: _Rule, hyperparameters: dict[str, Any], row: Row) -> tuple[jax.Array, ...]:
    dtype = at_least_float32(*row)
    wide = (jnp.asarray(leaf, dtype) for leaf in row)
    results = rule.function(*wide, **dict(rule.static), **hyperparameters)
    replacing = zip(results[: rule.written], row[: rule.written], strict=True)
    narrow = (cast(x, jnp.result_type(leaf)) for x, leaf in replacing)
    return (*narrow, *results[rule.written :])


def _split(
    hyperparameters: dict[str, Any],
) -> tuple[tuple[tuple[str, float], ...], tuple[tuple[str, Any], ...], dict[str, jax.Array]]:
    """Numbers as Python's, so that they can be part of a key; flags; and arrays."""
    numbers: dict[str, float] = {}
    static: dict[str, Any] = {}
    traced: dict[str, jax.Array] = {}
    for name, value in hyperparameters.items():
        if isinstance(value, jax.Array):
            traced[name] = value
        elif isinstance(value, bool | np.bool_ | tuple):
            static[name] = value
        else:
            numbers[name] = float(value)
    return tuple(numbers.items()), tuple(static.items()), traced
