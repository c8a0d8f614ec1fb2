"""An average of the parameters beside the ones that are trained."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._checks import (
    check_has_params,
    check_peer,
    check_positive_integer,
    check_transformation,
)
from lion_jax._dtypes import map_present, round_to, widen
from lion_jax._leafwise import map_leaves
from lion_jax._schedules import accepts_schedules
from lion_jax._states import the_only
from lion_jax.combinators._inner import update
from lion_jax.combinators._slow_weights import copy
from lion_jax.primitives._moments import next_count, zero


class ParameterAverageState(NamedTuple):
    """State of `with_parameter_average`.

    Attributes:
      average: average of the parameters, a tree like them, each leaf of its parameter's shape and
        dtype, but at least float32; of integers the latest.
      averaged_calls: calls of `update` so far, int32 of shape ().
      inner_state: state of the inner transformation.
    """

    average: optax.Params
    averaged_calls: jax.Array
    inner_state: optax.OptState


@accepts_schedules("decay")
def with_parameter_average(
    inner: optax.GradientTransformation,
    decay: optax.ScalarOrSchedule = 0.99,
    overwrite_every: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Keeps an exponential moving average of the parameters, for evaluation.

    .. math::

      \bar\theta_1 &= \theta_1 \\
      \bar\theta_t &= \mu \bar\theta_{t-1} + (1 - \mu) \theta_t

    of the parameters :math:`\theta_t` as the inner transformation's update leaves them. It starts
    from the first of them, so there is no bias to correct. The updates are the inner ones, but at
    every n-th step, if so asked, they overwrite the parameters by the average.

    Unlike ``optax.ema``, which averages updates, it averages parameters. Its updates must reach the
    parameters unmodified: chain nothing after it.

    Args:
      inner: the transformation that moves the parameters, its learning rate included.
      decay: :math:`\mu` in [0, 1): a number, a traced scalar, or a schedule from the step count;
        about the last :math:`1 / (1 - \mu)` steps are in the average. The schedule
        ``lambda t: jnp.minimum(0.99, (1 + t) / (10 + t))`` forgets the start of training sooner.
      overwrite_every: n >= 1, in steps; None never overwrites. ``static_args`` for
        ``optax.inject_hyperparams``: ``("inner", "overwrite_every")``.

    Returns:
      A transformation from gradients to updates of the parameters' shapes and units, in the inner
      transformation's dtypes. The state is a :class:`ParameterAverageState`, read by
      :func:`averaged_params`. A parameter without a gradient keeps its average. After an overwrite
      parameters and average are equal; where the parameters or the updates are narrower than
      float32, up to the rounding of :math:`\theta + (\bar\theta - \theta)`.

    Raises:
      ValueError: ``decay`` or ``overwrite_every`` out of range; at ``update``, missing parameters.
      TypeError: an ``inner`` that is no transformation, a number of the wrong type.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> import lion_jax
      >>> tx = lion_jax.with_parameter_average(optax.sgd(1.0), decay=0.5)
      >>> params = jnp.array([0.0])
      >>> state = tx.init(params)
      >>> for _ in range(3):
      ...     updates, state = tx.update(jnp.array([-1.0]), state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     print(params, lion_jax.averaged_params(state))
      [1.] [1.]
      [2.] [1.5]
      [3.] [2.25]

    References:
      Polyak and Juditsky, `Acceleration of Stochastic Approximation by Averaging
      <https://doi.org/10.1137/0330046>`_, 1992; the exponential form, begun and overwritten as
      here: ``use_ema`` of Keras's optimizers.
    """
    check_transformation("inner", inner)
    check_peer(average_decay=("decay", decay))
    if overwrite_every is not None:
        check_positive_integer("overwrite_every", overwrite_every, remedy=100)
    return keep_average(inner, decay, overwrite_every)


def averaged_params(state: optax.OptState) -> optax.Params:
    """The average in the state of a :func:`with_parameter_average`, for evaluation.

    Args:
      state: the optimizer state that holds one :class:`ParameterAverageState`, at any depth: in a
        chain, under ``optax.MultiSteps``, in that of ``compat.keras.lion`` and the like.

    Returns:
      A tree like the parameters, of their shapes and dtypes, but at least float32; before the first
      step the parameters themselves. Where ``groups.freeze`` or ``optax.masked`` around the average
      hide leaves from it, it has ``optax.MaskedNode``.

    Raises:
      ValueError: no average in the state, or several.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> import lion_jax
      >>> tx = optax.chain(lion_jax.with_parameter_average(lion_jax.lion(1e-4)))
      >>> print(lion_jax.averaged_params(tx.init(jnp.ones(2))))
      [1. 1.]
    """
    return the_only(state, "average", "with_parameter_average", "ParameterAverageState")


def keep_average(
    inner: optax.GradientTransformation,
    decay: Any,
    overwrite_every: int | None,
    calls: int = 1,
) -> optax.GradientTransformationExtraArgs:
    """`with_parameter_average`, which moves at every call but counts in steps of so many calls."""
    n = overwrite_every
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        return ParameterAverageState(copy(params), zero(), inner.init(params))

    def update_fn(updates, state, params=None, **extra_args):
        check_has_params(params, "averaging")
        updates, inner_state = update(inner, updates, state.inner_state, params, **extra_args)
        step = state.averaged_calls // calls
        updates, average = map_leaves(
            _average,
            (updates, state.average),
            (params, map_present(_apply, params, updates)),
            decay=jnp.where(step == 0, 0.0, decay),
            is_overwrite=jnp.asarray(False) if n is None else (step + 1) % n == 0,
        )
        count = next_count(state.averaged_calls)
        return updates, ParameterAverageState(average, count, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _apply(p, u):
    """What `optax.apply_updates` makes of a parameter, rounded as if it went through memory."""
    return round_to(widen(p, u) + widen(u, p), jnp.result_type(p))


def _average(u, average, p, new_p, *, decay, is_overwrite):
    if not jnp.issubdtype(average.dtype, jnp.inexact):
        return u, new_p  # there is no average of integers
    average = decay * average + (1 - decay) * new_p
    u = jnp.where(is_overwrite, average - p, u)
    return u, jnp.where(is_overwrite, p + u, average)
