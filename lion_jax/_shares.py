"""A number of its own for each leaf, beside the hyperparameters that all leaves have in common."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lion_jax._checks import is_function
from lion_jax._dtypes import at_least_float32
from lion_jax._leafwise import map_leaves


def spread(mask: Any, params: optax.Params, name: str = "mask") -> Any:
    """A tree like the parameters from a prefix of one, a function to one, or None for True."""
    tree = mask(params) if is_function(mask) else True if mask is None else mask
    try:
        return jax.tree.map(lambda x, part: jax.tree.map(lambda _: x, part), tree, params)
    except ValueError as error:
        raise ValueError(
            f"{name} must be a tree like the parameters, or a prefix of one; got {tree!r}, which "
            f"does not fit: {error}. Try lion_jax.groups, whose masks come from the parameters."
        ) from error


def map_shares(
    function: Callable[..., Any],
    updates: optax.Updates,
    read: tuple[Any, ...],
    shares: Any,
    idle: float,
    **hyperparameters: Any,
) -> optax.Updates:
    """Maps `function` over the leaves whose share is not `idle`; the others are not even read.

    The shares are arrays to it, so that leaves of a shape have one trace whatever their shares.

    Args:
      function: `(update, *read_leaves, share, **hyperparameters) -> (new_update,)`, a function of a
        module, as in `map_leaves`.
      updates: the tree to replace.
      read: trees that are only read.
      shares: a tree like the updates: booleans, numbers, or jax arrays, which are never idle.
      idle: the share with which the function changes nothing.
      **hyperparameters: as in `map_leaves`.

    Returns:
      The new updates.
    """
    is_idle = jax.tree.map(lambda s: not isinstance(s, jax.Array) and s == idle, shares)
    busy = jax.tree.map(lambda idle, u: None if idle else u, is_idle, updates)
    shares = jax.tree.map(lambda s, u: jnp.asarray(s, _dtype_beside(u)), shares, updates)
    (new,) = map_leaves(function, (busy,), (*read, shares), **hyperparameters)
    return jax.tree.map(lambda idle, old, new: old if idle else new, is_idle, updates, new)


def _dtype_beside(u: Any) -> jnp.dtype:
    """A share beside an integer is no integer."""
    return jnp.promote_types(at_least_float32(u), jnp.float32)
