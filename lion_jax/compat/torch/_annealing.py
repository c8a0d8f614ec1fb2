"""Parts of PyTorch's schedules."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def as_float(x: jax.typing.ArrayLike) -> jax.Array:
    """Makes a float, as wide as they go: a quotient of int32 counts would be float32 under x64."""
    return jnp.asarray(x, jnp.result_type(float))


def as_count(count: jax.typing.ArrayLike) -> jax.Array:
    """Widens a count to at least int32, so that the bounds of a schedule fit beside it."""
    count = jnp.asarray(count)
    is_short = jnp.issubdtype(count.dtype, jnp.integer) and count.dtype.itemsize < 4
    return count.astype(jnp.int32) if is_short else count


def power(base: Any, exponent: jax.Array) -> jax.Array:
    """Raises `base` to the power of a count; a number is rounded to float32 only after that."""
    exponent = as_float(exponent)
    if isinstance(base, jax.Array) or base == 0:
        return base**exponent
    stored = float(np.asarray(min(base, float(jnp.finfo(exponent.dtype).max)), exponent.dtype))
    if stored == 0:
        return jnp.exp(math.log(base) * exponent)
    return stored**exponent * jnp.exp(math.log(base / stored) * exponent)


def half_cosine(share: jax.Array) -> jax.Array:
    """(1 - cos(pi share)) / 2, which would cancel towards 0."""
    return jnp.sin(math.pi / 2 * share) ** 2
