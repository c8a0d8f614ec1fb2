"""Adaptive moments, rectified in the first steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.arithmetic import sqrt
from lion_jax._core.kinds import DECAY_RATE, FLAG, NON_NEGATIVE
from lion_jax._core.leafwise import leafwise
from lion_jax._core.rates import bias
from lion_jax._core.rule import primitive


class ScaleByRectifiedAdamState(NamedTuple):
    """State of `scale_by_rectified_adam`.

    Attributes:
      count: updates so far, int32 of shape ().
      mu: first moment m, a tree like the parameters, at least float32.
      nu: second moment v, of the same shapes and dtypes.
    """

    count: jax.Array
    mu: optax.Updates
    nu: optax.Updates


@primitive(b1=DECAY_RATE, b2=DECAY_RATE, eps=NON_NEGATIVE, force_adaptive_momentum=FLAG)
def scale_by_rectified_adam(
    b1: optax.ScalarOrSchedule = 0.9,
    b2: optax.ScalarOrSchedule = 0.999,
    eps: optax.ScalarOrSchedule = 1e-8,
    *,
    force_adaptive_momentum: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam's direction, rectified while its second moment rests on few gradients.

    .. math::

      m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad \hat m_t = \frac{m_t}{1 - \beta_1^t} \\
      v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \qquad \hat v_t = \frac{v_t}{1 - \beta_2^t} \\
      \rho_t &= \rho_\infty - \frac{2 t \beta_2^t}{1 - \beta_2^t}, \qquad
        \rho_\infty = \frac{2}{1 - \beta_2} - 1 \\
      u_t &= \begin{cases}
        \sqrt{\frac{(\rho_t - 4)(\rho_t - 2)}{(\rho_\infty - 4)(\rho_\infty - 2)}
        \frac{\rho_\infty}{\rho_t}} \; \hat m_t / (\sqrt{\hat v_t} + \varepsilon) & \rho_t > 4 \\
        \hat m_t & \text{otherwise} \end{cases}

    ``optax.scale_by_radam`` begins to rectify at :math:`\rho_t \ge 5`.

    Args:
      b1: :math:`\beta_1` in [0, 1).
      b2: :math:`\beta_2` in [0, 1).
      eps: :math:`\varepsilon` >= 0, in the gradients' units.
      force_adaptive_momentum: whether Adam's direction replaces :math:`\hat m_t` in the first
        steps.

    Returns:
      A transformation from gradients to updates of the same shapes, in the parameters' dtype; in
      the first steps in the gradients' units, then without unit. Its state is a
      :class:`ScaleByRectifiedAdamState`.

    Raises:
      ValueError, TypeError: a hyperparameter out of range or of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import scale_by_rectified_adam
      >>> for force in (False, True):
      ...     tx = scale_by_rectified_adam(force_adaptive_momentum=force)
      ...     print(tx.update(jnp.array([8.0]), tx.init(jnp.zeros(1)))[0].round(3))
      [8.]
      [1.]

    References:
      Liu et al., `On the Variance of the Adaptive Learning Rate and Beyond
      <https://arxiv.org/abs/1908.03265>`_, 2020, Algorithm 2.
    """
    return leafwise(
        _rectified_adam,
        ScaleByRectifiedAdamState,
        real_for="scale_by_rectified_adam",
        shared=_rectify,
        b1=b1,
        b2=b2,
        eps=eps,
        is_always_adaptive=force_adaptive_momentum,
    )


def _rectified_adam(
    g, m, v, *, b1, b2, eps, bias1, bias2, is_adaptive, rectification, is_always_adaptive
):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    m_hat, v_hat = m / bias1, v / bias2
    is_adaptive |= is_always_adaptive
    u = jnp.where(is_adaptive, rectification * m_hat / (sqrt(v_hat) + eps), m_hat)
    return u, m, v


def _rectify(t, *, b2, **others):
    """Computes for all leaves whether rho_t > 4, and the factor that goes with it; 1 before."""
    del others
    rho_inf = 2 / (1 - b2) - 1
    with jax.numpy_dtype_promotion("standard"):
        rho = rho_inf - 2.0 * t * (1 - bias(b2, t)) / bias(b2, t)
    is_adaptive = rho > 4  # hence rho_inf too
    denominator = (rho_inf - 4) * (rho_inf - 2) * rho
    r2 = (rho - 4) * (rho - 2) * rho_inf / jnp.where(is_adaptive, denominator, 1.0)
    rectification = jnp.sqrt(jnp.where(is_adaptive, r2, 1.0))
    return {"is_adaptive": is_adaptive, "rectification": rectification}
