"""Rules that use each leaf as a whole: LARS, LAMB and their relatives."""

import optax

from lion_jax._core.kinds import (
    BOUNDS,
    CHANNEL_AXIS,
    DECAY_RATE,
    FLAG,
    MASK,
    NON_NEGATIVE,
    SHARES,
    check_nesterov,
    is_off,
)
from lion_jax._core.rule import chain, number, optimizer
from lion_jax._core.types import Mask, Scalar
from lion_jax.optimizers.adaptive import ADAMW
from lion_jax.primitives._adam import scale_by_adam
from lion_jax.primitives.decay import add_decoupled_weight_decay
from lion_jax.primitives.layerwise import (
    project_to_tangent,
    scale_by_lars_ratio,
    scale_by_trust_ratio,
)
from lion_jax.primitives.nesterov import scale_by_nesterov_adam
from lion_jax.primitives.rectified import scale_by_rectified_adam


@optimizer(
    learning_rate=ADAMW["learning_rate"],
    momentum=DECAY_RATE,
    weight_decay=NON_NEGATIVE,
    nesterov=FLAG,
    trust_coefficient=NON_NEGATIVE,
    scale_clip=BOUNDS,
    weight_decay_mask=SHARES,
    trust_ratio_mask=MASK,
)
def lars(
    learning_rate: optax.ScalarOrSchedule,
    momentum: optax.ScalarOrSchedule = 0.9,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    *,
    nesterov: bool = False,
    trust_coefficient: optax.ScalarOrSchedule = 0.001,
    scale_clip: tuple[Scalar, Scalar] | None = None,
    weight_decay_mask: Mask = True,
    trust_ratio_mask: Mask = True,
) -> optax.GradientTransformationExtraArgs:
    r"""LARS: momentum SGD with a learning rate for each layer.

    .. math::

      r_t &= \frac{\kappa \, \phi(\lVert \theta_{t-1} \rVert)}
        {\lVert g_t \rVert + \lambda \lVert \theta_{t-1} \rVert} \\
      m_t &= \mu m_{t-1} + \eta_t r_t (g_t + \lambda \theta_{t-1}) \\
      \theta_t &= \theta_{t-1} - m_t

    with :math:`r_t = 1` where either norm is 0. The paper's rule: the learning rate is inside the
    momentum. ``optax.lars`` divides by :math:`\lVert g_t + \lambda \theta_{t-1} \rVert` instead:
    its results differ if there is weight decay.

    Args:
      learning_rate: :math:`\eta` >= 0.
      momentum: :math:`\mu` in [0, 1). The number 0 keeps no momentum.
      weight_decay: :math:`\lambda` >= 0.
      nesterov: whether a step goes :math:`\mu m_t + \eta_t r_t (g_t + \lambda \theta_{t-1})`. Needs
        a positive momentum.
      trust_coefficient: :math:`\kappa` >= 0.
      scale_clip: the bounds of :math:`\phi`, 0 <= low <= high, in the parameters' units; None is
        (0, infinity).
      weight_decay_mask: which leaves decay, or how much of :math:`\lambda` each gets; see
        :mod:`lion_jax.groups`. True is all.
      trust_ratio_mask: the leaves with a rate of their own; the others have :math:`r_t = 1`.

    Returns:
      A transformation. ``optax.apply_updates`` adds its updates, of the parameters' shapes, dtypes
      and units; :func:`lion_jax.hyperparameters` reads its state, a :class:`HyperparametersState`.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type; parameters missing.

    Example:
      >>> import jax.numpy as jnp, lion_jax
      >>> params, tx = jnp.array([3.0, -4.0]), lion_jax.lars(1.0, trust_coefficient=0.5)
      >>> updates, _ = tx.update(jnp.array([8.0, 6.0]), tx.init(params), params)
      >>> print(params + updates)
      [ 1.  -5.5]

    References:
      You et al., `Large Batch Training of Convolutional Networks
      <https://arxiv.org/abs/1708.03888>`_, 2017, Algorithm 1.
    """
    check_nesterov(nesterov, momentum)
    return chain(
        scale_by_lars_ratio(
            trust_coefficient,
            weight_decay,
            scale_clip,
            weight_decay_mask=weight_decay_mask,
            trust_ratio_mask=trust_ratio_mask,
        ),
        optax.scale_by_learning_rate(learning_rate),
        optax.identity() if is_off(momentum) else optax.trace(number(momentum), nesterov),
    )


