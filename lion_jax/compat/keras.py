"""Keras's Lion with the options of its base class, and Keras's loss scaling."""

import jax.numpy as jnp
import optax

from lion_jax._core.kinds import (
    DECAY_RATE,
    FLAG,
    FRACTION,
    NON_NEGATIVE,
    SHARES,
    TRANSFORMATION,
    Number,
    integer,
    is_off,
)
from lion_jax._core.rule import chain, primitive, takes
from lion_jax._core.types import Mask, Scalar
from lion_jax.combinators.accumulation import with_accumulation
from lion_jax.combinators.averaging import keep_average
from lion_jax.combinators.loss_scale import LOSS_SCALE, DynamicLossScale, with_loss_scale
from lion_jax.optimizers.lion import lion as papers_lion
from lion_jax.primitives.clipping import clip_by_leaf_norm, scale_by_global_norm, shortening

__all__ = ["lion", "loss_scale_optimizer"]
__dir__ = __all__.copy  # TAB offers no more

_LIMIT = NON_NEGATIVE.constant().or_none().trying("1.0", "None or 0 clips nothing")


@takes(
    learning_rate=NON_NEGATIVE,
    beta_1=Number(
        allowed="in (0, 1)",
        contains=lambda x: 0 < x < 1,
        takes_schedule=False,
        why="Keras has no Lion without it",
    ),
    beta_2=DECAY_RATE.constant(),
    weight_decay=NON_NEGATIVE.constant().or_none(),
    clipnorm=_LIMIT,
    clipvalue=_LIMIT,
    global_clipnorm=_LIMIT,
    use_ema=FLAG,
    ema_momentum=FRACTION.constant(),
    ema_overwrite_frequency=integer().or_none().trying("100"),
    loss_scale_factor=LOSS_SCALE.or_none(),
    gradient_accumulation_steps=integer(2, is_traced=False).or_none().trying("4"),
    mask=SHARES,
)
def lion(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    beta_1: Scalar = 0.9,
    beta_2: Scalar = 0.99,
    weight_decay: Scalar | None = None,
    clipnorm: Scalar | None = None,
    clipvalue: Scalar | None = None,
    global_clipnorm: Scalar | None = None,
    use_ema: bool = False,
    ema_momentum: Scalar = 0.99,
    ema_overwrite_frequency: int | None = None,
    loss_scale_factor: Scalar | None = None,
    gradient_accumulation_steps: int | None = None,
    *,
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    r"""``keras.optimizers.Lion`` of Keras 3.15.

    .. math::

      \bar g_t &= \operatorname{clip}\left(\frac{1}{A S} \sum_{i=0}^{A-1} g_{t-i}\right) \\
      \theta_t &= (1 - \eta_t \lambda) \theta_{t-1}
        - \eta_t \operatorname{sign}(\beta_1 m_{t-1} + (1 - \beta_1) \bar g_t) \\
      m_t &= \beta_2 m_{t-1} + (1 - \beta_2) \bar g_t

    at every :math:`A`-th call; the calls in between only accumulate. The rule is
    :func:`lion_jax.lion`. It departs from this package's own clipping, accumulation and average in
    three places:

    - a global norm that is not finite makes all gradients NaN;
    - a schedule is read at the count of calls, not of steps;
    - the average moves at every call: in the first :math:`A` of them it is the parameters, and
      where an overwrite is due the parameters become the average at :math:`A` calls in a row.

    Args:
      learning_rate: :math:`\eta` >= 0. Its schedule gets the count of calls.
      beta_1: :math:`\beta_1` in (0, 1).
      beta_2: :math:`\beta_2` in [0, 1).
      weight_decay: :math:`\lambda` >= 0; None is 0.
      clipnorm: the largest norm of each leaf's gradient >= 0, in the gradients' units. Of the three
        kinds of clipping at most one may be given; the number 0 clips nothing, but counts as given;
        a traced 0 makes all gradients 0.
      clipvalue: the largest magnitude of a gradient's entry, in the same units.
      global_clipnorm: the largest norm over all leaves, in the same units.
      use_ema: whether to keep an average of the parameters. :func:`lion_jax.averaged_params` reads
        it; Keras's ``finalize_variable_values`` puts it in the parameters' place. It starts from
        the parameters, Keras's from 0.
      ema_momentum: the weight of the old average at each call, in [0, 1]; read only with
        ``use_ema``.
      ema_overwrite_frequency: n >= 1, in steps: at every n-th the parameters become the average.
        None never overwrites. Read only with ``use_ema``.
      loss_scale_factor: :math:`S` > 0: the gradients are those of :math:`S` times the loss. None is
        1. :func:`lion_jax.current_loss_scale` reads it. Leave it out inside
        :func:`loss_scale_optimizer`, where Keras ignores it.
      gradient_accumulation_steps: :math:`A` >= 2, in calls; None is 1.
      mask: which leaves decay, as in :func:`lion_jax.lion`. Keras has the method
        ``exclude_from_weight_decay`` instead.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError: a hyperparameter out of range, or two kinds of clipping; at ``update``, missing
        parameters.
      TypeError: a hyperparameter of the wrong type; at ``init``, a complex leaf.

    Example:
      >>> import jax.numpy as jnp, lion_jax, optax
      >>> tx = lion_jax.compat.keras.lion(0.5, use_ema=True, ema_momentum=0.5)
      >>> params = jnp.array([8.0, -8.0])
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.ones(2), state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     print(params, lion_jax.averaged_params(state))
      [ 7.5 -8.5] [ 7.5 -8.5]
      [ 7. -9.] [ 7.25 -8.75]

    References:
      `keras.optimizers.Lion <https://keras.io/api/optimizers/lion/>`_; Chen et al., `Symbolic
      Discovery of Optimization Algorithms <https://arxiv.org/abs/2302.06675>`_, 2023, Algorithm 2.
    """
    every = gradient_accumulation_steps or 1
    tx = _clipped_lion(
        _read_at_last_call(learning_rate, every),
        beta_1,
        beta_2,
        0.0 if weight_decay is None else weight_decay,
        mask,
        _clip(clipnorm=clipnorm, clipvalue=clipvalue, global_clipnorm=global_clipnorm),
    )
    if every > 1:
        tx = with_accumulation(tx, every)
    if loss_scale_factor is not None:
        tx = with_loss_scale(tx, loss_scale_factor)
    return keep_average(tx, ema_momentum, ema_overwrite_frequency, every) if use_ema else tx


@takes(inner=TRANSFORMATION, initial_scale=LOSS_SCALE, dynamic_growth_steps=integer())
def loss_scale_optimizer(
    inner: optax.GradientTransformation,
    initial_scale: float = 2.0**15,
    dynamic_growth_steps: int = 2000,
) -> optax.GradientTransformationExtraArgs:
    """``keras.optimizers.LossScaleOptimizer`` of Keras 3.15.

    It is :func:`lion_jax.with_loss_scale` with a :class:`lion_jax.DynamicLossScale` under Keras's
    names. Gradients of the scaled loss are divided by the scale. If one of them is not finite, the
    scale is halved, and nothing else happens: averages, accumulated gradients and the counts that
    schedules read do not change. The scale stays within float32's range; Keras's can become
    infinite or 0.

    Args:
      inner: the transformation of the gradients of the loss itself.
      initial_scale: the scale of the first loss, in [2**-126, 2**126].
      dynamic_growth_steps: n >= 1: so many finite gradients in a row double the scale.

    Returns:
      A transformation from gradients of the scaled loss to updates, to be added by
      ``optax.apply_updates``. :func:`lion_jax.current_loss_scale` reads the scale in its state.

    Raises:
      ValueError: a number out of range.
      TypeError: an ``inner`` that is no transformation, a number of the wrong type.

    Example:
      >>> import jax.numpy as jnp, lion_jax
      >>> from lion_jax import compat
      >>> tx = compat.keras.loss_scale_optimizer(compat.keras.lion(0.5), initial_scale=4.0)
      >>> state = tx.init(jnp.ones(2))
      >>> updates, state = tx.update(jnp.array([1.0, jnp.inf]), state, jnp.ones(2))
      >>> print(updates, lion_jax.current_loss_scale(state))
      [0. 0.] 2.0

    References:
      `keras.optimizers.LossScaleOptimizer
      <https://keras.io/api/optimizers/loss_scale_optimizer/>`_.
    """
    return with_loss_scale(inner, DynamicLossScale(initial_scale, dynamic_growth_steps))


@primitive()
def _clipped_lion(learning_rate, b1, b2, weight_decay, mask, clip) -> optax.GradientTransformation:
    lion = papers_lion(learning_rate, b1, b2, weight_decay=weight_decay, mask=mask)
    return chain(clip, lion)


def _read_at_last_call(learning_rate: optax.ScalarOrSchedule, every: int) -> optax.ScalarOrSchedule:
    """Turns a schedule of calls into one of steps, each taken at the last of `every` calls."""
    if every == 1 or not callable(learning_rate):
        return learning_rate
    last = jnp.iinfo(jnp.int32).max

    def read(step):
        fits = step <= (last - (every - 1)) // every
        return learning_rate(jnp.where(fits, every * step + every - 1, last))

    return read


def _clip(**limits: Scalar | None) -> optax.GradientTransformation:
    """Makes the clipping whose limit is given."""
    given = {name: limit for name, limit in limits.items() if limit is not None}
    if len(given) > 1:
        raise ValueError(
            f"at most one of {', '.join(limits)} may be given, 0 included; got "
            f"{', '.join(f'{name}={limit}' for name, limit in given.items())}. "
            f"Try {list(given)[-1]}=None."
        )
    match given:
        case {"clipnorm": limit} if not is_off(limit):
            return clip_by_leaf_norm(limit)
        case {"clipvalue": limit} if not is_off(limit):
            return optax.clip(limit)
        case {"global_clipnorm": limit} if not is_off(limit):
            return scale_by_global_norm(
                lambda norm: jnp.where(jnp.isfinite(norm), shortening(norm, limit), jnp.nan)
            )
    return optax.identity()
