"""LionMuon: Muon's step in every P-th update, Lion's in the others."""

import optax

from lion_jax._core.rule import chain, optimizer
from lion_jax.optimizers.lion import LION
from lion_jax.primitives.decay import add_decoupled_weight_decay
from lion_jax.primitives.lion_muon import (
    COUNT,
    RATE,
    SIGN_RATE,
    scale_by_alternating_rate,
    scale_by_lion_muon,
)

SIGN_SHARE = 0.01  # of the rate: the authors' default


@optimizer(
    learning_rate=RATE,
    sign_learning_rate=SIGN_RATE.or_none(),
    b1=LION["b1"],
    b2=LION["b2"],
    weight_decay=LION["weight_decay"],
    period=COUNT,
    steps=COUNT,
)
def lion_muon(
    learning_rate: optax.ScalarOrSchedule,
    sign_learning_rate: optax.ScalarOrSchedule | None = None,
    b1: optax.ScalarOrSchedule = 0.95,
    b2: optax.ScalarOrSchedule = 0.99,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    *,
    period: int = 2,
    steps: int = 5,
) -> optax.GradientTransformationExtraArgs:
    r"""LionMuon: an orthogonalized step every P-th time, signs in between, one momentum for both.

    .. math::

      \theta_t = \theta_{t-1} - \nu_t (u_t + \lambda \theta_{t-1}), \qquad
      \nu_t = \begin{cases}
        \eta_t & \text{if } P \text{ divides } t - 1 \\ \eta^s_t & \text{otherwise}
      \end{cases}

    with the direction :math:`u_t` of :func:`~lion_jax.primitives.scale_by_lion_muon`. It keeps one
    moment, as Lion and Muon do, and computes 1/P of Muon's matrix products. Use it for matrices,
    and another rule (the authors: AdamW) for the rest, by ``optax.partition``. A leaf of rank 0 or
    1 takes Lion's step in every update.

    Args:
      learning_rate: :math:`\eta` >= 0 of the orthogonalized steps.
      sign_learning_rate: :math:`\eta^s` >= 0 of the signs. None is 0.01 :math:`\eta`, the authors'
        default, also of a schedule.
      b1: :math:`\beta_1` in [0, 1), the weight of the momentum in the update.
      b2: :math:`\beta_2` in [0, 1), the decay rate of the momentum.
      weight_decay: :math:`\lambda` >= 0. A step shrinks the weights by
        :math:`1 - \nu_t \lambda`, by the rate of its own kind.
      period: P >= 1, the authors' default is 5 and their tables find 2 best; 1 is Muon with
        Lion's two rates of the momentum.
      steps: iterations of Newton-Schulz, >= 1; the authors' default is 6.

    Returns:
      A transformation. ``optax.apply_updates`` adds its updates, of the parameters' shapes, dtypes
      and units; :func:`lion_jax.hyperparameters` reads its state, a :class:`HyperparametersState`.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type; parameters missing.

    Example:
      >>> import jax.numpy as jnp, lion_jax
      >>> tx, params = lion_jax.lion_muon(1.0), jnp.zeros((2, 2))
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.array([[2.0, 0.0], [0.0, 8.0]]), state, params)
      ...     print(f"{updates[0, 0]:.2f} {updates[1, 1]:.2f}")
      -0.21 -0.21
      -0.01 -0.01

    References:
      `LionMuon <https://arxiv.org/abs/2605.19811>`_, 2026; the authors' code
      (brain-lab-research/lion-muon), whose iteration is in bfloat16. Their tables have one seed.
    """
    if sign_learning_rate is None:
        sign_learning_rate = _share_of(learning_rate)
    return chain(
        scale_by_lion_muon(b1, b2, period=period, steps=steps),
        add_decoupled_weight_decay(weight_decay),
        scale_by_alternating_rate(learning_rate, sign_learning_rate, period=period),
    )


def _share_of(rate: optax.ScalarOrSchedule) -> optax.ScalarOrSchedule:
    return (lambda count: SIGN_SHARE * rate(count)) if callable(rate) else SIGN_SHARE * rate
