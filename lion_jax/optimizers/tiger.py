"""Tiger: Signum with a step in proportion to each tensor."""

import optax

from lion_jax._core.rule import chain, optimizer
from lion_jax._core.types import Mask
from lion_jax.optimizers.lion import LION
from lion_jax.primitives.decay import add_decoupled_weight_decay
from lion_jax.primitives.momentum import scale_by_sign_momentum
from lion_jax.primitives.parameter_rms import MIN_RMS, not_bias_or_gain, scale_by_parameter_rms

_TIGER = {name: LION[name] for name in ("learning_rate", "b1", "weight_decay", "mask")}


@optimizer(**_TIGER | {"learning_rate": LION["learning_rate"].trying("1e-3")}, min_rms=MIN_RMS)
def tiger(
    learning_rate: optax.ScalarOrSchedule,
    b1: optax.ScalarOrSchedule = 0.965,
    weight_decay: optax.ScalarOrSchedule = 0.01,
    mask: Mask = None,
    *,
    min_rms: optax.ScalarOrSchedule = 0.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Tiger: the sign of the momentum, times the root mean square of each tensor.

    .. math::

      m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
      \theta_t &= \theta_{t-1} - \eta_t \operatorname{RMS}(\theta_{t-1})
        \left(\operatorname{sign}(m_t) + \lambda \theta_{t-1}\right)

    with :math:`m_0 = 0`. Embeddings use the RMS of each row. Biases and gains have neither decay
    nor RMS, but a step of :math:`\eta_t / 2`. Names in a leaf's path decide: see
    :func:`~lion_jax.primitives.scale_by_parameter_rms`. The learning rate is relative: 1e-3 changes
    a tensor by a thousandth of its size. pytorch-optimizer's ``Tiger`` is plain Signum.

    **A tensor that starts at zero never moves**, since its RMS is 0, and such tensors are common:
    the last layer of a residual block, a low-rank adapter's second half. The authors' rule
    does this, and so does the default, which reproduces their results. ``min_rms=1e-3`` lets such a
    tensor start.

    Args:
      learning_rate: :math:`\eta` >= 0, without unit.
      b1: :math:`\beta_1` in [0, 1), the decay rate of the momentum.
      weight_decay: :math:`\lambda` >= 0. It stands before the RMS and the learning rate: a step
        shrinks the weights by :math:`1 - \eta_t \operatorname{RMS}(\theta) \lambda`.
      mask: which leaves decay, or how much of :math:`\lambda` each gets; see
        :mod:`lion_jax.groups`. None is all but biases and gains.
      min_rms: a lower bound >= 0 on the RMS of a leaf or row, in the parameters' units.

    Returns:
      A transformation. ``optax.apply_updates`` adds its updates, of the parameters' shapes, dtypes
      and units; :func:`lion_jax.hyperparameters` reads its state, a :class:`HyperparametersState`.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type; parameters missing.

    Example:
      >>> import jax.numpy as jnp, lion_jax
      >>> tx = lion_jax.tiger(0.125, weight_decay=0.5)
      >>> params = {"w": jnp.array([1.0, -7.0]), "bias": jnp.zeros(1)}
      >>> gradients = {"w": jnp.array([0.3, 0.4]), "bias": jnp.array([1.0])}
      >>> updates, _ = tx.update(gradients, tx.init(params), params)
      >>> print(updates["w"], updates["bias"])
      [-0.9375  1.5625] [-0.0625]

    References:
      Su, `Tiger: A Tight-fisted Optimizer <https://github.com/bojone/tiger>`_, 2023: its code. Its
      accumulation over k micro-steps is ``lion_jax.with_accumulation(tiger(...), k)``, to the last
      digit; where a gradient is NaN, it shrinks the tensor by 1 %, here
      :func:`lion_jax.with_finite_guard` skips the step. Its evidence: a picture in its README,
      beside Lion and AdamW.
    """
    return chain(
        scale_by_sign_momentum(b1, b1),
        add_decoupled_weight_decay(weight_decay, not_bias_or_gain if mask is None else mask),
        scale_by_parameter_rms(min_rms),
        optax.scale_by_learning_rate(learning_rate),
    )
