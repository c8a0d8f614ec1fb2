"""Lookahead: k steps forward, one step back."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.checks import check_has_params
from lion_jax._core.counters import zero
from lion_jax._core.inner import update
from lion_jax._core.kinds import FLAG, FRACTION, TRANSFORMATION, integer
from lion_jax._core.leaves import is_none, is_weight
from lion_jax._core.rule import combinator, number
from lion_jax._core.states import the_only
from lion_jax.combinators._slow_weights import check_not_rounded, copy, synchronize


class LookaheadState(NamedTuple):
    """State of `lookahead`.

    Attributes:
      slow_params: slow weights, a tree like the parameters, each leaf of its parameter's shape and
        dtype, but at least float32.
      steps_since_sync: steps since fast and slow weights were equal, int32 of shape (), less than
        the synchronization period.
      inner_state: state of the inner transformation.
    """

    slow_params: optax.Params
    steps_since_sync: jax.Array
    inner_state: optax.OptState


@combinator(inner=TRANSFORMATION, sync_period=integer(), slow_step_size=FRACTION, reset_inner=FLAG)
def lookahead(
    inner: optax.GradientTransformation,
    sync_period: int = 6,
    slow_step_size: optax.ScalarOrSchedule = 0.5,
    *,
    reset_inner: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Wraps any transformation in Lookahead: every k steps the weights go back part of the way.

    The training loop's parameters are the fast weights :math:`\theta`, the slow weights
    :math:`\phi` live in the state. The inner transformation moves :math:`\theta` at every step;
    at every k-th step, after it,

    .. math::

      \phi &\leftarrow \phi + \alpha (\theta - \phi) \\
      \theta &\leftarrow \phi

    with :math:`\phi_0 = \theta_0`. Unlike ``optax.lookahead`` it needs no pair of parameters: any
    training loop, ``flax`` state or checkpoint that knows ``optax.apply_updates`` works unchanged.
    Its updates must reach the parameters unmodified: chain nothing after it but
    :func:`lion_jax.precision.round_stochastically`. Under
    :func:`lion_jax.precision.with_master_weights` it belongs inside: outside, it would keep the
    rounded weights.

    Args:
      inner: the transformation that moves the fast weights, its learning rate included.
      sync_period: k >= 1, in steps.
      slow_step_size: :math:`\alpha` in [0, 1]. 1 does not change the inner transformation; 0 never
        moves the slow weights.
      reset_inner: whether the inner state starts anew at each synchronization: its moments, the
        states of combinators inside, and its step counters, so a schedule inside begins again.

    Returns:
      A transformation from gradients to updates of the parameters' shapes and units, in the inner
      transformation's dtypes. After a synchronization parameters and slow weights are equal; where
      the parameters or the updates are narrower than float32, up to the rounding of
      :math:`\theta + (\phi - \theta)`. The state is a :class:`LookaheadState`, read
      by :func:`slow_params`: the inner one and one more copy of the parameters, abstract where
      ``init`` gets a ``jax.ShapeDtypeStruct``.

    Raises:
      ValueError: ``sync_period`` or ``slow_step_size`` out of range; at ``init``, an ``inner`` that
        rounds the parameters; at ``update``, missing parameters.
      TypeError: an ``inner`` that is no transformation, a number of the wrong type; at ``update``,
        a complex update of a real parameter, by its path.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> import lion_jax
      >>> tx = lion_jax.lookahead(optax.sgd(1.0), sync_period=2, slow_step_size=0.5)
      >>> params = jnp.array([0.0])
      >>> state = tx.init(params)
      >>> for _ in range(4):
      ...     updates, state = tx.update(jnp.array([-1.0]), state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     print(params, lion_jax.slow_params(state))
      [1.] [0.]
      [1.] [1.]
      [2.] [1.]
      [2.] [2.]

    References:
      Zhang et al., `Lookahead Optimizer: k steps forward, 1 step back
      <https://arxiv.org/abs/1907.08610>`_, 2019, Algorithm 1.
    """
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        inner_state = inner.init(params)
        check_not_rounded(
            "lookahead",
            inner_state,
            with_master_weights="with_master_weights(lookahead(inner))",
            round_stochastically="optax.chain(lookahead(inner), round_stochastically(key))",
        )
        return LookaheadState(copy(params), zero(), inner_state)

    def update_fn(updates, state, params=None, **extra_args):
        check_has_params(params, "lookahead")
        updates, inner_state = update(inner, updates, state.inner_state, params, **extra_args)
        steps_since_sync = state.steps_since_sync + 1
        is_sync = steps_since_sync >= jnp.asarray(sync_period, jnp.int32)
        slow_step = number(slow_step_size)
        updates, slow = synchronize(updates, params, state.slow_params, is_sync, slow_step)
        if reset_inner:
            synchronized = _as_stored(slow, params)
            inner_state = jax.tree.map(
                lambda new, old: jnp.where(is_sync, new, old), inner.init(synchronized), inner_state
            )
        return updates, LookaheadState(
            slow_params=slow,
            steps_since_sync=jnp.where(is_sync, 0, steps_since_sync),
            inner_state=inner_state,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _as_stored(slow, params):
    """Slow weights in the dtypes of the parameters."""
    leaves, treedef = jax.tree.flatten(slow, is_leaf=is_none)
    pairs = zip(leaves, treedef.flatten_up_to(params), strict=True)
    return treedef.unflatten(
        [s.astype(jnp.result_type(p)) if is_weight(s) else s for s, p in pairs]
    )


def slow_params(state: optax.OptState) -> optax.Params:
    """The slow weights in the state of a :func:`lookahead` or :func:`scout`, for evaluation.

    Args:
      state: the optimizer state that holds one :class:`LookaheadState` or :class:`ScoutState`, at
        any depth: in a chain, under ``optax.MultiSteps`` and the like.

    Returns:
      A tree like the parameters, of their shapes and dtypes, but at least float32.

    Raises:
      ValueError: no lookahead or scout in the state, or several.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> import lion_jax
      >>> tx = optax.chain(optax.clip(1.0), lion_jax.lookahead(lion_jax.lion(1e-4)))
      >>> print(lion_jax.slow_params(tx.init(jnp.ones(2))))
      [1. 1.]
    """
    return the_only(state, "slow_params", "lookahead or scout", "LookaheadState", "ScoutState")
