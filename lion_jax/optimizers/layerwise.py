"""Rules in which every leaf has a say of its own: LARS, LAMB and their relatives."""

# A schedule never reaches a step: shows_hyperparameters has made it a number.
# pyright: reportArgumentType=false

from typing import Any

import optax

from lion_jax._checks import check_flag, check_nesterov, check_scalars, is_off
from lion_jax._dtypes import computed_in_float32
from lion_jax._hyperparameters import shows_hyperparameters
from lion_jax.primitives._adam import scale_by_adam
from lion_jax.primitives.decay import add_decoupled_weight_decay
from lion_jax.primitives.layerwise import (
    project_to_tangent,
    scale_by_lars_ratio,
    scale_by_trust_ratio,
)
from lion_jax.primitives.nesterov import scale_by_nesterov_adam
from lion_jax.primitives.rectified import scale_by_rectified_adam


@computed_in_float32
@shows_hyperparameters("learning_rate", "momentum", "weight_decay", "trust_coefficient")
def lars(
    learning_rate: optax.ScalarOrSchedule,
    momentum: optax.ScalarOrSchedule = 0.9,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    *,
    nesterov: bool = False,
    trust_coefficient: optax.ScalarOrSchedule = 0.001,
    scale_clip: tuple[Any, Any] | None = None,
    weight_decay_mask: Any = True,
    trust_ratio_mask: Any = True,
) -> optax.GradientTransformationExtraArgs:
    r"""LARS: momentum SGD with a learning rate for each layer.

    .. math::

      r_t &= \frac{\kappa \, \phi(\lVert \theta_{t-1} \rVert)}
        {\lVert g_t \rVert + \lambda \lVert \theta_{t-1} \rVert} \\
      m_t &= \mu m_{t-1} + \eta_t r_t (g_t + \lambda \theta_{t-1}) \\
      \theta_t &= \theta_{t-1} - m_t

    with :math:`r_t = 1` where either norm is 0. The paper's rule: the learning rate is inside the
    momentum. ``optax.lars`` divides by :math:`\lVert g_t + \lambda \theta_{t-1} \rVert` instead:
    its numbers differ where there is weight decay.

    Args:
      learning_rate: :math:`\eta` >= 0: a number, a traced scalar, or a schedule from the update
        count.
      momentum: :math:`\mu` in [0, 1): a number, a traced scalar, or a schedule from the update
        count. The number 0 keeps no momentum.
      weight_decay: :math:`\lambda` >= 0, likewise.
      nesterov: whether a step goes :math:`\mu m_t + \eta_t r_t (g_t + \lambda \theta_{t-1})`. Needs
        a positive momentum.
      trust_coefficient: :math:`\kappa` >= 0, likewise.
      scale_clip: the bounds of :math:`\phi`, 0 <= low <= high, in the parameters' units; None is
        (0, infinity).
      weight_decay_mask: which leaves decay, or how much of :math:`\lambda` each gets: a boolean, a
        tree of them or of numbers >= 0 like the parameters or a prefix of one, or a function from
        parameters to such a tree, as in :mod:`lion_jax.groups`.
      trust_ratio_mask: which leaves have a rate of their own, the others have :math:`r_t = 1`;
        likewise. ``static_args`` for ``optax.inject_hyperparams``: ``("nesterov", "scale_clip",
        "weight_decay_mask", "trust_ratio_mask")``.

    Returns:
      A transformation from gradients to updates of the parameters' shapes, dtypes and units, to be
      added by ``optax.apply_updates``. Everything is computed in at least float32 and rounded once.
      The state is a :class:`HyperparametersState`, read by :func:`lion_jax.hyperparameters`.

    Raises:
      ValueError: a hyperparameter out of range; at ``update``, missing parameters.
      TypeError: a hyperparameter of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> import lion_jax
      >>> params, tx = jnp.array([3.0, -4.0]), lion_jax.lars(1.0, trust_coefficient=0.5)
      >>> updates, _ = tx.update(jnp.array([8.0, 6.0]), tx.init(params), params)
      >>> print(params + updates)
      [ 1.  -5.5]

    References:
      You et al., `Large Batch Training of Convolutional Networks
      <https://arxiv.org/abs/1708.03888>`_, 2017, Algorithm 1.
    """
    check_scalars(learning_rate=learning_rate, momentum=momentum)
    check_nesterov(nesterov, momentum)
    return optax.chain(
        scale_by_lars_ratio(
            trust_coefficient,
            weight_decay,
            scale_clip,
            weight_decay_mask=weight_decay_mask,
            trust_ratio_mask=trust_ratio_mask,
        ),
        optax.scale_by_learning_rate(learning_rate),
        optax.identity() if is_off(momentum) else optax.trace(momentum, nesterov),
    )


