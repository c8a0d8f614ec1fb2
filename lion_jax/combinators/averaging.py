"""An average of the parameters, kept beside the trained ones."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.checks import check_has_params
from lion_jax._core.counters import next_count, zero
from lion_jax._core.dtypes import round_to, widen
from lion_jax._core.inner import update
from lion_jax._core.kinds import DECAY_RATE, TRANSFORMATION, integer
from lion_jax._core.leafwise import map_leaves
from lion_jax._core.leaves import has_gradient, is_none, is_weight
from lion_jax._core.rule import combinator, number
from lion_jax._core.states import the_only
from lion_jax.combinators._slow_weights import as_dtype_of, check_not_rounded, copy, moves


class ParameterAverageState(NamedTuple):
    """State of `with_parameter_average`.

    Attributes:
      average: average of the parameters, a tree like them, each leaf of its parameter's shape and
        dtype, but at least float32; of integers the latest.
      averaged_calls: calls of `update` so far, int32 of shape (). Where parameters are overwritten,
        it continues beyond the largest int32 as a negative number at the same place in the period.
      inner_state: state of the inner transformation.
    """

    average: optax.Params
    averaged_calls: jax.Array
    inner_state: optax.OptState


@combinator(
    inner=TRANSFORMATION, decay=DECAY_RATE, overwrite_every=integer().or_none().trying("100")
)
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
    from the first of them, so there is no bias to correct. The updates are the inner ones; with
    ``overwrite_every=n``, every n-th step sets the parameters to the average.

    Unlike ``optax.ema``, which averages updates, it averages parameters. Its updates must reach the
    parameters unmodified: chain nothing after it. Under
    :func:`lion_jax.precision.with_master_weights` it belongs inside: outside, it would average the
    rounded weights.

    Args:
      inner: the transformation that moves the parameters, its learning rate included.
      decay: :math:`\mu` in [0, 1): about the last :math:`1 / (1 - \mu)` steps are in the average.
        The schedule ``lambda t: jnp.minimum(0.99, (1 + t) / (10 + t))`` forgets the start of
        training sooner.
      overwrite_every: n >= 1, in steps; None never overwrites.

    Returns:
      A transformation from gradients to updates of the parameters' shapes and units, in the inner
      transformation's dtypes. The state is a :class:`ParameterAverageState`, read by
      :func:`averaged_params`. A parameter without a gradient keeps its average. After an overwrite
      parameters and average are equal; where the parameters or the updates are narrower than
      float32, up to the rounding of :math:`\theta + (\bar\theta - \theta)`.

    Raises:
      ValueError: ``decay`` or ``overwrite_every`` out of range; at ``init``, an ``inner`` that
        rounds the parameters; at ``update``, missing parameters.
      TypeError: an ``inner`` that is no transformation, a number of the wrong type; at ``update``,
        a complex update of a real parameter, by its path.

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
    return keep_average(inner, decay, overwrite_every)


def averaged_params(state: optax.OptState) -> optax.Params:
    """The average in the state of a :func:`with_parameter_average`, for evaluation.

    Args:
      state: the optimizer state that holds one :class:`ParameterAverageState`, at any depth: in a
        chain, under ``optax.MultiSteps``, in that of ``compat.keras.lion`` and the like.

    Returns:
      A tree like the parameters, of their shapes and dtypes, but at least float32; before the first
      step the parameters themselves. Leaves that ``groups.freeze`` or ``optax.masked`` hide from
      the average are ``optax.MaskedNode``.

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
    decay: optax.ScalarOrSchedule,
    overwrite_every: int | None,
    calls: int = 1,
) -> optax.GradientTransformationExtraArgs:
    """`with_parameter_average`, which moves at every call but counts in steps of so many calls."""
    n = overwrite_every
    period = None if n is None else n * calls
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        inner_state = inner.init(params)
        _check_not_rounded(inner_state, n is not None)
        return ParameterAverageState(copy(params), zero(), inner_state)

    def update_fn(updates, state, params=None, **extra_args):
        check_has_params(params, "averaging")
        updates, inner_state = update(inner, updates, state.inner_state, params, **extra_args)
        step = state.averaged_calls // calls
        updates, average = _average_leaves(
            updates,
            state.average,
            params,
            decay=jnp.where(step == 0, 0.0, number(decay)),
            is_overwrite=jnp.asarray(False) if n is None else step % n == n - 1,
        )
        count = _next_call(state.averaged_calls, period)
        return updates, ParameterAverageState(average, count, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _check_not_rounded(inner_state, is_overwriting):
    """Refuses what rounds parameters that are overwritten; a mere average of random ones is right.

    That of parameters rounded to the nearest is not.
    """
    remedy = "with_master_weights(with_parameter_average(inner))"
    remedies = {"with_master_weights": remedy}
    if is_overwriting:
        remedies["round_stochastically"] = f"{remedy}, without random rounding"
    check_not_rounded("with_parameter_average", inner_state, **remedies)


def _next_call(count, period):
    """The count of calls after one more.

    A full one goes on at the same place of the period in negative numbers, and around in them: 0 is
    the first call alone.
    """
    if period is None:
        return next_count(count)
    full = jnp.iinfo(jnp.int32).max
    following = jnp.where(count == -1, -period, count + 1)
    return jnp.where(count == full, (full % period + 1) % period - period, following)


def _average_leaves(updates, average, params, **hyperparameters):
    """Updates and average after a step; of integers and keys the latest, which have no average."""
    averages, treedef = jax.tree.flatten(average, is_leaf=is_none)
    us, ps = treedef.flatten_up_to(updates), treedef.flatten_up_to(params)
    ours = []
    for i, (a, u, p) in enumerate(zip(averages, us, ps, strict=True)):
        if moves(a, u):
            us[i] = jnp.asarray(u)
            ours.append(i)
        elif a is not None and not is_weight(a):
            averages[i] = jnp.array(_apply(p, u) if has_gradient(u) else p, a.dtype, copy=True)
    rows = [(us[i], averages[i], ps[i], _apply(ps[i], us[i])) for i in ours]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * 4
    new_us, new_averages = map_leaves(_average, (*columns[:2],), (*columns[2:],), **hyperparameters)
    for i, u, a in zip(ours, new_us, new_averages, strict=True):
        us[i], averages[i] = u, a
    return treedef.unflatten(us), treedef.unflatten(averages)


def _apply(p, u):
    """The parameter after `optax.apply_updates`, rounded as if it went through memory."""
    return round_to(widen(p, u) + widen(u, p), jnp.result_type(p))


def _average(u, average, p, new_p, *, decay, is_overwrite):
    decay = as_dtype_of(decay, average)
    average = decay * average + (1 - decay) * new_p
    u = jnp.where(is_overwrite, average - p, u)
    return u, jnp.where(is_overwrite, p + u, average)
