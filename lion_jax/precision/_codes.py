"""Moments as small integers: an exponent for each group, a companded integer for each entry."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_LARGEST = 126  # exponents e with 2^e and 2^-e both normal float32


class Code(NamedTuple):
    r"""How numbers of a group with shared exponent e, at most :math:`2^e`, become integers.

    .. math::

      q &= L y, \quad y = \tfrac12 \log_2 \left(1 + 3 z^{1/r}\right), \quad z = |x| / 2^e \\
      |x| &= 2^e z, \quad z = \left((4^y - 1) / 3\right)^r

    This is the mu-law of telephony with mu = 3 on a root: near the largest entry steps of some 2%,
    and 5% a hundred times below. q is rounded up or down, by the share of the way between the two
    numbers that it may become. A signed number is stored as its sign times q, another as q less the
    largest integer; the integer below all of these is NaN. A number that is never negative and
    overflowed stays infinite, with an integer of its own; an infinity with a sign becomes the
    largest number.

    Attributes:
      bits: of the integer, 8 or 4.
      root: r, 2 for numbers and 4 for squares, so that both span the same gradients.
      is_signed: whether there are negative numbers; if not, L is nearly twice as large.
      may_vanish: whether what is not 0 may become 0. A divisor must not, nor a number of which only
        the sign counts; a numerator must, or it outlives its divisor.
    """

    bits: int
    root: int
    is_signed: bool
    may_vanish: bool

    @property
    def dtype(self) -> Any:
        """What stores the integers."""
        return jnp.int8 if self.bits == 8 else jnp.int4

    @property
    def largest(self) -> int:
        """The largest integer; the smallest is its negative, and below that is NaN."""
        return 2 ** (self.bits - 1) - 1

    @property
    def levels(self) -> int:
        """L: magnitudes besides 0."""
        return self.largest if self.is_signed else 2 * self.largest - 1

    def compress(self, z: jax.Array) -> jax.Array:
        """The real number L y of z in [0, 1]."""
        root = jnp.sqrt(z) if self.root == 2 else jnp.sqrt(jnp.sqrt(z))
        return self.levels / 2 * jnp.log2(1 + 3 * root)

    def expand(self, q: jax.Array) -> jax.Array:
        """The z of an integer."""
        return ((jnp.exp2(q * (2 / self.levels)) - 1) / 3) ** self.root


@functools.partial(jax.jit, static_argnums=(1, 2))
def shared_exponents(x: jax.Array, axis: int, group_size: int) -> jax.Array:
    """For each group along an axis the least e with all finite entries at most 2^e in size, int8.

    Entries above 2^126 count as that large, those below 2^-126 as that small. The last group may be
    smaller than the others.
    """
    bits = jax.lax.bitcast_convert_type(jnp.abs(x.astype(jnp.float32)), jnp.int32)
    exponents = ((bits - 1) >> 23) - 126  # of the next smaller number: 2^e belongs to e
    is_finite = bits < 0x7F800000
    exponents = jnp.where(is_finite, jnp.clip(exponents, -_LARGEST, _LARGEST), -_LARGEST)
    rest = -x.shape[axis] % group_size
    # XLA:TPU fuses this into what makes x in few shapes only if it is wider or narrower; what it
    # pads it writes out, a byte per entry.
    exponents = exponents.astype(jnp.int8 if rest else jnp.bfloat16)
    padding = [(0, rest if i == axis else 0) for i in range(x.ndim)]
    exponents = jnp.pad(exponents, padding, constant_values=-_LARGEST)
    return (
        exponents.reshape(_grouped(exponents.shape, axis, group_size))
        .max(axis + 1)
        .astype(jnp.int8)
    )


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def encode(
    code: Code, x: jax.Array, exponents: jax.Array, threshold: jax.Array, axis: int, group_size: int
) -> jax.Array:
    """The integers of `x`, given the exponents of its groups."""
    x = x.astype(jnp.float32)
    z = jnp.minimum(jnp.abs(x) * _power_of_two(-_spread(exponents, x.shape, axis, group_size)), 1)
    below = jnp.clip(jnp.floor(code.compress(z)), 0, code.levels - 1)
    z_below, z_above = code.expand(below), code.expand(below + 1)
    is_above = z - z_below >= threshold * (z_above - z_below)
    q = below + is_above if code.may_vanish else jnp.maximum(below + is_above, x != 0)
    if code.is_signed:
        q = jnp.sign(x) * q
    else:
        q = jnp.where(jnp.isinf(x), code.levels + 1, q) - code.largest
    return jnp.where(jnp.isnan(x), -code.largest - 1, q).astype(code.dtype)


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def decode(
    code: Code, integers: jax.Array, exponents: jax.Array, axis: int, group_size: int
) -> jax.Array:
    """The float32 numbers of some integers."""
    integers = integers.astype(jnp.float32)
    q = jnp.abs(integers) if code.is_signed else integers + code.largest
    scale = _power_of_two(_spread(exponents, integers.shape, axis, group_size))
    x = code.expand(q) * scale
    x = jnp.sign(integers) * x if code.is_signed else jnp.where(q > code.levels, jnp.inf, x)
    return jnp.where(integers < -code.largest, jnp.nan, x)


def _power_of_two(exponents: jax.Array) -> jax.Array:
    """2^e, exactly."""
    return jax.lax.bitcast_convert_type((exponents.astype(jnp.int32) + 127) << 23, jnp.float32)


def _spread(exponents: jax.Array, shape: tuple[int, ...], axis: int, group_size: int) -> jax.Array:
    """Each group's exponent at each of its entries."""
    like = _grouped(exponents.shape, axis, 1)
    like = (*like[: axis + 1], group_size, *like[axis + 2 :])
    spread = jnp.broadcast_to(jnp.expand_dims(exponents, axis + 1), like)
    padded = (*shape[:axis], exponents.shape[axis] * group_size, *shape[axis + 1 :])
    return jax.lax.slice_in_dim(spread.reshape(padded), 0, shape[axis], axis=axis)


def _grouped(shape: tuple[int, ...], axis: int, group_size: int) -> tuple[int, ...]:
    """The shape with an axis split into groups."""
    return (*shape[:axis], shape[axis] // group_size, group_size, *shape[axis + 1 :])