@optimizer(**ADAMW, mask=SHARES, scale_clip=BOUNDS)
def lamb(
    learning_rate: optax.ScalarOrSchedule,
    b1: optax.ScalarOrSchedule = 0.9,
    b2: optax.ScalarOrSchedule = 0.999,
    eps: optax.ScalarOrSchedule = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    scale_clip: tuple[Scalar, Scalar] | None = (0.0, 10.0),
) -> optax.GradientTransformationExtraArgs:
    r"""LAMB: Adam with a learning rate for each layer.

    .. math::

      u_t &\leftarrow u_t + \lambda \theta_{t-1} \\
      \theta_t &= \theta_{t-1} - \eta_t \frac{\phi(\lVert \theta_{t-1} \rVert)}{\lVert u_t \rVert}
      u_t

    with Adam's direction :math:`u_t`, bias corrected, and :math:`\phi(z) = \min(\max(z, \phi_l),
    \phi_u)`; where :math:`\phi` or :math:`\lVert u_t \rVert` is 0, the ratio is 1. ``optax.lamb``
    has no bounds: its results differ for leaves with a norm above 10.

    Args:
      learning_rate: :math:`\eta` >= 0.
      b1: :math:`\beta_1` in [0, 1), the decay rate of the first moment.
      b2: :math:`\beta_2` in [0, 1), the decay rate of the second moment.
      eps: :math:`\varepsilon` >= 0, in the gradients' units.
      weight_decay: :math:`\lambda` >= 0. It is part of the update that the trust ratio scales.
      mask: which leaves decay, or how much of :math:`\lambda` each gets; see
        :mod:`lion_jax.groups`. None is all.
      scale_clip: the bounds of :math:`\phi`, 0 <= low <= high, in the parameters' units; None is
        (0, infinity).

    Returns:
      A transformation. ``optax.apply_updates`` adds its updates, of the parameters' shapes, dtypes
      and units; :func:`lion_jax.hyperparameters` reads its state, a :class:`HyperparametersState`.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type; parameters missing.

    Example:
      >>> import jax.numpy as jnp, lion_jax
      >>> params, tx = jnp.array([3.0, -4.0]), lion_jax.lamb(0.1)
      >>> updates, _ = tx.update(jnp.array([4.0, 0.5]), tx.init(params), params)
      >>> print(params + updates)
      [ 2.6464467 -4.3535533]

    References:
      You et al., `Large Batch Optimization for Deep Learning: Training BERT in 76 minutes
      <https://arxiv.org/abs/1904.00962>`_, 2020, Algorithm 2.
    """
    return chain(
        scale_by_adam(b1, b2, eps),
        add_decoupled_weight_decay(weight_decay, mask),
        scale_by_trust_ratio(scale_clip),
        optax.scale_by_learning_rate(learning_rate),
    )


