"""Adaptive moments robust against outliers."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.arithmetic import sqrt
from lion_jax._core.dtypes import at_least_float32
from lion_jax._core.kinds import DECAY_RATE, FLAG, NON_NEGATIVE, POSITIVE, Number
from lion_jax._core.leafwise import leafwise, zeros_like
from lion_jax._core.rule import number, primitive

RATE_OF_PAST = Number(allowed="in [0.5, 1)", contains=lambda x: 0.5 <= x < 1)
DEGREES_OF_FREEDOM = POSITIVE.or_none().trying(
    "None", "which is the number of entries of each leaf"
)


class ScaleByStudentTState(NamedTuple):
    """State of `scale_by_student_t`.

    Attributes:
      count: updates so far, int32 of shape ().
      mu: first moment m, a tree like the parameters, at least float32.
      nu: second moment v, of the same shapes and dtypes.
      total_weight: W, the sum of the weights of the gradients in m: a tree like the parameters with
        a scalar for each, at least float32.
      nu_max: the largest second moment so far, like v; None without ``amsgrad``.
    """

    count: jax.Array
    mu: optax.Updates
    nu: optax.Updates
    total_weight: optax.Updates
    nu_max: optax.Updates | None


@primitive(b1=RATE_OF_PAST, b2=DECAY_RATE, eps=NON_NEGATIVE, dof=DEGREES_OF_FREEDOM, amsgrad=FLAG)
def scale_by_student_t(
    b1: optax.ScalarOrSchedule = 0.9,
    b2: optax.ScalarOrSchedule = 0.999,
    eps: optax.ScalarOrSchedule = 1e-8,
    *,
    dof: optax.ScalarOrSchedule | None = None,
    amsgrad: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam's direction with a first moment that gives outliers less weight, as Student's t does.

    For a leaf of :math:`d` entries,

    .. math::

      w_t &= \frac{\nu + d}{\nu + \sum_i (g_{t,i} - m_{t-1,i})^2 / (v_{t-1,i} + \varepsilon)} \\
      m_t &= \frac{W_{t-1} m_{t-1} + w_t g_t}{W_{t-1} + w_t}, \qquad
      W_t = \frac{2 \beta_1 - 1}{\beta_1} W_{t-1} + w_t \\
      v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
      u_t &= \frac{m_t}{1 - \beta_1^t} \Big/
        \left(\sqrt{\frac{v_t}{1 - \beta_2^t}} + \varepsilon\right)

    with :math:`W_0 = \beta_1 / (1 - \beta_1)`. For :math:`\nu \to \infty` every gradient weighs 1,
    and this is Adam.

    Args:
      b1: :math:`\beta_1` in [0.5, 1). Below 0.5 the weight of the past would be negative.
      b2: :math:`\beta_2` in [0, 1).
      eps: :math:`\varepsilon` >= 0, in the gradients' units (beside :math:`v`, in their square).
      dof: degrees of freedom :math:`\nu` > 0; None is :math:`d`.
      amsgrad: whether the largest :math:`v` so far replaces :math:`v_t` in :math:`u_t`.

    Returns:
      A transformation from gradients to updates of the same shapes, without unit, in the
      parameters' dtype. Its state is a :class:`ScaleByStudentTState`.

    Raises:
      ValueError, TypeError: a hyperparameter out of range or of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import scale_by_student_t
      >>> tx = scale_by_student_t(eps=1.0)
      >>> state = tx.init(jnp.zeros(1))
      >>> for gradient in (1.0, 1.0, 100.0):  # the outlier hardly moves the average
      ...     _, state = tx.update(jnp.array([gradient]), state)
      >>> print(f"{state.mu[0]:.2f}")
      0.20

    References:
      Ilboudo et al., `TAdam: A Robust Stochastic Gradient Optimizer
      <https://arxiv.org/abs/2003.00179>`_, 2020, Algorithm 1.
    """
    return leafwise(
        _student_t,
        ScaleByStudentTState,
        real_for="scale_by_student_t",
        start={
            "total_weight": functools.partial(_first_weight, number(b1)),
            "nu_max": zeros_like if amsgrad else None,
        },
        b1=b1,
        b2=b2,
        eps=eps,
        dof=dof,
    )


def _first_weight(b1, p):
    return jnp.full((), b1 / (1 - b1), at_least_float32(p))


def _student_t(g, m, v, total, *nu_max, b1, b2, eps, bias1, bias2, dof=None):
    nu = max(g.size, 1) if dof is None else dof
    w = (nu + g.size) / (nu + jnp.sum((g - m) ** 2 / (v + eps)))
    m = (total * m + w * g) / (total + w)
    total = (2 * b1 - 1) / b1 * total + w
    v = b2 * v + (1 - b2) * g**2
    nu_max = tuple(jnp.maximum(largest, v) for largest in nu_max)
    (denominator,) = nu_max or (v,)
    u = m / bias1 / (sqrt(denominator / bias2) + eps)
    return u, m, v, total, *nu_max
