"""Scout: lookahead with a slow step as long as the fast steps were incoherent."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._checks import (
    check_has_params,
    check_positive_integer,
    check_real,
    check_scalars,
    check_transformation,
)
from lion_jax._leafwise import map_leaves
from lion_jax._schedules import accepts_schedules
from lion_jax.combinators._inner import update
from lion_jax.combinators._slow_weights import copy, synchronize


class ScoutState(NamedTuple):
    """State of `scout`.

    Attributes:
      slow_params: slow weights, a tree like the parameters, each leaf of its parameter's shape and
        dtype, but at least float32.
      steps_since_sync: steps since fast and slow weights were equal, int32 of shape (), less than
        the synchronization period.
      update_mean: mean of the fast steps since then, like the slow weights.
      update_spread: sum of their squared distances from the mean, likewise.
      update_min: the smallest of them, likewise.
      update_max: the largest, likewise.
      inner_state: state of the inner transformation.
    """

    slow_params: optax.Params
    steps_since_sync: jax.Array
    update_mean: optax.Updates
    update_spread: optax.Updates
    update_min: optax.Updates
    update_max: optax.Updates
    inner_state: optax.OptState


@accepts_schedules("min_slow_step_size")
def scout(
    inner: optax.GradientTransformation,
    sync_period: int = 6,
    min_slow_step_size: optax.ScalarOrSchedule = 0.5,
) -> optax.GradientTransformationExtraArgs:
    r"""Lookahead around any transformation, with a slow step that the fast ones decide on.

    As in :func:`lookahead`, the inner transformation moves the parameters :math:`\theta` by
    :math:`U_1, \dots, U_k`; after the k-th step

    .. math::

      c &= \operatorname*{mean}_{\text{leaves}} \operatorname*{mean}_i
        \frac{\operatorname{std}_j U_{j,i}}{\max_j |U_{j,i} - \bar U_i|}, \qquad
        \alpha = \max(1 - c, \alpha_{\min}) \\
      \phi &\leftarrow \phi + \alpha (\theta - \phi), \qquad \theta \leftarrow \phi

    with the standard deviation of a sample, :math:`k - 1` below, and :math:`0 / 0 = 0` for an entry
    that moves evenly or not at all. Everything comes from running statistics: the state does
    not grow with the period. Its updates must reach the parameters unmodified: chain nothing after
    it.

    Args:
      inner: the transformation that moves the fast weights, its learning rate included.
      sync_period: k >= 2, in steps. ``static_args`` for ``optax.inject_hyperparams``:
        ``("inner", "sync_period")``.
      min_slow_step_size: :math:`\alpha_{\min}` in [0, 1]: a number, a traced scalar, or a schedule
        from the step count.

    Returns:
      A transformation from gradients to updates of the parameters' shapes and units, in the inner
      transformation's dtypes. The state is a :class:`ScoutState`, five copies of the parameters
      beside the inner one; :func:`slow_params` reads the slow weights.

    Raises:
      ValueError: ``sync_period`` or ``min_slow_step_size`` out of range; at ``update``, missing
        parameters.
      TypeError: an ``inner`` that is no transformation, a number of the wrong type; a complex leaf.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> import lion_jax
      >>> tx = lion_jax.scout(optax.sgd(1.0), sync_period=3, min_slow_step_size=0.0)
      >>> params = jnp.array(0.0)
      >>> state = tx.init(params)
      >>> for gradient in (-1.0, -2.0, -3.0):  # std 1, at most 1 away from the mean: c = 1
      ...     updates, state = tx.update(jnp.array(gradient), state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     print(params)
      1.0
      3.0
      0.0

    References:
      Zhang et al., `Lookahead Optimizer <https://arxiv.org/abs/1907.08610>`_, 2019, Algorithm 1,
      for the slow weights; ``Scout`` of pylocron 0.3.0.
    """
    check_transformation("inner", inner)
    check_positive_integer("sync_period", sync_period, remedy=6, least=2)
    check_scalars(min_slow_step_size=min_slow_step_size)
    return scout_with(inner, sync_period, min_slow_step_size, standstill=0.0)


def scout_with(
    inner: optax.GradientTransformation,
    sync_period: int,
    min_slow_step_size: Any,
    standstill: float,
) -> optax.GradientTransformationExtraArgs:
    """`scout` with another value for 0 / 0. A coherence of NaN makes a slow step of 0."""
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        check_real(params, "scout")
        slow = copy(params)
        zeros = (jax.tree.map(jnp.zeros_like, slow) for _ in range(4))
        return ScoutState(slow, jnp.zeros((), jnp.int32), *zeros, inner_state=inner.init(params))

    def update_fn(updates, state, params=None, **extra_args):
        check_has_params(params, "scout")
        updates, inner_state = update(inner, updates, state.inner_state, params, **extra_args)
        j = state.steps_since_sync + 1
        is_sync = j >= sync_period
        moves = jax.tree.map(
            lambda slow, u: jnp.zeros_like(slow) if u is None else u, state.slow_params, updates
        )
        _, *statistics = map_leaves(_observe, (moves, *state[2:6]), j=j)
        c = jax.lax.cond(
            is_sync,
            lambda statistics: _coherence(statistics, j, standstill),
            lambda statistics: jnp.zeros(()),
            tuple(statistics),
        )
        alpha = jnp.where(jnp.isnan(c), 0.0, jnp.maximum(1 - c, min_slow_step_size))
        updates, slow = synchronize(updates, params, state.slow_params, is_sync, alpha)
        steps_since_sync = jnp.where(is_sync, 0, j)
        return updates, ScoutState(slow, steps_since_sync, *statistics, inner_state=inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _observe(u, mean, spread, low, high, *, j):
    """Statistics of j steps from those of j - 1 (Welford's recurrence)."""
    is_first = j == 1
    old_mean = jnp.where(is_first, 0, mean)
    mean = old_mean + (u - old_mean) / j
    spread = jnp.where(is_first, 0, spread + (u - old_mean) * (u - mean))
    low = jnp.where(is_first, u, jnp.minimum(low, u))
    high = jnp.where(is_first, u, jnp.maximum(high, u))
    return u, mean, spread, low, high


def _coherence(statistics, j, standstill):
    """The mean over leaves of the mean ratio of standard deviation to largest deviation."""
    leaves = zip(*(jax.tree.leaves(tree) for tree in statistics), strict=True)
    ratios = [_mean_ratio(leaf, j, standstill) for leaf in leaves if leaf[0].size]
    return jnp.mean(jnp.stack(ratios)).astype(float) if ratios else jnp.zeros(())


def _mean_ratio(statistics, j, standstill):
    mean, spread, low, high = statistics
    std = jnp.sqrt(spread / (j - 1))
    deviation = jnp.maximum(high - mean, mean - low)
    moves = deviation > 0
    return jnp.mean(jnp.where(moves, std / jnp.where(moves, deviation, 1.0), standstill))
