"""The Lion family."""

import jax
import optax

from lion_jax._core.arithmetic import inverse, largest_float
from lion_jax._core.kinds import DECAY_RATE, DTYPE, NON_NEGATIVE, POSITIVE, SHARES
from lion_jax._core.rule import chain, optimizer, takes
from lion_jax._core.types import DType, Mask, Scalar
from lion_jax.primitives.decay import add_decoupled_weight_decay
from lion_jax.primitives.momentum import scale_by_sign_momentum

LION = {
    "learning_rate": NON_NEGATIVE.trying("1e-4", "or a third to a tenth of AdamW's"),
    "b1": DECAY_RATE,
    "b2": DECAY_RATE,
    "mu_dtype": DTYPE,
    "weight_decay": NON_NEGATIVE,
    "mask": SHARES,
}
INITIAL_RATE = POSITIVE.constant().trying("1e-4", "the schedule's peak")


def weight_bound(*, weight_decay: jax.Array, **_: jax.Array) -> jax.Array:
    """The size at which the decay balances a sign: eta lambda |theta| = eta."""
    return inverse(weight_decay, largest_float())


@optimizer(weight_bound, **LION)
def lion(
    learning_rate: optax.ScalarOrSchedule,
    b1: optax.ScalarOrSchedule = 0.9,
    b2: optax.ScalarOrSchedule = 0.99,
    mu_dtype: DType | None = None,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Lion: the sign of an interpolated momentum, with decoupled weight decay.

    .. math::

      \theta_t &= \theta_{t-1} - \eta_t \left(\operatorname{sign}(\beta_1 m_{t-1} +
        (1 - \beta_1) g_t) + \lambda \theta_{t-1}\right) \\
      m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

    with :math:`m_0 = 0`. Every entry moves by the learning rate, whatever its gradient, so Lion
    needs a learning rate three to ten times smaller than AdamW's and a weight decay as many times
    larger. Its state is one moment, half of AdamW's.

    The arguments are those of ``optax.lion`` in the same order. Two defaults differ: no weight
    decay (there 1e-3), and a momentum of at least float32 for narrower parameters (there in the
    parameters' dtype, here with ``mu_dtype=jnp.bfloat16``).

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

    Returns:
      A transformation. ``optax.apply_updates`` adds its updates, of the parameters' shapes, dtypes
      and units; :func:`lion_jax.hyperparameters` reads its state, a :class:`HyperparametersState`.
      Only weight decay reads parameters.

    Raises:
      ValueError: a hyperparameter out of range; at ``update``, missing parameters.
      TypeError: a hyperparameter of the wrong type; at ``init``, a complex leaf.

    Example:
      >>> import jax, jax.numpy as jnp, lion_jax, optax
      >>> loss = lambda params: jnp.sum(params**2)
      >>> params = jnp.array([1.0, -2.0, 3.0])
      >>> tx = lion_jax.lion(0.5, weight_decay=0.1)
      >>> state = tx.init(params)
      >>> for _ in range(4):
      ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     print(f"{loss(params):.2f}")
      7.68
      3.70
      1.72
      0.40

    References:
      Chen et al., `Symbolic Discovery of Optimization Algorithms
      <https://arxiv.org/abs/2302.06675>`_, 2023, Algorithm 2.
    """
    return chain(
        scale_by_sign_momentum(b1, b2, mu_dtype),
        add_decoupled_weight_decay(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )


@takes(**LION, initial_learning_rate=INITIAL_RATE.or_none())
def decoupled_lion(
    learning_rate: optax.ScalarOrSchedule,
    b1: optax.ScalarOrSchedule = 0.9,
    b2: optax.ScalarOrSchedule = 0.99,
    mu_dtype: DType | None = None,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Mask = None,
    *,
    initial_learning_rate: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Lion with a weight decay independent of the learning rate's magnitude.

    .. math::

      \theta_t &= \theta_{t-1} - \eta_t \operatorname{sign}(\beta_1 m_{t-1} + (1 - \beta_1) g_t)
        - \frac{\eta_t}{\eta_0} \lambda \theta_{t-1} \\
      m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

    with :math:`m_0 = 0`: at the initial learning rate :math:`\eta_0` a step shrinks the weights by
    exactly :math:`1 - \lambda`, so :math:`\lambda` is far smaller than :func:`lion`'s: 1e-5 rather
    than 0.1. A schedule scales the decay along with the learning rate.

    Args:
      learning_rate: :math:`\eta` >= 0, in the parameters' units.
      b1: :math:`\beta_1` in [0, 1), the weight of the momentum in the update.
      b2: :math:`\beta_2` in [0, 1), the decay rate of the momentum.
      mu_dtype: dtype that stores the momentum. None keeps the parameters' dtype, but at least
        float32.
      weight_decay: :math:`\lambda` >= 0. It stands after the learning rate: the decay is scaled by
        :math:`\eta_t / \eta_0`, not by :math:`\eta_t`.
      mask: which leaves decay, or how much of :math:`\lambda` each gets; see
        :mod:`lion_jax.groups`. None is all.
      initial_learning_rate: :math:`\eta_0` > 0. None takes that of a constant ``learning_rate``.
        With a schedule it is required, since a warm-up starts at 0; it is mostly the peak. Give it
        with an injected schedule too: the rule then sees only the rate of each step, and without
        :math:`\eta_0` the decay would not follow the schedule.

    Returns:
      A transformation. ``optax.apply_updates`` adds its updates, of the parameters' shapes, dtypes
      and units; :func:`lion_jax.hyperparameters` reads its state, a :class:`HyperparametersState`.

    Raises:
      ValueError: a number out of range, or a schedule without ``initial_learning_rate``; at
        ``update``, missing parameters.
      TypeError: a hyperparameter of the wrong type; at ``init``, a complex leaf.

    Example:
      >>> import jax.numpy as jnp, lion_jax, optax
      >>> schedule = optax.cosine_decay_schedule(1e-4, decay_steps=1000)
      >>> tx = lion_jax.decoupled_lion(schedule, weight_decay=0.01, initial_learning_rate=1e-4)
      >>> params = jnp.array([10.0, -10.0])
      >>> updates, state = tx.update(jnp.zeros(2), tx.init(params), params)
      >>> print(params + updates)
      [ 9.9 -9.9]

    References:
      Chen et al., `Symbolic Discovery of Optimization Algorithms
      <https://arxiv.org/abs/2302.06675>`_, 2023, Algorithm 2; Loshchilov and Hutter,
      `Decoupled Weight Decay Regularization <https://arxiv.org/abs/1711.05101>`_, 2019,
      Algorithm 2; ``DecoupledLionW`` of llm-foundry 0.22.
    """
    if initial_learning_rate is None:
        initial_learning_rate = constant_rate(learning_rate)
    return _decoupled_lion(
        learning_rate, b1, b2, mu_dtype, weight_decay, mask, initial_learning_rate
    )


# As for Lion, with lambda / eta_0 for lambda.
@optimizer(
    lambda *, weight_decay, initial_learning_rate, **_: inverse(
        weight_decay * _inverse(initial_learning_rate), largest_float()
    ),
    **LION,
    initial_learning_rate=INITIAL_RATE,
)
def _decoupled_lion(
    learning_rate: optax.ScalarOrSchedule,
    b1: optax.ScalarOrSchedule,
    b2: optax.ScalarOrSchedule,
    mu_dtype: DType | None,
    weight_decay: optax.ScalarOrSchedule,
    mask: Mask,
    initial_learning_rate: Scalar,
) -> optax.GradientTransformation:
    return chain(
        scale_by_sign_momentum(b1, b2, mu_dtype),
        add_decoupled_weight_decay(weight_decay, mask, multiplier=_inverse(initial_learning_rate)),
        optax.scale_by_learning_rate(learning_rate),
    )


def constant_rate(
    rate: optax.ScalarOrSchedule,
    name: str = "learning_rate",
    initial_name: str = "initial_learning_rate",
) -> Scalar:
    """Refuses a schedule, and a rate that cannot be the initial one."""
    if callable(rate):
        raise ValueError(
            f"{initial_name} must be finite and > 0 when {name} is a schedule; got None. "
            f"Try {initial_name}=<the schedule's peak>."
        )
    INITIAL_RATE.check(initial_name, rate)
    return rate


def _inverse(initial_learning_rate: Scalar) -> Scalar:
    """Divides 1 by it; 0 where a traced or injected rate is 0, since then nothing is to move."""
    if isinstance(initial_learning_rate, jax.Array):
        return inverse(initial_learning_rate, 0.0)
    return 1 / initial_learning_rate
