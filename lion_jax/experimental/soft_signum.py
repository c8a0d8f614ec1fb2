"""SoftSignum: signs that become soft near the end of a run."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.checks import check_real
from lion_jax._core.counters import next_count, zero
from lion_jax._core.kinds import DECAY_RATE, NON_NEGATIVE, POSITIVE, SHARES, Number, integer
from lion_jax._core.leafwise import map_leaves, of_leaves, zeros_like
from lion_jax._core.rule import chain, optimizer, primitive
from lion_jax._core.types import Mask, PyTree
from lion_jax.primitives.decay import add_decoupled_weight_decay

_SOFT = {
    "learning_rate": NON_NEGATIVE.trying("1e-4"),
    "b1": DECAY_RATE,
    "weight_decay": NON_NEGATIVE,
    "mask": SHARES,
    "sign_steps": integer(0, is_traced=False),
    "transition_steps": integer(is_traced=False),
    "eps": Number(allowed="in (0, 1)", contains=lambda x: 0 < x < 1, takes_schedule=False),
}
_BISECTIONS = 64


class SoftSignumState(NamedTuple):
    """State of `soft_signum` and of `scale_free_soft_signum`.

    Attributes:
      count: updates so far, int32 of shape ().
      median: the median of all entries of the momentum when the signs began to soften, of shape ();
        0 before.
      deviation: the median distance of these entries from it, of the same shape and dtype.
      mu: momentum m, a sum, a tree like the parameters, at least float32.
    """

    count: jax.Array
    median: jax.Array
    deviation: jax.Array
    mu: optax.Updates


@optimizer(**_SOFT, max_temperature=POSITIVE.constant())
def soft_signum(
    learning_rate: optax.ScalarOrSchedule,
    b1: optax.ScalarOrSchedule = 0.9,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    sign_steps: int = 9000,
    transition_steps: int = 1000,
    eps: float = 1e-4,
    max_temperature: float = 20.0,
) -> optax.GradientTransformationExtraArgs:
    r"""SoftSignum: Signum whose sign softens at the end; nobody but its authors has tried it.

    .. math::

      m_t &= \beta_1 m_{t-1} + g_t \\
      u_t &= \begin{cases}
        \operatorname{sign}(m_t) & \text{for the first } T_s \text{ updates} \\
        \tanh(\tau_k m_t) & \text{in update } k \text{ after them, from 0}
      \end{cases} \\
      \tau_k &= \operatorname{clip}\left(\frac{\operatorname{artanh}(1 - \varepsilon)}{q(k / T)},
        1, \tau_{\max}\right), \qquad
      \theta_t = \theta_{t-1} - \eta_t (u_t + \lambda \theta_{t-1})

    with the quantile :math:`q` of a folded Cauchy distribution that is fitted once, by median and
    median deviation, to all entries of :math:`m`. After :math:`T` updates the last temperature
    stays; the authors' code ends there with an error.

    **It depends on the scale of the gradients**, by the clip: with gradients of 1e-4
    :math:`\tau m` is at most 0.02, and steps collapse as soon as the signs soften.
    :func:`scale_free_soft_signum` does not.

    Args:
      learning_rate: :math:`\eta` >= 0, in the parameters' units.
      b1: :math:`\beta_1` in [0, 1), by which the momentum, a sum, decays; the authors' default is
        0.
      weight_decay: :math:`\lambda` >= 0. It stands before the learning rate, as in AdamW.
      mask: which leaves decay, or how much of :math:`\lambda` each gets; see
        :mod:`lion_jax.groups`. None is all.
      sign_steps: :math:`T_s` >= 0, the authors' nine tenths of a run.
      transition_steps: :math:`T` >= 1, the updates over which signs soften.
      eps: :math:`\varepsilon` in (0, 1).
      max_temperature: :math:`\tau_{\max}` > 0, in the inverse of the gradients' units.

    Returns:
      A transformation. ``optax.apply_updates`` adds its updates, of the parameters' shapes, dtypes
      and units; :func:`lion_jax.hyperparameters` reads its state, a :class:`HyperparametersState`.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type; parameters missing.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import experimental
      >>> tx = experimental.soft_signum(1.0, 0.0, sign_steps=1, transition_steps=2)
      >>> params = jnp.zeros(3)
      >>> state = tx.init(params)
      >>> for _ in range(3):
      ...     updates, state = tx.update(jnp.array([3.0, -1.0, 0.1]), state, params)
      ...     print([f"{u:.2f}" for u in updates])
      ['-1.00', '1.00', '-1.00']
      ['-1.00', '1.00', '-0.96']
      ['-1.00', '1.00', '-0.42']

    References:
      `Softsign <https://arxiv.org/abs/2605.31371>`_, 2026; the authors' code
      (brain-lab-research/softsign).
    """
    return chain(
        _scale_by_soft_sign(b1, sign_steps, transition_steps, eps, max_temperature),
        add_decoupled_weight_decay(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )


@optimizer(**_SOFT)
def scale_free_soft_signum(
    learning_rate: optax.ScalarOrSchedule,
    b1: optax.ScalarOrSchedule = 0.9,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    sign_steps: int = 9000,
    transition_steps: int = 1000,
    eps: float = 1e-4,
) -> optax.GradientTransformationExtraArgs:
    r"""SoftSignum without its dependence on the gradients' scale; nobody has published it.

    It is :func:`soft_signum` with the fitted temperature,
    :math:`\tau_k = \operatorname{artanh}(1 - \varepsilon) / q(k / T)`, and not clipped: where
    :math:`q` is 0, the sign stays. Gradients a thousand times as large give the same steps.

    Args:
      learning_rate: :math:`\eta` >= 0, in the parameters' units.
      b1: as of :func:`soft_signum`, and so are the others.
      weight_decay: :math:`\lambda` >= 0.
      mask: which leaves decay.
      sign_steps: :math:`T_s` >= 0.
      transition_steps: :math:`T` >= 1.
      eps: :math:`\varepsilon` in (0, 1).

    Returns:
      A transformation. ``optax.apply_updates`` adds its updates, of the parameters' shapes, dtypes
      and units; :func:`lion_jax.hyperparameters` reads its state, a :class:`HyperparametersState`.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type; parameters missing.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import experimental
      >>> for size in (1.0, 1e-6):
      ...     tx = experimental.scale_free_soft_signum(1.0, 0.0, sign_steps=0, transition_steps=2)
      ...     state = tx.init(jnp.zeros(3))
      ...     for _ in range(2):
      ...         updates, state = tx.update(size * jnp.array([3.0, -1.0, 0.1]), state)
      ...     print([f"{u:.2f}" for u in updates])
      ['-1.00', '1.00', '-0.42']
      ['-1.00', '1.00', '-0.42']

    References:
      `Softsign <https://arxiv.org/abs/2605.31371>`_, 2026, for all but the clip.
    """
    return chain(
        _scale_by_soft_sign(b1, sign_steps, transition_steps, eps, None),
        add_decoupled_weight_decay(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )


@primitive(b1=DECAY_RATE)
def _scale_by_soft_sign(
    b1: optax.ScalarOrSchedule,
    sign_steps: int,
    transition_steps: int,
    eps: float,
    max_temperature: float | None,
) -> optax.GradientTransformationExtraArgs:
    def init_fn(params):
        check_real(params, "soft_signum")
        dtype = jnp.result_type(float)
        return SoftSignumState(
            zero(), jnp.zeros((), dtype), jnp.zeros((), dtype), zeros_like(params)
        )

    def update_fn(updates, state, params=None, **extra_args):
        del params, extra_args
        check_real(updates, "soft_signum")
        (mu,) = map_leaves(_accumulate, (state.mu,), (updates,), b1=b1)
        median, deviation = _fitted_when(
            state.count == sign_steps, mu, state.median, state.deviation
        )
        with jax.numpy_dtype_promotion("standard"):  # a count beside a float
            k = jnp.clip(state.count - sign_steps, 0, transition_steps - 1)
            p = k.astype(median.dtype) / transition_steps
            q = folded_cauchy_quantile(p, median, deviation)
            a = jnp.arctanh(1 - jnp.asarray(eps, q.dtype))
        if max_temperature is not None:
            q = jnp.clip(q, a / max_temperature, a)
        q = jnp.where(state.count < sign_steps, 0.0, q)  # 0 leaves a sign a sign
        (updates,) = map_leaves(_soften, (updates,), (mu,), a=a, q=q)
        return updates, SoftSignumState(next_count(state.count), median, deviation, mu)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def folded_cauchy_quantile(p: jax.Array, median: jax.Array, deviation: jax.Array) -> jax.Array:
    """The quantile of |x| for x of a Cauchy distribution, for p in [0, 1).

    Of F(q) = (atan((q - mu) / s) + atan((q + mu) / s)) / pi the tangent of the sum gives a
    quadratic equation for q.
    """
    sine, cosine = jnp.sin(jnp.pi * p), deviation * jnp.cos(jnp.pi * p)
    size = jnp.hypot(deviation, median)
    root = jnp.hypot(size * sine, cosine)
    of_small = size * (size * sine / _nonzero(root + cosine))  # without cancellation near p = 0
    return jnp.where(cosine > 0, of_small, (root - cosine) / _nonzero(sine))


def _nonzero(x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, x, 1.0)


def _accumulate(m, g, *, b1):
    return (b1 * m + g,)


def _soften(g, m, *, a, q):
    del g
    a, q = a.astype(m.dtype), q.astype(m.dtype)
    return (jnp.where(q > 0, jnp.tanh(a / _nonzero(q) * m), jnp.sign(m)),)


@jax.jit  # so that an eager step compiles it once
def _fitted_when(
    is_time: jax.Array, mu: PyTree, median: jax.Array, deviation: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The median of all entries and the median distance from it, fitted anew or unchanged."""

    def fit():
        center = _lower_median(mu, jnp.zeros_like(median), _signed)
        return center, _lower_median(mu, center, _distance)

    return jax.lax.cond(is_time, fit, lambda: (median, deviation))


