"""A guard against gradients with an infinity or a NaN."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.conditional import update_where
from lion_jax._core.counters import next_count, zero
from lion_jax._core.inner import is_finite
from lion_jax._core.kinds import SUMMED_AXES, TRANSFORMATION, integer
from lion_jax._core.rule import combinator
from lion_jax._core.states import the_only
from lion_jax._core.types import AxisName
from lion_jax.combinators.loss_scale import kept_loss_scales


class FiniteGuardState(NamedTuple):
    """State of `with_finite_guard`.

    Attributes:
      skipped: steps skipped so far, int32 of shape ().
      skipped_in_a_row: steps skipped since the last one taken, int32 of shape ().
      has_given_up: whether `max_consecutive` steps in a row were ever skipped, bool of shape ().
      inner_state: state of the inner transformation.
    """

    skipped: jax.Array
    skipped_in_a_row: jax.Array
    has_given_up: jax.Array
    inner_state: optax.OptState


@combinator(
    inner=TRANSFORMATION,
    max_consecutive=integer().or_none().trying("5"),
    axis_name=SUMMED_AXES,
)
def with_finite_guard(
    inner: optax.GradientTransformation,
    max_consecutive: int | None = None,
    *,
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Skips every step whose gradient has an infinity or a NaN anywhere.

    .. math::

      u_t, s_t = \begin{cases}
        \operatorname{inner}(g_t, s_{t-1}, \theta_{t-1}) & \text{if all of } g_t \text{ is finite}\\
        0, s_{t-1} & \text{otherwise}
      \end{cases}

    A skipped step changes neither the parameters nor the inner state: no moment, no step count, no
    schedule. Only a dynamic loss scale inside still falls. Unlike ``optax.apply_if_finite``, the
    guard never lets such a gradient through: after too many in a row it sets a flag in the state
    for the training loop to read. It does not check the inner transformation's updates. Wrap it
    around combinators that keep gradients or parameters, such as accumulation.

    Args:
      inner: the transformation to guard, its learning rate included.
      max_consecutive: n >= 1: after n skipped steps in a row :func:`has_given_up` is true. None
        never gives up.
      axis_name: the axis over which devices hold different parts of the gradient, so that all
        devices skip or none does.

    Returns:
      A transformation from gradients to updates of the parameters' shapes and units, in the inner
      transformation's dtypes. The state is a :class:`FiniteGuardState`, read by
      :func:`skipped_steps` and :func:`has_given_up`.

    Raises:
      ValueError: ``max_consecutive`` out of range.
      TypeError: an ``inner`` that is no transformation, a ``max_consecutive`` that is no integer.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> import lion_jax
      >>> tx = lion_jax.with_finite_guard(lion_jax.lion(0.25), max_consecutive=2)
      >>> params = jnp.array([1.0, 1.0])
      >>> state = tx.init(params)
      >>> for gradient in ([1.0, jnp.nan], [2.0, jnp.inf], [3.0, -1.0]):
      ...     updates, state = tx.update(jnp.array(gradient), state, params)
      ...     print(updates, lion_jax.skipped_steps(state), lion_jax.has_given_up(state))
      [0. 0.] 1 False
      [0. 0.] 2 True
      [-0.25  0.25] 2 True

    References:
      Micikevicius et al., `Mixed Precision Training <https://arxiv.org/abs/1710.03740>`_, 2018,
      Section 3.2, whose loss scaling skips the steps that overflow.
    """
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        return FiniteGuardState(zero(), zero(), jnp.zeros((), bool), inner.init(params))

    def update_fn(updates, state, params=None, **extra_args):
        is_taken = is_finite(updates, axis_name)
        updates, inner_state = update_where(
            is_taken,
            inner,
            updates,
            state.inner_state,
            params,
            kept=kept_loss_scales(state.inner_state),
            **extra_args,
        )
        in_a_row = jnp.where(is_taken, 0, next_count(state.skipped_in_a_row))
        gives_up = max_consecutive is not None and in_a_row >= jnp.asarray(
            max_consecutive, in_a_row.dtype
        )
        return updates, FiniteGuardState(
            skipped=jnp.where(is_taken, state.skipped, next_count(state.skipped)),
            skipped_in_a_row=in_a_row,
            has_given_up=state.has_given_up | gives_up,
            inner_state=inner_state,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def skipped_steps(state: optax.OptState) -> jax.Array:
    """The count of steps that the guard or the dynamic loss scale in the state has skipped.

    Args:
      state: the optimizer state that holds one :class:`FiniteGuardState`, one
        :class:`SpikeGuardState` or one :class:`DynamicLossScaleState`, at any depth.

    Returns:
      The count, int32 of shape ().

    Raises:
      ValueError: none of these in the state, or several.

    Example:
      >>> import jax.numpy as jnp
      >>> import lion_jax
      >>> tx = lion_jax.with_finite_guard(lion_jax.lion(1e-4))
      >>> _, state = tx.update(jnp.array([jnp.inf]), tx.init(jnp.ones(1)), jnp.ones(1))
      >>> print(lion_jax.skipped_steps(state))
      1
    """
    owner = "with_finite_guard, with_spike_guard or dynamic loss scale"
    guards = ("FiniteGuardState", "SpikeGuardState", "DynamicLossScaleState")
    return the_only(state, "skipped", owner, *guards)


def has_given_up(state: optax.OptState) -> jax.Array:
    """Tells whether the :func:`with_finite_guard` in the state ever skipped too many in a row.

    Args:
      state: the optimizer state that holds one :class:`FiniteGuardState`, at any depth.

    Returns:
      The flag, bool of shape (): once true it stays so.

    Raises:
      ValueError: no guard in the state, or several.

    Example:
      >>> import jax.numpy as jnp
      >>> import lion_jax
      >>> tx = lion_jax.with_finite_guard(lion_jax.lion(1e-4), max_consecutive=1)
      >>> _, state = tx.update(jnp.array([jnp.nan]), tx.init(jnp.ones(1)), jnp.ones(1))
      >>> print(lion_jax.has_given_up(state))
      True
    """
    return the_only(state, "has_given_up", "with_finite_guard", "FiniteGuardState")
