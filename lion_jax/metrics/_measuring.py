"""Measures a step by sums over the entries of each parameter, and computes metrics from them."""

import math
from collections.abc import Container, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import KeyPath

from lion_jax._core.dtypes import at_least_float32, round_to
from lion_jax._core.leafwise import of_leaves
from lion_jax._core.leaves import is_none, is_weight
from lion_jax._core.paths import distinct_paths
from lion_jax._core.types import AxisName, PyTree
from lion_jax.metrics._sums import sums_over

NEAR = 0.9  # of the bound that weight decay sets
_EMPTY: list[list[Any]] = [[] for _ in range(8)]
_MOMENTS = ("mu", "trace")  # the fields that hold a first moment


class Step(NamedTuple):
    """The things to measure, each a list with an entry for every parameter.

    Attributes:
      gradients: as they came; zeros where there was none.
      updates: three copies of the step that is added to the parameters; zeros without a gradient.
      params: the parameters before it.
      keys: where each is in the tree of parameters.
      names: the same, as a string.
      has_gradient: whether its gradient was there.
      inner_state: the state of the optimizer after it.
    """

    gradients: list[jax.Array]
    updates: list[list[jax.Array]]
    params: list[jax.Array]
    keys: list[KeyPath]
    names: list[str]
    has_gradient: list[bool]
    inner_state: optax.OptState

    @classmethod
    def of(
        cls,
        gradients: optax.Updates,
        updates: Sequence[optax.Updates],
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
        updates = (*updates, updates[-1], updates[-1])[:3]
        columns = map(treedef.flatten_up_to, (gradients, params, *updates))
        rows = [
            (keys, *row) for (keys, x), *row in zip(found, *columns, strict=True) if x is not None
        ]
        named = zip(distinct_paths(like), rows, strict=True)
        kept = [
            (
                _or_zeros(g, p),
                jnp.asarray(p),
                keys,
                name,
                g is not None,
                *(_or_zeros(x, p) for x in u),
            )
            for name, (keys, g, p, *u) in named
            if is_weight(p) and (known is None or name in known)
        ]
        g, p, keys, names, has_gradient, *u = map(list, zip(*kept, strict=True)) if kept else _EMPTY
        return cls(g, u, p, keys, names, has_gradient, inner_state)


class Sums(NamedTuple):
    """Sums over the entries of each parameter.

    Attributes:
      names: of the columns.
      rows: of each parameter, the sums in those columns that were measured.
      known: the columns after those, known beforehand, of shape (parameters, columns).
    """

    names: list[str]
    rows: list[tuple[jax.Array, ...]]
    known: np.ndarray


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
) -> tuple[Sums, list[jax.Array] | None]:
    """The sums over each parameter's entries, and the signs to compare the next with."""
    g, p = step.gradients, step.params
    u, v, w = (list(map(_as_stored, updates)) for updates in step.updates)
    known = {"entries": [float(jnp.size(leaf)) for leaf in p]}
    names, columns = ["grad", "update", "param", "update_grad", "agree"], [g, p, u, v, w]
    numbers = {} if bound is None else {"bound": bound}
    names += ["near" for _ in numbers]
    m = None if (moments := _moments(step)) is None else list(map(_as_stored, moments))
    is_projected = m is not None and list(map(jnp.shape, m)) != list(map(jnp.shape, p))
    if m is not None and not is_projected:
        names += ["moment", "moment_grad"]
        columns.append(m)
    is_counting = signs is not None and keeps(signs)
    if signs is not None and is_counting:
        names.append("flips")
        columns.append([s.astype(x.dtype) for s, x in zip(signs, u, strict=True)])
    elif signs is not None:
        known["flips"] = [0.0] * len(p)
    results = of_leaves(_sums_of_leaf, *columns, names=tuple(names), **numbers)
    rows = [result[: len(names)] for result in results]
    if m is not None and is_projected:  # which has no angle with the gradient
        names.append("moment")
        rows = [(*row, x) for row, (x,) in zip(rows, of_leaves(_square, m), strict=True)]
    if signs is not None and is_counting:
        new = zip(signs, results, step.has_gradient, strict=True)
        signs = [result[-1].astype(jnp.int8) if is_new else old for old, result, is_new in new]
    return Sums([*names, *known], rows, np.array([*known.values()]).T), signs


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
    sums: Sums, axis_name: AxisName | None, dtype: jnp.dtype, per_parameter: bool
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """The sums over all parameters, of shape (), and of each (or none), of shape (parameters,).

    Both are those of the whole where every device along these axes holds a part of a parameter.
    """
    parts: dict[tuple[str, ...], list[int]] = {}
    for i, row in enumerate(sums.rows):
        parts.setdefault(_split_over(row, axis_name), []).append(i)
    blocks, order = [jnp.zeros((0, len(sums.names)), dtype)], []
    for axes, indices in parts.items():
        columns = zip(*(sums.rows[i] for i in indices), strict=True)
        measured = jnp.stack([jnp.stack(column).astype(dtype) for column in columns], axis=1)
        known = jnp.asarray(sums.known[indices], dtype)
        block = jnp.concatenate([jax.lax.optimization_barrier(measured), known], axis=1)
        block = block if per_parameter else jnp.sum(block, axis=0, keepdims=True)
        blocks.append(jax.lax.psum(block, axes) if axes else block)
        order += indices
    table = jnp.concatenate(blocks)
    of_all = dict(zip(sums.names, jnp.sum(table, axis=0), strict=True))
    if not per_parameter:
        return of_all, {}
    by_parameter = table[jnp.argsort(jnp.asarray(order, jnp.int32))]
    return of_all, dict(zip(sums.names, by_parameter.T, strict=True))


def _split_over(sums: Sequence[jax.Array], axis_name: AxisName | None) -> tuple[str, ...]:
    """The axes along which devices hold different parts of the summed arrays.

    Only `shard_map` tracks which arrays vary along an axis; elsewhere all count as varying.
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
    """An array; zeros for a missing gradient."""
    return jnp.zeros_like(p) if x is None else jnp.asarray(x)


def _as_stored(x: jax.Array) -> jax.Array:
    """An array rounded to its dtype, where a compiler would go on with more than that."""
    return round_to(x.astype(at_least_float32(x)), x.dtype)


def _sums_of_leaf(g, p, u, v, w, *rest, names, bound=None):
    *moments, s = rest if "flips" in names else (*rest, None)
    real = jnp.finfo(g.dtype).dtype
    terms = {
        "grad": _times(g, g),
        "update": _times(v, v),
        "param": _times(p, p),
        "update_grad": _times(u, g),
        "agree": (_times(w, g) < 0).astype(real),
    }
    if bound is not None:
        terms["near"] = (jnp.abs(p) >= NEAR * bound).astype(real)
    for m in moments:
        terms |= {"moment": _times(m, m), "moment_grad": _times(m, g)}
    if s is None:
        return sums_over(*(terms[name] for name in names))
    terms["flips"] = (u * s < 0).astype(real)
    return *sums_over(*(terms[name] for name in names)), jnp.sign(u)


def _square(x):
    return (jnp.sum(_times(x, x)),)


def _times(x, y):
    return jnp.real(x * jnp.conj(y))


def _over(part, whole):
    """Their ratio; 0 where there is no whole."""
    return jnp.where(whole == 0, 0, part / jnp.where(whole == 0, 1, whole))
