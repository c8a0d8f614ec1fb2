"""What PyTorch's schedules are made of."""

import math

import jax
import jax.numpy as jnp


def as_float(x: jax.typing.ArrayLike) -> jax.Array:
    """As wide as floats go. A quotient of int32 counts would be float32 even under x64."""
    return jnp.asarray(x, jnp.result_type(float))


def half_cosine(share: jax.Array) -> jax.Array:
    """(1 - cos(pi share)) / 2, which would cancel towards 0."""
    return jnp.sin(math.pi / 2 * share) ** 2
