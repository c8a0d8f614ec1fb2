"""Adaptive moments that look ahead, as Nesterov momentum does."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.arithmetic import sqrt
from lion_jax._core.kinds import DECAY_RATE, NON_NEGATIVE
from lion_jax._core.leafwise import leafwise
from lion_jax._core.one_pass import in_place_of
from lion_jax._core.rule import primitive


class ScaleByNesterovAdamState(NamedTuple):
    """State of `scale_by_nesterov_adam`.

    Attributes:
      count: updates so far, int32 of shape ().
      mu: first moment m, a tree like the parameters, at least float32.
      nu: second moment v, of the same shapes and dtypes.
    """

    count: jax.Array
    mu: optax.Updates
    nu: optax.Updates


@primitive(b1=DECAY_RATE, b2=DECAY_RATE, eps=NON_NEGATIVE)
def scale_by_nesterov_adam(
    b1: optax.ScalarOrSchedule = 0.9,
    b2: optax.ScalarOrSchedule = 0.999,
    eps: optax.ScalarOrSchedule = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam's direction with the present gradient counted once more, as in AdamP.

    .. math::

      m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
      v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
      u_t &= \frac{\beta_1 m_t + (1 - \beta_1) g_t}{1 - \beta_1^t} \Big/
        \left(\sqrt{\frac{v_t}{1 - \beta_2^t}} + \varepsilon\right)

    ``optax.scale_by_adam(nesterov=True)`` is NAdam, which corrects the bias of either term by
    itself.

    Args:
      b1: :math:`\beta_1` in [0, 1).
      b2: :math:`\beta_2` in [0, 1).
      eps: :math:`\varepsilon` >= 0, in the gradients' units.

    Returns:
      A transformation from gradients to updates of the same shapes, of the order of 1 and without
      unit, in the parameters' dtype. Its state is a :class:`ScaleByNesterovAdamState`.

    Raises:
      ValueError, TypeError: a hyperparameter out of range or of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import scale_by_nesterov_adam
      >>> tx = scale_by_nesterov_adam(b1=0.5)
      >>> print(f"{tx.update(jnp.array(2.0), tx.init(jnp.zeros(())))[0]:.3f}")
      1.500

    References:
      Heo et al., `AdamP <https://arxiv.org/abs/2006.08217>`_, 2021, Section 3.3; the authors'
      package ``adamp`` 0.3.0.
    """
    return leafwise(
        _nesterov_adam,
        ScaleByNesterovAdamState,
        real_for="scale_by_nesterov_adam",
        b1=b1,
        b2=b2,
        eps=eps,
    )


def _nesterov_adam(g, m, v, *, b1, b2, eps, bias1, bias2):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    u = (b1 * m + (1 - b1) * g) / bias1 / (sqrt(v / bias2) + eps)
    return u, m, v


class ScaleByAdanState(NamedTuple):
    """State of `scale_by_adan`.

    Attributes:
      count: updates so far, int32 of shape ().
      mu: average of the gradients m, a tree like the parameters, at least float32.
      mu_difference: average of their differences v, of the same shapes and dtypes.
      nu: average of the squares n, of the same shapes and dtypes.
      negative_gradient: the last gradient with its sign reversed, of the same shapes and dtypes.
    """

    count: jax.Array
    mu: optax.Updates
    mu_difference: optax.Updates
    nu: optax.Updates
    # Negative, so that the difference is a sum: compilers write it in place, and copy the gradient.
    negative_gradient: optax.Updates


@primitive(b1=DECAY_RATE, b2=DECAY_RATE, b3=DECAY_RATE, eps=NON_NEGATIVE)
def scale_by_adan(
    b1: optax.ScalarOrSchedule = 0.98,
    b2: optax.ScalarOrSchedule = 0.92,
    b3: optax.ScalarOrSchedule = 0.99,
    eps: optax.ScalarOrSchedule = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    r"""Adan's direction: Nesterov momentum from the differences of gradients.

    .. math::

      \Delta_t &= g_t - g_{t-1}, \qquad \Delta_1 = 0 \\
      m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
      v_t &= \beta_2 v_{t-1} + (1 - \beta_2) \Delta_t \\
      n_t &= \beta_3 n_{t-1} + (1 - \beta_3) (g_t + \beta_2 \Delta_t)^2 \\
      u_t &= \left(\frac{m_t}{1 - \beta_1^t} + \beta_2 \frac{v_t}{1 - \beta_2^t}\right) \Big/
        \left(\sqrt{\frac{n_t}{1 - \beta_3^t}} + \varepsilon\right)

    The rates are the authors' code's, one minus the paper's. ``optax.scale_by_adan`` has
    :math:`1 - \beta_2` where :math:`n_t` and :math:`u_t` have :math:`\beta_2`. All parameters share
    one :math:`t`: the first gradient of one that had none before is its own difference.

    Args:
      b1: :math:`\beta_1` in [0, 1).
      b2: :math:`\beta_2` in [0, 1).
      b3: :math:`\beta_3` in [0, 1).
      eps: :math:`\varepsilon` >= 0, in the gradients' units.

    Returns:
      A transformation from gradients to updates of the same shapes, without unit, in the
      parameters' dtype. Its state is a :class:`ScaleByAdanState`: four times the parameters.

    Raises:
      ValueError, TypeError: a hyperparameter out of range or of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import scale_by_adan
      >>> tx = scale_by_adan()
      >>> print(tx.update(jnp.array([4.0, -0.1]), tx.init(jnp.zeros(2)))[0].round(3))
      [ 1. -1.]

    References:
      Xie et al., `Adan: Adaptive Nesterov Momentum Algorithm <https://arxiv.org/abs/2208.06677>`_,
      2022, Algorithm 1; the authors' code.
    """
    return leafwise(_adan, ScaleByAdanState, real_for="scale_by_adan", b1=b1, b2=b2, b3=b3, eps=eps)


def _adan(g, m, v, n, negative_g, *, t, b1, b2, b3, eps, bias1, bias2, bias3):
    delta = jnp.where(t == 1, 0, g + negative_g)
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * delta
    n = b3 * n + (1 - b3) * (g + b2 * delta) ** 2
    u = (m / bias1 + b2 * v / bias2) / (sqrt(n / bias3) + eps)
    return u, m, v, n, in_place_of(negative_g, -g)
