"""MARS: rules on a variance-reduced gradient."""

import optax

from lion_jax._core.rule import chain, optimizer
from lion_jax._core.types import Mask
from lion_jax.optimizers.adaptive import ADAMW
from lion_jax.optimizers.lion import LION, weight_bound
from lion_jax.primitives._adam import scale_by_adam
from lion_jax.primitives.clipping import MAX_NORM
from lion_jax.primitives.decay import add_decoupled_weight_decay
from lion_jax.primitives.momentum import scale_by_sign_momentum
from lion_jax.primitives.variance import GAMMA, variance_reduced_gradient

_CORRECTION = {"gamma": GAMMA, "max_norm": MAX_NORM.or_none()}
_MARS_LION = {name: LION[name] for name in ("learning_rate", "b1", "weight_decay", "mask")}


@optimizer(weight_bound, **_MARS_LION, **_CORRECTION)
def mars_lion(
    learning_rate: optax.ScalarOrSchedule,
    b1: optax.ScalarOrSchedule = 0.95,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    gamma: optax.ScalarOrSchedule = 0.025,
    max_norm: optax.ScalarOrSchedule | None = 1.0,
) -> optax.GradientTransformationExtraArgs:
    r"""MARS-Lion: the sign of a moving average of variance-reduced gradients.

    .. math::

      m_t &= \beta_1 m_{t-1} + (1 - \beta_1) a_t \\
      \theta_t &= \theta_{t-1} - \eta_t \left(\operatorname{sign}(m_t) + \lambda \theta_{t-1}\right)

    with :math:`m_0 = 0` and the corrected gradient :math:`a_t` of
    :func:`~lion_jax.primitives.variance_reduced_gradient`. The authors use it for matrices alone,
    and AdamW for all other leaves: ``optax.partition`` does that.

    Args:
      learning_rate: :math:`\eta` >= 0, in the parameters' units; the authors' is 3e-3.
      b1: :math:`\beta_1` in [0, 1), the decay rate of the momentum, also in the correction.
      weight_decay: :math:`\lambda` >= 0. It stands before the learning rate, as in AdamW: a step
        shrinks the weights by :math:`1 - \eta_t \lambda`.
      mask: which leaves decay, or how much of :math:`\lambda` each gets; see
        :mod:`lion_jax.groups`. None is all.
      gamma: :math:`\gamma` >= 0, the strength of the correction.
      max_norm: the largest norm of a leaf's corrected gradient, > 0; None does not clip.

    Returns:
      A transformation. ``optax.apply_updates`` adds its updates, of the parameters' shapes, dtypes
      and units; :func:`lion_jax.hyperparameters` reads its state, a :class:`HyperparametersState`:
      two copies of the parameters.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type; parameters missing.

    Example:
      >>> import jax.numpy as jnp, lion_jax
      >>> tx, params = lion_jax.mars_lion(0.1, weight_decay=0.5), jnp.array([2.0, -2.0])
      >>> updates, _ = tx.update(jnp.array([4.0, 0.5]), tx.init(params), params)
      >>> print(params + updates)
      [ 1.8 -2. ]

    References:
      Yuan et al., `MARS: Unleashing the Power of Variance Reduction for Training Large Models
      <https://arxiv.org/abs/2411.10438>`_, 2024, its instance for Lion; the authors' code.
      They publish no figures of this form.
    """
    return chain(
        variance_reduced_gradient(b1, gamma, max_norm),
        scale_by_sign_momentum(b1, b1),
        add_decoupled_weight_decay(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )


@optimizer(**ADAMW, mask=LION["mask"], **_CORRECTION)
def mars_adamw(
    learning_rate: optax.ScalarOrSchedule,
    b1: optax.ScalarOrSchedule = 0.95,
    b2: optax.ScalarOrSchedule = 0.99,
    eps: optax.ScalarOrSchedule = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    gamma: optax.ScalarOrSchedule = 0.025,
    max_norm: optax.ScalarOrSchedule | None = 1.0,
) -> optax.GradientTransformationExtraArgs:
    r"""MARS-AdamW: AdamW with variance-reduced gradients.

    .. math::

      m_t &= \beta_1 m_{t-1} + (1 - \beta_1) a_t \\
      v_t &= \beta_2 v_{t-1} + (1 - \beta_2) a_t^2 \\
      \theta_t &= \theta_{t-1} - \eta_t \left(\frac{m_t}{1 - \beta_1^t} \Big/
        \left(\sqrt{\frac{v_t}{1 - \beta_2^t}} + \varepsilon\right) + \lambda \theta_{t-1}\right)

    with the corrected gradient :math:`a_t` of
    :func:`~lion_jax.primitives.variance_reduced_gradient`.

    Args:
      learning_rate: :math:`\eta` >= 0, in the parameters' units; the authors' is 3e-3.
      b1: :math:`\beta_1` in [0, 1), the decay rate of the first moment, also in the correction.
      b2: :math:`\beta_2` in [0, 1), the decay rate of the second moment.
      eps: :math:`\varepsilon` >= 0, in the gradients' units.
      weight_decay: :math:`\lambda` >= 0. It stands before the learning rate, as in AdamW: a step
        shrinks the weights by :math:`1 - \eta_t \lambda`.
      mask: which leaves decay, or how much of :math:`\lambda` each gets; see
        :mod:`lion_jax.groups`. None is all.
      gamma: :math:`\gamma` >= 0, the strength of the correction.
      max_norm: the largest norm of a leaf's corrected gradient, > 0; None does not clip.

    Returns:
      A transformation. ``optax.apply_updates`` adds its updates, of the parameters' shapes, dtypes
      and units; :func:`lion_jax.hyperparameters` reads its state, a :class:`HyperparametersState`:
      three copies of the parameters.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type; parameters missing.

    Example:
      >>> import jax.numpy as jnp, lion_jax
      >>> tx, params = lion_jax.mars_adamw(0.125), jnp.zeros(2)
      >>> updates, _ = tx.update(jnp.array([4.0, 0.5]), tx.init(params), params)
      >>> print([f"{u:.3f}" for u in updates])
      ['-0.125', '-0.125']

    References:
      Yuan et al., `MARS: Unleashing the Power of Variance Reduction for Training Large Models
      <https://arxiv.org/abs/2411.10438>`_, 2024, its instance for AdamW; the authors' code.
      By its abstract it "consistently outperforms AdamW by a large margin" on GPT-2 models.
    """
    return chain(
        variance_reduced_gradient(b1, gamma, max_norm),
        scale_by_adam(b1, b2, eps),
        add_decoupled_weight_decay(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )
