"""One step as sums over the entries of each parameter, and the metrics that these make."""

import math
from collections.abc import Container, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import KeyPath

from lion_jax._core.dtypes import at_least_float32, round_to
from lion_jax._core.leafwise import of_leaves
from lion_jax._core.leaves import is_none, is_weight
from lion_jax._core.paths import distinct_paths
from lion_jax._core.types import AxisName, PyTree

NEAR = 0.9  # of the bound that weight decay sets
_EMPTY: list[list[Any]] = [[] for _ in range(6)]
_MOMENTS = ("mu", "trace")  # the fields that hold a first moment


class Step(NamedTuple):
    """The things to measure, each a list with an entry for every parameter.

    Attributes:
      gradients: as they came; zeros where there was none.
      updates: what is added to the parameters; zeros where there was no gradient.
      params: the parameters before it.
      keys: where each is in the tree of parameters.
      names: the same, as a string.
      has_gradient: whether its gradient was there.
      inner_state: the state of the optimizer after it.
    """

    gradients: list[jax.Array]
    updates: list[jax.Array]
    params: list[jax.Array]
    keys: list[KeyPath]
    names: list[str]
    has_gradient: list[bool]
    inner_state: optax.OptState

    @classmethod
    def of(
        cls,
        gradients: optax.Updates,
        updates: optax.Updates,
        params: optax.Params,
        inner_state: optax.OptState,
        signs: PyTree,
        known: Container[str] | None,
    ) -> "Step":
        """A step from trees like the parameters.

        The parameters may have more leaves than those that the state started from, as a whole
        module has. Those that have signs are looked at, or else those of known names, or else all
        that are floating-point numbers.
        """
        like = params if signs is None else signs
        found, treedef = jax.tree_util.tree_flatten_with_path(like, is_leaf=is_none)
        columns = map(treedef.flatten_up_to, (gradients, updates, params))
        rows = [
            (*row, keys) for (keys, x), *row in zip(found, *columns, strict=True) if x is not None
        ]
        named = zip(distinct_paths(like), rows, strict=True)
        kept = [
            (_or_zeros(g, p), _or_zeros(u, p), jnp.asarray(p), keys, name, g is not None)
            for name, (g, u, p, keys) in named
            if is_weight(p) and (known is None or name in known)
        ]
        g, u, p, keys, names, has_gradient = map(list, zip(*kept, strict=True)) if kept else _EMPTY
        return cls(g, u, p, keys, names, has_gradient, inner_state)


def no_signs(params: optax.Params, largest: float) -> PyTree:
    """Signs to compare the first update's with; without entries where there are too many."""
    leaves, treedef = jax.tree.flatten(params)
    entries = sum(math.prod(jnp.shape(p)) for p in leaves if is_weight(p))

    def signs(p):
        if not is_weight(p):
            return None
        if entries > largest:
            return jnp.zeros((0, *jnp.shape(p)[1:]), jnp.int8)
        return jnp.zeros_like(p, jnp.int8)

    return treedef.unflatten(map(signs, leaves))


def keeps(signs: PyTree) -> bool:
    """Tells whether there are signs to compare with."""
    return any(s.size for s in jax.tree.leaves(signs))


def sums_of(
    step: Step, signs: list[jax.Array] | None, bound: jax.Array | None
) -> tuple[dict[str, list[jax.Array]], list[jax.Array] | None]:
    """The sums over each parameter's entries by name, and the signs to compare the next with."""
    g, p, u = step.gradients, step.params, list(map(_as_stored, step.updates))
    sums = _columns(of_leaves(_squares, g, u, p), "grad", "update", "param", "update_grad", "agree")
    sums["entries"] = [jnp.asarray(float(jnp.size(leaf))) for leaf in p]
    moments = _moments(step)
    if moments is not None:
        m = list(map(_as_stored, moments))
        if all(jnp.shape(x) == jnp.shape(leaf) for x, leaf in zip(m, p, strict=True)):
            sums |= _columns(of_leaves(_moment_squares, g, m), "moment", "moment_grad")
        else:  # a projection, which has no angle with the gradient
            sums |= _columns(of_leaves(_square, m), "moment")
    if bound is not None:
        sums |= _columns(of_leaves(_near, p, bound=bound), "near")
    if signs is not None and keeps(signs):
        pairs = of_leaves(_flips, u, [s.astype(x.dtype) for s, x in zip(signs, u, strict=True)])
        sums |= _columns(pairs, "flips")
        new = zip(signs, pairs, step.has_gradient, strict=True)
        signs = [pair[1].astype(jnp.int8) if is_new else old for old, pair, is_new in new]
    elif signs is not None:
        sums["flips"] = [jnp.zeros(()) for _ in sums["entries"]]
    return sums, signs


