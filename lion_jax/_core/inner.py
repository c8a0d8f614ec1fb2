"""Updates of a wrapped transformation: as before in shapes and dtypes, and only where asked."""

from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.checks import check_match, check_same_shapes
from lion_jax._core.dtypes import cast
from lion_jax._core.leafwise import map_leaves, sum_leaves
from lion_jax._core.leaves import numbers_of
from lion_jax._core.missing import update_present
from lion_jax._core.types import AxisName, PyTree

_IS_SELECTED: ContextVar[bool] = ContextVar("is_selected", default=False)


def init(inner: optax.GradientTransformation, params: optax.Params) -> optax.OptState:
    """The state of the inner transformation, which sees no functions and no random keys."""
    return inner.init(numbers_of(params))


def update(
    inner: optax.GradientTransformationExtraArgs,
    updates: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None,
    **extra_args: Any,
) -> tuple[optax.Updates, optax.OptState]:
    """One update of the inner transformation, which keeps the shapes and dtypes of its state.

    What it makes of the gradients has the shapes of the parameters, whatever theirs are.
    """
    updates, new_state = update_present(inner, updates, state, params, **extra_args)
    updates = jax.tree.map(jnp.asarray, updates)  # Python numbers, eagerly
    if params is not None:
        check_match("gradients", updates, params)
    return updates, as_before(new_state, state)


def update_to_select(
    inner: optax.GradientTransformationExtraArgs,
    updates: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None,
    **extra_args: Any,
) -> tuple[optax.Updates, optax.OptState]:
    """One update as of :func:`update`, for :func:`take_where` to select from.

    Meanwhile :func:`is_selected` is true for whatever is inside.
    """
    token = _IS_SELECTED.set(True)
    try:
        return update(inner, updates, state, params, **extra_args)
    finally:
        _IS_SELECTED.reset(token)


def is_selected() -> bool:
    """Tells whether the new state will be selected leaf by leaf against the old one.

    A conditional then saves nothing: both are read in any case, and what it gives is copied first.
    """
    return _IS_SELECTED.get()


def update_where(
    is_taken: jax.Array,
    inner: optax.GradientTransformationExtraArgs,
    updates: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None,
    **extra_args: Any,
) -> tuple[optax.Updates, optax.OptState]:
    """One update of the inner transformation where `is_taken`, and no step at all elsewhere.

    The update is computed in either case and selected leaf by leaf. A conditional around it would
    keep it from fusing with what comes before and after: more bytes through memory, not fewer.
    """
    updates, new_state = update_to_select(inner, updates, state, params, **extra_args)
    return take_where(is_taken, updates, new_state, state)


def as_before(new: PyTree, old: PyTree) -> PyTree:
    """A tree in the dtypes that it had; refuses other shapes than it had."""
    check_same_shapes("gradients", new, old)
    return jax.tree.map(lambda x, like: cast(jnp.asarray(x), jnp.result_type(like)), new, old)


def take_where(
    is_taken: jax.Array,
    updates: optax.Updates,
    new_state: optax.OptState,
    state: optax.OptState,
) -> tuple[optax.Updates, optax.OptState]:
    """A step that was computed where `is_taken`, and none elsewhere."""
    (state,) = map_leaves(_select, (state,), (new_state,), is_taken=is_taken)
    return map_leaves(_or_zero, (updates,), is_taken=is_taken)[0], state


def is_finite(updates: optax.Updates, axis_name: AxisName | None = None) -> jax.Array:
    """Tells whether all entries are finite, on all devices along these axes; bool of shape ()."""
    spoiled = sum_leaves(_is_spoiled, updates)
    return (spoiled if axis_name is None else jax.lax.psum(spoiled, axis_name)) == 0


def _select(old, new, *, is_taken):
    return (jnp.where(is_taken, new, old),)


def _or_zero(u, *, is_taken):
    return (jnp.where(is_taken, u, 0),)


def _is_spoiled(u):
    return (jnp.any(~jnp.isfinite(u)).astype(jnp.float32),)
