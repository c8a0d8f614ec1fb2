"""Links of chains for the rules of other libraries, which neither optax nor the primitives have.

They are not public. The factory around them handles dtypes, absent gradients and checks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.arithmetic import sqrt
from lion_jax._core.checks import check_real
from lion_jax._core.dtypes import at_least_float32
from lion_jax._core.kinds import DECAY_RATE, NON_NEGATIVE, betas, is_off
from lion_jax._core.leafwise import leafwise
from lion_jax._core.types import Scalar

LEARNING_RATE = NON_NEGATIVE
BETAS = betas(DECAY_RATE, DECAY_RATE)
EPS = NON_NEGATIVE.constant()
WEIGHT_DECAY = NON_NEGATIVE.constant()
ADAM = {"lr": LEARNING_RATE, "betas": BETAS, "eps": EPS, "weight_decay": WEIGHT_DECAY}


def refuse_complex(needed_by: str) -> optax.GradientTransformationExtraArgs:
    """Passes real updates on: torch takes |g|^2 of each component, optax of the complex entry."""

    def init_fn(params):
        check_real(params, needed_by)
        return optax.EmptyState()

    def update_fn(updates, state, params=None, **extra_args):
        del params, extra_args
        check_real(updates, needed_by)
        return updates, state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class HeavyBallState(NamedTuple):
    """State of `heavy_ball` with dampening.

    Attributes:
      count: updates so far, int32 of shape ().
      trace: the buffer, a tree like the parameters, at least float32.
    """

    count: jax.Array
    trace: optax.Updates


def heavy_ball(
    momentum: Scalar, dampening: Scalar = 0.0, nesterov: bool = False
) -> optax.GradientTransformation:
    r"""Torch's momentum, whose first gradient is not dampened.

    .. math::

      b_1 = d_1, \qquad b_t = \mu b_{t-1} + (1 - \tau) d_t, \qquad
      u_t = b_t \text{ or, Nesterov's, } d_t + \mu b_t

    A momentum of the number 0 is no link at all, and without dampening this is `optax.trace`.
    """
    if is_off(momentum):
        return optax.identity()
    if is_off(dampening):
        return optax.trace(momentum, nesterov)
    return leafwise(
        _heavy_ball, HeavyBallState, momentum=momentum, dampening=dampening, nesterov=nesterov
    )


def _heavy_ball(d, b, *, t, momentum, dampening, nesterov):
    # Without momentum torch has no buffer, hence no dampening, even if that is only known now.
    b = momentum * b + jnp.where((t == 1) | (momentum == 0), 1.0, 1 - dampening) * d
    return d + momentum * b if nesterov else b, b


class ScaleByAmsgradState(NamedTuple):
    """State of `scale_by_amsgrad`.

    Attributes:
      count: updates so far, int32 of shape ().
      mu: first moment m, a tree like the parameters, at least float32.
      nu: second moment v, of the same shapes and dtypes.
      nu_max: the largest v so far, entry by entry, of the same shapes and dtypes.
    """

    count: jax.Array
    mu: optax.Updates
    nu: optax.Updates
    nu_max: optax.Updates


def scale_by_amsgrad(
    b1: Scalar, b2: Scalar, eps: Scalar, *, belief: bool = False
) -> optax.GradientTransformation:
    r"""Adam's or AdaBelief's direction under the largest second moment so far.

    .. math::

      m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
      v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2
        \quad \text{or, with belief, } \beta_2 v_{t-1} + (1 - \beta_2) (g_t - m_t)^2 \\
      u_t &= \frac{m_t}{1 - \beta_1^t} \Big/ \left(
        \sqrt{\max_{s \le t} v_s} \Big/ \sqrt{1 - \beta_2^t} + \varepsilon\right)

    `optax.scale_by_amsgrad` corrects each second moment before it takes the largest, or none.
    """
    return leafwise(_amsgrad, ScaleByAmsgradState, b1=b1, b2=b2, eps=eps, belief=belief)


def _amsgrad(g, m, v, v_max, *, b1, b2, eps, belief, bias1, bias2):
    m = b1 * m + (1 - b1) * g
    deviation = g - m if belief else g
    v = b2 * v + (1 - b2) * deviation**2
    v_max = jnp.maximum(v_max, v)
    return m / bias1 / (sqrt(v_max / bias2) + eps), m, v, v_max


class ScaleByUndebiasedAdamState(NamedTuple):
    """State of `scale_by_undebiased_adam`.

    Attributes:
      mu: first moment m, a tree like the parameters, at least float32.
      nu: second moment v, of the same shapes and dtypes.
    """

    mu: optax.Updates
    nu: optax.Updates


def scale_by_undebiased_adam(b1: Scalar, b2: Scalar, eps: Scalar) -> optax.GradientTransformation:
    r"""Adam's direction without bias correction, :math:`m_t / (\sqrt{v_t} + \varepsilon)`."""
    return leafwise(_undebiased_adam, ScaleByUndebiasedAdamState, b1=b1, b2=b2, eps=eps)


def _undebiased_adam(g, m, v, *, b1, b2, eps):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    return m / (sqrt(v) + eps), m, v


class ScaleBySumOfSquaresState(NamedTuple):
    """State of `scale_by_sum_of_squares`.

    Attributes:
      sum_of_squares: a tree like the parameters, at least float32.
    """

    sum_of_squares: optax.Updates


def scale_by_sum_of_squares(initial: Scalar, eps: Scalar) -> optax.GradientTransformation:
    r"""Adagrad's direction, :math:`g_t / (\sqrt{\Sigma_t} + \varepsilon)`, eps outside the root."""
    start = {"sum_of_squares": lambda p: jnp.full(p.shape, initial, at_least_float32(p))}
    return leafwise(_sum_of_squares, ScaleBySumOfSquaresState, start=start, eps=eps)


def _sum_of_squares(g, s, *, eps):
    s = s + g**2
    return g / (sqrt(s) + eps), s
