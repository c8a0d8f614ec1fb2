"""Decay rates, and the bias of an average that starts from 0."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from lion_jax._core.dtypes import at_least_float32
from lion_jax._core.types import Scalar

_LOG_OF_ZERO = -1e3  # exp of it is 0, and it is finite


class Rate:
    """A decay rate as an argument of compiled code, which knows one minus it.

    Worked out in float32, 1 - 0.999 would be off by 5e-5.
    """

    def __init__(self, value: jax.Array, complement: jax.Array):
        """Takes both as numbers of compiled code."""
        self._value, self._complement = value, complement

    def __jax_array__(self) -> jax.Array:
        """The number itself."""
        return self._value

    def __rsub__(self, other: Scalar) -> jax.Array:
        """One minus it, exactly."""
        is_complement = isinstance(other, int) and other == 1
        return self._complement if is_complement else other - self._value


def _delegate(name: str) -> Callable[..., jax.Array]:
    return lambda self, *others: getattr(self.__jax_array__(), name)(*others)


for _operation in [
    "add",
    "radd",
    "sub",
    "mul",
    "rmul",
    "truediv",
    "rtruediv",
    "pow",
    "rpow",
    "neg",
]:
    setattr(Rate, f"__{_operation}__", _delegate(f"__{_operation}__"))


def bias(b: Scalar, t: jax.Array) -> jax.Array:
    """1 - b**t, the sum of the weights in an average from 0; exact where b is near 1."""
    # Strict promotion refuses a count, an integer, beside a float.
    with jax.numpy_dtype_promotion("standard"):
        if not isinstance(b, jax.Array):
            return -jnp.expm1(t * (math.log(b) if b > 0 else _LOG_OF_ZERO))
        b = b.astype(at_least_float32(b))
        of_positive = -jnp.expm1(t * jnp.log(jnp.where(b > 0, b, 0.5)))
        return jnp.where(b > 0, of_positive, jnp.where(t == 1, 1 - b, 1.0))


def optax_bias(b: Scalar, t: jax.Array) -> jax.Array:
    """`bias` in the rounding of optax, for rules that reproduce its results."""
    with jax.numpy_dtype_promotion("standard"):
        return 1 - b**t
