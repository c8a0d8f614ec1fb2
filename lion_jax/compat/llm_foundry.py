"""llm-foundry's optimizers, which zeta copied."""

import optax

from lion_jax._checks import check_number, check_peer
from lion_jax.compat._moments import Betas, Scalar, unpack_betas
from lion_jax.optimizers.lion import decoupled_lion


def decoupled_lionw(
    lr: optax.ScalarOrSchedule = 1e-4,
    betas: Betas = (0.9, 0.99),
    weight_decay: Scalar = 0.0,
    initial_lr: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""``DecoupledLionW`` of llm-foundry 0.22 and of zeta 2.8.

    .. math::

      \theta_t &= \left(1 - \frac{\eta_t}{\eta_0} \lambda\right) \theta_{t-1}
        - \eta_t \operatorname{sign}(\beta_1 m_{t-1} + (1 - \beta_1) g_t) \\
      m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

    Departs from the paper: the decay is scaled by :math:`\eta_t / \eta_0`, not by :math:`\eta_t`.
    The peer reads :math:`\eta_0` from its parameter groups, where a one-cycle schedule overwrites
    it; here it is an argument. It is :func:`lion_jax.decoupled_lion` under the peer's names.

    Args:
      lr: :math:`\eta` >= 0: a number, a traced scalar, or a schedule from the update count.
      betas: :math:`(\beta_1, \beta_2)`, each in [0, 1): numbers or traced scalars.
        ``static_args`` for ``optax.inject_hyperparams``: ``("betas",)``.
      weight_decay: :math:`\lambda` >= 0: a number or a traced scalar.
      initial_lr: :math:`\eta_0` > 0, likewise. None takes a constant ``lr``; with a schedule it
        must be given: what the peer's optimizer was constructed with.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError: a hyperparameter out of range, or a schedule without ``initial_lr``; at
        ``update``, missing parameters.
      TypeError: a hyperparameter of the wrong type; at ``init``, a complex leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> tx = compat.llm_foundry.decoupled_lionw(lr=0.5, weight_decay=0.25)
      >>> params = jnp.array([8.0, -8.0])
      >>> updates, _ = tx.update(jnp.ones(2), tx.init(params), params)
      >>> print(params + updates)
      [ 5.5 -6.5]

    References:
      ``llmfoundry.optim.DecoupledLionW`` of `llm-foundry
      <https://github.com/mosaicml/llm-foundry>`_ 0.22.
    """
    check_peer(learning_rate=("lr", lr))
    b1, b2 = unpack_betas(betas)
    check_number("weight_decay", weight_decay)
    if initial_lr is None:
        if callable(lr):
            raise ValueError(
                "initial_lr must be finite and > 0 when lr is a schedule; got None. "
                "Try initial_lr=<the schedule's peak>."
            )
        initial_lr = lr
    check_number("initial_learning_rate", initial_lr, alias="initial_lr")
    return decoupled_lion(lr, b1, b2, weight_decay=weight_decay, initial_learning_rate=initial_lr)
