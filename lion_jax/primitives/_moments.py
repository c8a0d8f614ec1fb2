"""What all adaptive moments start from and count by."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lion_jax._dtypes import at_least_float32

_LOG_OF_ZERO = -1e3  # exp of it is 0, and it is finite


def zero() -> jax.Array:
    """A count of no updates, int32 of shape ()."""
    return jnp.zeros((), jnp.int32)


def zeros_like(params: optax.Params, dtype: Any = None) -> optax.Updates:
    """A moment of no gradients: a tree like the parameters, in `dtype` or at least float32."""
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype or at_least_float32(p)), params)


def next_count(count: jax.Array) -> jax.Array:
    """The count after one more update; the largest int32 stays."""
    return jnp.asarray(optax.safe_increment(count))


def wrapping_count(count: jax.typing.ArrayLike) -> jax.Array:
    """The count after one more update, for hashes and walks; the smallest follows the largest.

    A full count that stayed would repeat one random number, or one place of a walk.
    """
    return jnp.asarray(count) + 1


def bias(b: Any, t: jax.Array) -> jax.Array:
    """1 - b**t, what an average that started from 0 is short of; exact where b is near 1."""
    # A count is an integer beside a float, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        if not isinstance(b, jax.Array):
            return -jnp.expm1(t * (math.log(b) if b > 0 else _LOG_OF_ZERO))
        b = b.astype(at_least_float32(b))
        of_positive = -jnp.expm1(t * jnp.log(jnp.where(b > 0, b, 0.5)))
        return jnp.where(b > 0, of_positive, jnp.where(t == 1, 1 - b, 1.0))


def unbiased(moment: optax.Updates, b: Any, t: jax.Array) -> optax.Updates:
    """The moment over `bias`, in the rounding of optax."""
    with jax.numpy_dtype_promotion("standard"):
        return optax.tree.bias_correction(moment, b, t)
