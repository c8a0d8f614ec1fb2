"""Variance reduction: gradients corrected by their change since the last step."""

from typing import NamedTuple

import optax

from lion_jax._core.arithmetic import sqrt, sum_of_squares
from lion_jax._core.kinds import DECAY_RATE, NON_NEGATIVE
from lion_jax._core.leafwise import leafwise
from lion_jax._core.one_pass import in_place_of
from lion_jax._core.rule import primitive
from lion_jax.primitives.clipping import MAX_NORM, shortening

GAMMA = NON_NEGATIVE.trying("0.025")


class VarianceReducedGradientState(NamedTuple):
    """State of `variance_reduced_gradient`.

    Attributes:
      negative_gradient: the last gradient with its sign reversed, a tree like the parameters, at
        least float32.
    """

    # Negative, so that the difference is a sum: compilers write it in place, and copy the gradient.
    negative_gradient: optax.Updates


@primitive(b1=DECAY_RATE, gamma=GAMMA, max_norm=MAX_NORM.or_none())
def variance_reduced_gradient(
    b1: optax.ScalarOrSchedule = 0.95,
    gamma: optax.ScalarOrSchedule = 0.025,
    max_norm: optax.ScalarOrSchedule | None = 1.0,
) -> optax.GradientTransformationExtraArgs:
    r"""MARS: adds a share of the gradient's change to the gradient, and clips each leaf.

    .. math::

      a_t = g_t + \gamma \frac{\beta_1}{1 - \beta_1} (g_t - g_{t-1}), \qquad
      a_t \leftarrow a_t \min\left(1, \frac{c}{\lVert a_t \rVert_2}\right)

    with :math:`g_0 = 0`. Chain it before any rule whose momentum decays by the same
    :math:`\beta_1`. It is the approximate form: :math:`g_{t-1}` is the gradient of the last batch
    at the last weights, so that a step costs one gradient.

    Args:
      b1: :math:`\beta_1` in [0, 1), the decay rate of the momentum behind it.
      gamma: :math:`\gamma` >= 0, the strength of the correction; 0 is no correction.
      max_norm: :math:`c` > 0, the largest norm of a leaf, in the gradients' units; None does not
        clip. In a leaf of stacked layers all layers have one norm.

    Returns:
      A transformation from gradients to updates of the same shapes and units, in the parameters'
      dtype. Its state is a :class:`VarianceReducedGradientState`: as large as the parameters.

    Raises:
      ValueError, TypeError: a hyperparameter out of range or of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import variance_reduced_gradient
      >>> tx = variance_reduced_gradient(b1=0.75, gamma=0.5, max_norm=None)
      >>> state = tx.init(jnp.zeros(2))
      >>> for gradient in ([1.0, 1.0], [2.0, 1.0]):
      ...     updates, state = tx.update(jnp.array(gradient), state)
      >>> print(updates)
      [3.5 1. ]

    References:
      Yuan et al., `MARS: Unleashing the Power of Variance Reduction for Training Large Models
      <https://arxiv.org/abs/2411.10438>`_, 2024, in its approximate form; the authors'
      code, which has no epsilon in the clip.
    """
    return leafwise(
        _variance_reduced, VarianceReducedGradientState, b1=b1, gamma=gamma, max_norm=max_norm
    )


def _variance_reduced(g, negative_g, *, b1, gamma, max_norm=None):
    a = g + gamma * b1 / (1 - b1) * (g + negative_g)
    if max_norm is not None:
        a = a * shortening(sqrt(sum_of_squares(a)), max_norm)
    return a, in_place_of(negative_g, -g)
