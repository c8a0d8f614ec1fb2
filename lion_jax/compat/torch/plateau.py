"""PyTorch's schedule that lowers the learning rate when a metric stops improving."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.checks import check_metric
from lion_jax._core.kinds import DECAY_RATE, NON_NEGATIVE, choice, integer
from lion_jax._core.leafwise import map_leaves
from lion_jax._core.rule import primitive
from lion_jax._core.types import Scalar
from lion_jax.compat.torch._annealing import as_float
from lion_jax.primitives.clipping import scale


class ReduceLrOnPlateauState(NamedTuple):
    """State of `reduce_lr_on_plateau`, under the names of torch's ``state_dict`` but for the first.

    Attributes:
      scale: the factor of the next updates, of shape (), float64 under x64 and float32
        otherwise; times ``lr`` it is the learning rate in torch's ``param_groups``.
      best: the best metric so far, of the same shape and dtype as `scale`.
      num_bad_epochs: updates since then, or since the last reduction or its cooldown, int32 of
        shape ().
      cooldown_counter: updates that the cooldown still lasts, int32 of shape ().
    """

    scale: jax.Array
    best: jax.Array
    num_bad_epochs: jax.Array
    cooldown_counter: jax.Array


@primitive(
    lr=NON_NEGATIVE.constant().trying("0.1"),
    mode=choice("min", "max"),
    factor=DECAY_RATE.constant(),
    patience=integer(0),
    threshold=NON_NEGATIVE.constant(),
    threshold_mode=choice("rel", "abs"),
    cooldown=integer(0),
    min_lr=NON_NEGATIVE.constant(),
    eps=NON_NEGATIVE.constant(),
)
def reduce_lr_on_plateau(
    lr: Scalar,
    mode: str = "min",
    factor: Scalar = 0.1,
    patience: int = 10,
    threshold: Scalar = 1e-4,
    threshold_mode: str = "rel",
    cooldown: int = 0,
    min_lr: Scalar = 0,
    eps: Scalar = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    r"""``ReduceLROnPlateau``, to be chained after an optimizer of the same constant ``lr``.

    An update is multiplied by :math:`s_t` before the metric :math:`v_t` is read, as torch's loop
    steps the optimizer before the scheduler. So a metric changes the learning rate
    :math:`\eta_t = s_t \eta` from the next update on. Let n count the metrics in succession that
    were no better than the best. Where n exceeds the patience,

    .. math::

      \eta_{t+1} = \max(\gamma \eta_t, \eta_{\min}) \quad
        \text{unless it is less than } \eta_t \text{ by no more than } \varepsilon,

    and n starts again from 0, as it does at every metric of a cooldown. A metric is better if, with
    the threshold :math:`\tau`, it is less than :math:`(1 - \tau)\, v_{\text{best}}`, or with
    ``threshold_mode="abs"`` less than :math:`v_{\text{best}} - \tau`; with ``mode="max"`` it is
    more than :math:`(1 + \tau)\, v_{\text{best}}` or :math:`v_{\text{best}} + \tau`. NaN is never
    better.

    It departs from ``optax.contrib.reduce_on_plateau``, which reduces one metric earlier, at once,
    to a relative minimum, and knows no ``"max"`` and no :math:`\varepsilon`.

    Every update is a ``scheduler.step(value)``. For one step per epoch, keep the transformation out
    of the chain and set the learning rate, as in the second example. For parameter groups, give one
    to each in ``optax.partition``.

    Args:
      lr: :math:`\eta` >= 0, the optimizer's own.
      mode: ``"min"`` for a metric that should fall, ``"max"`` for one that should rise.
      factor: :math:`\gamma` in [0, 1).
      patience: how many metrics may be no better, >= 0.
      threshold: :math:`\tau` >= 0, a share of the best metric or in its units.
      threshold_mode: ``"rel"`` or ``"abs"``.
      cooldown: for how many metrics after a reduction none is counted, >= 0.
      min_lr: :math:`\eta_{\min}` >= 0, in units of the learning rate.
      eps: :math:`\varepsilon` >= 0, in units of the learning rate.

    Returns:
      A transformation of updates that keeps shapes, dtypes and units. Its ``update`` needs the
      keyword argument ``value``, the metric: a number or an array of shape (). The state is a
      :class:`ReduceLrOnPlateauState`.

    Raises:
      ValueError: an argument out of range; at ``update``, a missing ``value`` or one of another
        shape.
      TypeError: an argument of the wrong type, a schedule for ``lr`` included.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from lion_jax import compat
      >>> plateau = compat.torch.reduce_lr_on_plateau(lr=1.0, factor=0.5, patience=1)
      >>> tx = optax.chain(compat.torch.sgd(lr=1.0), plateau)
      >>> state = tx.init(jnp.zeros(1))
      >>> for loss in [3.0, 2.0, 2.0, 2.0, 2.0]:
      ...     updates, state = tx.update(jnp.ones(1), state, value=loss)
      ...     print(updates[0], state[-1].scale)
      -1.0 1.0
      -1.0 1.0
      -1.0 1.0
      -1.0 0.5
      -0.5 0.5

      Once an epoch, by the loss on validation data:

      >>> import lion_jax
      >>> tx = optax.inject_hyperparams(lion_jax.lion, lion_jax.lion.static_args)(1.0)
      >>> state, plateau_state = tx.init(jnp.zeros(1)), plateau.init({})
      >>> for validation_loss in [3.0, 2.0, 2.0, 2.0]:
      ...     # An epoch of tx.update and optax.apply_updates goes here.
      ...     _, plateau_state = plateau.update({}, plateau_state, value=validation_loss)
      ...     learning_rate = 1.0 * plateau_state.scale
      ...     state = optax.tree_utils.tree_set(state, learning_rate=learning_rate)
      >>> print(state.hyperparams["learning_rate"])
      0.5
    """
    sign = -1 if mode == "min" else 1

    def init_fn(params):
        del params
        return ReduceLrOnPlateauState(
            scale=as_float(1.0),
            best=as_float(-sign * jnp.inf),
            num_bad_epochs=jnp.zeros((), jnp.int32),
            cooldown_counter=jnp.zeros((), jnp.int32),
        )

    def update_fn(updates, state, params=None, *, value=None, **extra_args):
        del params, extra_args
        check_metric(value, "reduce_lr_on_plateau")
        (updates,) = map_leaves(scale, (updates,), factor=state.scale)
        return updates, step(state, value)

    def step(state, value):
        value = as_float(value)
        margin = sign * as_float(threshold)  # 1 - 1e-4 would be 1 in bfloat16
        bar = state.best * (1 + margin) if threshold_mode == "rel" else state.best + margin
        is_better = value > bar if mode == "max" else value < bar
        is_cooling = state.cooldown_counter > 0
        num_bad_epochs = jnp.where(is_better | is_cooling, 0, state.num_bad_epochs + 1)
        is_plateau = num_bad_epochs > patience
        lower = jnp.maximum(factor * state.scale, min_lr / as_float(lr))
        is_lower = lr * (state.scale - lower) > eps
        return ReduceLrOnPlateauState(
            scale=jnp.where(is_plateau & is_lower, lower, state.scale),
            best=jnp.where(is_better, value, state.best),
            num_bad_epochs=jnp.where(is_plateau, 0, num_bad_epochs),
            cooldown_counter=jnp.where(is_plateau, cooldown, state.cooldown_counter - is_cooling),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
