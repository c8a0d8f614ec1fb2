"""Loss scaling, so that small gradients survive float16."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lion_jax._core.conditional import Kept, update_where
from lion_jax._core.counters import next_count, zero
from lion_jax._core.dtypes import at_least_float32
from lion_jax._core.inner import is_finite, update
from lion_jax._core.kinds import SUMMED_AXES, TRANSFORMATION, Number, integer
from lion_jax._core.leafwise import map_leaves
from lion_jax._core.leaves import is_weight
from lion_jax._core.rule import combinator
from lion_jax._core.states import the_only
from lion_jax._core.types import AxisName

# One over them is a normal float32 too: compilers divide by a scalar through its inverse.
_SMALLEST, _LARGEST = 2.0**-126, 2.0**126
LOSS_SCALE = Number(
    allowed="in [2**-126, 2**126]",
    contains=lambda x: _SMALLEST <= x <= _LARGEST,
    takes_schedule=False,
    remedy="32768.0",
    why="a power of two",
)


@dataclasses.dataclass(frozen=True)
class DynamicLossScale:
    """A loss scale that grows until gradients overflow.

    A step whose gradient has an infinity or a NaN halves the scale; ``growth_interval`` finite
    steps in a row double it. It stays within :math:`2^{-126}` and :math:`2^{126}`, by which float32
    can divide.

    Attributes:
      initial: the scale of the first step, within these bounds; a power of two scales without
        rounding.
      growth_interval: finite steps in a row after which it doubles, >= 1.

    Raises:
      ValueError: an argument out of range.
      TypeError: an argument of the wrong type.

    References:
      Micikevicius et al., `Mixed Precision Training <https://arxiv.org/abs/1710.03740>`_, 2018,
      Section 3.2.
    """

    initial: float = 2.0**15
    growth_interval: int = 2000

    def __post_init__(self):
        """Refuses arguments out of range."""
        LOSS_SCALE.check("initial", self.initial, 2.0**15)
        integer().check("growth_interval", self.growth_interval, 2000)


class LossScaleState(NamedTuple):
    """State of `with_loss_scale` with a number.

    Attributes:
      loss_scale: the factor for the next loss, of shape () and JAX's default float dtype.
      inner_state: state of the inner transformation.
    """

    loss_scale: jax.Array
    inner_state: optax.OptState


class DynamicLossScaleState(NamedTuple):
    """State of `with_loss_scale` with a `DynamicLossScale`.

    Attributes:
      loss_scale: the factor for the next loss, of shape () and JAX's default float dtype.
      finite_steps: steps since the scale changed, int32 of shape (), less than the growth interval.
      skipped: steps skipped so far, int32 of shape ().
      inner_state: state of the inner transformation.
    """

    loss_scale: jax.Array
    finite_steps: jax.Array
    skipped: jax.Array
    inner_state: optax.OptState


@combinator(
    inner=TRANSFORMATION,
    loss_scale=dataclasses.replace(LOSS_SCALE, other=DynamicLossScale),
    axis_name=SUMMED_AXES,
)
def with_loss_scale(
    inner: optax.GradientTransformation,
    loss_scale: float | jax.Array | DynamicLossScale,
    *,
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Divides the gradients of a scaled loss by its scale.

    .. math::

      u_t, s_t = \operatorname{inner}\left(\frac{\nabla (S_t \, \ell)}{S_t}, s_{t-1},
        \theta_{t-1}\right)

    The loss function multiplies its loss :math:`\ell` by :math:`S_t`, which is
    :func:`current_loss_scale` of the state, so that small gradients do not vanish in float16. With
    a :class:`DynamicLossScale`, a step whose gradient is not finite only halves :math:`S`:
    parameters, moments, step counts and schedules do not change, and :func:`skipped_steps` counts
    one more. With a number no step is skipped: see :func:`with_finite_guard`.

    Wrap it around everything that depends on the size of gradients, such as clipping.

    Args:
      inner: the transformation of the gradients of the loss itself, its learning rate included.
      loss_scale: :math:`S` in :math:`[2^{-126}, 2^{126}]`, or a :class:`DynamicLossScale`.
      axis_name: the axis over which devices hold different parts of the gradient: all skip or none.
        A constant scale needs no axis.

    Returns:
      A transformation from gradients of the scaled loss to updates of the parameters' shapes and
      units, in the inner transformation's dtypes. The inner one gets gradients in at least float32.
      The state is a :class:`LossScaleState` or a :class:`DynamicLossScaleState`.

    Raises:
      ValueError: a ``loss_scale`` out of range.
      TypeError: an ``inner`` that is no transformation, a ``loss_scale`` of the wrong type.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import lion_jax, optax
      >>> tx = lion_jax.with_loss_scale(optax.sgd(0.1), lion_jax.DynamicLossScale(2.0**15))
      >>> params = jnp.array([3.0], jnp.float16)
      >>> state = tx.init(params)
      >>> def scaled_loss(params, state):
      ...     return lion_jax.current_loss_scale(state) * jnp.sum(params.astype(jnp.float32) ** 2)
      >>> for _ in range(3):  # 6 * 2**15 is more than float16 holds, 6 * 2**13 is not
      ...     gradients = jax.grad(scaled_loss)(params, state)
      ...     updates, state = tx.update(gradients, state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     print(params, lion_jax.current_loss_scale(state))
      [3.] 16384.0
      [3.] 8192.0
      [2.4] 8192.0

    References:
      Micikevicius et al., `Mixed Precision Training <https://arxiv.org/abs/1710.03740>`_, 2018,
      Section 3.2; the order of events is that of Keras's ``LossScaleOptimizer``.
    """
    inner = optax.with_extra_args_support(inner)
    if isinstance(loss_scale, DynamicLossScale):
        return _with_dynamic(inner, loss_scale, axis_name)
    return _with_static(inner, loss_scale)


