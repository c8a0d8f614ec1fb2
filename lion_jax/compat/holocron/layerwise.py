"""pylocron's rules with a learning rate for each leaf."""

import optax

from lion_jax._checks import check_nesterov, check_numbers, check_peer, check_scale_clip
from lion_jax._dtypes import computed_in_float32
from lion_jax._hyperparameters import shows_hyperparameters
from lion_jax.compat._moments import (
    Betas,
    Scalar,
    heavy_ball,
    refuse_complex,
    scale_by_undebiased_adam,
    unpack_betas,
)
from lion_jax.compat.holocron._links import scale_by_outer_lars_ratio
from lion_jax.optimizers import layerwise
from lion_jax.primitives.decay import add_decoupled_weight_decay
from lion_jax.primitives.layerwise import scale_by_trust_ratio


@computed_in_float32
@shows_hyperparameters("lr", "betas", "eps", "weight_decay")
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

    Departs from the paper: no bias correction of the moments.

    Args:
      lr: :math:`\eta` >= 0: a number, a traced scalar, or a schedule from the update count.
      betas: :math:`(\beta_1, \beta_2)`, each in [0, 1): numbers or traced scalars.
      eps: :math:`\varepsilon` >= 0: a number or a traced scalar.
      weight_decay: :math:`\lambda` >= 0, part of the update that the ratio scales.
      scale_clip: bounds of the parameters' norm, 0 <= low <= high; None is (0, 10).
        ``static_args`` for ``optax.inject_hyperparams``: ``("betas", "scale_clip")``.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError: a hyperparameter out of range; at ``update``, missing parameters.
      TypeError: a hyperparameter of the wrong type.

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
    check_peer(learning_rate=("lr", lr))
    check_numbers(eps=eps, weight_decay=weight_decay)
    b1, b2 = unpack_betas(betas)
    return optax.chain(
        refuse_complex("holocron.lamb"),
        scale_by_undebiased_adam(b1, b2, eps),
        add_decoupled_weight_decay(weight_decay),
        scale_by_trust_ratio(_clip(scale_clip)),
        optax.scale_by_learning_rate(lr),
    )


@computed_in_float32
@shows_hyperparameters("lr", "momentum", "dampening", "weight_decay")
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
    Departs from the paper: the ratio stands outside the momentum and has no coefficient, and
    ``scale_clip`` is never read.

    Args:
      lr: :math:`\eta` >= 0: a number, a traced scalar, or a schedule from the update count.
      momentum: :math:`\mu` in [0, 1): a number or a traced scalar.
      dampening: :math:`\tau` in [0, 1], likewise.
      weight_decay: :math:`\lambda` >= 0, likewise.
      nesterov: whether the momentum is Nesterov's. Needs a positive momentum and no dampening.
      scale_clip: bounds that change nothing, 0 <= low <= high.
        ``static_args`` for ``optax.inject_hyperparams``: ``("nesterov", "scale_clip")``.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError: a hyperparameter out of range; at ``update``, missing parameters.
      TypeError: a hyperparameter of the wrong type.

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
    check_peer(learning_rate=("lr", lr))
    check_numbers(momentum=momentum, dampening=dampening, weight_decay=weight_decay)
    check_nesterov(nesterov, momentum, dampening)
    check_scale_clip("scale_clip", scale_clip)
    return optax.chain(
        scale_by_outer_lars_ratio(heavy_ball(momentum, dampening, nesterov), weight_decay),
        optax.scale_by_learning_rate(lr),
    )


@computed_in_float32
def ralars(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    force_adaptive_momentum: bool = False,
    scale_clip: tuple[Scalar, Scalar] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""``RaLars`` of pylocron.

    As :func:`lion_jax.ralars`, under the peer's names: rectified Adam with LAMB's ratio.

    Args:
      lr: :math:`\eta` >= 0: a number, a traced scalar, or a schedule from the update count.
      betas: :math:`(\beta_1, \beta_2)`, each in [0, 1): numbers or traced scalars.
      eps: :math:`\varepsilon` >= 0: a number or a traced scalar.
      weight_decay: :math:`\lambda` >= 0, part of the update that the ratio scales.
      force_adaptive_momentum: whether Adam's direction replaces the plain momentum in the first
        steps.
      scale_clip: bounds of the parameters' norm, 0 <= low <= high; None is (0, 10).
        ``static_args`` for ``optax.inject_hyperparams``: ``("betas",
        "force_adaptive_momentum", "scale_clip")``.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError: a hyperparameter out of range; at ``update``, missing parameters.
      TypeError: a hyperparameter of the wrong type.

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
    check_peer(learning_rate=("lr", lr))
    check_numbers(eps=eps, weight_decay=weight_decay)
    b1, b2 = unpack_betas(betas)
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
