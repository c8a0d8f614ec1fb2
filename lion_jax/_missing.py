"""Parameters without a gradient: None in the place of a leaf."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def update_present(
    inner: optax.GradientTransformationExtraArgs,
    updates: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None,
    **extra_args: Any,
) -> tuple[optax.Updates, optax.OptState]:
    """Updates what has a gradient. optax's own primitives forget the moments of what has none."""
    if params is None or len(jax.tree.leaves(updates)) == len(jax.tree.leaves(params)):
        return inner.update(updates, state, params, **extra_args)
    missing = jax.tree.map(lambda p, g: g is None, params, updates)
    filled = jax.tree.map(lambda p, g: jnp.zeros_like(p) if g is None else g, params, updates)
    new_updates, new_state = inner.update(filled, state, params, **extra_args)
    is_untouched = optax.tree_utils.tree_map_params(
        inner,
        lambda _, is_missing: is_missing,
        state,
        missing,
        transform_non_params=lambda _: False,
        is_leaf=lambda x: isinstance(x, optax.MaskedNode),
    )
    state = jax.tree.map(
        lambda untouched, old, new: old if untouched else new, is_untouched, state, new_state
    )
    return jax.tree.map(lambda m, u: None if m else u, missing, new_updates), state