def _lower_median(tree, center, of):
    """The lower median by bisection over the values: no leaf is sorted, or moved to another's."""
    terms = of_leaves(_extent, tree, center=center)
    if not terms:
        return center
    size = sum(x.size for x in jax.tree.leaves(tree))
    largest = jnp.max(jnp.stack([high for (high,) in terms])).astype(center.dtype)
    goal = (size + 1) // 2

    def narrow(_, bounds):
        low, high = bounds
        middle = low + (high - low) / 2
        counts = of_leaves(of, tree, center=center, bound=middle)
        is_high_enough = sum(count for (count,) in counts) >= goal
        return jnp.where(is_high_enough, low, middle), jnp.where(is_high_enough, middle, high)

    return jax.lax.fori_loop(0, _BISECTIONS, narrow, (-2 * largest, largest))[1]


def _extent(m, *, center):
    return (jnp.max(jnp.abs(m - center.astype(m.dtype)), initial=0.0),)


def _signed(m, *, center, bound):
    return (jnp.sum(m - center.astype(m.dtype) <= bound.astype(m.dtype), dtype=m.dtype),)


def _distance(m, *, center, bound):
    distance = jnp.abs(m - center.astype(m.dtype))
    return (jnp.sum(distance <= bound.astype(m.dtype), dtype=m.dtype),)
