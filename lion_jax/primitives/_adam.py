"""optax's directions by second moments: the same results and states, but finite derivatives at 0.

To differentiate through a step, optax needs an `eps_root` above 0, which changes the numbers. And
strict promotion refuses its powers of counts.
"""

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.arithmetic import sqrt
from lion_jax._core.counters import next_count
from lion_jax._core.leafwise import leafwise, map_leaves
from lion_jax._core.rates import optax_bias
from lion_jax._core.rule import number


def scale_by_adam(
    b1: optax.ScalarOrSchedule, b2: optax.ScalarOrSchedule, eps: optax.ScalarOrSchedule
) -> optax.GradientTransformation:
    """`optax.scale_by_adam`."""
    return leafwise(_adam, optax.ScaleByAdamState, bias=optax_bias, b1=b1, b2=b2, eps=eps)


def _adam(g, m, v, *, b1, b2, eps, bias1, bias2):
    m = (1 - b1) * g + b1 * m
    v = (1 - b2) * _square(g) + b2 * v
    return m / bias1 / (sqrt(v / bias2) + eps), m, v


def scale_by_belief(
    b1: optax.ScalarOrSchedule,
    b2: optax.ScalarOrSchedule,
    eps: optax.ScalarOrSchedule,
    *,
    eps_root: optax.ScalarOrSchedule,
) -> optax.GradientTransformation:
    """`optax.scale_by_belief`."""
    return leafwise(
        _belief,
        optax.ScaleByBeliefState,
        bias=optax_bias,
        b1=b1,
        b2=b2,
        eps=eps,
        eps_root=eps_root,
    )


def _belief(g, m, v, *, b1, b2, eps, eps_root, bias1, bias2):
    m = (1 - b1) * g + b1 * m
    v = (1 - b2) * _square(g - m) + b2 * v + eps_root
    return m / bias1 / (sqrt(v / bias2) + eps), m, v


def scale_by_two_speeds(
    b1: optax.ScalarOrSchedule,
    b2: optax.ScalarOrSchedule,
    b3: optax.ScalarOrSchedule,
    alpha: optax.ScalarOrSchedule,
    eps: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    """`optax.contrib.scale_by_ademamix`; `b3` and `alpha` are numbers or functions of the count."""

    def update_fn(updates, state, params=None, **extra_args):
        del params, extra_args
        t, slow_count = next_count(state.count), state.count_m2
        updates, m1, m2, nu = map_leaves(
            _two_speeds,
            (updates, state.m1, state.m2, state.nu),
            b1=b1,
            b2=b2,
            b3=b3(slow_count) if callable(b3) else b3,
            alpha=alpha(slow_count) if callable(alpha) else alpha,
            eps=eps,
            bias1=optax_bias(number(b1), t),
            bias2=optax_bias(number(b2), t),
        )
        return updates, state._replace(
            count=t, count_m2=next_count(slow_count), m1=m1, m2=m2, nu=nu
        )

    return optax.GradientTransformationExtraArgs(optax.contrib.scale_by_ademamix().init, update_fn)


def _two_speeds(g, m1, m2, v, *, b1, b2, b3, alpha, eps, bias1, bias2):
    m1 = (1 - b1) * g + b1 * m1
    m2 = (1 - b3) * g + b3 * m2
    v = (1 - b2) * _square(g) + b2 * v
    return (m1 / bias1 + alpha * m2) / (sqrt(v / bias2) + eps), m1, m2, v


def scale_by_rms(
    decay: optax.ScalarOrSchedule, eps: optax.ScalarOrSchedule
) -> optax.GradientTransformation:
    """`optax.scale_by_rms` with `eps_in_sqrt=False`."""
    return leafwise(_rms, optax.ScaleByRmsState, b2=decay, eps=eps)


def _rms(g, v, *, b2, eps):
    v = (1 - b2) * _square(g) + b2 * v
    return 1 / (sqrt(v) + eps) * g, v


def scale_by_stddev(
    decay: optax.ScalarOrSchedule, eps: optax.ScalarOrSchedule
) -> optax.GradientTransformation:
    """`optax.scale_by_stddev` of real updates, with `eps_in_sqrt=False`."""
    return leafwise(_stddev, optax.ScaleByRStdDevState, b2=decay, eps=eps)


def _stddev(g, m, v, *, b2, eps):
    m = (1 - b2) * g + b2 * m
    v = (1 - b2) * _square(g) + b2 * v
    return 1 / (sqrt(v - m**2) + eps) * g, m, v


def _square(g: jax.Array) -> jax.Array:
    """Squares the magnitude."""
    return jnp.real(g) ** 2 + jnp.imag(g) ** 2 if jnp.iscomplexobj(g) else g**2
