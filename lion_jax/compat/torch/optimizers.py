"""PyTorch's optimizers: `torch.optim <https://docs.pytorch.org/docs/stable/optim.html>`_, 2.15.

Every ``weight_decay`` but AdamW's is an L2 penalty: the same link, before the moments rather than
after them. Complex leaves are refused where the rule squares them: torch squares components, as
``optax.contrib.split_real_and_imaginary`` around the whole does. A parameter without a gradient is
skipped, as there, but all parameters share one count of steps.
"""

import jax
import optax

from lion_jax._checks import check_flag, check_nesterov, check_number, check_peer, is_off
from lion_jax._dtypes import computed_in_float32
from lion_jax._hyperparameters import shows_hyperparameters
from lion_jax.compat._moments import (
    Betas,
    Scalar,
    heavy_ball,
    refuse_complex,
    scale_by_amsgrad,
    scale_by_sum_of_squares,
    unpack_betas,
)
from lion_jax.primitives._adam import scale_by_adam, scale_by_rms, scale_by_stddev
from lion_jax.primitives.decay import add_decoupled_weight_decay

_RANGES_LIKE = {"alpha": "b2", "rho": "b2", "lr_decay": "eps", "initial_accumulator_value": "eps"}


@computed_in_float32
@shows_hyperparameters("lr", "momentum", "dampening", "weight_decay")
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

    Departs from optax: dampening, which ``optax.sgd`` has not, and L2 within.

    Args:
      lr: :math:`\eta` >= 0: a number, a traced scalar, or a schedule from the update count.
      momentum: :math:`\mu` in [0, 1): a number or a traced scalar.
      dampening: :math:`\tau` in [0, 1], likewise.
      weight_decay: :math:`\lambda` >= 0, likewise.
      nesterov: whether to look ahead; needs a momentum and no dampening. ``static_args`` for
        ``optax.inject_hyperparams``: ``("nesterov",)``.

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
    _check(lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay)
    check_nesterov(nesterov, momentum, dampening)
    return optax.chain(
        add_decoupled_weight_decay(weight_decay),
        heavy_ball(momentum, dampening, nesterov),
        optax.scale_by_learning_rate(lr),
    )


