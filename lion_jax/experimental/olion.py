"""OLion: the sign of an orthogonalized momentum."""

import jax.numpy as jnp
import optax

from lion_jax._core.arithmetic import sqrt, sum_of_squares
from lion_jax._core.leafwise import leafwise
from lion_jax._core.rule import chain, optimizer, primitive
from lion_jax._core.types import DType, Mask
from lion_jax.optimizers.lion import LION
from lion_jax.primitives.decay import add_decoupled_weight_decay
from lion_jax.primitives.momentum import interpolate_momentum
from lion_jax.primitives.orthogonal import orthogonalize


@optimizer(**LION)
def olion(
    learning_rate: optax.ScalarOrSchedule,
    b1: optax.ScalarOrSchedule = 0.9,
    b2: optax.ScalarOrSchedule = 0.99,
    mu_dtype: DType | None = None,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    r"""OLion: Lion with an orthogonalized momentum; nobody but its authors has tried it.

    .. math::

      c_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad
        s_t = \operatorname{sign}(\operatorname{NS}(c_t)) \\
      \theta_t &= \theta_{t-1} - \eta_t \left(0.2 \sqrt{d_1 d_2} \,
        \frac{s_t}{\lVert s_t \rVert_F} + \lambda \theta_{t-1}\right)

    with the polar factor of :func:`~lion_jax.primitives.orthogonalize` for NS, so that the root
    mean square of a step is :math:`0.2 \eta_t`. Vectors take the sign of :math:`c_t`.

    Args:
      learning_rate: :math:`\eta` >= 0, in the parameters' units.
      b1: :math:`\beta_1` in [0, 1), the weight of the momentum in the update.
      b2: :math:`\beta_2` in [0, 1), the decay rate of the momentum.
      mu_dtype: dtype that stores the momentum. None keeps the parameters' dtype, but at least
        float32.
      weight_decay: :math:`\lambda` >= 0. It stands before the learning rate, as in AdamW.
      mask: which leaves decay, or how much of :math:`\lambda` each gets; see
        :mod:`lion_jax.groups`. None is all.

    Returns:
      A transformation. ``optax.apply_updates`` adds its updates, of the parameters' shapes, dtypes
      and units; :func:`lion_jax.hyperparameters` reads its state, a :class:`HyperparametersState`.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type; parameters missing.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import experimental
      >>> tx, params = experimental.olion(1.0), jnp.zeros((2, 2))
      >>> updates, _ = tx.update(jnp.array([[2.0, 1.0], [-1.0, 2.0]]), tx.init(params))
      >>> print([f"{u:.1f}" for u in updates.ravel()])
      ['-0.2', '-0.2', '0.2', '-0.2']

    References:
      `OLion <https://arxiv.org/abs/2602.01105>`_, 2026; the authors' code (kv-wang/OLion),
      with which they train GPT-2, Llama 2 and SiT.
    """
    return chain(
        interpolate_momentum(b1, b2, mu_dtype),
        orthogonalize(),
        _sign_of_rms(),
        add_decoupled_weight_decay(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )


@primitive()
def _sign_of_rms() -> optax.GradientTransformationExtraArgs:
    return leafwise(_scaled_sign)


def _scaled_sign(c):
    s = jnp.sign(c)
    norm = sqrt(sum_of_squares(s))
    return (0.2 * c.size**0.5 * s / jnp.where(norm > 0, norm, 1.0),)
