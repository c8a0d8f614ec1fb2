"""lion-pytorch's optimizer."""

import optax

from lion_jax._core.kinds import FLAG
from lion_jax._core.rule import takes
from lion_jax._core.types import Betas, Scalar
from lion_jax.compat._moments import BETAS, LEARNING_RATE, WEIGHT_DECAY
from lion_jax.compat.llm_foundry import decoupled_lionw
from lion_jax.optimizers.lion import INITIAL_RATE
from lion_jax.optimizers.lion import lion as papers_lion

__all__ = ["lion"]
__dir__ = __all__.copy  # TAB offers no more


@takes(
    lr=LEARNING_RATE,
    betas=BETAS,
    weight_decay=WEIGHT_DECAY,
    decoupled_weight_decay=FLAG,
    initial_lr=INITIAL_RATE.or_none(),
)
def lion(
    lr: optax.ScalarOrSchedule = 1e-4,
    betas: Betas = (0.9, 0.99),
    weight_decay: Scalar = 0.0,
    decoupled_weight_decay: bool = False,
    *,
    initial_lr: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""``Lion`` of lion-pytorch 0.2.5.

    .. math::

      \theta_t &= (1 - \eta_t \lambda) \theta_{t-1}
        - \eta_t \operatorname{sign}(\beta_1 m_{t-1} + (1 - \beta_1) g_t) \\
      m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

    where ``decoupled_weight_decay`` puts :math:`\lambda / \eta_0` in the place of :math:`\lambda`.
    The rule is the paper's. It is :func:`lion_jax.lion` or :func:`lion_jax.decoupled_lion` under
    lion-pytorch's names, without ``use_triton``, which precedes ``decoupled_weight_decay`` there.

    Args:
      lr: :math:`\eta` >= 0.
      betas: :math:`(\beta_1, \beta_2)`, each in [0, 1).
      weight_decay: :math:`\lambda` >= 0.
      decoupled_weight_decay: whether the decay is independent of the size of ``lr``.
      initial_lr: :math:`\eta_0` > 0, read only for a decoupled decay. None takes a constant ``lr``;
        with a schedule it must be given: the ``lr`` with which the original optimizer was
        constructed.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError: a hyperparameter out of range, or a schedule with a decoupled decay and no
        ``initial_lr``; at ``update``, missing parameters.
      TypeError: a hyperparameter of the wrong type; at ``init``, a complex leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> params = jnp.array([8.0, -8.0])
      >>> for decoupled in (False, True):
      ...     tx = compat.lion_pytorch.lion(0.5, (0.9, 0.99), 0.25, decoupled)
      ...     print(params + tx.update(jnp.ones(2), tx.init(params), params)[0])
      [ 6.5 -7.5]
      [ 5.5 -6.5]

    References:
      `lion-pytorch <https://github.com/lucidrains/lion-pytorch>`_ 0.2.5; Chen et al., `Symbolic
      Discovery of Optimization Algorithms <https://arxiv.org/abs/2302.06675>`_, 2023.
    """
    if decoupled_weight_decay:
        return decoupled_lionw(lr, betas, weight_decay, initial_lr)
    b1, b2 = betas
    return papers_lion(lr, b1, b2, weight_decay=weight_decay)
