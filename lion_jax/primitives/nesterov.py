"""Adaptive moments that look ahead, as Nesterov momentum does."""

# A schedule never reaches the body of a factory: accepts_schedules has made it a number.
# pyright: reportOperatorIssue=false, reportArgumentType=false
# A count is what optax calls it.
# pyright: reportIncompatibleMethodOverride=false

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._arithmetic import sqrt
from lion_jax._checks import check_real, check_scalars
from lion_jax._dtypes import computed_in_float32
from lion_jax._leafwise import map_leaves
from lion_jax._schedules import accepts_schedules
from lion_jax.primitives._moments import bias, next_count, zero, zeros_like


class ScaleByNesterovAdamState(NamedTuple):
    """State of `scale_by_nesterov_adam`.

    Attributes:
      count: updates so far, int32 of shape ().
      mu: first moment m, a tree like the parameters, at least float32.
      nu: second moment v, likewise.
    """

    count: jax.Array
    mu: optax.Updates
    nu: optax.Updates


@computed_in_float32
@accepts_schedules("b1", "b2", "eps")
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
      b1: :math:`\beta_1` in [0, 1): a number, a traced scalar, or a schedule from the update count.
      b2: :math:`\beta_2` in [0, 1), likewise.
      eps: :math:`\varepsilon` >= 0, in the gradients' units, likewise.

    Returns:
      A transformation from gradients to updates of the same shapes, of the order of 1 and without
      unit, in the parameters' dtype. Its state is a :class:`ScaleByNesterovAdamState`.

    Raises:
      ValueError: a hyperparameter out of range.
      TypeError: a hyperparameter that is no number.

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
    check_scalars(b1=b1, b2=b2, eps=eps)

    def init_fn(params):
        return ScaleByNesterovAdamState(zero(), mu=zeros_like(params), nu=zeros_like(params))

    def update_fn(updates, state, params=None, **extra_args):
        del params, extra_args
        check_real(updates, "scale_by_nesterov_adam")
        t = next_count(state.count)
        updates, mu, nu = map_leaves(
            _nesterov_adam,
            (updates, state.mu, state.nu),
            b1=b1,
            b2=b2,
            eps=eps,
            bias1=bias(b1, t),
            bias2=bias(b2, t),
        )
        return updates, ScaleByNesterovAdamState(t, mu, nu)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


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
      mu_difference: average of their differences v, likewise.
      nu: average of the squares n, likewise.
      negative_gradient: the last gradient with its sign reversed, likewise. The difference is then
        a sum, which compilers write in place; the gradient itself they would copy.
    """

    count: jax.Array
    mu: optax.Updates
    mu_difference: optax.Updates
    nu: optax.Updates
    negative_gradient: optax.Updates


@computed_in_float32
@accepts_schedules("b1", "b2", "b3", "eps")
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
      b1: :math:`\beta_1` in [0, 1): a number, a traced scalar, or a schedule from the update count.
      b2: :math:`\beta_2` in [0, 1), likewise.
      b3: :math:`\beta_3` in [0, 1), likewise.
      eps: :math:`\varepsilon` >= 0, in the gradients' units, likewise.

    Returns:
      A transformation from gradients to updates of the same shapes, without unit, in the
      parameters' dtype. Its state is a :class:`ScaleByAdanState`: four times the parameters.

    Raises:
      ValueError: a hyperparameter out of range.
      TypeError: a hyperparameter that is no number.

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
    check_scalars(b1=b1, b2=b2, b3=b3, eps=eps)

    def init_fn(params):
        return ScaleByAdanState(zero(), *(zeros_like(params) for _ in range(4)))

    def update_fn(updates, state, params=None, **extra_args):
        del params, extra_args
        check_real(updates, "scale_by_adan")
        t = next_count(state.count)
        updates, *moments = map_leaves(
            _adan,
            (updates, *state[1:]),
            b1=b1,
            b2=b2,
            b3=b3,
            eps=eps,
            bias1=bias(b1, t),
            bias2=bias(b2, t),
            bias3=bias(b3, t),
            is_first=t == 1,
        )
        return updates, ScaleByAdanState(t, *moments)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _adan(g, m, v, n, negative_g, *, b1, b2, b3, eps, bias1, bias2, bias3, is_first):
    delta = jnp.where(is_first, 0, g + negative_g)
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * delta
    n = b3 * n + (1 - b3) * (g + b2 * delta) ** 2
    u = (m / bias1 + b2 * v / bias2) / (sqrt(n / bias3) + eps)
    return u, m, v, n, -g
