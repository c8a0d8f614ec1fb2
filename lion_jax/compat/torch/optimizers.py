"""PyTorch's optimizers: `torch.optim <https://docs.pytorch.org/docs/stable/optim.html>`_, 2.15.

Every ``weight_decay`` but AdamW's is an L2 penalty, part of the gradient before the moments. Rules
that square gradients refuse complex leaves. torch squares their components, and so does
``optax.contrib.split_real_and_imaginary`` around the optimizer. A parameter without a gradient is
skipped, as in torch, but all parameters share one count of steps.
"""

import jax
import optax

from lion_jax._core.kinds import DECAY_RATE, FLAG, FRACTION, NON_NEGATIVE, check_nesterov, is_off
from lion_jax._core.rule import chain, optimizer, takes
from lion_jax._core.types import Betas, Scalar
from lion_jax.compat._moments import (
    ADAM,
    EPS,
    LEARNING_RATE,
    WEIGHT_DECAY,
    heavy_ball,
    refuse_complex,
    scale_by_amsgrad,
    scale_by_sum_of_squares,
)
from lion_jax.primitives._adam import scale_by_adam, scale_by_rms, scale_by_stddev
from lion_jax.primitives.decay import add_decoupled_weight_decay


@optimizer(
    lr=LEARNING_RATE,
    momentum=DECAY_RATE.constant(),
    dampening=FRACTION.constant(),
    weight_decay=WEIGHT_DECAY,
    nesterov=FLAG,
)
def sgd(
    lr: optax.ScalarOrSchedule = 1e-3,
    momentum: Scalar = 0,
    dampening: Scalar = 0,
    weight_decay: Scalar = 0,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""``torch.optim.SGD``.

    .. math::

      d_t &= g_t + \lambda \theta_{t-1} \\
      b_1 &= d_1, \qquad b_t = \mu b_{t-1} + (1 - \tau) d_t \\
      \theta_t &= \theta_{t-1} - \eta_t b_t
        \quad \text{or, Nesterov's, } \theta_{t-1} - \eta_t (d_t + \mu b_t)

    It departs from ``optax.sgd``, which has no dampening and no L2 penalty.

    Args:
      lr: :math:`\eta` >= 0.
      momentum: :math:`\mu` in [0, 1).
      dampening: :math:`\tau` in [0, 1].
      weight_decay: :math:`\lambda` >= 0.
      nesterov: whether to look ahead; needs a momentum and no dampening.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError, TypeError: a hyperparameter out of range or of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> tx = compat.torch.sgd(lr=1.0, momentum=0.5, dampening=0.25)
      >>> state = tx.init(jnp.zeros(1))
      >>> for _ in range(3):
      ...     updates, state = tx.update(jnp.ones(1), state)
      ...     print(updates[0])
      -1.0
      -1.25
      -1.375
    """
    check_nesterov(nesterov, momentum, dampening)
    return chain(
        add_decoupled_weight_decay(weight_decay),
        heavy_ball(momentum, dampening, nesterov),
        optax.scale_by_learning_rate(lr),
    )


@optimizer(**ADAM, amsgrad=FLAG)
def adam(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0,
    amsgrad: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""``torch.optim.Adam``.

    The rule, arguments and errors are those of :func:`adamw`, but the decay is an L2 penalty:
    :math:`g_t + \lambda \theta_{t-1}` replaces :math:`g_t`. It departs from ``optax.adam`` by this
    penalty, and by ``amsgrad``.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> tx = compat.torch.adam(lr=0.5, weight_decay=0.25)
      >>> params = jnp.array([8.0, -8.0])  # the decay outweighs the gradient, and turns its sign
      >>> print(jnp.round(params + tx.update(jnp.ones(2), tx.init(params), params)[0], 2))
      [ 7.5 -7.5]
    """
    return chain(
        add_decoupled_weight_decay(weight_decay),
        _scale_by_adam(betas, eps, amsgrad),
        optax.scale_by_learning_rate(lr),
    )


@optimizer(**ADAM, amsgrad=FLAG)
def adamw(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 1e-2,
    amsgrad: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""``torch.optim.AdamW``.

    .. math::

      m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
      v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
      \theta_t &= (1 - \eta_t \lambda) \theta_{t-1} - \eta_t \frac{m_t}{1 - \beta_1^t} \Big/
        \left(\sqrt{\frac{v_t}{1 - \beta_2^t}} + \varepsilon\right)

    where ``amsgrad`` puts the largest :math:`v_s` up to :math:`t` in the place of :math:`v_t`.
    It departs from ``optax.amsgrad``, which corrects each :math:`v_s` by its own count. Without
    ``amsgrad`` it is ``optax.adamw``, whose default decay is 1e-4.

    Args:
      lr: :math:`\eta` >= 0.
      betas: :math:`(\beta_1, \beta_2)`, each in [0, 1).
      eps: :math:`\varepsilon` >= 0, in the gradients' units.
      weight_decay: :math:`\lambda` >= 0.
      amsgrad: whether the largest second moment so far replaces the present one.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError, TypeError: a hyperparameter out of range or of the wrong type; a complex leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> tx = compat.torch.adamw(lr=0.5, weight_decay=0.25)
      >>> params = jnp.array([8.0, -8.0])
      >>> print(jnp.round(params + tx.update(jnp.ones(2), tx.init(params), params)[0], 2))
      [ 6.5 -7.5]
    """
    return chain(
        _scale_by_adam(betas, eps, amsgrad),
        add_decoupled_weight_decay(weight_decay),
        optax.scale_by_learning_rate(lr),
    )


@optimizer(
    lr=LEARNING_RATE,
    alpha=DECAY_RATE.constant(),
    eps=EPS,
    weight_decay=WEIGHT_DECAY,
    momentum=DECAY_RATE.constant(),
    centered=FLAG,
)
def rmsprop(
    lr: optax.ScalarOrSchedule = 1e-2,
    alpha: Scalar = 0.99,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0,
    momentum: Scalar = 0,
    centered: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""``torch.optim.RMSprop``.

    .. math::

      d_t &= g_t + \lambda \theta_{t-1} \\
      v_t &= \alpha v_{t-1} + (1 - \alpha) d_t^2 \\
      b_t &= \mu b_{t-1} + d_t / (\sqrt{v_t} + \varepsilon) \\
      \theta_t &= \theta_{t-1} - \eta_t b_t

    where ``centered`` puts :math:`\sqrt{v_t - \bar d_t^2}` in the place of the root: :math:`\bar d`
    averages :math:`d` as :math:`v` does its square. It departs from ``optax.rmsprop``: eps is
    outside the root, and the learning rate outside the momentum, which differs under a schedule. As
    in torch, a gradient constant for long enough makes the centered difference negative by
    rounding, and the root NaN.

    Args:
      lr: :math:`\eta` >= 0.
      alpha: :math:`\alpha` in [0, 1).
      eps: :math:`\varepsilon` >= 0, in the gradients' units.
      weight_decay: :math:`\lambda` >= 0.
      momentum: :math:`\mu` in [0, 1).
      centered: whether to divide by the standard deviation rather than the root mean square.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError, TypeError: a hyperparameter out of range or of the wrong type; a complex leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> tx = compat.torch.rmsprop(lr=0.5, alpha=0.75)
      >>> print(jnp.round(tx.update(jnp.array([4.0, -0.1]), tx.init(jnp.zeros(2)))[0], 2))
      [-1.  1.]
    """
    scale = scale_by_stddev if centered else scale_by_rms
    return chain(
        refuse_complex("torch.rmsprop"),
        add_decoupled_weight_decay(weight_decay),
        scale(alpha, eps),
        heavy_ball(momentum),
        optax.scale_by_learning_rate(lr),
    )


@takes(
    lr=LEARNING_RATE,
    lr_decay=NON_NEGATIVE.constant(),
    weight_decay=WEIGHT_DECAY,
    initial_accumulator_value=NON_NEGATIVE.constant(),
    eps=EPS,
)
def adagrad(
    lr: optax.ScalarOrSchedule = 1e-2,
    lr_decay: Scalar = 0,
    weight_decay: Scalar = 0,
    initial_accumulator_value: Scalar = 0,
    eps: Scalar = 1e-10,
) -> optax.GradientTransformationExtraArgs:
    r"""``torch.optim.Adagrad``.

    .. math::

      d_t &= g_t + \lambda \theta_{t-1}, \qquad \Sigma_t = \Sigma_{t-1} + d_t^2 \\
      \theta_t &= \theta_{t-1} - \frac{\eta_t}{1 + (t - 1) \delta}
        \frac{d_t}{\sqrt{\Sigma_t} + \varepsilon}

    It departs from ``optax.adagrad``: there eps is inside the root, :math:`\Sigma_0` 0.1, and there
    is no decay of the learning rate.

    Args:
      lr: :math:`\eta` >= 0.
      lr_decay: :math:`\delta` >= 0.
      weight_decay: :math:`\lambda` >= 0.
      initial_accumulator_value: :math:`\Sigma_0` >= 0.
      eps: :math:`\varepsilon` >= 0, in the gradients' units.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError, TypeError: a hyperparameter out of range or of the wrong type; a complex leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> tx = compat.torch.adagrad(lr=0.5)
      >>> print(tx.update(jnp.array([4.0, -0.1]), tx.init(jnp.zeros(2)))[0])
      [-0.5  0.5]
    """
    return _adagrad(_decayed(lr, lr_decay), weight_decay, initial_accumulator_value, eps)


@optimizer(lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, eps=EPS)
def _adagrad(lr, weight_decay, initial_accumulator_value, eps) -> optax.GradientTransformation:
    return chain(
        refuse_complex("torch.adagrad"),
        add_decoupled_weight_decay(weight_decay),
        scale_by_sum_of_squares(initial_accumulator_value, eps),
        optax.scale_by_learning_rate(lr),
    )


@optimizer(lr=LEARNING_RATE, rho=DECAY_RATE.constant(), eps=EPS, weight_decay=WEIGHT_DECAY)
def adadelta(
    lr: optax.ScalarOrSchedule = 1.0,
    rho: Scalar = 0.9,
    eps: Scalar = 1e-6,
    weight_decay: Scalar = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""``torch.optim.Adadelta``.

    .. math::

      d_t &= g_t + \lambda \theta_{t-1}, \qquad v_t = \rho v_{t-1} + (1 - \rho) d_t^2 \\
      u_t &= \frac{\sqrt{x_{t-1} + \varepsilon}}{\sqrt{v_t + \varepsilon}} d_t, \qquad
        x_t = \rho x_{t-1} + (1 - \rho) u_t^2 \\
      \theta_t &= \theta_{t-1} - \eta_t u_t

    It differs from ``optax.adadelta`` only in the names and defaults of its arguments.

    Args:
      lr: :math:`\eta` >= 0.
      rho: :math:`\rho` in [0, 1).
      eps: :math:`\varepsilon` >= 0, in the square of the gradients' units.
      weight_decay: :math:`\lambda` >= 0.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError, TypeError: a hyperparameter out of range or of the wrong type; a complex leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> tx = compat.torch.adadelta(rho=0.75, eps=1.0)
      >>> print(tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))[0])
      [-1.7888544]
    """
    return chain(
        refuse_complex("torch.adadelta"),
        add_decoupled_weight_decay(weight_decay),
        optax.scale_by_adadelta(rho, eps),
        optax.scale_by_learning_rate(lr),
    )


def _scale_by_adam(betas: Betas, eps: Scalar, amsgrad: bool) -> optax.GradientTransformation:
    b1, b2 = betas
    rule = scale_by_amsgrad if amsgrad else scale_by_adam
    return chain(refuse_complex("torch's Adam"), rule(b1, b2, eps))


def _decayed(lr: optax.ScalarOrSchedule, lr_decay: Scalar) -> optax.ScalarOrSchedule:
    if is_off(lr_decay):
        return lr

    def decayed(count):
        with jax.numpy_dtype_promotion("standard"):  # a count beside a float
            divisor = 1.0 + count * lr_decay
        return (lr(count) if callable(lr) else lr) / divisor

    return decayed
