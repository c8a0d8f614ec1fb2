"""pylocron's rules with a learning rate for each leaf."""

import optax

from lion_jax._core.kinds import BOUNDS, DECAY_RATE, FLAG, FRACTION, check_nesterov
from lion_jax._core.rule import chain, optimizer, takes
from lion_jax._core.types import Betas, Scalar
from lion_jax.compat._moments import (
    ADAM,
    LEARNING_RATE,
    WEIGHT_DECAY,
    heavy_ball,
    refuse_complex,
    scale_by_undebiased_adam,
)
from lion_jax.compat.holocron._links import scale_by_outer_lars_ratio
from lion_jax.optimizers import layerwise
from lion_jax.primitives.decay import add_decoupled_weight_decay
from lion_jax.primitives.layerwise import scale_by_trust_ratio


@optimizer(**ADAM, scale_clip=BOUNDS)
def lamb(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    scale_clip: tuple[Scalar, Scalar] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""``LAMB`` of pylocron.

    .. math::

      u_t &= \frac{m_t}{\sqrt{v_t} + \varepsilon} + \lambda \theta_{t-1} \\
      \theta_t &= \theta_{t-1} - \eta_t \frac{\phi(\lVert \theta_{t-1} \rVert)}{\lVert u_t \rVert}
      u_t

    It departs from the paper: no bias correction of the moments.

    Args:
      lr: :math:`\eta` >= 0.
      betas: :math:`(\beta_1, \beta_2)`, each in [0, 1).
      eps: :math:`\varepsilon` >= 0.
      weight_decay: :math:`\lambda` >= 0, part of the update that the ratio scales.
      scale_clip: bounds of the parameters' norm, 0 <= low <= high; None is (0, 10).

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError, TypeError: a hyperparameter out of range or of the wrong type; missing parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> params, tx = jnp.array([3.0, -4.0]), compat.holocron.lamb(0.1)
      >>> updates, _ = tx.update(jnp.array([8.0, 6.0]), tx.init(params), params)
      >>> print(updates.round(3))
      [-0.354 -0.354]

    References:
      `pylocron <https://github.com/frgfm/Holocron>`_ 0.3.0, ``holocron.optim.LAMB``.
    """
    b1, b2 = betas
    return chain(
        refuse_complex("holocron.lamb"),
        scale_by_undebiased_adam(b1, b2, eps),
        add_decoupled_weight_decay(weight_decay),
        scale_by_trust_ratio(_clip(scale_clip)),
        optax.scale_by_learning_rate(lr),
    )


@optimizer(
    lr=LEARNING_RATE,
    momentum=DECAY_RATE.constant(),
    dampening=FRACTION.constant(),
    weight_decay=WEIGHT_DECAY,
    nesterov=FLAG,
    scale_clip=BOUNDS,
)
def lars(
    lr: optax.ScalarOrSchedule = 1e-3,
    momentum: Scalar = 0.0,
    dampening: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    nesterov: bool = False,
    scale_clip: tuple[Scalar, Scalar] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""``LARS`` of pylocron.

    .. math::

      d_t &= g_t + \lambda \theta_{t-1}, \qquad
      b_1 = d_1, \quad b_t = \mu b_{t-1} + (1 - \tau) d_t \\
      \theta_t &= \theta_{t-1} - \eta_t \frac{\lVert \theta_{t-1} \rVert}
        {\lVert g_t \rVert + \lambda \lVert \theta_{t-1} \rVert} b_t

    with :math:`d_t + \mu b_t` in the place of :math:`b_t` for Nesterov's momentum.
    It departs from the paper: the ratio stands outside the momentum and has no coefficient, and
    ``scale_clip`` is never read.

    Args:
      lr: :math:`\eta` >= 0.
      momentum: :math:`\mu` in [0, 1).
      dampening: :math:`\tau` in [0, 1].
      weight_decay: :math:`\lambda` >= 0.
      nesterov: whether the momentum is Nesterov's. Needs a positive momentum and no dampening.
      scale_clip: bounds without effect, 0 <= low <= high.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError, TypeError: a hyperparameter out of range or of the wrong type; missing parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> params, tx = jnp.array([3.0, -4.0]), compat.holocron.lars(0.1)
      >>> updates, _ = tx.update(jnp.array([8.0, 6.0]), tx.init(params), params)
      >>> print(updates.round(3))
      [-0.4 -0.3]

    References:
      `pylocron <https://github.com/frgfm/Holocron>`_ 0.3.0, ``holocron.optim.LARS``.
    """
    check_nesterov(nesterov, momentum, dampening)
    return chain(
        scale_by_outer_lars_ratio(heavy_ball(momentum, dampening, nesterov), weight_decay),
        optax.scale_by_learning_rate(lr),
    )


@takes(**ADAM, force_adaptive_momentum=FLAG, scale_clip=BOUNDS)
def ralars(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    force_adaptive_momentum: bool = False,
    scale_clip: tuple[Scalar, Scalar] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""``RaLars`` of pylocron.

    It is :func:`lion_jax.ralars` under pylocron's names: rectified Adam with LAMB's ratio.

    Args:
      lr: :math:`\eta` >= 0.
      betas: :math:`(\beta_1, \beta_2)`, each in [0, 1).
      eps: :math:`\varepsilon` >= 0.
      weight_decay: :math:`\lambda` >= 0, part of the update that the ratio scales.
      force_adaptive_momentum: whether Adam's direction replaces the plain momentum in the first
        steps.
      scale_clip: bounds of the parameters' norm, 0 <= low <= high; None is (0, 10).

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError, TypeError: a hyperparameter out of range or of the wrong type; missing parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> params, tx = jnp.array([3.0, -4.0]), compat.holocron.ralars(0.1)
      >>> updates, _ = tx.update(jnp.array([8.0, 6.0]), tx.init(params), params)
      >>> print(updates.round(3))
      [-0.4 -0.3]

    References:
      `pylocron <https://github.com/frgfm/Holocron>`_ 0.3.0, ``holocron.optim.RaLars``.
    """
    b1, b2 = betas
    return layerwise.ralars(
        lr,
        b1,
        b2,
        eps,
        weight_decay,
        scale_clip=_clip(scale_clip),
        force_adaptive_momentum=force_adaptive_momentum,
    )


def _clip(scale_clip: tuple[Scalar, Scalar] | None) -> tuple[Scalar, Scalar]:
    return (0.0, 10.0) if scale_clip is None else scale_clip