def current_loss_scale(state: optax.OptState) -> jax.Array:
    """The scale in the state of a :func:`with_loss_scale`, to multiply the next loss by.

    Args:
      state: the optimizer state that holds one loss scale, at any depth: in a chain, under
        ``optax.MultiSteps``, in that of ``compat.keras.loss_scale_optimizer`` and the like.

    Returns:
      The scale, of shape () and JAX's default float dtype.

    Raises:
      ValueError: no loss scale in the state, or several.

    Example:
      >>> import jax.numpy as jnp
      >>> import lion_jax
      >>> tx = lion_jax.with_loss_scale(lion_jax.lion(1e-4), loss_scale=1024.0)
      >>> print(lion_jax.current_loss_scale(tx.init(jnp.ones(2))))
      1024.0
    """
    return the_only(
        state, "loss_scale", "with_loss_scale", "LossScaleState", "DynamicLossScaleState"
    )


def kept_loss_scales(state: optax.OptState) -> Kept | None:
    """The part of a skipped step that a guard keeps: dynamic loss scales would else never fall."""
    nodes = jax.tree.leaves(state, is_leaf=_is_scale)
    return _with_loss_scales_of if any(map(_is_scale, nodes)) else None


def _with_loss_scales_of(new: optax.OptState, state: optax.OptState) -> optax.OptState:
    """A state with the dynamic loss scales of another, and all else its own."""

    def merge(n, s):
        if not _is_scale(n):
            return s
        return n._replace(inner_state=_with_loss_scales_of(n.inner_state, s.inner_state))

    return jax.tree.map(merge, new, state, is_leaf=_is_scale)


def _is_scale(node: Any) -> bool:
    return isinstance(node, DynamicLossScaleState)


def _with_static(inner, loss_scale):
    def init_fn(params):
        return LossScaleState(jnp.array(loss_scale, float), inner.init(params))

    def update_fn(updates, state, params=None, **extra_args):
        gradients = _unscale_leaves(updates, state.loss_scale)
        updates, inner_state = update(inner, gradients, state.inner_state, params, **extra_args)
        return updates, LossScaleState(jnp.array(loss_scale, float), inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _with_dynamic(inner, dynamic, axis_name):
    def init_fn(params):
        return DynamicLossScaleState(
            loss_scale=jnp.array(dynamic.initial, float),
            finite_steps=zero(),
            skipped=zero(),
            inner_state=inner.init(params),
        )

    def update_fn(updates, state, params=None, **extra_args):
        loss_scale, is_taken = state.loss_scale, is_finite(updates, axis_name)
        gradients = _unscale_leaves(updates, loss_scale)
        updates, inner_state = update_where(
            is_taken, inner, gradients, state.inner_state, params, **extra_args
        )
        finite_steps = jnp.where(is_taken, next_count(state.finite_steps), 0)
        is_due = finite_steps >= jnp.asarray(dynamic.growth_interval, finite_steps.dtype)
        grown = jnp.where(is_due, jnp.minimum(2 * loss_scale, _LARGEST), loss_scale)
        return updates, DynamicLossScaleState(
            loss_scale=jnp.where(is_taken, grown, jnp.maximum(loss_scale / 2, _SMALLEST)),
            finite_steps=jnp.where(is_due, 0, finite_steps),
            skipped=jnp.where(is_taken, state.skipped, next_count(state.skipped)),
            inner_state=inner_state,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _unscale_leaves(updates, loss_scale):
    """The gradients of the loss itself, at least float32: float16 could not hold small ones."""
    leaves, treedef = jax.tree.flatten(updates)
    wide = [jnp.asarray(g, at_least_float32(g)) if is_weight(g) else None for g in leaves]
    (unscaled,) = map_leaves(_unscale, (wide,), loss_scale=loss_scale)
    return treedef.unflatten(g if u is None else u for g, u in zip(leaves, unscaled, strict=True))


def _unscale(g, *, loss_scale):
    dtype = np.result_type(g.dtype, loss_scale.dtype)
    return (g.astype(dtype) / loss_scale.astype(dtype),)
