"""Slow weights in the state, beside the fast ones of the training loop."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.conditional import is_selected
from lion_jax._core.dtypes import at_least_float32, cast
from lion_jax._core.leafwise import map_leaves
from lion_jax._core.leaves import has_gradient, is_array, is_none, is_weight
from lion_jax._core.types import Scalar

_ROUNDED = {
    "MasterWeightsState": "with_master_weights",
    "StochasticRoundingState": "round_stochastically",
}


def copy(params: optax.Params) -> optax.Params:
    """Slow weights to start with, at least float32; None for functions."""
    return jax.tree.map(_copy_leaf, params)


def check_not_rounded(name: str, inner_state: optax.OptState, **remedies: str) -> None:
    """Refuses to wrap a transformation that rounds parameters: slow weights would be rounded too.

    Args:
      name: the combinator that keeps them.
      inner_state: state of the wrapped transformation.
      **remedies: a remedy for each that is refused: `with_master_weights`, `round_stochastically`.

    Raises:
      ValueError: one of them in the inner state, at any depth.
    """
    nodes = jax.tree.leaves(inner_state, is_leaf=_is_rounded)
    inside = {_ROUNDED[type(node).__name__] for node in nodes if _is_rounded(node)}
    for rounding in sorted(inside & {*remedies}):
        raise ValueError(
            f"{name} must not wrap {rounding}, where it would keep the rounded weights and "
            f"lose the small steps between them; got an inner transformation with {rounding} in "
            f"it. Try {remedies[rounding]}."
        )


def synchronize(
    updates: optax.Updates,
    params: optax.Params | None,
    slow_params: optax.Params,
    is_sync: jax.Array,
    slow_step_size: Scalar,
) -> tuple[optax.Updates, optax.Params]:
    """The updates and slow weights after a step that ends, where `is_sync`, with fast = slow.

    Slow weights become what the parameters became, which are in memory anyway; but where parameters
    are narrower, slow weights take the step themselves, and the parameters follow.
    """
    slow, treedef = jax.tree.flatten(slow_params, is_leaf=is_none)
    us, ps = treedef.flatten_up_to(updates), treedef.flatten_up_to(params)
    ours = [i for i, (s, u) in enumerate(zip(slow, us, strict=True)) if moves(s, u)]
    for i in ours:
        us[i], ps[i] = jnp.asarray(us[i]), jnp.asarray(ps[i])
    wide = [i for i in ours if us[i].dtype == ps[i].dtype == slow[i].dtype]
    narrow = sorted({*ours} - {*wide})
    wide_us, new_ps = map_leaves(
        _synchronize,
        (_at(us, wide), _at(ps, wide)),
        (_at(slow, wide),),
        is_sync=is_sync,
        slow_step_size=slow_step_size,
    )
    _put(us, wide, wide_us)
    sources = dict(zip(wide, ((p,) for p in new_ps), strict=True))
    sources |= {i: (ps[i], us[i]) for i in narrow}
    renewed = _renew_where(is_sync, _at(slow, ours), [sources[i] for i in ours], slow_step_size)
    _put(slow, ours, renewed)
    (narrow_us,) = map_leaves(
        _follow, (_at(us, narrow),), (_at(ps, narrow), _at(slow, narrow)), is_sync=is_sync
    )
    _put(us, narrow, narrow_us)
    return treedef.unflatten(us), treedef.unflatten(slow)


def moves(stored: Any, u: Any) -> bool:
    """Tells whether a step moves a stored leaf: no integers, and only leaves with a gradient."""
    return is_weight(stored) and has_gradient(u)


def as_dtype_of(number: Scalar, x: jax.Array) -> Scalar:
    """A real number in the dtype of `x`, for strict promotion; unchanged if `x` is complex."""
    return number if jnp.issubdtype(x.dtype, jnp.complexfloating) else jnp.asarray(number, x.dtype)


def _is_rounded(node: Any) -> bool:
    return type(node).__name__ in _ROUNDED


def _at(leaves: list[Any], indices: list[int]) -> list[Any]:
    return [leaves[i] for i in indices]


def _put(leaves: list[Any], indices: list[int], new: list[Any]) -> None:
    for i, x in zip(indices, new, strict=True):
        leaves[i] = x


def _slow_step(slow, fast, slow_step_size):
    return slow + as_dtype_of(slow_step_size, slow) * (fast - slow)


def _synchronize(u, p, slow, *, is_sync, slow_step_size):
    """The update, and the parameters after it."""
    u = jnp.where(is_sync, _slow_step(slow, p + u, slow_step_size) - p, u)
    return u, p + u


def _follow(u, p, slow, *, is_sync):
    return (jnp.where(is_sync, slow - p, u),)


def _renew_where(is_sync, slow, sources, slow_step_size):
    """Slow weights that are renewed where `is_sync`, in one conditional, which else leaves them."""
    if is_selected():
        renewed = _renew(slow, sources, slow_step_size)
        return jax.tree.map(lambda new, old: jnp.where(is_sync, new, old), renewed, slow)

    def renew_or_keep(slow, sources):
        return jax.lax.cond(is_sync, _renew, _keep, slow, sources, slow_step_size)

    def keep_or_renew(slow, sources):
        return jax.lax.cond(~is_sync, _keep, _renew, slow, sources, slow_step_size)

    # What a branch hands through XLA:GPU copies unless it is the first, XLA:CPU if it is.
    of_gpus = dict.fromkeys(("cuda", "rocm"), keep_or_renew)
    return jax.lax.platform_dependent(slow, sources, **of_gpus, default=renew_or_keep)


def _renew(slow, sources, slow_step_size):
    """Slow weights from the new parameters, or from the old ones and the update."""

    def renew(s, source):
        match source:
            case (new_p,):
                return new_p
            case (p, u):
                fast = p.astype(s.dtype) + cast(u, s.dtype)
                return _slow_step(s, fast, slow_step_size).astype(s.dtype)

    return [renew(*pair) for pair in zip(slow, sources, strict=True)]


def _keep(slow, sources, slow_step_size):
    del sources, slow_step_size
    return slow


def _copy_leaf(p: Any) -> jax.Array | jax.ShapeDtypeStruct | None:
    """A copy of its own, so that parameters and state can both be donated."""
    if not is_array(p):
        return None
    dtype = at_least_float32(p)
    if isinstance(p, jax.ShapeDtypeStruct):
        return p.update(dtype=dtype)
    return jnp.array(p, dtype, copy=True)