@computed_in_float32
@shows_hyperparameters("lr", "betas", "eps", "weight_decay")
def adam(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0,
    amsgrad: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""``torch.optim.Adam``.

    The rule, arguments and errors of :func:`adamw`, but for the decay: its place is
    :math:`g_t + \lambda \theta_{t-1}` for :math:`g_t`. Departs from ``optax.adam`` by this L2
    penalty, and by ``amsgrad``.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> tx = compat.torch.adam(lr=0.5, weight_decay=0.25)
      >>> params = jnp.array([8.0, -8.0])  # the decay outweighs the gradient, and turns its sign
      >>> print(jnp.round(params + tx.update(jnp.ones(2), tx.init(params), params)[0], 2))
      [ 7.5 -7.5]
    """
    _check(lr, weight_decay=weight_decay)
    return optax.chain(
        add_decoupled_weight_decay(weight_decay),
        _scale_by_adam(betas, eps, amsgrad),
        optax.scale_by_learning_rate(lr),
    )


@computed_in_float32
@shows_hyperparameters("lr", "betas", "eps", "weight_decay")
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
    Departs from ``optax.amsgrad``, which corrects each :math:`v_s` by its own count; without it
    from nothing but the default decay of ``optax.adamw``, 1e-4.

    Args:
      lr: :math:`\eta` >= 0: a number, a traced scalar, or a schedule from the update count.
      betas: :math:`(\beta_1, \beta_2)`, each in [0, 1): numbers or traced scalars.
      eps: :math:`\varepsilon` >= 0, in the gradients' units: a number or a traced scalar.
      weight_decay: :math:`\lambda` >= 0, likewise.
      amsgrad: whether the step may not grow as gradients shrink. ``static_args`` for
        ``optax.inject_hyperparams``: ``("betas", "amsgrad")``.

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
    _check(lr, weight_decay=weight_decay)
    return optax.chain(
        _scale_by_adam(betas, eps, amsgrad),
        add_decoupled_weight_decay(weight_decay),
        optax.scale_by_learning_rate(lr),
    )


@computed_in_float32
@shows_hyperparameters("lr", "alpha", "eps", "weight_decay", "momentum")
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

    with :math:`\sqrt{v_t - \bar d_t^2}` for the root if ``centered``, where :math:`\bar d` is the
    average that :math:`v` is of squares. Departs from ``optax.rmsprop``: the learning rate is
    outside the momentum, which differs under a schedule, and eps outside the root. As in torch, a
    gradient constant for long enough makes the centered difference negative by rounding, and NaN.

    Args:
      lr: :math:`\eta` >= 0: a number, a traced scalar, or a schedule from the update count.
      alpha: :math:`\alpha` in [0, 1): a number or a traced scalar.
      eps: :math:`\varepsilon` >= 0, in the gradients' units, likewise.
      weight_decay: :math:`\lambda` >= 0, likewise.
      momentum: :math:`\mu` in [0, 1), likewise.
      centered: whether to divide by the deviation rather than the size. ``static_args`` for
        ``optax.inject_hyperparams``: ``("centered",)``.

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
    _check(lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
    check_flag("centered", centered)
    scale = scale_by_stddev if centered else scale_by_rms
    return optax.chain(
        refuse_complex("torch.rmsprop"),
        add_decoupled_weight_decay(weight_decay),
        scale(alpha, eps),
        heavy_ball(momentum),
        optax.scale_by_learning_rate(lr),
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

    Departs from ``optax.adagrad``: there eps is inside the root, :math:`\Sigma_0` 0.1, and there
    is no decay of the learning rate.

    Args:
      lr: :math:`\eta` >= 0: a number, a traced scalar, or a schedule from the update count.
      lr_decay: :math:`\delta` >= 0: a number or a traced scalar.
      weight_decay: :math:`\lambda` >= 0, likewise.
      initial_accumulator_value: :math:`\Sigma_0` >= 0, likewise.
      eps: :math:`\varepsilon` >= 0, in the gradients' units, likewise.

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
    _check(
        lr,
        lr_decay=lr_decay,
        weight_decay=weight_decay,
        initial_accumulator_value=initial_accumulator_value,
        eps=eps,
    )
    return _adagrad(_decayed(lr, lr_decay), weight_decay, initial_accumulator_value, eps)


@computed_in_float32
@shows_hyperparameters("lr", "weight_decay", "eps")
def _adagrad(lr, weight_decay, initial_accumulator_value, eps) -> optax.GradientTransformation:
    return optax.chain(
        refuse_complex("torch.adagrad"),
        add_decoupled_weight_decay(weight_decay),
        scale_by_sum_of_squares(initial_accumulator_value, eps),
        optax.scale_by_learning_rate(lr),
    )


@computed_in_float32
@shows_hyperparameters("lr", "rho", "eps", "weight_decay")
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

    Departs from ``optax.adadelta`` in nothing but the name and the default of its arguments.

    Args:
      lr: :math:`\eta` >= 0: a number, a traced scalar, or a schedule from the update count.
      rho: :math:`\rho` in [0, 1): a number or a traced scalar.
      eps: :math:`\varepsilon` >= 0, in the square of the gradients' units, likewise.
      weight_decay: :math:`\lambda` >= 0, likewise.

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
    _check(lr, rho=rho, eps=eps, weight_decay=weight_decay)
    return optax.chain(
        refuse_complex("torch.adadelta"),
        add_decoupled_weight_decay(weight_decay),
        optax.scale_by_adadelta(rho, eps),
        optax.scale_by_learning_rate(lr),
    )


def _check(lr: optax.ScalarOrSchedule, **numbers: Scalar) -> None:
    check_peer(learning_rate=("lr", lr))
    for name, value in numbers.items():
        check_number(_RANGES_LIKE.get(name, name), value, alias=name)


def _scale_by_adam(betas: Betas, eps: Scalar, amsgrad: bool) -> optax.GradientTransformation:
    b1, b2 = unpack_betas(betas)
    check_number("eps", eps)
    check_flag("amsgrad", amsgrad)
    rule = scale_by_amsgrad if amsgrad else scale_by_adam
    return optax.chain(refuse_complex("torch's Adam"), rule(b1, b2, eps))


def _decayed(lr: optax.ScalarOrSchedule, lr_decay: Scalar) -> optax.ScalarOrSchedule:
    if is_off(lr_decay):
        return lr

    def decayed(count):
        with jax.numpy_dtype_promotion("standard"):  # a count beside a float
            divisor = 1.0 + count * lr_decay
        return (lr(count) if callable(lr) else lr) / divisor

    return decayed
