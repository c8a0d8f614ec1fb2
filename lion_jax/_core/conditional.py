"""A step of a wrapped transformation under a condition, and no step otherwise."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from lion_jax._core.inner import update
from lion_jax._core.leafwise import map_leaves
from lion_jax._core.types import PyTree

_IS_SELECTED: ContextVar[bool] = ContextVar("is_selected", default=False)
Kept = Callable[[optax.OptState, optax.OptState], optax.OptState]


def update_where(
    is_taken: jax.Array,
    inner: optax.GradientTransformationExtraArgs,
    updates: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None,
    *,
    kept: Kept | None = None,
    **extra_args: Any,
) -> tuple[optax.Updates, optax.OptState]:
    """One update of the inner transformation where `is_taken`; elsewhere updates of 0.

    The update is computed in either case and selected leaf by leaf. A conditional around it would
    keep it from fusing with what comes before and after: more bytes through memory, not fewer. On
    CPUs it is the other way round, as XLA:CPU copies each moment before it selects.

    Args:
      is_taken: bool of shape ().
      inner: the transformation.
      updates: gradients.
      state: its state.
      params: the parameters.
      kept: from the new state and the old one to that of no step; None is the old one.
      **extra_args: for the inner transformation.
    """
    types: list[Any] = []  # of the results, which spare a trace

    def step():
        results = update(inner, updates, state, params, **extra_args)
        types[:] = jax.tree.map(jax.typeof, results)
        return results

    def select():
        token = _IS_SELECTED.set(True)
        try:
            new_updates, new_state = step()
        finally:
            _IS_SELECTED.reset(token)
        old = state if kept is None else kept(new_state, state)
        (chosen,) = map_leaves(_select, (old,), (new_state,), is_taken=is_taken)
        return map_leaves(_or_zero, (new_updates,), is_taken=is_taken)[0], chosen

    def no_step():
        old = state if kept is None else kept(step()[1], state)
        return jax.tree.map(jnp.zeros_like, types[0]), old

    def branch():
        return jax.lax.cond(
            is_taken, lambda: jax.tree.leaves(step()), lambda: jax.tree.leaves(no_step())
        )

    is_traced = any(isinstance(x, Tracer) for x in jax.tree.leaves((is_taken, updates, state)))
    if not is_traced or jax.sharding.get_abstract_mesh().manual_axes:
        return select()  # devices that disagree would wait for each other in collectives
    leaves = jax.lax.platform_dependent(cpu=branch, default=lambda: jax.tree.leaves(select()))
    return jax.tree.structure(tuple(types)).unflatten(leaves)


def is_selected() -> bool:
    """Tells whether the new state will be selected leaf by leaf against the old one.

    A conditional then saves nothing: both are read in any case, and what it gives is copied first.
    """
    return _IS_SELECTED.get()


def _select(old: PyTree, new: PyTree, *, is_taken: jax.Array) -> tuple[PyTree]:
    return (jnp.where(is_taken, new, old),)


def _or_zero(u: jax.Array, *, is_taken: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(is_taken, u, 0),)
