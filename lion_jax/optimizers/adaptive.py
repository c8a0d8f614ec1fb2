"""Adam's relatives: adaptive moments with a learning rate and weight decay."""

import optax

from lion_jax._core.kinds import DECAY_RATE, FLAG, NON_NEGATIVE, SHARES, is_off
from lion_jax._core.rule import chain, optimizer
from lion_jax._core.types import Mask
from lion_jax.primitives._adam import scale_by_belief
from lion_jax.primitives.decay import add_decoupled_weight_decay, apply_proximal_weight_decay
from lion_jax.primitives.nesterov import scale_by_adan
from lion_jax.primitives.student_t import DEGREES_OF_FREEDOM, RATE_OF_PAST, scale_by_student_t
from lion_jax.primitives.two_speed import WARMUP_STEPS, scale_by_ademamix

ADAMW = {
    "learning_rate": NON_NEGATIVE.trying("1e-3"),
    "b1": DECAY_RATE,
    "b2": DECAY_RATE,
    "eps": NON_NEGATIVE,
    "weight_decay": NON_NEGATIVE,
}


@optimizer(**ADAMW, mask=SHARES)
def adabelief(
    learning_rate: optax.ScalarOrSchedule,
    b1: optax.ScalarOrSchedule = 0.9,
    b2: optax.ScalarOrSchedule = 0.999,
    eps: optax.ScalarOrSchedule = 1e-16,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    r"""AdaBelief: longer steps where gradients agree with the momentum.

    .. math::

      m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
      s_t &= \beta_2 s_{t-1} + (1 - \beta_2) (g_t - m_t)^2 + \varepsilon \\
      \theta_t &= \theta_{t-1} - \eta_t \left(\frac{m_t}{1 - \beta_1^t} \Big/
        \left(\sqrt{\frac{s_t}{1 - \beta_2^t}} + \varepsilon\right) + \lambda \theta_{t-1}\right)

    The authors' rule, with decoupled weight decay. ``optax.adabelief`` computes the same with
    ``eps_root`` equal to ``eps``, and has no weight decay.

    Args:
      learning_rate: :math:`\eta` >= 0.
      b1: :math:`\beta_1` in [0, 1), the decay rate of the first moment.
      b2: :math:`\beta_2` in [0, 1), the decay rate of the second moment.
      eps: :math:`\varepsilon` >= 0, in the gradients' units.
      weight_decay: :math:`\lambda` >= 0. It stands before the learning rate, as in AdamW: a step
        shrinks the weights by :math:`1 - \eta_t \lambda`.
      mask: which leaves decay, or how much of :math:`\lambda` each gets; see
        :mod:`lion_jax.groups`. None is all.

    Returns:
      A transformation. ``optax.apply_updates`` adds its updates, of the parameters' shapes, dtypes
      and units; :func:`lion_jax.hyperparameters` reads its state, a :class:`HyperparametersState`.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type; parameters missing.

    Example:
      >>> import jax.numpy as jnp, lion_jax
      >>> params, tx = jnp.array([2.0, -2.0]), lion_jax.adabelief(0.1, eps=1e-8)
      >>> updates, _ = tx.update(jnp.array([4.0, 0.5]), tx.init(params), params)
      >>> print(params + updates)
      [ 1.8888897 -2.1111076]

    References:
      Zhuang et al., `AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients
      <https://arxiv.org/abs/2010.07468>`_, 2020, Algorithm 2; the authors' code.
    """
    return chain(
        scale_by_belief(b1, b2, eps, eps_root=eps),
        add_decoupled_weight_decay(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )


@optimizer(**ADAMW, b3=DECAY_RATE, mask=SHARES, proximal=FLAG)
def adan(
    learning_rate: optax.ScalarOrSchedule,
    b1: optax.ScalarOrSchedule = 0.98,
    b2: optax.ScalarOrSchedule = 0.92,
    b3: optax.ScalarOrSchedule = 0.99,
    eps: optax.ScalarOrSchedule = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    proximal: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Adan: Nesterov momentum, adaptive, from the differences of gradients.

    .. math::

      \theta_t = \frac{\theta_{t-1} - \eta_t u_t}{1 + \eta_t \lambda}

    with the direction :math:`u_t` of :func:`~lion_jax.primitives.scale_by_adan`; without
    ``proximal``

    .. math::

      \theta_t = \theta_{t-1} - \eta_t (u_t + \lambda \theta_{t-1})

    The authors' rule. ``optax.adan`` has :math:`1 - \beta_2` in two places where the authors have
    :math:`\beta_2`, and no proximal decay: its results differ.

    Args:
      learning_rate: :math:`\eta` >= 0.
      b1: :math:`\beta_1` in [0, 1), the decay rate of the gradients' average.
      b2: :math:`\beta_2` in [0, 1), the decay rate of the average of their differences.
      b3: :math:`\beta_3` in [0, 1), the decay rate of the average of the squares.
      eps: :math:`\varepsilon` >= 0, in the gradients' units.
      weight_decay: :math:`\lambda` >= 0.
      mask: which leaves decay, or how much of :math:`\lambda` each gets; see
        :mod:`lion_jax.groups`. None is all.
      proximal: whether the decay is a proximal step after the update, as in the paper, or stands
        before the learning rate, as in AdamW.

    Returns:
      A transformation. ``optax.apply_updates`` adds its updates, of the parameters' shapes, dtypes
      and units; :func:`lion_jax.hyperparameters` reads its state, a :class:`HyperparametersState`.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type; parameters missing.

    Example:
      >>> import jax.numpy as jnp, lion_jax
      >>> params, tx = jnp.array([2.0, -2.0]), lion_jax.adan(0.1)
      >>> updates, _ = tx.update(jnp.array([4.0, 0.5]), tx.init(params), params)
      >>> print(params + updates)
      [ 1.9 -2.1]

    References:
      Xie et al., `Adan: Adaptive Nesterov Momentum Algorithm <https://arxiv.org/abs/2208.06677>`_,
      2022, Algorithm 1; the authors' code.
    """
    return chain(
        scale_by_adan(b1, b2, b3, eps),
        add_decoupled_weight_decay(0.0 if proximal else weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
        apply_proximal_weight_decay(learning_rate, weight_decay, mask)
        if proximal and not is_off(weight_decay)
        else optax.identity(),
    )


@optimizer(**ADAMW, b3=DECAY_RATE, alpha=NON_NEGATIVE, mask=SHARES, warmup_steps=WARMUP_STEPS)
def ademamix(
    learning_rate: optax.ScalarOrSchedule,
    b1: optax.ScalarOrSchedule = 0.9,
    b2: optax.ScalarOrSchedule = 0.999,
    b3: optax.ScalarOrSchedule = 0.9999,
    alpha: optax.ScalarOrSchedule = 5.0,
    eps: optax.ScalarOrSchedule = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    warmup_steps: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""AdEMAMix: Adam with a second, much slower momentum.

    .. math::

      \theta_t = \theta_{t-1} - \eta_t (u_t + \lambda \theta_{t-1})

    with the direction :math:`u_t` of :func:`~lion_jax.primitives.scale_by_ademamix`.
    ``optax.contrib.ademamix`` computes the same; there, the warm-up must be given as two schedules.

    Args:
      learning_rate: :math:`\eta` >= 0.
      b1: :math:`\beta_1` in [0, 1), the decay rate of the fast momentum.
      b2: :math:`\beta_2` in [0, 1), the decay rate of the second moment.
      b3: :math:`\beta_3` in [0, 1), the decay rate of the slow momentum.
      alpha: :math:`\alpha` >= 0, the weight of the slow momentum.
      eps: :math:`\varepsilon` >= 0, in the gradients' units.
      weight_decay: :math:`\lambda` >= 0. It stands before the learning rate, as in AdamW: a step
        shrinks the weights by :math:`1 - \eta_t \lambda`.
      mask: which leaves decay, or how much of :math:`\lambda` each gets; see
        :mod:`lion_jax.groups`. None is all.
      warmup_steps: T >= 1, the updates over which :math:`\alpha` and :math:`\beta_3` grow; None
        uses their full values from the start.

    Returns:
      A transformation. ``optax.apply_updates`` adds its updates, of the parameters' shapes, dtypes
      and units; :func:`lion_jax.hyperparameters` reads its state, a :class:`HyperparametersState`.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type; parameters missing.

    Example:
      >>> import jax.numpy as jnp, lion_jax
      >>> params, tx = jnp.array([2.0, -2.0]), lion_jax.ademamix(0.1)
      >>> updates, _ = tx.update(jnp.array([4.0, 0.5]), tx.init(params), params)
      >>> print(params + updates)
      [ 1.8999506 -2.1000493]

    References:
      Pagliardini et al., `The AdEMAMix Optimizer: Better, Faster, Older
      <https://arxiv.org/abs/2409.03137>`_, 2024, Algorithm 1 and Appendix A.1.
    """
    return chain(
        scale_by_ademamix(b1, b2, b3, alpha, eps, warmup_steps=warmup_steps),
        add_decoupled_weight_decay(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )


@optimizer(
    **ADAMW | {"b1": RATE_OF_PAST},
    dof=DEGREES_OF_FREEDOM,
    amsgrad=FLAG,
)
def tadam(
    learning_rate: optax.ScalarOrSchedule,
    b1: optax.ScalarOrSchedule = 0.9,
    b2: optax.ScalarOrSchedule = 0.999,
    eps: optax.ScalarOrSchedule = 1e-8,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    *,
    dof: optax.ScalarOrSchedule | None = None,
    amsgrad: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""TAdam: Adam with a first moment that outliers hardly move.

    .. math::

      g_t &\leftarrow g_t + \lambda \theta_{t-1} \\
      \theta_t &= \theta_{t-1} - \eta_t u_t

    with the direction :math:`u_t` of :func:`~lion_jax.primitives.scale_by_student_t`.

    Args:
      learning_rate: :math:`\eta` >= 0.
      b1: :math:`\beta_1` in [0.5, 1), the decay rate of the first moment.
      b2: :math:`\beta_2` in [0, 1), the decay rate of the second moment.
      eps: :math:`\varepsilon` >= 0, in the gradients' units.
      weight_decay: :math:`\lambda` >= 0. It is coupled: part of the gradient.
      dof: the degrees of freedom of Student's t, > 0; None is the number of entries of each leaf.
        Fewer trust outliers less.
      amsgrad: whether the largest second moment so far replaces the present one.

    Returns:
      A transformation. ``optax.apply_updates`` adds its updates, of the parameters' shapes, dtypes
      and units; :func:`lion_jax.hyperparameters` reads its state, a :class:`HyperparametersState`.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type; parameters missing.

    Example:
      >>> import jax.numpy as jnp, lion_jax
      >>> params, tx = jnp.array([2.0, -2.0]), lion_jax.tadam(0.1, eps=1.0)
      >>> updates, _ = tx.update(jnp.array([4.0, 0.5]), tx.init(params), params)
      >>> print(params + updates)
      [ 1.9809806 -2.0079248]

    References:
      Ilboudo et al., `TAdam: A Robust Stochastic Gradient Optimizer
      <https://arxiv.org/abs/2003.00179>`_, 2020, Algorithm 1.
    """
    return chain(
        add_decoupled_weight_decay(weight_decay),
        scale_by_student_t(b1, b2, eps, dof=dof, amsgrad=amsgrad),
        optax.scale_by_learning_rate(learning_rate),
    )
