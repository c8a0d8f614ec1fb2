"""Updates of a wrapped transformation, in unchanged shapes and dtypes."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.checks import check_match, check_same_shapes
from lion_jax._core.dtypes import cast
from lion_jax._core.leafwise import sum_leaves
from lion_jax._core.leaves import numbers_of
from lion_jax._core.missing import update_present
from lion_jax._core.types import AxisName, PyTree


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

    Its updates have the shapes of the parameters, even if the gradients have others.
    """
    updates, new_state = update_present(inner, updates, state, params, **extra_args)
    updates = jax.tree.map(jnp.asarray, updates)  # Python numbers, eagerly
    if params is not None:
        check_match("gradients", updates, params)
    return updates, as_before(new_state, state)


def as_before(new: PyTree, old: PyTree) -> PyTree:
    """A tree in the dtypes that it had; refuses other shapes than it had."""
    check_same_shapes("gradients", new, old)
    return jax.tree.map(lambda x, like: cast(jnp.asarray(x), jnp.result_type(like)), new, old)


def is_finite(updates: optax.Updates, axis_name: AxisName | None = None) -> jax.Array:
    """Tells whether all entries are finite, on all devices along these axes; bool of shape ()."""
    spoiled = sum_leaves(_is_spoiled, updates)
    return (spoiled if axis_name is None else jax.lax.psum(spoiled, axis_name)) == 0


def _is_spoiled(u):
    return (jnp.any(~jnp.isfinite(u)).astype(jnp.float32),)
