"""PyTorch's learning-rate schedulers, as functions of the update count.

Each function returns a schedule: from the count of the updates before a step to the learning rate
of that step. torch's loop steps the optimizer and then the scheduler, so its n-th
``scheduler.step()`` leaves the rate of count n. Counts are integers, traced or mapped if you like.
Rates have the shape of the count, in float64 under x64 and in float32 otherwise. Where torch
computes a rate from the previous one, these are the closed forms: equal up to rounding.

References:
  `torch.optim.lr_scheduler
  <https://docs.pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate>`_, 2.15.
"""

import math
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.kinds import NON_NEGATIVE, POSITIVE, integer
from lion_jax._core.rule import takes
from lion_jax._core.types import Scalar
from lion_jax.compat.torch._annealing import as_count, as_float, half_cosine, power

__all__ = ["cosine_annealing_lr", "exponential_lr", "lambda_lr", "multi_step_lr", "step_lr"]
__dir__ = __all__.copy  # TAB offers no more

_LR = NON_NEGATIVE.constant().trying("0.1")


@takes(lr=_LR, step_size=integer().trying("30"), gamma=NON_NEGATIVE.constant())
def step_lr(lr: Scalar, step_size: int, gamma: Scalar = 0.1) -> optax.Schedule:
    r"""``StepLR``: :math:`\eta_t = \eta\, \gamma^{\lfloor t / s \rfloor}`.

    Args:
      lr: the optimizer's :math:`\eta` >= 0.
      step_size: :math:`s` >= 1, in counts of updates.
      gamma: :math:`\gamma` >= 0.

    Returns:
      A schedule from the count t to the learning rate.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> print(compat.torch.step_lr(1.0, step_size=2, gamma=0.5)(jnp.arange(6)))
      [1.   1.   0.5  0.5  0.25 0.25]
    """
    return lambda count: as_float(lr * power(gamma, as_count(count) // step_size))


@takes(lr=_LR, gamma=NON_NEGATIVE.constant())
def multi_step_lr(lr: Scalar, milestones: Iterable[int], gamma: Scalar = 0.1) -> optax.Schedule:
    r"""``MultiStepLR``: :math:`\eta_t = \eta\, \gamma^n`, with n the milestones up to t.

    Args:
      lr: the optimizer's :math:`\eta` >= 0.
      milestones: counts of updates >= 0 in any order; one that is there twice counts twice.
      gamma: :math:`\gamma` >= 0.

    Returns:
      A schedule from the count t to the learning rate.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> print(compat.torch.multi_step_lr(1.0, milestones=[2, 4, 4], gamma=0.5)(jnp.arange(6)))
      [1.    1.    0.5   0.5   0.125 0.125]
    """
    if not isinstance(milestones, Iterable):
        raise TypeError(
            f"milestones must be a list of integers >= 0; got {milestones!r} of type "
            f"{type(milestones).__name__}. Try milestones=[30, 80]."
        )
    milestones = list(milestones)
    for i, milestone in enumerate(milestones):
        integer(0).trying("30").check(f"milestones[{i}]", milestone)

    def schedule(count):
        t = as_count(count)
        passed = sum(((t >= m).astype(jnp.int32) for m in milestones), jnp.zeros_like(t))
        return as_float(lr * power(gamma, passed))

    return schedule


@takes(lr=_LR, gamma=POSITIVE.constant().trying("0.99"))
def exponential_lr(lr: Scalar, gamma: Scalar) -> optax.Schedule:
    r"""``ExponentialLR``: :math:`\eta_t = \eta\, \gamma^t`.

    Args:
      lr: the optimizer's :math:`\eta` >= 0.
      gamma: :math:`\gamma` > 0.

    Returns:
      A schedule from the count t to the learning rate.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> print(compat.torch.exponential_lr(1.0, gamma=0.5)(jnp.arange(4)).round(6))
      [1.    0.5   0.25  0.125]
    """
    # A power of gamma rounded to float32 would be off by as many roundings as there are steps.
    log_gamma = jnp.log(gamma) if isinstance(gamma, jax.Array) else math.log(gamma)
    return lambda count: as_float(lr * jnp.exp(log_gamma * as_float(count)))


@takes(lr=_LR, T_max=integer().trying("1000"), eta_min=NON_NEGATIVE.constant())
def cosine_annealing_lr(
    lr: Scalar,
    T_max: int,  # noqa: N803  torch's own name
    eta_min: Scalar = 0.0,
) -> optax.Schedule:
    r"""``CosineAnnealingLR``, which rises again after its end.

    .. math::

      \eta_t = \eta_{\min} + \frac{\eta - \eta_{\min}}{2} \left(1 + \cos\frac{\pi t}{T}\right)

    Up to :math:`T` it is ``optax.cosine_decay_schedule``; from there it goes back to :math:`\eta`
    at :math:`2T`, and so on. torch multiplies the rate at hand by ratios of such terms, whose
    rounding grows towards :math:`T`, where they vanish, and is forgotten there.

    Args:
      lr: the optimizer's :math:`\eta` >= 0.
      T_max: :math:`T` >= 1, in counts of updates.
      eta_min: :math:`\eta_{\min}` >= 0.

    Returns:
      A schedule from the count t to the learning rate.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> print(compat.torch.cosine_annealing_lr(1.0, T_max=2)(jnp.arange(6)).round(6))
      [1.  0.5 0.  0.5 1.  0.5]
    """

    def schedule(count):
        t = as_count(count)  # an integer, like 2 T, which may be more than one holds
        rest, is_down = t % T_max, t // T_max % 2 == 0
        passed = as_float(jnp.where(is_down, rest, T_max - rest))
        remaining = as_float(jnp.where(is_down, T_max - rest, rest))
        weights = half_cosine(remaining / as_float(T_max)), half_cosine(passed / as_float(T_max))
        return as_float(lr * weights[0] + eta_min * weights[1])

    return schedule


@takes(lr=_LR)
def lambda_lr(lr: Scalar, lr_lambda: Callable[[jax.Array], jax.typing.ArrayLike]) -> optax.Schedule:
    r"""``LambdaLR``: :math:`\eta_t = \eta f(t)`.

    Args:
      lr: the optimizer's :math:`\eta` >= 0.
      lr_lambda: :math:`f`, from the count to a factor. Under ``jit`` the count is traced: write
        ``jnp.where`` for ``if``, ``jnp.minimum`` for ``min``. It comes as wide as integers go, so
        that a quotient of it is float64 under x64.

    Returns:
      A schedule from the count t to the learning rate.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> warmup = compat.torch.lambda_lr(1.0, lambda count: jnp.minimum((count + 1) / 4, 1.0))
      >>> print(warmup(jnp.arange(6)))
      [0.25 0.5  0.75 1.   1.   1.  ]
    """
    if not callable(lr_lambda):
        raise TypeError(
            "lr_lambda must be a function from the count to a factor; got "
            f"{lr_lambda!r} of type {type(lr_lambda).__name__}. "
            "Try lr_lambda=lambda count: 0.95**count."
        )
    return lambda count: as_float(lr * lr_lambda(jnp.asarray(count, jnp.result_type(int))))