def metrics_from(sums: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The metrics of the entries that were summed over; of nothing, each is 0."""
    norms = {x: jnp.sqrt(sums[x]) for x in ("grad", "update", "param", "moment") if x in sums}
    metrics = {f"norm/{x}": norm for x, norm in norms.items()}
    for x in ("update", "moment"):
        if f"{x}_grad" in sums:
            cosine = _over(_over(sums[f"{x}_grad"], norms[x]), norms["grad"])
            metrics[f"cosine/{x}_grad"] = jnp.clip(cosine, -1, 1)
    agree = _over(sums["agree"], sums["entries"])
    metrics["share/agree"] = jnp.where(jnp.isnan(sums["update_grad"]), jnp.nan, agree)
    if "near" in sums:
        metrics["share/near_bound"] = _over(sums["near"], sums["entries"])
    if "flips" in sums:
        metrics["share/sign_flips"] = _over(sums["flips"], sums["entries"])
    return metrics


def over_devices(
    sums: dict[str, list[jax.Array]],
    axis_name: AxisName | None,
    dtype: jnp.dtype,
    per_parameter: bool,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """The sums over all parameters, of shape (), and of each (or none), of shape (parameters,).

    Both are those of the whole where every device along these axes holds a part of a parameter.
    """
    rows = [*zip(*sums.values(), strict=True)]
    parts: dict[tuple[str, ...], list[int]] = {}
    for i, row in enumerate(rows):
        parts.setdefault(_split_over(row, axis_name), []).append(i)
    blocks, order = [jnp.zeros((0, len(sums)), dtype)], []
    for axes, indices in parts.items():
        columns = zip(*(rows[i] for i in indices), strict=True)
        block = jax.lax.optimization_barrier(
            jnp.stack([jnp.stack(column).astype(dtype) for column in columns], axis=1)
        )
        block = block if per_parameter else jnp.sum(block, axis=0, keepdims=True)
        blocks.append(jax.lax.psum(block, axes) if axes else block)
        order += indices
    table = jnp.concatenate(blocks)
    of_all = dict(zip(sums, jnp.sum(table, axis=0), strict=True))
    if not per_parameter:
        return of_all, {}
    by_parameter = table[jnp.argsort(jnp.asarray(order, jnp.int32))]
    return of_all, dict(zip(sums, by_parameter.T, strict=True))


def _split_over(sums: Sequence[jax.Array], axis_name: AxisName | None) -> tuple[str, ...]:
    """The axes along which devices hold different parts of what was summed.

    Only `shard_map` keeps track of what varies along an axis; elsewhere everything is said to.
    """
    if axis_name is None:
        return ()
    axes = axis_name if isinstance(axis_name, tuple | list) else (axis_name,)
    varying = frozenset().union(*map(_varying, sums))
    return tuple(a for a in axes if not _varying(jax.lax.axis_index(a)) or a in varying)


def _varying(x: jax.Array) -> frozenset[str]:
    return getattr(getattr(jax.typeof(x), "manual_axis_type", None), "varying", frozenset())


def _moments(step: Step) -> list[jax.Array] | None:
    """The first moment of each parameter, found by field and path; 0 where there is none.

    None for a state without one, or with one of another structure than the parameters.
    """
    found, has_field = {}, False
    for path, moment in _first_moments(step.inner_state):
        has_field = True
        for keys, leaf in jax.tree_util.tree_leaves_with_path(moment):
            found.setdefault(keys, (path, leaf))
    if not has_field or (step.keys and found.keys().isdisjoint(step.keys)):
        return None
    moments = []
    for keys, p in zip(step.keys, step.params, strict=True):
        path, moment = found.get(keys, ((), jnp.zeros_like(p)))
        if jnp.shape(moment) != jnp.shape(p) and _is_gathered(path):
            raise ValueError(
                "with_metrics needs moments of the parameters' shapes; got "
                f"{jnp.shape(moment)} for {jnp.shape(p)} at {jax.tree_util.keystr(keys)}. "
                "Try it within sign_gather, with its axis_name."
            )
        moments.append(moment)
    return moments


def _is_gathered(path: KeyPath) -> bool:
    """Tells whether a path leads through the state of sign_gather, where devices have parts."""
    return any(getattr(key, "tuple_name", "") == "SignGatherState" for key in path)


def _first_moments(state: optax.OptState) -> Iterator[tuple[KeyPath, PyTree]]:
    """Each first moment in a state, with its path; not the integers of one, meaningless alone."""
    for field in _MOMENTS:
        for path, moment in optax.tree_utils.tree_get_all_with_path(state, field):
            if hasattr(path[-1], "tuple_name") and not hasattr(moment, "exponents"):
                yield path, moment


def _or_zeros(x: Any, p: Any) -> jax.Array:
    """An array; zeros for what has no gradient."""
    return jnp.zeros_like(p) if x is None else jnp.asarray(x)


def _as_stored(x: jax.Array) -> jax.Array:
    """An array rounded to its dtype, where a compiler would go on with more than that."""
    return round_to(x.astype(at_least_float32(x)), x.dtype)


def _columns(rows: Sequence[tuple[jax.Array, ...]], *names: str) -> dict[str, list[jax.Array]]:
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _squares(g, u, p):
    return _dot(g, g), _dot(u, u), _dot(p, p), _dot(u, g), _count(jnp.real(u * jnp.conj(g)) < 0)


def _square(x):
    return (_dot(x, x),)


def _moment_squares(g, m):
    return _dot(m, m), _dot(m, g)


def _flips(u, s):
    return _count(u * s < 0), jnp.sign(u)


def _near(p, *, bound):
    return (_count(jnp.abs(p) >= NEAR * bound),)


def _dot(x, y):
    return jnp.sum(jnp.real(x * jnp.conj(y)))


def _count(is_so):
    return jnp.sum(is_so.astype(jnp.float32))


def _over(part, whole):
    """Their ratio; 0 where there is no whole."""
    return jnp.where(whole == 0, 0, part / jnp.where(whole == 0, 1, whole))
