"""Lookahead: k steps forward, one step back."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._checks import (
    check_flag,
    check_has_params,
    check_positive_integer,
    check_scalars,
    check_transformation,
)
from lion_jax._dtypes import at_least_float32
from lion_jax._leafwise import map_leaves
from lion_jax._schedules import accepts_schedules


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


@accepts_schedules("slow_step_size")
def lookahead(
    inner: optax.GradientTransformation,
    sync_period: int = 6,
    slow_step_size: optax.ScalarOrSchedule = 0.5,
    *,
    reset_inner: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Lookahead around any transformation: every k steps the weights go back part of the way.

    The training loop's parameters are the fast weights :math:`\theta`, the slow weights
    :math:`\phi` live in the state. The inner transformation moves :math:`\theta` at every step;
    at every k-th step, after it,

    .. math::

      \phi &\leftarrow \phi + \alpha (\theta - \phi) \\
      \theta &\leftarrow \phi

    with :math:`\phi_0 = \theta_0`. Unlike ``optax.lookahead`` it needs no pair of parameters: any
    training loop, ``flax`` state or checkpoint that knows ``optax.apply_updates`` works unchanged.
    Its updates must reach the parameters unmodified: chain nothing after it.

    Args:
      inner: the transformation that moves the fast weights, its learning rate included.
      sync_period: k >= 1, in steps. ``static_args`` for ``optax.inject_hyperparams``:
        ``("inner", "sync_period", "reset_inner")``.
      slow_step_size: :math:`\alpha` in [0, 1]: a number, a traced scalar, or a schedule from the
        step count. 1 leaves the inner transformation as it is; 0 never moves the slow weights.
      reset_inner: whether the inner state starts anew at each synchronization: its moments, and
        its step counters too, so that a schedule inside begins again.

    Returns:
      A transformation from gradients to updates of the parameters' shapes and units, in the inner
      transformation's dtypes. After a synchronization parameters and slow weights are equal; where
      the parameters are narrower than float32, up to the rounding of
      :math:`\theta + (\phi - \theta)`. The state is a :class:`LookaheadState`, read
      by :func:`slow_params`: the inner one and one more copy of the parameters, abstract where
      ``init`` gets a ``jax.ShapeDtypeStruct``.

    Raises:
      ValueError: ``sync_period`` or ``slow_step_size`` out of range; at ``update``, missing
        parameters.
      TypeError: an ``inner`` that is no transformation, a number of the wrong type.

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
    check_transformation("inner", inner)
    check_positive_integer("sync_period", sync_period, remedy=6)
    check_scalars(slow_step_size=slow_step_size)
    check_flag("reset_inner", reset_inner)
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        return LookaheadState(
            slow_params=jax.tree.map(_copy, params),
            steps_since_sync=jnp.zeros((), jnp.int32),
            inner_state=inner.init(params),
        )

    def update_fn(updates, state, params=None, **extra_args):
        check_has_params(params, "lookahead")
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
        steps_since_sync = state.steps_since_sync + 1
        is_sync = steps_since_sync >= sync_period
        # Slow weights are touched at synchronizations only, in one conditional for all leaves. They
        # become what the parameters became, which are in memory anyway; but where parameters are
        # narrower, slow weights take the step themselves, and the parameters follow.
        wide, narrow = _split(updates, state.slow_params)
        wide, new_params = map_leaves(
            _synchronize,
            (wide, params),
            (state.slow_params,),
            is_sync=is_sync,
            slow_step_size=slow_step_size,
        )
        sources = jax.tree.map(_source, state.slow_params, wide, narrow, params, new_params)
        slow = jax.lax.cond(is_sync, _renew, _keep, state.slow_params, sources, slow_step_size)
        (narrow,) = map_leaves(_follow, (narrow,), (params, slow), is_sync=is_sync)
        updates = jax.tree.map(
            lambda w, n: n if w is None else w, wide, narrow, is_leaf=lambda x: x is None
        )
        if reset_inner:
            synchronized = jax.tree.map(lambda s, p: s.astype(jnp.result_type(p)), slow, params)
            inner_state = jax.tree.map(
                lambda new, old: jnp.where(is_sync, new, old), inner.init(synchronized), inner_state
            )
        return updates, LookaheadState(
            slow_params=slow,
            steps_since_sync=jnp.where(is_sync, 0, steps_since_sync),
            inner_state=inner_state,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _slow_step(slow, fast, slow_step_size):
    return slow + slow_step_size * (fast - slow)


def _synchronize(u, p, slow, *, is_sync, slow_step_size):
    """The update, and the parameters after it."""
    u = jnp.where(is_sync, _slow_step(slow, p + u, slow_step_size) - p, u)
    return u, p + u


def _follow(u, p, slow, *, is_sync):
    return (jnp.where(is_sync, slow - p, u),)


def _split(updates, slow_params):
    """The updates as wide as their slow weights and the others, each with None for the rest."""

    def split(is_wide):
        return jax.tree.map(
            lambda u, s: u if u is not None and (u.dtype == s.dtype) is is_wide else None,
            updates,
            slow_params,
            is_leaf=lambda x: x is None,
        )

    return split(True), split(False)


def _source(slow, wide, narrow, p, new_p):
    """What slow weights are renewed from: the new parameters, or the old ones and the update."""
    del slow
    if wide is not None:
        return (new_p,)
    return () if narrow is None else (p, narrow)


def _renew(slow, sources, slow_step_size):
    def renew(slow, source):
        match source:
            case ():  # no gradient
                return slow
            case (new_p,):
                return new_p
            case (p, u):
                fast = p.astype(slow.dtype) + u.astype(slow.dtype)
                return _slow_step(slow, fast, slow_step_size).astype(slow.dtype)

    return jax.tree.map(renew, slow, sources)


def _keep(slow, sources, slow_step_size):
    del sources, slow_step_size
    return slow


def slow_params(state: optax.OptState) -> optax.Params:
    """The slow weights in the state of a :func:`lookahead`, for evaluation.

    Args:
      state: the optimizer state that holds one :class:`LookaheadState`, at any depth: in a chain,
        under ``optax.MultiSteps`` and the like.

    Returns:
      A tree like the parameters, of their shapes and dtypes, but at least float32.

    Raises:
      ValueError: no lookahead in the state, or several.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> import lion_jax
      >>> tx = optax.chain(optax.clip(1.0), lion_jax.lookahead(lion_jax.lion(1e-4)))
      >>> print(lion_jax.slow_params(tx.init(jnp.ones(2))))
      [1. 1.]
    """
    found = optax.tree_utils.tree_get_all_with_path(
        state,
        "slow_params",
        filtering=lambda path, _: getattr(path[-1], "tuple_name", "") == "LookaheadState",
    )
    if len(found) != 1:
        where = ", ".join(jax.tree_util.keystr(path) for path, _ in found) or "none"
        raise ValueError(
            f"state must hold the state of one lookahead; found {len(found)} ({where}). "
            "Try the state of the part that you mean."
        )
    return found[0][1]


def _copy(p: jax.typing.ArrayLike | jax.ShapeDtypeStruct) -> jax.Array | jax.ShapeDtypeStruct:
    """A copy of its own, so that parameters and state can both be donated."""
    dtype = at_least_float32(p)
    if isinstance(p, jax.ShapeDtypeStruct):
        return p.update(dtype=dtype)
    return jnp.array(p, dtype, copy=True)
