"""Lion-K and its special cases: another shape instead of Lion's sign, or a mask after it."""

from typing import Any

import optax

from lion_jax._core.kinds import FLAG
from lion_jax._core.rule import chain, optimizer, takes
from lion_jax._core.types import DType, Mask
from lion_jax.combinators.cautious import RESCALE, cautious
from lion_jax.optimizers.lion import LION, weight_bound
from lion_jax.primitives.decay import add_decoupled_weight_decay
from lion_jax.primitives.momentum import interpolate_momentum, scale_by_sign_momentum
from lion_jax.primitives.signs import SHAPE, scale_by_shape, shaped_by

_SIGNUM = {name: kind for name, kind in LION.items() if name != "b2"} | {"nesterov": FLAG}


@optimizer(**LION, shape=SHAPE)
def lion_k(
    learning_rate: optax.ScalarOrSchedule,
    shape: Any,
    b1: optax.ScalarOrSchedule = 0.9,
    b2: optax.ScalarOrSchedule = 0.99,
    mu_dtype: DType | None = None,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Lion-K: Lion with another shape instead of its sign.

    .. math::

      c_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
      \theta_t &= \theta_{t-1} - \eta_t
        \left(\nabla \mathcal{K}(c_t) + \lambda \theta_{t-1}\right) \\
      m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

    with :math:`m_0 = 0` and the shape :math:`\nabla \mathcal{K}`. With ``signs.sign()`` it is
    :func:`lion`, bit for bit; with ``b1`` equal to ``b2`` besides, it is :func:`signum`.

    Args:
      learning_rate: :math:`\eta` >= 0, in the parameters' units.
      shape: from :math:`c_t` to a direction: one of :mod:`lion_jax.primitives.signs`, any other
        transformation without a learning rate, or a function of one leaf.
      b1: :math:`\beta_1` in [0, 1), the weight of the momentum in the update.
      b2: :math:`\beta_2` in [0, 1), the decay rate of the momentum.
      mu_dtype: dtype that stores the momentum. None keeps the parameters' dtype, but at least
        float32.
      weight_decay: :math:`\lambda` >= 0. It stands before the learning rate, as in AdamW. It bounds
        a norm of the weights by :math:`1 / \lambda`: the largest entry for ``sign``, ``tanh`` and
        ``huber``, the dual norm of a leaf for ``lp_sign``, the 2-norm of a leaf or row for
        ``l2_normalize``, the largest entry and 1/k of the 1-norm for ``top_k_sign``.
      mask: which leaves decay, or how much of :math:`\lambda` each gets; see
        :mod:`lion_jax.groups`. None is all.

    Returns:
      A transformation. ``optax.apply_updates`` adds its updates, of the parameters' shapes, dtypes
      and units; :func:`lion_jax.hyperparameters` reads its state, a :class:`HyperparametersState`.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type; at ``update``, missing
        parameters, or a shape that gives another structure or other shapes than it got.

    Example:
      >>> import jax.numpy as jnp, lion_jax
      >>> from lion_jax.primitives import signs
      >>> params = jnp.zeros(2)
      >>> for shape in (signs.sign(), signs.l2_normalize(), lambda c: c / 32):
      ...     tx = lion_jax.lion_k(1.0, shape, b1=0.0)
      ...     print(tx.update(jnp.array([30.0, -40.0]), tx.init(params), params)[0])
      [-1.  1.]
      [-0.6  0.8]
      [-0.9375  1.25  ]

    References:
      Chen et al., `Lion Secretly Solves Constrained Optimization: As Lyapunov Predicts
      <https://arxiv.org/abs/2310.05898>`_, 2023. The authors mix the new momentum,
      :math:`\beta_n m_t + (1 - \beta_n) g_t`, whose decay rate is :math:`\beta_p`: that is
      :math:`\beta_2 = \beta_p` and :math:`\beta_1 = \beta_n \beta_p` here. Their experiments, with
      toy problems, ImageNet and GPT-2, check the theory.
    """
    return chain(
        interpolate_momentum(b1, b2, mu_dtype),
        shaped_by(shape),
        add_decoupled_weight_decay(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )


@takes(**_SIGNUM, shape_scaled=FLAG)
def signum(
    learning_rate: optax.ScalarOrSchedule,
    b1: optax.ScalarOrSchedule = 0.9,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    nesterov: bool = False,
    mu_dtype: DType | None = None,
    shape_scaled: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Signum: the sign of a moving average of the gradients.

    .. math::

      m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
      \theta_t &= \theta_{t-1} - \eta_t \left(\operatorname{sign}(m_t) + \lambda \theta_{t-1}\right)

    with :math:`m_0 = 0`: :func:`lion` with equal decay rates. ``nesterov`` takes the sign of
    :math:`\beta_1 m_t + (1 - \beta_1) g_t`, which is Lion with :math:`\beta_1^2` and
    :math:`\beta_1`. With :math:`\beta_1 = 0` it is sign SGD. ``optax.signum`` computes the same
    without weight decay; for narrower parameters its momentum is as narrow.

    Args:
      learning_rate: :math:`\eta` >= 0, in the parameters' units.
      b1: :math:`\beta_1` in [0, 1), the decay rate of the momentum.
      weight_decay: :math:`\lambda` >= 0. It stands before the learning rate, as in AdamW: a step
        shrinks the weights by :math:`1 - \eta_t \lambda`.
      mask: which leaves decay, or how much of :math:`\lambda` each gets; see
        :mod:`lion_jax.groups`. None is all.
      nesterov: whether the sign looks ahead. NVIDIA's code may correct the bias of both terms
        first; here, as there by option, nothing is corrected.
      mu_dtype: dtype that stores the momentum. None keeps the parameters' dtype, but at least
        float32.
      shape_scaled: whether the sign of a matrix is multiplied by 2 / (rows + columns), as
        :func:`~lion_jax.primitives.signs.scale_by_shape` does; the decay is not.

    Returns:
      A transformation. ``optax.apply_updates`` adds its updates, of the parameters' shapes, dtypes
      and units; :func:`lion_jax.hyperparameters` reads its state, a :class:`HyperparametersState`.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type; parameters missing.

    Example:
      >>> import jax.numpy as jnp, lion_jax
      >>> tx, params = lion_jax.signum(0.1), jnp.zeros(2)
      >>> state = tx.init(params)
      >>> for gradient in ([3.0, 3.0], [1.0, -1.0], [1.0, -9.0]):
      ...     updates, state = tx.update(jnp.array(gradient), state)
      ...     print(updates)
      [-0.1 -0.1]
      [-0.1 -0.1]
      [-0.1  0.1]

    References:
      Bernstein et al., `signSGD: Compressed Optimisation for Non-Convex Problems
      <https://arxiv.org/abs/1802.04434>`_, 2018, Algorithm 2; ``SignSGD`` of pytorch-optimizer
      4.1.0 and ``Signum`` of NVIDIA's Emerging-Optimizers. By its abstract it
      matches Adam's accuracy and speed on deep ImageNet models.
    """
    rule = _shape_scaled_signum if shape_scaled else _signum
    return rule(learning_rate, b1, weight_decay, mask, nesterov=nesterov, mu_dtype=mu_dtype)


@optimizer(weight_bound, **_SIGNUM)
def _signum(learning_rate, b1, weight_decay, mask, *, nesterov, mu_dtype):
    return chain(
        _sign_of_average(b1, nesterov, mu_dtype),
        add_decoupled_weight_decay(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )


@optimizer(**_SIGNUM)
def _shape_scaled_signum(learning_rate, b1, weight_decay, mask, *, nesterov, mu_dtype):
    return chain(
        _sign_of_average(b1, nesterov, mu_dtype),
        scale_by_shape(),
        add_decoupled_weight_decay(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )


def _sign_of_average(
    b1: optax.ScalarOrSchedule, nesterov: bool, mu_dtype: DType | None
) -> optax.GradientTransformation:
    # b1 m_t + (1 - b1) g_t, with the old momentum: b1^2 m_{t-1} + (1 - b1^2) g_t
    return scale_by_sign_momentum(_squared(b1) if nesterov else b1, b1, mu_dtype)


def _squared(b1: optax.ScalarOrSchedule) -> optax.ScalarOrSchedule:
    return (lambda count: b1(count) ** 2) if callable(b1) else b1**2


@optimizer(**LION, rescale=RESCALE)
def cautious_lion(
    learning_rate: optax.ScalarOrSchedule,
    b1: optax.ScalarOrSchedule = 0.95,
    b2: optax.ScalarOrSchedule = 0.98,
    mu_dtype: DType | None = None,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    rescale: str | None = "count",
) -> optax.GradientTransformationExtraArgs:
    r"""Cautious Lion: entries that oppose their gradient do not move, others move further.

    .. math::

      u_t &= \operatorname{sign}(\beta_1 m_{t-1} + (1 - \beta_1) g_t), \qquad
        \phi_t = [u_t g_t > 0] \\
      \theta_t &= \theta_{t-1} - \eta_t \left(r \, \phi_t \odot u_t + \lambda \theta_{t-1}\right) \\
      m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

    with :math:`m_0 = 0` and a rescaling :math:`r` by the share of entries that are kept; the table
    of :func:`cautious` lists the four published ones. The decay is not masked. The defaults are the
    authors'.

    Args:
      learning_rate: :math:`\eta` >= 0, in the parameters' units.
      b1: :math:`\beta_1` in [0, 1), the weight of the momentum in the update.
      b2: :math:`\beta_2` in [0, 1), the decay rate of the momentum.
      mu_dtype: dtype that stores the momentum. None keeps the parameters' dtype, but at least
        float32.
      weight_decay: :math:`\lambda` >= 0. It stands before the learning rate, as in AdamW: a step
        shrinks the weights by :math:`1 - \eta_t \lambda`.
      mask: which leaves decay, or how much of :math:`\lambda` each gets; see
        :mod:`lion_jax.groups`. None is all.
      rescale: ``"count"``, ``"mean"``, ``"mean_1e-3"``, ``"sign_bits"`` or None.

    Returns:
      A transformation. ``optax.apply_updates`` adds its updates, of the parameters' shapes, dtypes
      and units; :func:`lion_jax.hyperparameters` reads its state, a :class:`HyperparametersState`.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type; parameters missing.

    Example:
      >>> import jax.numpy as jnp, lion_jax
      >>> tx, params = lion_jax.cautious_lion(0.1, rescale="mean"), jnp.zeros(2)
      >>> state = tx.init(params)
      >>> for gradient in ([3.0, 3.0], [1.0, -1.0]):
      ...     updates, state = tx.update(jnp.array(gradient), state)
      ...     print(updates)
      [-0.1 -0.1]
      [-0.2 -0. ]

    References:
      Liang et al., `Cautious Optimizers: Improving Training with One Line of Code
      <https://arxiv.org/abs/2411.16085>`_, 2024, Algorithm 1; ``c_lion`` of the authors' C-Optim.
      By its abstract, up to 1.47 times as fast on Llama and MAE pretraining.
    """
    return chain(
        cautious(scale_by_sign_momentum(b1, b2, mu_dtype), rescale=rescale, is_direction=True),
        add_decoupled_weight_decay(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )
