"""Scout: lookahead whose slow step depends on how coherent the fast steps were."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.checks import check_has_params, check_real
from lion_jax._core.counters import zero
from lion_jax._core.inner import update
from lion_jax._core.kinds import FRACTION, TRANSFORMATION, integer
from lion_jax._core.leafwise import map_leaves
from lion_jax._core.leaves import has_gradient, is_none, is_weight, numbers_of
from lion_jax._core.rule import combinator, number
from lion_jax.combinators._slow_weights import as_dtype_of, check_not_rounded, copy, synchronize


class ScoutState(NamedTuple):
    """State of `scout`.

    Attributes:
      slow_params: slow weights, a tree like the parameters, each leaf of its parameter's shape and
        dtype, but at least float32.
      steps_since_sync: steps since fast and slow weights were equal, int32 of shape (), less than
        the synchronization period.
      update_mean: mean of the fast steps since then, like the slow weights.
      update_spread: sum of their squared distances from the mean, like the slow weights.
      update_min: the smallest of them, like the slow weights.
      update_max: the largest of them, like the slow weights.
      inner_state: state of the inner transformation.
    """

    slow_params: optax.Params
    steps_since_sync: jax.Array
    update_mean: optax.Updates
    update_spread: optax.Updates
    update_min: optax.Updates
    update_max: optax.Updates
    inner_state: optax.OptState


@combinator(inner=TRANSFORMATION, sync_period=integer(2), min_slow_step_size=FRACTION)
def scout(
    inner: optax.GradientTransformation,
    sync_period: int = 6,
    min_slow_step_size: optax.ScalarOrSchedule = 0.5,
) -> optax.GradientTransformationExtraArgs:
    r"""Wraps any transformation in Scout: lookahead with a slow step chosen by the fast ones.

    As in :func:`lookahead`, the inner transformation moves the parameters :math:`\theta` by
    :math:`U_1, \dots, U_k`; after the k-th step

    .. math::

      c &= \operatorname*{mean}_{\text{leaves}} \operatorname*{mean}_i
        \frac{\operatorname{std}_j U_{j,i}}{\max_j |U_{j,i} - \bar U_i|}, \qquad
        \alpha = \max(1 - c, \alpha_{\min}) \\
      \phi &\leftarrow \phi + \alpha (\theta - \phi), \qquad \theta \leftarrow \phi

    with the standard deviation of a sample, :math:`k - 1` below, and :math:`0 / 0 = 0` for an entry
    that moves evenly or not at all. Everything comes from running statistics: the state does not
    grow with the period. As with :func:`lookahead`, its updates must reach the parameters
    unmodified, and under :func:`lion_jax.precision.with_master_weights` it belongs inside.

    Args:
      inner: the transformation that moves the fast weights, its learning rate included.
      sync_period: k >= 2, in steps.
      min_slow_step_size: :math:`\alpha_{\min}` in [0, 1].

    Returns:
      A transformation from gradients to updates of the parameters' shapes and units, in the inner
      transformation's dtypes. The state is a :class:`ScoutState`, five copies of the parameters
      beside the inner one; :func:`slow_params` reads the slow weights.

    Raises:
      ValueError: ``sync_period`` or ``min_slow_step_size`` out of range; at ``init``, an ``inner``
        that rounds the parameters; at ``update``, missing parameters.
      TypeError: an ``inner`` that is no transformation, a number of the wrong type; a complex leaf
        or update, by its path.

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
    return scout_with(inner, sync_period, min_slow_step_size, standstill=0.0)


def scout_with(
    inner: optax.GradientTransformation,
    sync_period: int,
    min_slow_step_size: optax.ScalarOrSchedule,
    standstill: float,
) -> optax.GradientTransformationExtraArgs:
    """`scout` with another value for 0 / 0. A coherence of NaN makes a slow step of 0."""
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        check_real(numbers_of(params), "scout")
        inner_state = inner.init(params)
        check_not_rounded(
            "scout",
            inner_state,
            with_master_weights="with_master_weights(scout(inner))",
            round_stochastically="optax.chain(scout(inner), round_stochastically(key))",
        )
        slow = copy(params)
        zeros = (jax.tree.map(jnp.zeros_like, slow) for _ in range(4))
        return ScoutState(slow, zero(), *zeros, inner_state=inner_state)

    def update_fn(updates, state, params=None, **extra_args):
        check_has_params(params, "scout")
        updates, inner_state = update(inner, updates, state.inner_state, params, **extra_args)
        j = state.steps_since_sync + 1
        is_sync = j >= jnp.asarray(sync_period, jnp.int32)
        statistics = _observe_leaves(updates, state.slow_params, state[2:6], j)
        c = jax.lax.cond(is_sync, _coherence, _no_coherence, statistics, j, standstill)
        alpha = jnp.maximum(1 - c, as_dtype_of(number(min_slow_step_size), c))
        alpha = jnp.where(jnp.isnan(c), 0.0, alpha)
        updates, slow = synchronize(updates, params, state.slow_params, is_sync, alpha)
        steps_since_sync = jnp.where(is_sync, 0, j)
        return updates, ScoutState(slow, steps_since_sync, *statistics, inner_state=inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _observe_leaves(updates, slow_params, statistics, j):
    """The statistics after a step; one of no gradient is a step of 0."""
    slow, treedef = jax.tree.flatten(slow_params, is_leaf=is_none)
    us = treedef.flatten_up_to(updates)
    columns = [treedef.flatten_up_to(tree) for tree in statistics]
    ours = [i for i, s in enumerate(slow) if is_weight(s)]
    steps = [jnp.asarray(us[i]) if has_gradient(us[i]) else jnp.zeros_like(slow[i]) for i in ours]
    _, *new = map_leaves(_observe, (steps, *([column[i] for i in ours] for column in columns)), j=j)
    for column, of_ours in zip(columns, new, strict=True):
        for i, x in zip(ours, of_ours, strict=True):
            column[i] = x
    return tuple(treedef.unflatten(column) for column in columns)


def _observe(u, mean, spread, low, high, *, j):
    """Statistics of j steps from those of j - 1 (Welford's recurrence)."""
    is_first = j == 1
    old_mean = jnp.where(is_first, 0, mean)
    mean = old_mean + (u - old_mean) / as_dtype_of(j, u)
    spread = jnp.where(is_first, 0, spread + (u - old_mean) * (u - mean))
    low = jnp.where(is_first, u, jnp.minimum(low, u))
    high = jnp.where(is_first, u, jnp.maximum(high, u))
    return u, mean, spread, low, high


def _coherence(statistics, j, standstill):
    """The mean over leaves of the mean ratio of standard deviation to largest deviation."""
    leaves = zip(*(jax.tree.leaves(tree) for tree in statistics), strict=True)
    ratios = [_mean_ratio(leaf, j, standstill) for leaf in leaves if _has_steps(leaf[0])]
    if not ratios:
        return jnp.zeros(())
    dtype = max((ratio.dtype for ratio in ratios), key=lambda dtype: jnp.finfo(dtype).bits)
    return jnp.mean(jnp.stack([ratio.astype(dtype) for ratio in ratios])).astype(float)


def _no_coherence(statistics, j, standstill):
    del statistics, j, standstill
    return jnp.zeros(())


def _has_steps(leaf):
    return is_weight(leaf) and leaf.size > 0


def _mean_ratio(statistics, j, standstill):
    mean, spread, low, high = statistics
    degrees = as_dtype_of(jnp.maximum(j - 1, 1), spread)
    # An entry without a spread has a root of 0, and no derivative of it.
    has_spread = spread != 0
    std = jnp.where(has_spread, jnp.sqrt(jnp.where(has_spread, spread, 1) / degrees), 0)
    deviation = jnp.maximum(high - mean, mean - low)
    moves = deviation > 0
    ratio = std / jnp.where(moves, deviation, 1.0)
    return jnp.mean(jnp.where(moves, ratio, as_dtype_of(standstill, ratio)))
