"""pylocron's (Holocron's) optimizers and wrappers."""

import math

import optax

from lion_jax._checks import (
    check_flag,
    check_nesterov,
    check_number,
    check_numbers,
    check_peer,
    check_positive_integer,
    check_scale_clip,
    check_transformation,
)
from lion_jax._dtypes import computed_in_float32
from lion_jax.combinators.lookahead import lookahead as core_lookahead
from lion_jax.combinators.scout import scout_with
from lion_jax.compat._holocron import (
    project_by_signed_cosine,
    scale_by_forgetful_adan,
    scale_by_outer_lars_ratio,
)
from lion_jax.compat._moments import (
    Betas,
    Scalar,
    heavy_ball,
    refuse_complex,
    scale_by_amsgrad,
    scale_by_undebiased_adam,
    unpack_betas,
)
from lion_jax.optimizers import adaptive, layerwise
from lion_jax.primitives.decay import add_decoupled_weight_decay, apply_proximal_weight_decay
from lion_jax.primitives.layerwise import scale_by_trust_ratio
from lion_jax.primitives.two_speed import scale_by_ademamix


@computed_in_float32
def adabelief(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    amsgrad: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""``AdaBelief`` of pylocron.

    .. math::

      m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad
      s_t = \beta_2 s_{t-1} + (1 - \beta_2) (g_t - m_t)^2 \\
      \theta_t &= \theta_{t-1} - \eta_t \frac{m_t}{1 - \beta_1^t} \Big/
        \left(\sqrt{\frac{s_t}{1 - \beta_2^t}} + \varepsilon\right)

    Departs from the paper: no :math:`\varepsilon` in :math:`s_t`, and a coupled weight decay.

    Args:
      lr: :math:`\eta` >= 0: a number, a traced scalar, or a schedule from the update count.
      betas: :math:`(\beta_1, \beta_2)`, each in [0, 1): numbers or traced scalars.
      eps: :math:`\varepsilon` >= 0: a number or a traced scalar.
      weight_decay: :math:`\lambda` >= 0, coupled: :math:`g \leftarrow g + \lambda \theta`.
      amsgrad: whether the largest second moment so far stands in for the present one.
        ``static_args`` for ``optax.inject_hyperparams``: ``("betas", "amsgrad")``.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError: a hyperparameter out of range; at ``update``, missing parameters.
      TypeError: a hyperparameter of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> params, tx = jnp.array([3.0, -4.0]), compat.holocron.adabelief(0.09)
      >>> updates, _ = tx.update(jnp.array([8.0, 6.0]), tx.init(params), params)
      >>> print(updates.round(3))
      [-0.1 -0.1]

    References:
      `pylocron <https://github.com/frgfm/Holocron>`_ 0.3.0, ``holocron.optim.AdaBelief``.
    """
    check_peer(learning_rate=("lr", lr))
    check_numbers(eps=eps, weight_decay=weight_decay)
    check_flag("amsgrad", amsgrad)
    b1, b2 = unpack_betas(betas)
    belief = optax.scale_by_belief(b1, b2, eps, eps_root=0.0)
    return optax.chain(
        refuse_complex("holocron.adabelief"),
        add_decoupled_weight_decay(weight_decay),
        scale_by_amsgrad(b1, b2, eps, belief=True) if amsgrad else belief,
        optax.scale_by_learning_rate(lr),
    )


@computed_in_float32
def adamp(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    amsgrad: bool = False,
    delta: Scalar = 0.1,
) -> optax.GradientTransformationExtraArgs:
    r"""``AdamP`` of pylocron.

    .. math::

      \theta_t = \theta_{t-1} - \eta_t \Pi(u_t)

    with Adam's direction :math:`u_t`, and :math:`\Pi` its projection at right angles to
    :math:`\theta` where :math:`\cos(\theta, g) < \delta / \sqrt{d}`.
    Departs from the paper: the cosine keeps its sign, and whole leaves of any rank are projected,
    so that a leaf of one entry can freeze; a coupled weight decay.

    Args:
      lr: :math:`\eta` >= 0: a number, a traced scalar, or a schedule from the update count.
      betas: :math:`(\beta_1, \beta_2)`, each in [0, 1): numbers or traced scalars.
      eps: :math:`\varepsilon` >= 0: a number or a traced scalar.
      weight_decay: :math:`\lambda` >= 0, coupled: :math:`g \leftarrow g + \lambda \theta`.
      amsgrad: whether the largest second moment so far stands in for the present one.
        ``static_args`` for ``optax.inject_hyperparams``: ``("betas", "amsgrad")``.
      delta: :math:`\delta` >= 0: a number or a traced scalar.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError: a hyperparameter out of range; at ``update``, missing parameters.
      TypeError: a hyperparameter of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> params, tx = jnp.array([4.0, 0.0]), compat.holocron.adamp(0.1)
      >>> updates, _ = tx.update(jnp.array([-1.0, 1.0]), tx.init(params), params)
      >>> print(updates.round(3))
      [-0.  -0.1]

    References:
      `pylocron <https://github.com/frgfm/Holocron>`_ 0.3.0, ``holocron.optim.AdamP``.
    """
    check_peer(learning_rate=("lr", lr))
    check_numbers(eps=eps, weight_decay=weight_decay)
    check_numbers(delta=delta)
    check_flag("amsgrad", amsgrad)
    b1, b2 = unpack_betas(betas)
    adam = scale_by_amsgrad if amsgrad else optax.scale_by_adam
    return optax.chain(
        refuse_complex("holocron.adamp"),
        add_decoupled_weight_decay(weight_decay),
        project_by_signed_cosine(adam(b1, b2, eps), delta, eps),
        optax.scale_by_learning_rate(lr),
    )


@computed_in_float32
def adan(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: tuple[Scalar, Scalar, Scalar] = (0.98, 0.92, 0.99),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    amsgrad: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""``Adan`` of pylocron.

    .. math::

      \theta_t = \frac{\theta_{t-1} - \eta_t u_t}{1 + \eta_t \lambda}

    with the direction :math:`u_t` of :func:`~lion_jax.primitives.scale_by_adan`.
    Departs from the paper: the last gradient is never stored, so that :math:`\Delta_t = g_t`, and
    the weight decay is applied twice, to the gradient and to the weights.

    Args:
      lr: :math:`\eta` >= 0: a number, a traced scalar, or a schedule from the update count.
      betas: :math:`(\beta_1, \beta_2, \beta_3)`, each in [0, 1): numbers or traced scalars.
      eps: :math:`\varepsilon` >= 0: a number or a traced scalar.
      weight_decay: :math:`\lambda` >= 0, coupled and proximal.
      amsgrad: whether the largest second moment so far stands in for the present one.
        ``static_args`` for ``optax.inject_hyperparams``: ``("betas", "amsgrad")``.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError: a hyperparameter out of range; at ``update``, missing parameters.
      TypeError: a hyperparameter of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> params, tx = jnp.array([3.0, -4.0]), compat.holocron.adan(0.1)
      >>> updates, _ = tx.update(jnp.array([8.0, 6.0]), tx.init(params), params)
      >>> print(updates.round(3))
      [-0.1 -0.1]

    References:
      `pylocron <https://github.com/frgfm/Holocron>`_ 0.3.0, ``holocron.optim.Adan``.
    """
    check_peer(learning_rate=("lr", lr))
    check_numbers(eps=eps, weight_decay=weight_decay)
    check_flag("amsgrad", amsgrad)
    b1, b2, b3 = unpack_betas(betas, 3)
    return optax.chain(
        refuse_complex("holocron.adan"),
        add_decoupled_weight_decay(weight_decay),
        scale_by_forgetful_adan(b1, b2, b3, eps, amsgrad=amsgrad),
        optax.scale_by_learning_rate(lr),
        apply_proximal_weight_decay(lr, weight_decay),
    )


@computed_in_float32
def ademamix(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: tuple[Scalar, Scalar, Scalar] = (0.9, 0.999, 0.9999),
    alpha: Scalar = 5.0,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
) -> optax.GradientTransformationExtraArgs:
    r"""``AdEMAMix`` of pylocron.

    .. math::

      \theta_t = \theta_{t-1} - \eta_t u_t

    with the direction :math:`u_t` of :func:`~lion_jax.primitives.scale_by_ademamix`.
    Departs from the paper: a coupled weight decay, and no warm-up.

    Args:
      lr: :math:`\eta` >= 0: a number, a traced scalar, or a schedule from the update count.
      betas: :math:`(\beta_1, \beta_2, \beta_3)`, each in [0, 1): numbers or traced scalars.
        ``static_args`` for ``optax.inject_hyperparams``: ``("betas",)``.
      alpha: :math:`\alpha` >= 0, the weight of the slow momentum: a number or a traced scalar.
      eps: :math:`\varepsilon` >= 0: a number or a traced scalar.
      weight_decay: :math:`\lambda` >= 0, coupled: :math:`g \leftarrow g + \lambda \theta`.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError: a hyperparameter out of range; at ``update``, missing parameters.
      TypeError: a hyperparameter of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> params, tx = jnp.array([3.0, -4.0]), compat.holocron.ademamix(0.1)
      >>> updates, _ = tx.update(jnp.array([8.0, 6.0]), tx.init(params), params)
      >>> print(updates.round(3))
      [-0.1 -0.1]

    References:
      `pylocron <https://github.com/frgfm/Holocron>`_ 0.3.0, ``holocron.optim.AdEMAMix``.
    """
    check_peer(learning_rate=("lr", lr))
    check_numbers(eps=eps, weight_decay=weight_decay)
    check_numbers(alpha=alpha)
    b1, b2, b3 = unpack_betas(betas, 3)
    return optax.chain(
        add_decoupled_weight_decay(weight_decay),
        scale_by_ademamix(b1, b2, b3, alpha, eps),
        optax.scale_by_learning_rate(lr),
    )


@computed_in_float32
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


@computed_in_float32
def tadam(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    amsgrad: bool = False,
    dof: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""``TAdam`` of pylocron.

    As :func:`lion_jax.tadam`, under the peer's names; leaves of rank 0 work here.

    Args:
      lr: :math:`\eta` >= 0: a number, a traced scalar, or a schedule from the update count.
      betas: :math:`(\beta_1, \beta_2)`, in [0.5, 1) and [0, 1): numbers or traced scalars.
      eps: :math:`\varepsilon` >= 0: a number or a traced scalar.
      weight_decay: :math:`\lambda` >= 0, coupled: :math:`g \leftarrow g + \lambda \theta`.
      amsgrad: whether the largest second moment so far stands in for the present one.
        ``static_args`` for ``optax.inject_hyperparams``: ``("betas", "amsgrad")``.
      dof: degrees of freedom > 0; None is the number of entries of each leaf.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError: a hyperparameter out of range; at ``update``, missing parameters.
      TypeError: a hyperparameter of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> params, tx = jnp.array([3.0, -4.0]), compat.holocron.tadam(0.1, eps=1.0)
      >>> updates, _ = tx.update(jnp.array([8.0, 6.0]), tx.init(params), params)
      >>> print(updates.round(3))
      [-0.004 -0.004]

    References:
      `pylocron <https://github.com/frgfm/Holocron>`_ 0.3.0, ``holocron.optim.TAdam``.
    """
    check_peer(learning_rate=("lr", lr))
    check_numbers(eps=eps, weight_decay=weight_decay)
    b1, b2 = unpack_betas(betas)
    check_peer(student_t_b1=("betas[0]", b1))
    return adaptive.tadam(lr, b1, b2, eps, weight_decay, dof=dof, amsgrad=amsgrad)


def lookahead(
    inner: optax.GradientTransformation, sync_rate: Scalar = 0.5, sync_period: int = 6
) -> optax.GradientTransformationExtraArgs:
    r"""``Lookahead`` of pylocron: :func:`lion_jax.lookahead` under the peer's names.

    Args:
      inner: the transformation that moves the fast weights.
      sync_rate: :math:`\alpha` in [0, 1]: a number or a traced scalar.
      sync_period: k >= 1, in steps. ``static_args`` for ``optax.inject_hyperparams``:
        ``("inner", "sync_period")``.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError: ``sync_rate`` or ``sync_period`` out of range; at ``update``, missing parameters.
      TypeError: an ``inner`` that is no transformation, a number of the wrong type.

    Example:
      >>> import optax
      >>> from lion_jax import compat
      >>> tx = compat.holocron.lookahead(compat.torch.sgd(0.1), sync_rate=0.5, sync_period=5)

    References:
      `pylocron <https://github.com/frgfm/Holocron>`_ 0.3.0, ``holocron.optim.wrapper.Lookahead``.
    """
    check_number("slow_step_size", sync_rate, alias="sync_rate")
    return core_lookahead(inner, sync_period, sync_rate)


def scout(
    inner: optax.GradientTransformation, sync_rate: Scalar = 0.5, sync_period: int = 6
) -> optax.GradientTransformationExtraArgs:
    r"""``Scout`` of pylocron.

    Departs from :func:`lion_jax.scout`: a single entry that does not move, or a period of 1, makes
    the coherence 0 / 0, and then all fast weights return to the slow ones, which stay.

    Args:
      inner: the transformation that moves the fast weights.
      sync_rate: the least slow step, in [0, 1]: a number or a traced scalar.
      sync_period: k >= 1, in steps. ``static_args`` for ``optax.inject_hyperparams``:
        ``("inner", "sync_period")``.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError: ``sync_rate`` or ``sync_period`` out of range; at ``update``, missing parameters.
      TypeError: an ``inner`` that is no transformation, a number of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> params, tx = jnp.ones(2), compat.holocron.scout(compat.torch.sgd(0.1), sync_period=1)
      >>> print(params + tx.update(jnp.ones(2), tx.init(params), params)[0])
      [1. 1.]

    References:
      `pylocron <https://github.com/frgfm/Holocron>`_ 0.3.0, ``holocron.optim.wrapper.Scout``.
    """
    check_transformation("inner", inner)
    check_positive_integer("sync_period", sync_period, remedy=6)
    check_number("min_slow_step_size", sync_rate, alias="sync_rate")
    return scout_with(inner, sync_period, sync_rate, standstill=math.nan)


def _clip(scale_clip: tuple[Scalar, Scalar] | None) -> tuple[Scalar, Scalar]:
    return (0.0, 10.0) if scale_clip is None else scale_clip
