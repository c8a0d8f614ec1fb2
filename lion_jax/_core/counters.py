"""Counts of updates."""

import jax
import jax.numpy as jnp
import optax


def zero() -> jax.Array:
    """A count of no updates, int32 of shape ()."""
    return jnp.zeros((), jnp.int32)


def next_count(count: jax.Array) -> jax.Array:
    """The count after one more update; the largest int32 stays."""
    return jnp.asarray(optax.safe_increment(count))


def wrapping_count(count: jax.typing.ArrayLike) -> jax.Array:
    """The count after one more update, for hashes and walks; the smallest follows the largest.

    A full count that stayed would repeat one random number, or one place of a walk.
    """
    return jnp.asarray(count) + 1
