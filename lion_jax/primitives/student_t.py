"""Adaptive moments robust against outliers."""

# A schedule never reaches the body of a factory: accepts_schedules has made it a number.
# pyright: reportOperatorIssue=false, reportArgumentType=false
# A count is what optax calls it.
# pyright: reportIncompatibleMethodOverride=false

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._arithmetic import sqrt
from lion_jax._checks import check_flag, check_peer, check_real, check_scalars
from lion_jax._dtypes import at_least_float32, computed_in_float32
from lion_jax._leafwise import map_leaves
from lion_jax._schedules import accepts_schedules
from lion_jax.primitives._moments import bias, next_count, zero, zeros_like


class ScaleByStudentTState(NamedTuple):
    """State of `scale_by_student_t`.

    Attributes:
      count: updates so far, int32 of shape ().
      mu: first moment m, a tree like the parameters, at least float32.
      nu: second moment v, likewise.
      total_weight: W, what the gradients in m weigh together: a tree like the parameters with a
        scalar for each, at least float32.
      nu_max: the largest second moment so far, like v; None without ``amsgrad``.
    """

    count: jax.Array
    mu: optax.Updates
    nu: optax.Updates
    total_weight: optax.Updates
    nu_max: optax.Updates | None


@computed_in_float32
@accepts_schedules("b1", "b2", "eps", "dof")
def scale_by_student_t(
    b1: optax.ScalarOrSchedule = 0.9,
    b2: optax.ScalarOrSchedule = 0.999,
    eps: optax.ScalarOrSchedule = 1e-8,
    *,
    dof: optax.ScalarOrSchedule | None = None,
    amsgrad: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam's direction with a first moment that distrusts outliers, as Student's t does.

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
      b1: :math:`\beta_1` in [0.5, 1): a number, a traced scalar, or a schedule from the update
        count. Below 0.5 the weight of the past would be negative.
      b2: :math:`\beta_2` in [0, 1), likewise.
      eps: :math:`\varepsilon` >= 0, in the gradients' units (beside :math:`v`, in their square),
        likewise.
      dof: degrees of freedom :math:`\nu` > 0, likewise; None is :math:`d`.
      amsgrad: whether the largest :math:`v` so far stands in for :math:`v_t` in :math:`u_t`.
        ``static_args`` for ``optax.inject_hyperparams``: ``("amsgrad",)``.

    Returns:
      A transformation from gradients to updates of the same shapes, without unit, in the
      parameters' dtype. Its state is a :class:`ScaleByStudentTState`.

    Raises:
      ValueError: a hyperparameter out of range.
      TypeError: a hyperparameter of the wrong type.

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
    check_peer(student_t_b1=("b1", b1))
    check_scalars(b2=b2, eps=eps)
    if dof is not None:
        check_scalars(dof=dof)
    check_flag("amsgrad", amsgrad)

    def init_fn(params):
        def first_weight(p):
            return jnp.full((), b1 / (1 - b1), at_least_float32(p))

        return ScaleByStudentTState(
            zero(),
            mu=zeros_like(params),
            nu=zeros_like(params),
            total_weight=jax.tree.map(first_weight, params),
            nu_max=zeros_like(params) if amsgrad else None,
        )

    def update_fn(updates, state, params=None, **extra_args):
        del params, extra_args
        check_real(updates, "scale_by_student_t")
        t = next_count(state.count)
        written = (updates, state.mu, state.nu, state.total_weight)
        updates, *moments = map_leaves(
            _student_t,
            (*written, state.nu_max) if amsgrad else written,
            b1=b1,
            b2=b2,
            eps=eps,
            bias1=bias(b1, t),
            bias2=bias(b2, t),
            **({} if dof is None else {"dof": dof}),
        )
        mu, nu, total_weight, nu_max = moments if amsgrad else (*moments, None)
        return updates, ScaleByStudentTState(t, mu, nu, total_weight, nu_max)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


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
