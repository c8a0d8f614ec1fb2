"""Stores moments as small integers: an exponent per group, a companded integer per entry."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from lion_jax._core.types import DType

_LARGEST = 126  # exponents e with 2^e and 2^-e both normal float32


class Code(NamedTuple):
    r"""A code of integers for the numbers of a group with shared exponent e, at most :math:`2^e`.

    .. math::

      q &= L y, \quad y = \tfrac12 \log_2 \left(1 + 3 z^{1/r}\right), \quad z = |x| / 2^e \\
      |x| &= 2^e z, \quad z = \left((4^y - 1) / 3\right)^r

    This is the mu-law of telephony with mu = 3 on a root: near the largest entry steps of some 2%,
    and 5% a hundred times below. q is rounded up or down, by the share of the way between the two
    numbers that it may become. A signed number is stored as its sign times q, another as q less the
    largest integer; the integer below all of these is NaN. A number that is never negative and
    overflowed stays infinite, with an integer of its own; an infinity with a sign becomes the
    largest number.

    A signed number that may not vanish is at least q = 1, which keeps its sign and little else: it
    is read as a share of the number that it means, which walks from step to step (`least`). So
    zeros between gradients do not take the sign away, and a gradient of the other sign turns it
    round, the sooner the larger it is.

    Attributes:
      bits: of the integer, 8 or 4.
      root: r, 2 for numbers and 4 for squares, so that both span the same gradients.
      is_signed: whether there are negative numbers; if not, L is nearly twice as large.
      may_vanish: whether nonzero numbers may round to 0. Divisors must not, nor moments that are
        read only for their sign; a numerator must, or it outlives its divisor.
    """

    bits: int
    root: int
    is_signed: bool
    may_vanish: bool

    @property
    def dtype(self) -> DType:
        """The dtype of the integers."""
        return jnp.int8 if self.bits == 8 else jnp.int4

    @property
    def largest(self) -> int:
        """The largest integer; the smallest is its negative, and below that is NaN."""
        return 2 ** (self.bits - 1) - 1

    @property
    def keeps_signs(self) -> bool:
        """Tells whether numbers that would round to 0 keep their signs."""
        return self.is_signed and not self.may_vanish

    @property
    def levels(self) -> int:
        """L: magnitudes besides 0."""
        return self.largest if self.is_signed else 2 * self.largest - 1

    def compress(self, z: jax.Array) -> jax.Array:
        """The real number L y of z in [0, 1]."""
        root = jnp.sqrt(z) if self.root == 2 else jnp.sqrt(jnp.sqrt(z))
        return self.levels / 2 * jnp.log2(1 + 3 * root)

    def expand(self, q: jax.Array | float) -> jax.Array:
        """The z of an integer."""
        return ((jnp.exp2(q * (2 / self.levels)) - 1) / 3) ** self.root

    def least(self, threshold: jax.Array) -> jax.Array:
        """The z that q = 1 is read as where it keeps a sign, after it was stored at a threshold.

        Now and then it is next to 0, so that within 377 steps any gradient turns the sign round.
        """
        share = jnp.where(threshold < 1 / 256, 2.0**-24, threshold)
        return self.expand(1) * share**2


@functools.partial(jax.jit, static_argnums=(1, 2))
def shared_exponents(x: jax.Array, axis: int, group_size: int) -> jax.Array:
    """The least e for each group along an axis with all finite entries at most 2^e in size, int8.

    Entries above 2^126 count as that large, those below 2^-126 as that small. The last group may be
    smaller than the others.
    """
    bits = jax.lax.bitcast_convert_type(jnp.abs(x.astype(jnp.float32)), jnp.int32)
    exponents = ((bits - 1) >> 23) - 126  # of the next smaller number: 2^e belongs to e
    is_finite = bits < 0x7F800000
    exponents = jnp.where(is_finite, jnp.clip(exponents, -_LARGEST, _LARGEST), -_LARGEST)
    if x.shape[axis] % group_size:
        exponents = exponents.astype(jnp.int8)
    else:  # XLA:TPU fuses this into what makes x in few shapes only if it is wider or narrower
        exponents = exponents.astype(jnp.bfloat16)
    are_cut = _are_groups_cut(x, axis, group_size)
    if are_cut:
        exponents = _whole(exponents, axis)
    exponents = _largest_of_groups(exponents, axis, group_size).astype(jnp.int8)
    return _split_like(exponents, x) if are_cut else exponents


def _largest_of_groups(exponents: jax.Array, axis: int, group_size: int) -> jax.Array:
    """The largest exponent of each group along an axis, the last of which may be smaller."""
    padded = functools.partial(_largest_when_padded, axis=axis, group_size=group_size)
    if exponents.shape[axis] % group_size == 0:
        return padded(exponents)
    # XLA:TPU writes out what it pads, once more; it does not have to pad for windows, at which
    # other platforms are slow.
    in_windows = functools.partial(_largest_in_windows, axis=axis, group_size=group_size)
    return jax.lax.platform_dependent(exponents, tpu=in_windows, default=padded)


def _largest_when_padded(exponents: jax.Array, axis: int, group_size: int) -> jax.Array:
    padding = _padding(exponents, axis, group_size)
    exponents = jnp.pad(exponents, padding, constant_values=-_LARGEST)
    return exponents.reshape(_grouped(exponents.shape, axis, group_size)).max(axis + 1)


def _largest_in_windows(exponents: jax.Array, axis: int, group_size: int) -> jax.Array:
    window = [group_size if i == axis else 1 for i in range(exponents.ndim)]
    least = jnp.array(-_LARGEST, exponents.dtype)
    padding = _padding(exponents, axis, group_size)
    return jax.lax.reduce_window(exponents, least, jax.lax.max, window, window, padding)


def _padding(x: jax.Array, axis: int, group_size: int) -> list[tuple[int, int]]:
    """The entries that the last group along an axis lacks."""
    return [(0, -n % group_size if i == axis else 0) for i, n in enumerate(x.shape)]


@functools.partial(jax.jit, static_argnums=(0, 5, 6))
def encode(
    code: Code,
    x: jax.Array,
    exponents: jax.Array,
    threshold: jax.Array,
    last_threshold: jax.Array,
    axis: int,
    group_size: int,
) -> jax.Array:
    """The integers of `x`, given its groups' exponents and the threshold of the step before."""
    x = x.astype(jnp.float32)
    z = jnp.minimum(jnp.abs(x) * _power_of_two(-_spread(exponents, x, axis, group_size)), 1)
    least = 1 if code.keeps_signs else 0
    below = jnp.clip(jnp.floor(code.compress(z)), least, code.levels - 1)
    z_below, z_above = code.expand(below), code.expand(below + 1)
    if code.keeps_signs:
        z_below = jnp.where(below == 1, code.least(last_threshold), z_below)
    is_above = z - z_below >= threshold * (z_above - z_below)
    q = jnp.where(is_above, below + 1, below)
    if code.is_signed:
        q = jnp.sign(x) * q
    else:
        q = q if code.may_vanish else jnp.where(x != 0, jnp.maximum(q, 1), q)
        q = jnp.where(jnp.isinf(x), code.levels + 1, q) - code.largest
    return jnp.where(jnp.isnan(x), -code.largest - 1, q).astype(code.dtype)


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def decode(
    code: Code,
    integers: jax.Array,
    exponents: jax.Array,
    threshold: jax.Array,
    axis: int,
    group_size: int,
) -> jax.Array:
    """The float32 numbers of some integers, which were stored at a threshold."""
    integers = integers.astype(jnp.float32)
    q = jnp.abs(integers) if code.is_signed else integers + code.largest
    scale = _power_of_two(_spread(exponents, integers, axis, group_size))
    z = code.expand(q)
    if code.keeps_signs:
        z = jnp.where(q == 1, code.least(threshold), z)
    x = z * scale
    x = jnp.sign(integers) * x if code.is_signed else jnp.where(q > code.levels, jnp.inf, x)
    return jnp.where(integers < -code.largest, jnp.nan, x)


