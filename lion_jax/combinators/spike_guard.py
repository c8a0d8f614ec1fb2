"""A guard against sudden jumps of the loss or the gradient norm."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.arithmetic import sqrt, sum_of_squares
from lion_jax._core.checks import check_metric
from lion_jax._core.conditional import update_where
from lion_jax._core.counters import next_count, zero
from lion_jax._core.kinds import POSITIVE, SUMMED_AXES, TRANSFORMATION, choice, integer
from lion_jax._core.leafwise import sum_leaves
from lion_jax._core.missing import gradients_of_weights
from lion_jax._core.rule import combinator, number
from lion_jax._core.states import the_only
from lion_jax._core.types import AxisName
from lion_jax.combinators.loss_scale import kept_loss_scales


class SpikeGuardState(NamedTuple):
    """State of `with_spike_guard`.

    Attributes:
      skipped: steps skipped so far, int32 of shape ().
      entered: the number of values that ever entered the window, int32 of shape ().
      losses: the last of the losses, of shape (window,), float64 under x64 and float32 otherwise;
        value number i is at i modulo the window.
      norms: the norms of the gradients that belong to them, of the same shape and dtype.
      inner_state: state of the inner transformation.
    """

    skipped: jax.Array
    entered: jax.Array
    losses: jax.Array
    norms: jax.Array
    inner_state: optax.OptState


class SpikeStatistics(NamedTuple):
    """Statistics of the past losses and norms, as :func:`spike_statistics` reads them.

    Attributes:
      loss_mean: mean of the losses in the window, of shape (); 0 of an empty one.
      loss_deviation: their standard deviation, with Bessel's correction; 0 of fewer than two.
      norm_mean: mean of the gradient norms.
      norm_deviation: their standard deviation.
    """

    loss_mean: jax.Array
    loss_deviation: jax.Array
    norm_mean: jax.Array
    norm_deviation: jax.Array


@combinator(
    inner=TRANSFORMATION,
    window=integer(2, is_traced=False),
    factor=POSITIVE,
    keep=choice("finite", "accepted", "all"),
    axis_name=SUMMED_AXES,
)
def with_spike_guard(
    inner: optax.GradientTransformation,
    window: int = 128,
    factor: optax.ScalarOrSchedule = 6.0,
    *,
    keep: str = "finite",
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Skips every step whose loss or gradient norm lies far above those of the last steps.

    .. math::

      \ell_t > \bar\ell + k \sigma_\ell \quad\text{or}\quad
      \lVert g_t \rVert > \overline{\lVert g \rVert} + k \sigma_{\lVert g \rVert}
      \quad\Rightarrow\quad u_t = 0, \; s_t = s_{t-1}

    with mean and standard deviation (Bessel's) of the last w values, the present ones not among
    them. It starts to compare once there are w / 2 - 1 of them, and at least 2. A step whose loss
    or gradient is not finite is always skipped. A skipped step changes neither the parameters nor
    the inner state.

    Args:
      inner: the transformation to guard, its learning rate included.
      window: w >= 2, how many past values to compare with.
      factor: k > 0.
      keep: which values enter the window. ``"finite"``: all that are finite, those of skipped steps
        too, so that a lasting new level is accepted after a while. ``"accepted"``: those of steps
        that were taken: no spike widens the deviation, but if the loss stays at a new level, all
        its steps are skipped. ``"all"``: every value, as in OLMo-core and MaxText: one NaN makes
        mean and deviation NaN, and all steps are skipped until it has left the window.
      axis_name: the axis over which devices hold different parts of the gradient; the loss must be
        the same on all of them.

    Returns:
      A transformation from gradients to updates of the parameters' shapes and units, in the inner
      transformation's dtypes. ``update`` takes the loss as ``value``. The state is a
      :class:`SpikeGuardState`, read by :func:`skipped_steps` and :func:`spike_statistics`.

    Raises:
      ValueError: an argument out of range; at ``update``, no ``value``, or one of another shape.
      TypeError: an argument of the wrong type; at ``update``, a ``value`` that is no number.

    Example:
      >>> import jax.numpy as jnp
      >>> import lion_jax
      >>> tx = lion_jax.with_spike_guard(lion_jax.lion(0.25), window=8)
      >>> params = jnp.zeros(1)
      >>> state = tx.init(params)
      >>> for loss in (2.0, 2.1, 1.9, 2.0, 50.0, jnp.nan, 2.0):
      ...     updates, state = tx.update(jnp.ones(1), state, params, value=loss)
      ...     print(updates[0], lion_jax.skipped_steps(state))
      -0.25 0
      -0.25 0
      -0.25 0
      -0.25 0
      0.0 1
      0.0 2
      -0.25 2

    References:
      ``SkipStepOptimizer`` of `OLMo-core <https://github.com/allenai/OLMo-core>`_ and
      ``skip_step_on_spikes`` of `MaxText <https://github.com/AI-Hypercomputer/maxtext>`_, whose
      window is open to NaN, and ``skipstep`` of `levanter
      <https://github.com/marin-community/levanter>`_, with the population's deviation, at least
      1e-6, and a look from w / 2 on.
    """
    inner = optax.with_extra_args_support(inner)
    enough = max(2, max(2, window // 2) - 1)

    def init_fn(params):
        values = jnp.zeros(window, jnp.result_type(float))
        return SpikeGuardState(zero(), zero(), values, jnp.zeros_like(values), inner.init(params))

    def update_fn(updates, state, params=None, *, value=None, **extra_args):
        check_metric(value, "with_spike_guard")
        loss = jnp.asarray(value, state.losses.dtype)
        gradients, _ = gradients_of_weights(updates, params)
        norm = _norm(gradients, axis_name).astype(state.norms.dtype)
        is_finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        past = _statistics(state)
        k = jnp.asarray(number(factor), loss.dtype)
        is_level = (loss <= past.loss_mean + k * past.loss_deviation) & (
            norm <= past.norm_mean + k * past.norm_deviation
        )
        is_taken = is_finite & (is_level | (state.entered < enough))
        enters = {"finite": is_finite, "accepted": is_taken, "all": jnp.ones((), bool)}[keep]
        i = state.entered % window
        new_updates, inner_state = update_where(
            is_taken,
            inner,
            updates,
            state.inner_state,
            params,
            kept=kept_loss_scales(state.inner_state),
            value=value,
            **extra_args,
        )
        return new_updates, SpikeGuardState(
            skipped=jnp.where(is_taken, state.skipped, next_count(state.skipped)),
            entered=jnp.where(enters, _next_place(state.entered, window), state.entered),
            losses=state.losses.at[i].set(jnp.where(enters, loss, state.losses[i])),
            norms=state.norms.at[i].set(jnp.where(enters, norm, state.norms[i])),
            inner_state=inner_state,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def spike_statistics(state: optax.OptState) -> SpikeStatistics:
    """Reads the past losses and norms with which :func:`with_spike_guard` compares the next step.

    Args:
      state: the optimizer state that holds one :class:`SpikeGuardState`, at any depth.

    Returns:
      A :class:`SpikeStatistics`.

    Raises:
      ValueError: no such guard in the state, or several.

    Example:
      >>> import jax.numpy as jnp
      >>> import lion_jax
      >>> tx = lion_jax.with_spike_guard(lion_jax.lion(0.25), window=8)
      >>> state = tx.init(jnp.zeros(1))
      >>> for loss in (1.0, 3.0):
      ...     _, state = tx.update(jnp.ones(1), state, jnp.zeros(1), value=loss)
      >>> print(lion_jax.spike_statistics(state).loss_mean)
      2.0
    """
    guard = "with_spike_guard"
    parts = {
        name: the_only(state, name, guard, "SpikeGuardState")
        for name in ("skipped", "entered", "losses", "norms", "inner_state")
    }
    return _statistics(SpikeGuardState(**parts))


def _statistics(state: Any) -> SpikeStatistics:
    window = state.losses.shape[-1]
    is_filled = jnp.arange(window) < state.entered
    with jax.numpy_dtype_promotion("standard"):  # a count beside floats
        n = jnp.minimum(state.entered, window).astype(state.losses.dtype)
        loss = _mean_and_deviation(state.losses, is_filled, n)
        norm = _mean_and_deviation(state.norms, is_filled, n)
    return SpikeStatistics(*loss, *norm)


def _mean_and_deviation(
    values: jax.Array, is_filled: jax.Array, n: jax.Array
) -> tuple[jax.Array, jax.Array]:
    mean = jnp.sum(jnp.where(is_filled, values, 0)) / jnp.maximum(n, 1)
    squares = jnp.where(is_filled, (values - mean) ** 2, 0)
    deviation = sqrt(jnp.sum(squares) / jnp.maximum(n - 1, 1))
    return mean, deviation


def _next_place(entered: jax.Array, window: int) -> jax.Array:
    """The next count, which near the largest int32 falls back by whole windows."""
    largest = jnp.iinfo(jnp.int32).max
    return jnp.where(entered < largest - 1, next_count(entered), largest - largest % window)


def _norm(updates: optax.Updates, axis_name: AxisName | None) -> jax.Array:
    squares = sum_leaves(_sum_of_squares, updates)
    return sqrt(squares if axis_name is None else jax.lax.psum(squares, axis_name))


def _sum_of_squares(g):
    return (sum_of_squares(g),)
