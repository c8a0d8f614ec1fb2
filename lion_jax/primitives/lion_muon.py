"""LionMuon's directions and rates: orthogonalized in some steps, signs in the others."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.kinds import DECAY_RATE, NON_NEGATIVE, integer
from lion_jax._core.leafwise import leafwise
from lion_jax._core.rule import primitive
from lion_jax.primitives.momentum import interpolate
from lion_jax.primitives.orthogonal import EPS, MUONS, polar_factor

COUNT = integer(is_traced=False)
RATE = NON_NEGATIVE.trying("2e-2", "Muon's")
SIGN_RATE = NON_NEGATIVE.trying("2e-4", "a hundredth of Muon's")


class ScaleByLionMuonState(NamedTuple):
    """State of `scale_by_lion_muon`.

    Attributes:
      count: updates so far, int32 of shape ().
      mu: momentum m, a tree like the parameters, at least float32.
    """

    count: jax.Array
    mu: optax.Updates


class AlternatingRateState(NamedTuple):
    """State of `scale_by_alternating_rate`.

    Attributes:
      count: updates so far, int32 of shape ().
    """

    count: jax.Array


@primitive(b1=DECAY_RATE, b2=DECAY_RATE, period=COUNT, steps=COUNT)
def scale_by_lion_muon(
    b1: optax.ScalarOrSchedule = 0.95,
    b2: optax.ScalarOrSchedule = 0.99,
    *,
    period: int = 2,
    steps: int = 5,
) -> optax.GradientTransformationExtraArgs:
    r"""Orthogonalizes Lion's momentum in every P-th step, and takes its sign in the others.

    .. math::

      c_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad
        m_t = \beta_2 m_{t-1} + (1 - \beta_2) g_t \\
      u_t &= \begin{cases}
        0.2 \sqrt{\max(r, c)} \operatorname{NS}(c_t) & \text{if } P \text{ divides } t - 1 \\
        \operatorname{sign}(c_t) & \text{otherwise}
      \end{cases}

    with Muon's Newton-Schulz iteration, see :func:`~lion_jax.primitives.orthogonalize`; its factor
    gives a matrix of r rows and c columns a root mean square of about 0.2. A leaf of more than two
    axes is viewed as (first axis, all others), as the authors do: for stacked layers wrap it in
    :func:`lion_jax.per_layer`. A leaf of fewer axes takes the sign in every step.

    Args:
      b1: :math:`\beta_1` in [0, 1), the weight of the momentum in the update.
      b2: :math:`\beta_2` in [0, 1), the decay rate of the momentum.
      period: P >= 1; the first step is orthogonalized.
      steps: iterations of Newton-Schulz, >= 1.

    Returns:
      A transformation from gradients to updates of the same shapes, without unit, in the
      parameters' dtype. Its state is a :class:`ScaleByLionMuonState`.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type; a complex leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import scale_by_lion_muon
      >>> tx, gradient = scale_by_lion_muon(), jnp.array([[2.0, 0.0], [0.0, 8.0]])
      >>> state = tx.init(gradient)
      >>> for _ in range(2):
      ...     updates, state = tx.update(gradient, state)
      ...     print(f"{updates[0, 0]:.2f} {updates[1, 1]:.2f}")
      0.21 0.21
      1.00 1.00

    References:
      `LionMuon <https://arxiv.org/abs/2605.19811>`_, 2026; the authors' code
      (brain-lab-research/lion-muon).
    """
    return leafwise(
        _lion_muon,
        ScaleByLionMuonState,
        real_for="scale_by_lion_muon",
        b1=b1,
        b2=b2,
        period=(int(period),),
        steps=(int(steps),),
    )


@primitive(learning_rate=RATE, sign_learning_rate=SIGN_RATE, period=COUNT)
def scale_by_alternating_rate(
    learning_rate: optax.ScalarOrSchedule,
    sign_learning_rate: optax.ScalarOrSchedule,
    *,
    period: int = 2,
) -> optax.GradientTransformationExtraArgs:
    r"""Multiplies by one learning rate in every P-th step, and by another in the others.

    .. math::

      u_t \leftarrow -\nu_t u_t, \qquad \nu_t = \begin{cases}
        \eta_t & \text{if } P \text{ divides } t - 1 \\ \eta^s_t & \text{otherwise}
      \end{cases}

    Leaves of rank 0 and 1, which are never orthogonalized, have :math:`\eta^s` in every step.

    Args:
      learning_rate: :math:`\eta` >= 0.
      sign_learning_rate: :math:`\eta^s` >= 0.
      period: P >= 1.

    Returns:
      A transformation of updates that keeps shapes, in the parameters' units and dtype. Its state
      is an :class:`AlternatingRateState`.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import scale_by_alternating_rate
      >>> tx, updates = scale_by_alternating_rate(0.5, 0.25), jnp.ones((1, 1))
      >>> state = tx.init(updates)
      >>> for _ in range(3):
      ...     scaled, state = tx.update(updates, state)
      ...     print(scaled[0, 0])
      -0.5
      -0.25
      -0.5
    """
    return leafwise(
        _alternating_rate,
        AlternatingRateState,
        eta=learning_rate,
        eta_sign=sign_learning_rate,
        period=(int(period),),
    )


def _lion_muon(g, m, *, t, b1, b2, period, steps):
    c, m = interpolate(g, m, b1=b1, b2=b2)
    if c.ndim < 2 or c.size == 0:
        return jnp.sign(c), m
    u = jax.lax.cond(_is_orthogonal(t, *period), lambda c: _polar(c, *steps), jnp.sign, c)
    return u, m


def _polar(c, steps):
    matrix = c.reshape(c.shape[0], -1)
    return 0.2 * max(matrix.shape) ** 0.5 * polar_factor(matrix, steps, MUONS, EPS).reshape(c.shape)


def _alternating_rate(u, *, t, eta, eta_sign, period):
    is_orthogonal = _is_orthogonal(t, *period) if u.ndim > 1 else False
    return (-jnp.where(is_orthogonal, eta, eta_sign).astype(u.dtype) * u,)


def _is_orthogonal(t, period):
    """Tells whether update t, counted from 1, is one of those."""
    return (t - 1) % period == 0
