"""Adaptive moments of two speeds."""

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.counters import next_count
from lion_jax._core.kinds import DECAY_RATE, NON_NEGATIVE, Number, integer
from lion_jax._core.rule import number, primitive
from lion_jax.primitives._adam import scale_by_two_speeds

WARMUP_STEPS = integer().or_none().trying("10_000")
_WARM_RATE = Number(
    allowed="in (0, 1) with warmup_steps", contains=lambda x: 0 < x < 1, remedy="0.9"
)
_SMALLEST = float(jnp.finfo(jnp.float32).tiny)


@primitive(
    b1=DECAY_RATE,
    b2=DECAY_RATE,
    b3=DECAY_RATE,
    alpha=NON_NEGATIVE,
    eps=NON_NEGATIVE,
    warmup_steps=WARMUP_STEPS,
)
def scale_by_ademamix(
    b1: optax.ScalarOrSchedule = 0.9,
    b2: optax.ScalarOrSchedule = 0.999,
    b3: optax.ScalarOrSchedule = 0.9999,
    alpha: optax.ScalarOrSchedule = 5.0,
    eps: optax.ScalarOrSchedule = 1e-8,
    *,
    warmup_steps: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""AdEMAMix's direction: a fast and a slow average of the gradients, mixed.

    .. math::

      m_{1,t} &= \beta_1 m_{1,t-1} + (1 - \beta_1) g_t \\
      m_{2,t} &= \beta_{3,t} m_{2,t-1} + (1 - \beta_{3,t}) g_t \\
      v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
      u_t &= \left(\frac{m_{1,t}}{1 - \beta_1^t} + \alpha_t m_{2,t}\right) \Big/
        \left(\sqrt{\frac{v_t}{1 - \beta_2^t}} + \varepsilon\right)

    With ``warmup_steps`` :math:`T`, both speeds begin as one and part slowly,

    .. math::

      \alpha_t = \alpha \min\left(\frac{t}{T}, 1\right), \qquad
      \beta_{3,t} = \min\left(\exp \frac{\ln \beta_1 \ln \beta_3}
        {(1 - \frac{t}{T}) \ln \beta_3 + \frac{t}{T} \ln \beta_1}, \beta_3\right)

    The averages are ``optax.contrib.scale_by_ademamix``'s; the warm-up is this library's. With it
    :math:`\beta_3` is a float32 number, so that :math:`1 - 0.9999` is right to 1e-3 only.

    Args:
      b1: :math:`\beta_1` in [0, 1); with ``warmup_steps`` it must be positive.
      b2: :math:`\beta_2` in [0, 1).
      b3: :math:`\beta_3` in [0, 1); with ``warmup_steps`` it must be positive.
      alpha: :math:`\alpha` >= 0, the weight of the slow average.
      eps: :math:`\varepsilon` >= 0, in the gradients' units.
      warmup_steps: :math:`T` >= 1, in updates; None uses the full values from the start.

    Returns:
      A transformation from gradients to updates of the same shapes, without unit, in the
      parameters' dtype. Its state is optax's ``ScaleByAdemamixState``: ``m1``, ``m2`` and ``nu``.

    Raises:
      ValueError, TypeError: a hyperparameter out of range or of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import scale_by_ademamix
      >>> tx = scale_by_ademamix(b3=0.5, alpha=2.0)
      >>> print(tx.update(jnp.array([3.0]), tx.init(jnp.zeros(1)))[0].round(3))
      [2.]

    References:
      Pagliardini et al., `The AdEMAMix Optimizer <https://arxiv.org/abs/2409.03137>`_, 2024,
      Section 3 and Appendix A.1.
    """
    if warmup_steps is None:
        return scale_by_two_speeds(b1, b2, b3, alpha, eps)
    for name, b in {"b1": b1, "b3": b3}.items():
        _WARM_RATE.check(name, b)

    def done(count):
        """Gives the share t / T of the warm-up after this update, at most 1."""
        t = next_count(count)
        with jax.numpy_dtype_promotion("standard"):  # counts beside floats
            return jnp.where(t < warmup_steps, t * (1 / warmup_steps), 1.0)

    def warm_alpha(count):
        return number(alpha) * done(count)

    def warm_b3(count):
        # Traced numbers may be 0, of which the logarithm is infinite.
        log_b1, log_b3 = (jnp.log(jnp.maximum(number(b), _SMALLEST)) for b in (b1, b3))
        s = done(count)
        warm = jnp.exp(log_b1 * log_b3 / ((1 - s) * log_b3 + s * log_b1))
        return jnp.where(s < 1, jnp.minimum(warm, number(b3)), number(b3))

    return scale_by_two_speeds(b1, b2, warm_b3, warm_alpha, eps)
