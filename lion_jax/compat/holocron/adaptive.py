"""pylocron's adaptive rules."""

import optax

from lion_jax._core.kinds import DECAY_RATE, FLAG, NON_NEGATIVE
from lion_jax._core.kinds import betas as betas_of
from lion_jax._core.rule import chain, optimizer, takes
from lion_jax._core.types import Betas, Scalar
from lion_jax.compat._moments import (
    ADAM,
    refuse_complex,
    scale_by_amsgrad,
)
from lion_jax.compat.holocron._links import project_by_signed_cosine, scale_by_forgetful_adan
from lion_jax.optimizers import adaptive
from lion_jax.primitives._adam import scale_by_adam, scale_by_belief
from lion_jax.primitives.decay import add_decoupled_weight_decay, apply_proximal_weight_decay
from lion_jax.primitives.student_t import DEGREES_OF_FREEDOM, RATE_OF_PAST
from lion_jax.primitives.two_speed import scale_by_ademamix

THREE_BETAS = betas_of(DECAY_RATE, DECAY_RATE, DECAY_RATE)


@optimizer(**ADAM, amsgrad=FLAG)
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

    It departs from the paper: no :math:`\varepsilon` in :math:`s_t`, and a coupled weight decay.

    Args:
      lr: :math:`\eta` >= 0.
      betas: :math:`(\beta_1, \beta_2)`, each in [0, 1).
      eps: :math:`\varepsilon` >= 0.
      weight_decay: :math:`\lambda` >= 0, coupled: :math:`g \leftarrow g + \lambda \theta`.
      amsgrad: whether the largest second moment so far replaces the present one.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError, TypeError: a hyperparameter out of range or of the wrong type; missing parameters.

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
    b1, b2 = betas
    belief = scale_by_belief(b1, b2, eps, eps_root=0.0)
    return chain(
        refuse_complex("holocron.adabelief"),
        add_decoupled_weight_decay(weight_decay),
        scale_by_amsgrad(b1, b2, eps, belief=True) if amsgrad else belief,
        optax.scale_by_learning_rate(lr),
    )


@optimizer(**ADAM, amsgrad=FLAG, delta=NON_NEGATIVE.constant())
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
    :math:`\theta` where :math:`\cos(\theta, g) < \delta / \sqrt{d}`. It departs from the paper: the
    cosine keeps its sign, and whole leaves of any rank are projected, so that a leaf of one entry
    can freeze; a coupled weight decay.

    Args:
      lr: :math:`\eta` >= 0.
      betas: :math:`(\beta_1, \beta_2)`, each in [0, 1).
      eps: :math:`\varepsilon` >= 0.
      weight_decay: :math:`\lambda` >= 0, coupled: :math:`g \leftarrow g + \lambda \theta`.
      amsgrad: whether the largest second moment so far replaces the present one.
      delta: :math:`\delta` >= 0.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError, TypeError: a hyperparameter out of range or of the wrong type; missing parameters.

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
    b1, b2 = betas
    adam = scale_by_amsgrad if amsgrad else scale_by_adam
    return chain(
        refuse_complex("holocron.adamp"),
        add_decoupled_weight_decay(weight_decay),
        project_by_signed_cosine(adam(b1, b2, eps), delta, eps),
        optax.scale_by_learning_rate(lr),
    )


@optimizer(**ADAM | {"betas": THREE_BETAS}, amsgrad=FLAG)
def adan(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: Betas = (0.98, 0.92, 0.99),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    amsgrad: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""``Adan`` of pylocron.

    .. math::

      \theta_t = \frac{\theta_{t-1} - \eta_t u_t}{1 + \eta_t \lambda}

    with the direction :math:`u_t` of :func:`~lion_jax.primitives.scale_by_adan`. It departs from
    the paper: the last gradient is never stored, so that :math:`\Delta_t = g_t`, and the weight
    decay is applied twice, to the gradient and to the weights.

    Args:
      lr: :math:`\eta` >= 0.
      betas: :math:`(\beta_1, \beta_2, \beta_3)`, each in [0, 1).
      eps: :math:`\varepsilon` >= 0.
      weight_decay: :math:`\lambda` >= 0, coupled and proximal.
      amsgrad: whether the largest second moment so far replaces the present one.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError, TypeError: a hyperparameter out of range or of the wrong type; missing parameters.

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
    b1, b2, b3 = betas
    return chain(
        refuse_complex("holocron.adan"),
        add_decoupled_weight_decay(weight_decay),
        scale_by_forgetful_adan(b1, b2, b3, eps, amsgrad=amsgrad),
        optax.scale_by_learning_rate(lr),
        apply_proximal_weight_decay(lr, weight_decay),
    )


@optimizer(**ADAM | {"betas": THREE_BETAS}, alpha=NON_NEGATIVE.constant())
def ademamix(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999, 0.9999),
    alpha: Scalar = 5.0,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
) -> optax.GradientTransformationExtraArgs:
    r"""``AdEMAMix`` of pylocron.

    .. math::

      \theta_t = \theta_{t-1} - \eta_t u_t

    with the direction :math:`u_t` of :func:`~lion_jax.primitives.scale_by_ademamix`.
    It departs from the paper: a coupled weight decay, and no warm-up.

    Args:
      lr: :math:`\eta` >= 0.
      betas: :math:`(\beta_1, \beta_2, \beta_3)`, each in [0, 1).
      alpha: :math:`\alpha` >= 0, the weight of the slow momentum.
      eps: :math:`\varepsilon` >= 0.
      weight_decay: :math:`\lambda` >= 0, coupled: :math:`g \leftarrow g + \lambda \theta`.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError, TypeError: a hyperparameter out of range or of the wrong type; missing parameters.

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
    b1, b2, b3 = betas
    return chain(
        add_decoupled_weight_decay(weight_decay),
        scale_by_ademamix(b1, b2, b3, alpha, eps),
        optax.scale_by_learning_rate(lr),
    )


@takes(
    **ADAM | {"betas": betas_of(RATE_OF_PAST, DECAY_RATE)},
    amsgrad=FLAG,
    dof=DEGREES_OF_FREEDOM.constant(),
)
def tadam(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    amsgrad: bool = False,
    dof: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""``TAdam`` of pylocron.

    It is :func:`lion_jax.tadam` under pylocron's names. Leaves of rank 0 work here, unlike there.

    Args:
      lr: :math:`\eta` >= 0.
      betas: :math:`(\beta_1, \beta_2)`, in [0.5, 1) and [0, 1).
      eps: :math:`\varepsilon` >= 0.
      weight_decay: :math:`\lambda` >= 0, coupled: :math:`g \leftarrow g + \lambda \theta`.
      amsgrad: whether the largest second moment so far replaces the present one.
      dof: degrees of freedom > 0; None is the number of entries of each leaf.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError, TypeError: a hyperparameter out of range or of the wrong type; missing parameters.

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
    b1, b2 = betas
    return adaptive.tadam(lr, b1, b2, eps, weight_decay, dof=dof, amsgrad=amsgrad)
