"""Slow weights in the state, beside the fast ones of the training loop."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lion_jax._dtypes import at_least_float32
from lion_jax._leafwise import map_leaves


def copy(params: optax.Params) -> optax.Params:
    """Slow weights to start with, at least float32."""
    return jax.tree.map(_copy_leaf, params)


def synchronize(
    updates: optax.Updates,
    params: Any,
    slow_params: optax.Params,
    is_sync: jax.Array,
    slow_step_size: Any,
) -> tuple[optax.Updates, optax.Params]:
    """The updates and slow weights after a step that ends, where `is_sync`, with fast = slow.

    Slow weights are touched at synchronizations only, in one conditional for all leaves. They
    become what the parameters became, which are in memory anyway; but where parameters are
    narrower, slow weights take the step themselves, and the parameters follow.
    """
    wide, narrow = _split(updates, params, slow_params)
    wide, new_params = map_leaves(
        _synchronize,
        (wide, params),
        (slow_params,),
        is_sync=is_sync,
        slow_step_size=slow_step_size,
    )
    sources = jax.tree.map(_source, slow_params, wide, narrow, params, new_params)
    slow_params = jax.lax.cond(is_sync, _renew, _keep, slow_params, sources, slow_step_size)
    (narrow,) = map_leaves(_follow, (narrow,), (params, slow_params), is_sync=is_sync)
    updates = jax.tree.map(
        lambda w, n: n if w is None else w, wide, narrow, is_leaf=lambda x: x is None
    )
    return updates, slow_params


def _slow_step(slow, fast, slow_step_size):
    return slow + slow_step_size * (fast - slow)


def _synchronize(u, p, slow, *, is_sync, slow_step_size):
    """The update, and the parameters after it."""
    u = jnp.where(is_sync, _slow_step(slow, p + u, slow_step_size) - p, u)
    return u, p + u


def _follow(u, p, slow, *, is_sync):
    return (jnp.where(is_sync, slow - p, u),)


def _split(updates, params, slow_params):
    """Updates that are as wide as all their weights and the others, each with None for the rest."""

    def split(is_wide):
        return jax.tree.map(
            lambda u, p, s: (
                u
                if u is not None and (u.dtype == jnp.result_type(p) == s.dtype) is is_wide
                else None
            ),
            updates,
            params,
            slow_params,
            is_leaf=lambda x: x is None,
        )

    return split(True), split(False)


def _source(slow, wide, narrow, p, new_p):
    """What slow weights are renewed from: the new parameters, or the old ones and the update."""
    del slow
    if wide is not None:
        return (new_p,)
    return () if narrow is None else (p, narrow)


def _renew(slow, sources, slow_step_size):
    def renew(slow, source):
        match source:
            case ():  # no gradient
                return slow
            case (new_p,):
                return new_p
            case (p, u):
                fast = p.astype(slow.dtype) + u.astype(slow.dtype)
                return _slow_step(slow, fast, slow_step_size).astype(slow.dtype)

    return jax.tree.map(renew, slow, sources)


def _keep(slow, sources, slow_step_size):
    del sources, slow_step_size
    return slow


def _copy_leaf(p: jax.typing.ArrayLike | jax.ShapeDtypeStruct) -> jax.Array | jax.ShapeDtypeStruct:
    """A copy of its own, so that parameters and state can both be donated."""
    dtype = at_least_float32(p)
    if isinstance(p, jax.ShapeDtypeStruct):
        return p.update(dtype=dtype)
    return jnp.array(p, dtype, copy=True)
