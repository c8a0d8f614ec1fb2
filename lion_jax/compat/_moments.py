"""What peers need and neither optax nor the primitives have. Links of a chain, not public ones.

They count on the factory around them for wide dtypes, absent gradients and checked numbers.
"""

# A state's `count` hides the method that every tuple has.
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._arithmetic import sqrt
from lion_jax._checks import check_number, check_real, is_off
from lion_jax._dtypes import at_least_float32
from lion_jax._leafwise import map_leaves
from lion_jax.primitives._moments import bias, next_count, zero, zeros_like

Scalar = float | jax.Array
Betas = tuple[Scalar, Scalar]


def unpack_betas(betas: Iterable[Scalar], count: int = 2) -> tuple[Scalar, ...]:
    """The numbers of a peer's `betas`, each checked under its place there.

    Raises:
      TypeError: `betas` is no sequence, or an entry no number.
      ValueError: another count of them, or one outside [0, 1).
    """
    values = tuple(betas) if isinstance(betas, Iterable) else ()
    if len(values) != count:
        error = ValueError if isinstance(betas, Iterable) else TypeError
        remedy = (0.9, 0.999, 0.9999)[:count]
        raise error(f"betas must be {count} numbers in [0, 1); got {betas!r}. Try betas={remedy}.")
    for i, beta in enumerate(values):
        check_number(f"b{i + 1}", beta, alias=f"betas[{i}]")
    return values


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

    def init_fn(params):
        return HeavyBallState(zero(), trace=zeros_like(params))

    def update_fn(updates, state, params=None):
        del params
        # Without momentum torch has no buffer, hence no dampening, even if that is only known now.
        is_whole = (state.count == 0) | (momentum == 0)
        updates, trace = map_leaves(
            _heavy_ball_nesterov if nesterov else _heavy_ball,
            (updates, state.trace),
            momentum=momentum,
            weight=jnp.where(is_whole, 1.0, 1 - dampening),
        )
        return updates, HeavyBallState(next_count(state.count), trace)

    return optax.GradientTransformation(init_fn, update_fn)


def _heavy_ball(d, b, *, momentum, weight):
    b = momentum * b + weight * d
    return b, b


def _heavy_ball_nesterov(d, b, *, momentum, weight):
    b = momentum * b + weight * d
    return d + momentum * b, b


class ScaleByAmsgradState(NamedTuple):
    """State of `scale_by_amsgrad`.

    Attributes:
      count: updates so far, int32 of shape ().
      mu: first moment m, a tree like the parameters, at least float32.
      nu: second moment v, likewise.
      nu_max: the largest v so far, entry by entry, likewise.
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

    def init_fn(params):
        mu, nu, nu_max = zeros_like(params), zeros_like(params), zeros_like(params)
        return ScaleByAmsgradState(zero(), mu, nu, nu_max)

    def update_fn(updates, state, params=None):
        del params
        t = next_count(state.count)
        updates, mu, nu, nu_max = map_leaves(
            _amsgrad,
            (updates, state.mu, state.nu, state.nu_max),
            b1=b1,
            b2=b2,
            eps=eps,
            bias1=bias(b1, t),
            bias2=bias(b2, t),
            static=(("belief", belief),),
        )
        return updates, ScaleByAmsgradState(t, mu, nu, nu_max)

    return optax.GradientTransformation(init_fn, update_fn)


def _amsgrad(g, m, v, v_max, *, b1, b2, eps, bias1, bias2, belief):
    m = b1 * m + (1 - b1) * g
    deviation = g - m if belief else g
    v = b2 * v + (1 - b2) * deviation**2
    v_max = jnp.maximum(v_max, v)
    return m / bias1 / (sqrt(v_max / bias2) + eps), m, v, v_max


class ScaleByUndebiasedAdamState(NamedTuple):
    """State of `scale_by_undebiased_adam`.

    Attributes:
      mu: first moment m, a tree like the parameters, at least float32.
      nu: second moment v, likewise.
    """

    mu: optax.Updates
    nu: optax.Updates


def scale_by_undebiased_adam(b1: Scalar, b2: Scalar, eps: Scalar) -> optax.GradientTransformation:
    r"""Adam's direction without bias correction, :math:`m_t / (\sqrt{v_t} + \varepsilon)`."""

    def init_fn(params):
        return ScaleByUndebiasedAdamState(mu=zeros_like(params), nu=zeros_like(params))

    def update_fn(updates, state, params=None):
        del params
        written = (updates, state.mu, state.nu)
        updates, mu, nu = map_leaves(_undebiased_adam, written, b1=b1, b2=b2, eps=eps)
        return updates, ScaleByUndebiasedAdamState(mu, nu)

    return optax.GradientTransformation(init_fn, update_fn)


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

    def init_fn(params):
        def filled(p):
            return jnp.full(p.shape, initial, at_least_float32(p))

        return ScaleBySumOfSquaresState(jax.tree.map(filled, params))

    def update_fn(updates, state, params=None):
        del params
        written = (updates, state.sum_of_squares)
        updates, sums = map_leaves(_sum_of_squares, written, eps=eps)
        return updates, ScaleBySumOfSquaresState(sums)

    return optax.GradientTransformation(init_fn, update_fn)


def _sum_of_squares(g, s, *, eps):
    s = s + g**2
    return g / (sqrt(s) + eps), s
