"""One step as sums over the entries of each parameter, and the metrics that these make."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._dtypes import at_least_float32, round_to
from lion_jax._leafwise import of_leaves
from lion_jax.primitives._moments import zeros_like

NEAR = 0.9  # of the bound that weight decay sets
_MOMENTS = ("mu", "trace")  # the fields that hold a first moment


class Step(NamedTuple):
    """What there is to measure, each a tree like the parameters.

    Attributes:
      gradients: as they came; zeros where there was none.
      updates: what is added to the parameters, likewise.
      params: the parameters before it.
      inner_state: the state of the optimizer after it.
    """

    gradients: optax.Updates
    updates: optax.Updates
    params: Any
    inner_state: optax.OptState


def has_moment(state: optax.OptState) -> bool:
    """Whether a state has a field for a first moment."""
    return any(True for _ in _first_moments(state))


def no_signs(params: optax.Params, largest: float) -> Any:
    """What to compare the first update's signs with; of more than `largest` entries, nothing."""
    is_kept = sum(math.prod(jnp.shape(p)) for p in jax.tree.leaves(params)) <= largest
    if is_kept:
        return zeros_like(params, jnp.int8)
    return jax.tree.map(lambda p: jnp.zeros((0, *jnp.shape(p)[1:]), jnp.int8), params)


def keeps(signs: Any) -> bool:
    """Whether there are signs to compare with."""
    return any(s.size for s in jax.tree.leaves(signs))


def sums_of(
    step: Step, signs: Any, bound: jax.Array | None
) -> tuple[dict[str, list[jax.Array]], Any]:
    """The sums over each parameter's entries by name, and the signs to compare the next with."""
    g, p, u = step.gradients, step.params, jax.tree.map(_as_stored, step.updates)
    sums = _columns(of_leaves(_squares, g, u, p), "grad", "update", "param", "update_grad", "agree")
    sums["entries"] = [jnp.asarray(float(jnp.size(leaf))) for leaf in jax.tree.leaves(p)]
    if has_moment(step.inner_state):
        m = jax.tree.map(_as_stored, _moments(step.inner_state, p))
        sums |= _columns(of_leaves(_moment_squares, g, m), "moment", "moment_grad")
    if bound is not None:
        sums |= _columns(of_leaves(_near, p, bound=bound), "near")
    if keeps(signs):
        pairs = of_leaves(_flips, u, signs)
        sums |= _columns(pairs, "flips")
        signs = jax.tree.structure(signs).unflatten([new.astype(jnp.int8) for _, new in pairs])
    elif signs is not None:
        sums["flips"] = [jnp.zeros(()) for _ in sums["entries"]]
    return sums, signs


def metrics_from(sums: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The metrics of the entries that were summed over; of nothing, each is 0."""
    norms = {x: jnp.sqrt(sums[x]) for x in ("grad", "update", "param", "moment") if x in sums}
    metrics = {f"norm/{x}": norm for x, norm in norms.items()}
    for x in ("update", "moment"):
        if x in norms:
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
    sums: dict[str, list[jax.Array]], axis_name: Any, dtype: Any, per_parameter: bool
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """The sums over all parameters, of shape (), and of each (or none), of shape (parameters,).

    Both are those of the whole where every device along these axes holds a part of a parameter.
    """
    rows = [*zip(*sums.values(), strict=True)]
    parts: dict[Any, list[int]] = {}
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


def _split_over(sums: Sequence[jax.Array], axis_name: Any) -> tuple[Any, ...]:
    """The axes along which devices hold different parts of what was summed.

    Only `shard_map` keeps track of what varies along an axis; elsewhere everything is said to.
    """
    if axis_name is None:
        return ()
    axes = axis_name if isinstance(axis_name, tuple | list) else (axis_name,)
    varying = frozenset().union(*map(_varying, sums))
    return tuple(a for a in axes if not _varying(jax.lax.axis_index(a)) or a in varying)


def _varying(x: jax.Array) -> frozenset[Any]:
    return getattr(getattr(jax.typeof(x), "manual_axis_type", None), "varying", frozenset())


def _moments(state: optax.OptState, params: optax.Params) -> Any:
    """The first moment of each parameter, found by field and path; 0 where there is none."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    found = {}
    for moment in _first_moments(state):
        for keys, leaf in jax.tree_util.tree_leaves_with_path(moment):
            found.setdefault(keys, leaf)
    moments = [found.get(keys, jnp.zeros_like(leaf)) for keys, leaf in leaves]
    for (keys, leaf), moment in zip(leaves, moments, strict=True):
        if jnp.shape(moment) != jnp.shape(leaf):
            raise ValueError(
                "with_metrics needs moments of the parameters' shapes; got "
                f"{jnp.shape(moment)} for {jnp.shape(leaf)} at {jax.tree_util.keystr(keys)}. "
                "Try it within sign_gather, with its axis_name."
            )
    return treedef.unflatten(moments)


def _first_moments(state: optax.OptState) -> Iterator[Any]:
    """Each first moment in a state, but not the integers of one, which mean nothing alone."""
    for field in _MOMENTS:
        for path, moment in optax.tree_utils.tree_get_all_with_path(state, field):
            if hasattr(path[-1], "tuple_name") and not hasattr(moment, "exponents"):
                yield moment


def _as_stored(x: jax.Array) -> jax.Array:
    """What its dtype holds of it, where a compiler would go on with more than that."""
    return round_to(x.astype(at_least_float32(x)), x.dtype)


def _columns(rows: Sequence[tuple[jax.Array, ...]], *names: str) -> dict[str, list[jax.Array]]:
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _squares(g, u, p):
    return _dot(g, g), _dot(u, u), _dot(p, p), _dot(u, g), _count(jnp.real(u * jnp.conj(g)) < 0)


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
