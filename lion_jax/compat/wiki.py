"""Two rules from the encyclopedic page on Lion; neither is the paper's."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.arithmetic import largest_float, sqrt
from lion_jax._core.kinds import NON_NEGATIVE, choice
from lion_jax._core.leafwise import leafwise
from lion_jax._core.rule import chain, optimizer
from lion_jax._core.types import Betas, Scalar
from lion_jax.compat._moments import BETAS, EPS, LEARNING_RATE, WEIGHT_DECAY, refuse_complex
from lion_jax.primitives.decay import add_decoupled_weight_decay
from lion_jax.primitives.momentum import scale_by_sign_momentum

__all__ = ["lion", "lion_formula"]
__dir__ = __all__.copy  # TAB offers no more


@optimizer(
    lambda **_: largest_float(),  # the sign hides how large the decay is
    lr=LEARNING_RATE,
    betas=BETAS,
    weight_decay=WEIGHT_DECAY,
)
def lion(
    lr: optax.ScalarOrSchedule = 1e-4, betas: Betas = (0.9, 0.99), weight_decay: Scalar = 0.0
) -> optax.GradientTransformationExtraArgs:
    r"""The page's torch class.

    .. math::

      d_t &= g_t + \lambda \theta_{t-1} \\
      m_t &= \beta_1 m_{t-1} + (1 - \beta_1) d_t \\
      \theta_t &= \theta_{t-1} - \eta_t \operatorname{sign}(\beta_2 m_t + (1 - \beta_2) d_t)

    It departs from the paper: the decay is part of the sign's argument, and the momentum is updated
    first. The latter is the paper's rule with other betas, :math:`\beta_1 \beta_2` and
    :math:`\beta_1`.

    Args:
      lr: :math:`\eta` >= 0.
      betas: :math:`(\beta_1, \beta_2)`, each in [0, 1).
      weight_decay: :math:`\lambda` >= 0.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError: a hyperparameter out of range; at ``update``, missing parameters.
      TypeError: a hyperparameter of the wrong type; at ``init``, a complex leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> tx = compat.wiki.lion(lr=0.5, weight_decay=0.25)
      >>> params = jnp.array([8.0, -8.0])  # the decay outweighs the gradient, and turns its sign
      >>> print(tx.update(jnp.ones(2), tx.init(params), params)[0])
      [-0.5  0.5]
    """
    b1, b2 = betas
    return chain(
        add_decoupled_weight_decay(weight_decay),  # before the sign: an L2 penalty
        scale_by_sign_momentum(b1=b1 * b2, b2=b1),
        optax.scale_by_learning_rate(lr),
    )


@optimizer(
    lr=LEARNING_RATE.trying("1e-3"),
    betas=BETAS,
    gamma=NON_NEGATIVE.constant(),
    eps=EPS,
    sqrt_mode=choice("abs", "literal"),
)
def lion_formula(
    lr: optax.ScalarOrSchedule,
    betas: Betas = (0.9, 0.997),
    gamma: Scalar = 0.1,
    eps: Scalar = 1e-8,
    sqrt_mode: str = "abs",
) -> optax.GradientTransformationExtraArgs:
    r"""The page's formula.

    .. math::

      m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
      n_t &= \gamma g_t + (1 - \beta_2) \operatorname{sign}(g_t) \\
      \theta_t &= \theta_{t-1} - \eta_t \frac{m_t}{1 - \beta_1^t} \Big/ \left(
        \sqrt{\left|\frac{n_t}{1 - \beta_2^t}\right|} + \varepsilon\right)

    It departs from the paper throughout, and from the page in two places. The page takes the root
    of :math:`n_t` itself, which is NaN for a negative gradient: ``sqrt_mode="literal"`` does so.
    Where the gradient is 0 but the momentum is not, the page divides by :math:`\varepsilon` alone;
    here such an entry does not move.

    Args:
      lr: :math:`\eta` >= 0.
      betas: :math:`(\beta_1, \beta_2)`, each in [0, 1).
      gamma: :math:`\gamma` >= 0.
      eps: :math:`\varepsilon` >= 0, in the gradients' units to the power of one half.
      sqrt_mode: ``"abs"`` or ``"literal"``.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError: a hyperparameter out of range, or another ``sqrt_mode``.
      TypeError: a hyperparameter of the wrong type; at ``init``, a complex leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> tx = compat.wiki.lion_formula(lr=1e-3)
      >>> updates, _ = tx.update(jnp.array([50.0, -10.0, 0.0]), tx.init(jnp.zeros(3)))
      >>> print(", ".join(f"{u:.3e}" for u in updates))
      -1.224e-03, 5.469e-04, -0.000e+00
    """
    b1, b2 = betas
    return chain(
        refuse_complex("lion_formula"),
        leafwise(
            _root_of_gradient,
            ScaleByRootOfGradientState,
            b1=b1,
            b2=b2,
            gamma=gamma,
            eps=eps,
            is_literal=sqrt_mode == "literal",
        ),
        optax.scale_by_learning_rate(lr),
    )


class ScaleByRootOfGradientState(NamedTuple):
    """State of `lion_formula`'s direction.

    Attributes:
      count: updates so far, int32 of shape ().
      mu: first moment m, a tree like the parameters, at least float32.
    """

    count: jax.Array
    mu: optax.Updates


def _root_of_gradient(g, m, *, b1, b2, gamma, eps, is_literal, bias1, bias2):
    m = b1 * m + (1 - b1) * g
    n = gamma * g + (1 - b2) * jnp.sign(g)
    m_hat, n_hat = m / bias1, n / bias2
    root = sqrt(n_hat if is_literal else jnp.abs(n_hat))
    return jnp.where(g == 0, 0.0, m_hat / jnp.where(g == 0, 1.0, root + eps)), m
