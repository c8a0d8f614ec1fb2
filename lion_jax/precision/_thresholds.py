"""Rounding up or down at a threshold that walks from step to step."""

import jax
import jax.numpy as jnp
import numpy as np

_GOLDEN = np.uint32(2654435769)  # the golden ratio's fractional part, of 2**32


def threshold_at(count: jax.Array) -> jax.Array:
    r"""The share of the way to the next number from which step `count` rounds up, in (0, 1).

    It is :math:`1 - (t \phi \bmod 1)` with the golden ratio :math:`\phi`, in the middle of its
    4096th: what is a number already, but for a rounding error, stays one. Rounding to the nearest
    ignores every change of less than half a step, however often it comes. Against a threshold that
    visits all shares evenly, a change of a tenth of a step goes up at every tenth step: what comes
    again and again is counted in full, but for a ten-thousandth of a step each time: the sum of
    10,000 equal changes was right within 3 steps. Random thresholds are right on average only. It
    is one number for all entries: deterministic, free, and the same for any sharding.

    References:
      Weyl, `Über die Gleichverteilung von Zahlen mod. Eins
      <https://doi.org/10.1007/BF01475864>`_, 1916.
    """
    walk = count.astype(jnp.uint32) * _GOLDEN
    return 1 - ((walk >> 20).astype(jnp.float32) + 0.5) * 2.0**-12


def round_at(x: jax.Array, threshold: jax.Array | float) -> jax.Array:
    """Each number to the integer below or, from the threshold between the two on, above."""
    below = jnp.floor(x)
    return jnp.where(x - below >= threshold, below + 1, below)
