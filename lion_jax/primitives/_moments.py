"""What all adaptive moments start from and count by."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lion_jax._dtypes import at_least_float32


def zero() -> jax.Array:
    """A count of no updates, int32 of shape ()."""
    return jnp.zeros((), jnp.int32)


def zeros_like(params: optax.Params, dtype: Any = None) -> optax.Updates:
    """A moment of no gradients: a tree like the parameters, in `dtype` or at least float32."""
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype or at_least_float32(p)), params)


def next_count(count: jax.Array) -> jax.Array:
    """The count after one more update; the largest int32 stays."""
    return jnp.asarray(optax.safe_increment(count))


def wrapping_count(count: jax.Array) -> jax.Array:
    """The count after one more update; after the largest int32 comes the smallest."""
    return count + 1


def bias(b: Any, t: jax.Array) -> jax.Array:
    """1 - b**t, what an average that started from 0 is short of; exact where b is near 1."""
    if isinstance(b, jax.Array):
        return -jnp.expm1(t * jnp.log(b))
    return -jnp.expm1(t * (math.log(b) if b > 0 else -math.inf))