def _power_of_two(exponents: jax.Array) -> jax.Array:
    """2^e, exactly."""
    return jax.lax.bitcast_convert_type((exponents.astype(jnp.int32) + 127) << 23, jnp.float32)


def _spread(exponents: jax.Array, x: jax.Array, axis: int, group_size: int) -> jax.Array:
    """Each group's exponent at each of its entries of `x`."""
    if _are_groups_cut(x, axis, group_size):
        exponents = _whole(exponents, axis)
    like = _grouped(exponents.shape, axis, 1)
    like = (*like[: axis + 1], group_size, *like[axis + 2 :])
    spread = jnp.broadcast_to(jnp.expand_dims(exponents, axis + 1), like)
    padded = (*x.shape[:axis], exponents.shape[axis] * group_size, *x.shape[axis + 1 :])
    return jax.lax.slice_in_dim(spread.reshape(padded), 0, x.shape[axis], axis=axis)


def _are_groups_cut(x: jax.Array, axis: int, group_size: int) -> bool:
    """Tells whether an Explicit mesh splits an axis within groups; JAX does not reshape it."""
    parts = _parts(x, axis)
    return parts > 1 and x.shape[axis] % (parts * group_size) != 0


def _split_like(exponents: jax.Array, x: jax.Array) -> jax.Array:
    """The exponents, on an Explicit mesh split as `x` is, but for axes that do not divide."""
    sharding = jax.typeof(x).sharding
    spec = [
        names if exponents.shape[axis] % _parts(x, axis) == 0 else None
        for axis, names in enumerate(sharding.spec)
    ]
    if not any(spec):
        return exponents
    return jax.sharding.reshard(exponents, NamedSharding(sharding.mesh, PartitionSpec(*spec)))


def _parts(x: jax.Array, axis: int) -> int:
    """The number of parts into which an Explicit mesh splits an axis."""
    sharding = jax.typeof(x).sharding
    names = sharding.spec[axis] or ()
    names = names if isinstance(names, tuple) else (names,)
    return math.prod(sharding.mesh.shape[name] for name in names)


def _whole(x: jax.Array, axis: int) -> jax.Array:
    """`x` with an axis on every device, which an Explicit mesh splits."""
    sharding = jax.typeof(x).sharding
    spec = (None if i == axis else names for i, names in enumerate(sharding.spec))
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, PartitionSpec(*spec)))


def _grouped(shape: tuple[int, ...], axis: int, group_size: int) -> tuple[int, ...]:
    """The shape with an axis split into groups."""
    return (*shape[:axis], shape[axis] // group_size, group_size, *shape[axis + 1 :])