@optimizer(**ADAMW, mask=SHARES, scale_clip=BOUNDS, force_adaptive_momentum=FLAG)
def ralars(
    learning_rate: optax.ScalarOrSchedule,
    b1: optax.ScalarOrSchedule = 0.9,
    b2: optax.ScalarOrSchedule = 0.999,
    eps: optax.ScalarOrSchedule = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    scale_clip: tuple[Scalar, Scalar] | None = (0.0, 10.0),
    force_adaptive_momentum: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""RaLars: rectified Adam with a learning rate for each layer.

    .. math::

      u_t &\leftarrow u_t + \lambda \theta_{t-1} \\
      \theta_t &= \theta_{t-1} - \eta_t \frac{\phi(\lVert \theta_{t-1} \rVert)}{\lVert u_t \rVert}
      u_t

    with the direction :math:`u_t` of :func:`~lion_jax.primitives.scale_by_rectified_adam` and the
    bounds :math:`\phi` of :func:`lamb`.

    Args:
      learning_rate: :math:`\eta` >= 0.
      b1: :math:`\beta_1` in [0, 1), the decay rate of the first moment.
      b2: :math:`\beta_2` in [0, 1), the decay rate of the second moment.
      eps: :math:`\varepsilon` >= 0, in the gradients' units.
      weight_decay: :math:`\lambda` >= 0. It is part of the update that the trust ratio scales.
      mask: which leaves decay, or how much of :math:`\lambda` each gets; see
        :mod:`lion_jax.groups`. None is all.
      scale_clip: the bounds of :math:`\phi`, 0 <= low <= high, in the parameters' units; None is
        (0, infinity).
      force_adaptive_momentum: whether Adam's direction replaces the plain momentum in the first
        steps.

    Returns:
      A transformation. ``optax.apply_updates`` adds its updates, of the parameters' shapes, dtypes
      and units; :func:`lion_jax.hyperparameters` reads its state, a :class:`HyperparametersState`.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type; parameters missing.

    Example:
      >>> import jax.numpy as jnp, lion_jax
      >>> params, tx = jnp.array([3.0, -4.0]), lion_jax.ralars(0.1)
      >>> updates, _ = tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)
      >>> print(params + updates)
      [ 2.7 -4.4]

    References:
      Liu et al., `On the Variance of the Adaptive Learning Rate and Beyond
      <https://arxiv.org/abs/1908.03265>`_, 2020, Algorithm 2; You et al., `Large Batch Training of
      Convolutional Networks <https://arxiv.org/abs/1708.03888>`_, 2017; their union: ``RaLars`` of
      pylocron 0.3.0.
    """
    return chain(
        scale_by_rectified_adam(b1, b2, eps, force_adaptive_momentum=force_adaptive_momentum),
        add_decoupled_weight_decay(weight_decay, mask),
        scale_by_trust_ratio(scale_clip),
        optax.scale_by_learning_rate(learning_rate),
    )


@optimizer(
    **ADAMW, delta=NON_NEGATIVE, wd_ratio=NON_NEGATIVE, nesterov=FLAG, channel_axis=CHANNEL_AXIS
)
def adamp(
    learning_rate: optax.ScalarOrSchedule,
    b1: optax.ScalarOrSchedule = 0.9,
    b2: optax.ScalarOrSchedule = 0.999,
    eps: optax.ScalarOrSchedule = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    *,
    delta: optax.ScalarOrSchedule = 0.1,
    wd_ratio: optax.ScalarOrSchedule = 0.1,
    nesterov: bool = False,
    channel_axis: int = -1,
) -> optax.GradientTransformationExtraArgs:
    r"""AdamP: Adam that does not lengthen scale-invariant weights.

    .. math::

      \theta_t = \theta_{t-1} - \eta_t \left(\Pi(u_t) + \lambda r \theta_{t-1}\right)

    with Adam's direction :math:`u_t` and the projection :math:`\Pi` of
    :func:`~lion_jax.primitives.project_to_tangent`. Where gradients are at right angles to weights,
    it projects channels, or else the leaf, and :math:`r` is ``wd_ratio``. Elsewhere it changes
    nothing, and :math:`r` is 1.

    Args:
      learning_rate: :math:`\eta` >= 0.
      b1: :math:`\beta_1` in [0, 1), the decay rate of the first moment.
      b2: :math:`\beta_2` in [0, 1), the decay rate of the second moment.
      eps: :math:`\varepsilon` >= 0, in the gradients' units.
      weight_decay: :math:`\lambda` >= 0. It stands before the learning rate, as in AdamW.
      delta: threshold >= 0 on the cosine, over the root of the number of entries.
      wd_ratio: :math:`r` >= 0 of projected weights.
      nesterov: whether to use the direction of :func:`~lion_jax.primitives.scale_by_nesterov_adam`.
      channel_axis: the axis of the channels: the last in the layouts of JAX, 0 in PyTorch's.

    Returns:
      A transformation. ``optax.apply_updates`` adds its updates, of the parameters' shapes, dtypes
      and units; :func:`lion_jax.hyperparameters` reads its state, a :class:`HyperparametersState`.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type; parameters missing.

    Example:
      >>> import jax.numpy as jnp, lion_jax
      >>> params, tx = jnp.array([[2.0], [0.0]]), lion_jax.adamp(0.1)
      >>> updates, _ = tx.update(jnp.array([[0.0], [1.0]]), tx.init(params), params)
      >>> print((params + updates).round(3).T)
      [[ 2.  -0.1]]

    References:
      Heo et al., `AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant
      Weights <https://arxiv.org/abs/2006.08217>`_, 2021, Algorithm 2; the authors' package
      ``adamp`` 0.3.0.
    """
    adam = scale_by_nesterov_adam if nesterov else scale_by_adam
    return chain(
        project_to_tangent(
            adam(b1, b2, eps),
            delta,
            eps,
            weight_decay=weight_decay,
            wd_ratio=wd_ratio,
            channel_axis=channel_axis,
        ),
        optax.scale_by_learning_rate(learning_rate),
    )