@computed_in_float32
@shows_hyperparameters("learning_rate", "b1", "b2", "eps", "weight_decay")
def lamb(
    learning_rate: optax.ScalarOrSchedule,
    b1: optax.ScalarOrSchedule = 0.9,
    b2: optax.ScalarOrSchedule = 0.999,
    eps: optax.ScalarOrSchedule = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Any = None,
    *,
    scale_clip: tuple[Any, Any] | None = (0.0, 10.0),
) -> optax.GradientTransformationExtraArgs:
    r"""LAMB: Adam with a learning rate for each layer.

    .. math::

      u_t &\leftarrow u_t + \lambda \theta_{t-1} \\
      \theta_t &= \theta_{t-1} - \eta_t \frac{\phi(\lVert \theta_{t-1} \rVert)}{\lVert u_t \rVert}
      u_t

    with Adam's direction :math:`u_t`, bias corrected, and :math:`\phi(z) = \min(\max(z, \phi_l),
    \phi_u)`; where :math:`\phi` or :math:`\lVert u_t \rVert` is 0, the ratio is 1. ``optax.lamb``
    has no bounds: its numbers differ for leaves with a norm above 10.

    Args:
      learning_rate: :math:`\eta` >= 0: a number, a traced scalar, or a schedule from the update
        count.
      b1: :math:`\beta_1` in [0, 1), the decay rate of the first moment: a number, a traced scalar,
        or a schedule from the update count.
      b2: :math:`\beta_2` in [0, 1), the decay rate of the second moment; likewise.
      eps: :math:`\varepsilon` >= 0, in the gradients' units; likewise.
      weight_decay: :math:`\lambda` >= 0, likewise. It is part of the update that the trust ratio
        scales.
      mask: which leaves decay, or how much of :math:`\lambda` each gets: a tree of booleans or of
        numbers >= 0 like the parameters or a prefix of one, or a function from parameters to such a
        tree, as in :mod:`lion_jax.groups`; None is all of them.
      scale_clip: the bounds of :math:`\phi`, 0 <= low <= high, in the parameters' units; None is
        (0, infinity).
        ``static_args`` for ``optax.inject_hyperparams``: ``("mask", "scale_clip")``.

    Returns:
      A transformation from gradients to updates of the parameters' shapes, dtypes and units, to be
      added by ``optax.apply_updates``. Everything is computed in at least float32 and rounded once.
      The state is a :class:`HyperparametersState`, read by :func:`lion_jax.hyperparameters`.

    Raises:
      ValueError: a hyperparameter out of range; at ``update``, missing parameters.
      TypeError: a hyperparameter of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> import lion_jax
      >>> params, tx = jnp.array([3.0, -4.0]), lion_jax.lamb(0.1)
      >>> updates, _ = tx.update(jnp.array([4.0, 0.5]), tx.init(params), params)
      >>> print(params + updates)
      [ 2.6464467 -4.3535533]

    References:
      You et al., `Large Batch Optimization for Deep Learning: Training BERT in 76 minutes
      <https://arxiv.org/abs/1904.00962>`_, 2020, Algorithm 2.
    """
    check_scalars(learning_rate=learning_rate, b1=b1, b2=b2, eps=eps)
    return optax.chain(
        scale_by_adam(b1, b2, eps),
        add_decoupled_weight_decay(weight_decay, mask),
        scale_by_trust_ratio(scale_clip),
        optax.scale_by_learning_rate(learning_rate),
    )


@computed_in_float32
@shows_hyperparameters("learning_rate", "b1", "b2", "eps", "weight_decay")
def ralars(
    learning_rate: optax.ScalarOrSchedule,
    b1: optax.ScalarOrSchedule = 0.9,
    b2: optax.ScalarOrSchedule = 0.999,
    eps: optax.ScalarOrSchedule = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Any = None,
    *,
    scale_clip: tuple[Any, Any] | None = (0.0, 10.0),
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
      learning_rate: :math:`\eta` >= 0: a number, a traced scalar, or a schedule from the update
        count.
      b1: :math:`\beta_1` in [0, 1), the decay rate of the first moment: a number, a traced scalar,
        or a schedule from the update count.
      b2: :math:`\beta_2` in [0, 1), the decay rate of the second moment; likewise.
      eps: :math:`\varepsilon` >= 0, in the gradients' units; likewise.
      weight_decay: :math:`\lambda` >= 0, likewise. It is part of the update that the trust ratio
        scales.
      mask: which leaves decay, or how much of :math:`\lambda` each gets: a tree of booleans or of
        numbers >= 0 like the parameters or a prefix of one, or a function from parameters to such a
        tree, as in :mod:`lion_jax.groups`; None is all of them.
      scale_clip: the bounds of :math:`\phi`, 0 <= low <= high, in the parameters' units; None is
        (0, infinity).
      force_adaptive_momentum: whether Adam's direction replaces the plain momentum in the first
        steps. ``static_args`` for ``optax.inject_hyperparams``: ``("mask", "scale_clip",
        "force_adaptive_momentum")``.

    Returns:
      A transformation from gradients to updates of the parameters' shapes, dtypes and units, to be
      added by ``optax.apply_updates``. Everything is computed in at least float32 and rounded once.
      The state is a :class:`HyperparametersState`, read by :func:`lion_jax.hyperparameters`.

    Raises:
      ValueError: a hyperparameter out of range; at ``update``, missing parameters.
      TypeError: a hyperparameter of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> import lion_jax
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
    check_scalars(learning_rate=learning_rate)
    return optax.chain(
        scale_by_rectified_adam(b1, b2, eps, force_adaptive_momentum=force_adaptive_momentum),
        add_decoupled_weight_decay(weight_decay, mask),
        scale_by_trust_ratio(scale_clip),
        optax.scale_by_learning_rate(learning_rate),
    )


@computed_in_float32
@shows_hyperparameters("learning_rate", "b1", "b2", "eps", "weight_decay", "delta", "wd_ratio")
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
    :func:`~lion_jax.primitives.project_to_tangent`, of channels or else of the leaf where gradients
    are at right angles to weights. There :math:`r` is ``wd_ratio``; elsewhere :math:`\Pi` changes
    nothing and :math:`r` is 1.

    Args:
      learning_rate: :math:`\eta` >= 0: a number, a traced scalar, or a schedule from the update
        count.
      b1: :math:`\beta_1` in [0, 1), the decay rate of the first moment: a number, a traced scalar,
        or a schedule from the update count.
      b2: :math:`\beta_2` in [0, 1), the decay rate of the second moment; likewise.
      eps: :math:`\varepsilon` >= 0, in the gradients' units; likewise.
      weight_decay: :math:`\lambda` >= 0, likewise. It stands before the learning rate, as in AdamW.
      delta: threshold >= 0 on the cosine, over the root of the number of entries; likewise.
      wd_ratio: :math:`r` >= 0 of projected weights; likewise.
      nesterov: whether the direction is :func:`~lion_jax.primitives.scale_by_nesterov_adam`'s.
      channel_axis: the axis that tells channels apart: the last for the layouts of JAX, 0 for
        PyTorch's. ``static_args`` for ``optax.inject_hyperparams``: ``("nesterov",
        "channel_axis")``.

    Returns:
      A transformation from gradients to updates of the parameters' shapes, dtypes and units, to be
      added by ``optax.apply_updates``. Everything is computed in at least float32 and rounded once.
      The state is a :class:`HyperparametersState`, read by :func:`lion_jax.hyperparameters`.

    Raises:
      ValueError: a hyperparameter out of range; at ``update``, missing parameters.
      TypeError: a hyperparameter of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> import lion_jax
      >>> params, tx = jnp.array([[2.0], [0.0]]), lion_jax.adamp(0.1)
      >>> updates, _ = tx.update(jnp.array([[0.0], [1.0]]), tx.init(params), params)
      >>> print((params + updates).round(3).T)
      [[ 2.  -0.1]]

    References:
      Heo et al., `AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant
      Weights <https://arxiv.org/abs/2006.08217>`_, 2021, Algorithm 2; the authors' package
      ``adamp`` 0.3.0.
    """
    check_scalars(learning_rate=learning_rate, b1=b1, b2=b2, eps=eps)
    check_flag("nesterov", nesterov)
    adam = scale_by_nesterov_adam if nesterov else scale_by_adam
    return optax.chain(
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
