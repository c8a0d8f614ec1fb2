"""Roots and quotients that stay finite at 0, with their derivatives."""

import jax
import jax.numpy as jnp

from lion_jax._core.dtypes import at_least_float32
from lion_jax._core.types import Scalar


@jax.custom_jvp
def sqrt(x: jax.Array) -> jax.Array:
    """The square root, with a derivative of 0 at 0.

    A second moment of 0 belongs to a first moment of 0: the chain rule multiplies the root's
    infinite derivative by 0, and gradients through a step would be NaN.
    """
    return jnp.sqrt(x)


@sqrt.defjvp
def _sqrt_jvp(primals, tangents):
    ((x,), (dx,)) = primals, tangents
    root = sqrt(x)
    return root, jnp.where(root == 0, 0.0, dx * 0.5 / jnp.where(root == 0, 1.0, root))


def sum_of_squares(
    x: jax.Array, axes: tuple[int, ...] | None = None, *, keepdims: bool = False
) -> jax.Array:
    """The sum of the squared magnitudes; its second derivative is right at 0, unlike that of |x|^2.

    Args:
      x: real or complex.
      axes: those to sum over; None is all.
      keepdims: whether they stay, with size 1.
    """
    magnitude = jnp.abs(x) if jnp.iscomplexobj(x) else x
    return jnp.sum(jnp.square(magnitude), axes, keepdims=keepdims)


def inverse(x: jax.Array, at_zero: Scalar) -> jax.Array:
    """1 / x, or `at_zero` where x is 0 or so small that the quotient would be infinite."""
    x = jnp.asarray(x, at_least_float32(x) if jnp.issubdtype(x.dtype, jnp.floating) else float)
    is_small = x < jnp.finfo(x.dtype).tiny
    return jnp.where(is_small, at_zero, 1 / jnp.where(is_small, 1.0, x))


def largest_float() -> float:
    """The largest number of JAX's default float dtype: infinity for those who may not show one."""
    return float(jnp.finfo(jnp.result_type(float)).max)
