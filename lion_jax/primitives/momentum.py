"""Momentum: averages of past gradients."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.kinds import DECAY_RATE, DTYPE
from lion_jax._core.leafwise import leafwise, zeros_like
from lion_jax._core.rule import primitive
from lion_jax._core.types import DType


class InterpolateMomentumState(NamedTuple):
    """State of `interpolate_momentum` and of `scale_by_sign_momentum`.

    Attributes:
      mu: momentum m, a tree like the parameters, each leaf of its parameter's shape and in
        `mu_dtype`; by default in the parameter's dtype, but at least float32.
    """

    mu: optax.Updates


@primitive(b1=DECAY_RATE, b2=DECAY_RATE, mu_dtype=DTYPE)
def interpolate_momentum(
    b1: optax.ScalarOrSchedule = 0.9, b2: optax.ScalarOrSchedule = 0.99, mu_dtype: Any = None
) -> optax.GradientTransformationExtraArgs:
    r"""Interpolates between a slow momentum and the gradient.

    .. math::

      c_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
      m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

    with :math:`m_0 = 0`. The update is :math:`c_t`, Lion's update before its sign. With ``b1``
    equal to ``b2`` it is the plain exponential moving average of the gradients.

    Args:
      b1: :math:`\beta_1` in [0, 1), the weight of the momentum in the update.
      b2: :math:`\beta_2` in [0, 1), the decay rate of the momentum.
      mu_dtype: dtype that stores the momentum. None keeps the parameters' dtype, but at least
        float32.

    Returns:
      A transformation from gradients to updates of the same shapes and units, in the parameters'
      dtype. Its state is an :class:`InterpolateMomentumState`.

    Raises:
      ValueError: ``b1`` or ``b2`` outside [0, 1).
      TypeError: ``b1`` or ``b2`` no number, ``mu_dtype`` no floating-point dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import interpolate_momentum
      >>> tx = interpolate_momentum(b1=0.5, b2=0.75)
      >>> state = tx.init(jnp.zeros(2))
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.array([8.0, -4.0]), state)
      >>> print(updates, state.mu)
      [ 5.  -2.5] [ 3.5  -1.75]

    References:
      Chen et al., `Symbolic Discovery of Optimization Algorithms
      <https://arxiv.org/abs/2302.06675>`_, 2023, Algorithm 2.
    """
    return leafwise(interpolate, InterpolateMomentumState, start=moment(mu_dtype), b1=b1, b2=b2)


@primitive(b1=DECAY_RATE, b2=DECAY_RATE, mu_dtype=DTYPE)
def scale_by_sign_momentum(
    b1: optax.ScalarOrSchedule = 0.9, b2: optax.ScalarOrSchedule = 0.99, mu_dtype: Any = None
) -> optax.GradientTransformationExtraArgs:
    r"""Replaces each gradient by the sign of its interpolation with the momentum: Lion's update.

    .. math::

      u_t &= \operatorname{sign}(\beta_1 m_{t-1} + (1 - \beta_1) g_t) \\
      m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

    with :math:`m_0 = 0` and :math:`\operatorname{sign}(0) = 0`.

    Args:
      b1: :math:`\beta_1` in [0, 1), the weight of the momentum in the update.
      b2: :math:`\beta_2` in [0, 1), the decay rate of the momentum.
      mu_dtype: dtype that stores the momentum. None keeps the parameters' dtype, but at least
        float32.

    Returns:
      A transformation from gradients to updates of the same shapes, each entry -1, 0 or 1 without
      unit, in the parameters' dtype. Its state is an :class:`InterpolateMomentumState`.

    Raises:
      ValueError: ``b1`` or ``b2`` outside [0, 1).
      TypeError: ``b1`` or ``b2`` no number, ``mu_dtype`` no floating-point dtype; at ``init`` and
        ``update``, a complex leaf.

    Example:
      >>> import jax.numpy as jnp, lion_jax
      >>> tx = lion_jax.scale_by_sign_momentum()
      >>> state = tx.init(jnp.zeros(3))
      >>> updates, state = tx.update(jnp.array([0.3, -2.0, 0.0]), state)
      >>> print(updates)
      [ 1. -1.  0.]

    References:
      Chen et al., `Symbolic Discovery of Optimization Algorithms
      <https://arxiv.org/abs/2302.06675>`_, 2023, Algorithm 2.
    """
    return leafwise(
        _sign_of_interpolation,
        InterpolateMomentumState,
        real_for="scale_by_sign_momentum",
        start=moment(mu_dtype),
        b1=b1,
        b2=b2,
    )


def moment(mu_dtype: DType | None) -> dict[str, Callable[..., Any]]:
    """The start of a momentum, for `leafwise`."""
    return {"mu": functools.partial(zeros_like, dtype=mu_dtype)}


def interpolate(g, m, *, b1, b2):
    """Mixes gradient and momentum of a leaf, and returns c_t and m_t."""

    def from_old_momentum(g, m):
        return (1 - b1) * g + b1 * m, (1 - b2) * g + b2 * m

    def from_new_momentum(g, m):
        r = b1 / b2
        m = (1 - b2) * g + b2 * m
        return (1 - r) * g + r * m, m

    # Where c_t and m_t both read the old momentum, XLA:CPU copies it before it overwrites it, which
    # doubles the time of a step or worse. Extrapolating, b1 > b2, would magnify rounding errors.
    are_constants = isinstance(b1, float) and isinstance(b2, float)
    if not (are_constants and 0 < b1 <= b2):
        return from_old_momentum(g, m)
    return jax.lax.platform_dependent(g, m, cpu=from_new_momentum, default=from_old_momentum)


def _sign_of_interpolation(g, m, *, b1, b2):
    c, m = interpolate(g, m, b1=b1, b2=b2)
    return jnp.sign(c), m
