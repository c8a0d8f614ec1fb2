"""StoSignSGD: a sign that is right on average."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lion_jax._core.checks import check_real
from lion_jax._core.counters import wrapping_count, zero
from lion_jax._core.kinds import DECAY_RATE, KEY, NON_NEGATIVE, SHARES
from lion_jax._core.leafwise import map_leaves, zeros_like
from lion_jax._core.leaves import is_none
from lion_jax._core.rule import chain, optimizer, primitive
from lion_jax._core.types import Mask
from lion_jax.primitives.decay import add_decoupled_weight_decay


class StochasticSignumState(NamedTuple):
    """State of `stochastic_signum`.

    Attributes:
      sign_count: updates so far, int32 of shape (): each has random numbers of its own. The
        smallest follows the largest.
      mu: momentum m, a tree like the parameters, at least float32.
      largest: the largest magnitude of each entry's gradients so far, of the same shapes and
        dtypes.
    """

    sign_count: jax.Array
    mu: optax.Updates
    largest: optax.Updates


@optimizer(
    learning_rate=NON_NEGATIVE.trying("1e-4"),
    key=KEY,
    b1=DECAY_RATE,
    weight_decay=NON_NEGATIVE,
    mask=SHARES,
)
def stochastic_signum(
    learning_rate: optax.ScalarOrSchedule,
    key: jax.Array,
    b1: optax.ScalarOrSchedule = 0.9,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    r"""StoSignSGD: a random sign whose mean is the momentum; nobody but its authors has tried it.

    .. math::

      m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad G_t = \max(G_{t-1}, |g_t|) \\
      u_t &= \operatorname{sign}(m_t + G_t \odot \xi_t), \qquad \xi_t \sim U[-1, 1] \\
      \theta_t &= \theta_{t-1} - \eta_t (u_t + \lambda \theta_{t-1})

    so that :math:`\operatorname{E} u_t = m_t / G_t`, entry by entry: an entry whose gradients
    cancel stays where it is on average, where Signum's would wander at full speed.

    Args:
      learning_rate: :math:`\eta` >= 0, in the parameters' units.
      key: one key of ``jax.random``; the state does not hold it.
      b1: :math:`\beta_1` in [0, 1), the decay rate of the momentum.
      weight_decay: :math:`\lambda` >= 0. It stands before the learning rate, as in AdamW.
      mask: which leaves decay, or how much of :math:`\lambda` each gets; see
        :mod:`lion_jax.groups`. None is all.

    Returns:
      A transformation. ``optax.apply_updates`` adds its updates, of the parameters' shapes, dtypes
      and units; :func:`lion_jax.hyperparameters` reads its state, a :class:`HyperparametersState`.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type; parameters missing.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from lion_jax import experimental
      >>> tx = experimental.stochastic_signum(1.0, jax.random.key(0), b1=0.5)
      >>> params = jnp.zeros(1000)
      >>> updates, _ = tx.update(jnp.ones(1000), tx.init(params), params)
      >>> print(f"{updates.mean():.1f}")  # m / G is 0.5
      -0.5

    References:
      `StoSignSGD <https://arxiv.org/abs/2604.15416>`_, 2026. No code is published; the equation is
      the paper's.
    """
    return chain(
        _scale_by_stochastic_sign(key, b1),
        add_decoupled_weight_decay(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )


@primitive(b1=DECAY_RATE)
def _scale_by_stochastic_sign(
    key: jax.Array, b1: optax.ScalarOrSchedule
) -> optax.GradientTransformationExtraArgs:
    def init_fn(params):
        check_real(params, "stochastic_signum")
        return StochasticSignumState(zero(), zeros_like(params), zeros_like(params))

    def update_fn(updates, state, params=None, **extra_args):
        del params, extra_args
        check_real(updates, "stochastic_signum")
        count, mu, largest = state
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
        step_key = jax.random.fold_in(key, count)
        noise = [
            None if g is None else _noise(step_key, np.uint32(i), jnp.shape(g))
            for i, g in enumerate(leaves)
        ]
        columns = (treedef.flatten_up_to(mu), treedef.flatten_up_to(largest))
        new = map_leaves(_stochastic_sign, (leaves, *columns), (noise,), b1=b1)
        updates, mu, largest = map(treedef.unflatten, new)
        return updates, StochasticSignumState(wrapping_count(count), mu, largest)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _noise(key: jax.Array, index: np.uint32, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.uniform(jax.random.fold_in(key, index), shape, minval=-1.0, maxval=1.0)


def _stochastic_sign(g, m, largest, xi, *, b1):
    m = b1 * m + (1 - b1) * g
    largest = jnp.maximum(largest, jnp.abs(g))
    return jnp.sign(m + largest * xi), m, largest
