"""Clipping by norms."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.arithmetic import sqrt, sum_of_squares
from lion_jax._core.kinds import POSITIVE
from lion_jax._core.leafwise import leafwise, map_leaves, sum_leaves
from lion_jax._core.rule import primitive
from lion_jax._core.versions import init_empty_state

MAX_NORM = POSITIVE.trying("1.0")


@primitive(max_norm=MAX_NORM)
def clip_by_global_norm(max_norm: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    r"""Shortens the updates so that their norm over all leaves is at most a given one.

    .. math::

      u_t \leftarrow u_t \min\left(1, \frac{c}{\lVert u_t \rVert_2}\right), \qquad
      \lVert u \rVert_2^2 = \sum_{\text{leaves}} \sum_i |u_i|^2

    The rule of ``optax.clip_by_global_norm``, for trees of many leaves.

    Args:
      max_norm: :math:`c` > 0, in the updates' units.

    Returns:
      A transformation of updates that keeps shapes and units, in the parameters' dtype. It has no
      state. An infinite norm gives updates of 0 where they are finite and NaN elsewhere, a NaN
      gives NaN.

    Raises:
      ValueError, TypeError: ``max_norm`` out of range or no number.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import clip_by_global_norm
      >>> tx = clip_by_global_norm(1.0)
      >>> gradients = {"kernel": jnp.array([3.0]), "bias": jnp.array([4.0])}
      >>> updates, _ = tx.update(gradients, tx.init(gradients))
      >>> print(updates["kernel"], updates["bias"])
      [0.6] [0.8]

    References:
      Pascanu et al., `On the difficulty of training Recurrent Neural Networks
      <https://arxiv.org/abs/1211.5063>`_, 2013, Algorithm 1.

    Notes:
      On CPUs the time to compile grows in proportion to the number of leaves. A chain of scalar
      additions takes the cube of it.
    """
    return scale_by_global_norm(lambda norm: shortening(norm, max_norm))


@primitive(max_norm=MAX_NORM)
def clip_by_leaf_norm(max_norm: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    r"""Shortens each leaf of the updates so that its norm is at most a given one.

    .. math::

      u_t \leftarrow u_t \frac{c}{\max(\lVert u_t \rVert_2, c)}

    with the norm over the entries of one leaf. ``optax.clip_by_block_rms`` bounds the root of their
    mean square instead.

    Args:
      max_norm: :math:`c` > 0, in the updates' units.

    Returns:
      A transformation of updates that keeps shapes and units, in the parameters' dtype. It has no
      state. An infinite norm gives a leaf of 0 where it is finite and NaN elsewhere, a NaN gives
      NaN.

    Raises:
      ValueError, TypeError: ``max_norm`` out of range or no number.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import clip_by_leaf_norm
      >>> tx = clip_by_leaf_norm(1.0)
      >>> gradients = {"kernel": jnp.array([3.0, 4.0]), "bias": jnp.array([0.5])}
      >>> updates, _ = tx.update(gradients, tx.init(gradients))
      >>> print(updates["kernel"], updates["bias"])
      [0.6 0.8] [0.5]

    References:
      Pascanu et al., `On the difficulty of training Recurrent Neural Networks
      <https://arxiv.org/abs/1211.5063>`_, 2013, Algorithm 1, leaf by leaf; ``clipnorm`` of Keras's
      optimizers.
    """
    return leafwise(_clip, max_norm=max_norm)


def scale_by_global_norm(
    factor_of: Callable[[jax.Array], jax.Array],
) -> optax.GradientTransformationExtraArgs:
    """Multiplies the updates by a function of their 2-norm over all leaves."""

    def update_fn(updates, state, params=None, **extra_args):
        del params, extra_args
        factor = factor_of(sqrt(sum_leaves(_sum_of_squares, updates)))
        return map_leaves(scale, (updates,), factor=factor)[0], state

    return optax.GradientTransformationExtraArgs(init_empty_state, update_fn)


def scale(u, *, factor):
    """Multiplies a leaf by a number, for `map_leaves`."""
    return (u * factor,)


def _clip(u, *, max_norm):
    return (u * shortening(sqrt(sum_of_squares(u)), max_norm),)


def shortening(norm, max_norm):
    """Gives the factor that bounds a norm; 1 for a norm of 0, also where the bound is 0."""
    is_long = norm > max_norm
    return jnp.where(
        is_long,
        max_norm / jnp.where(is_long, norm, 1.0),
        jnp.where(norm <= max_norm, 1.0, norm + max_norm),
    )


def _sum_of_squares(u):
    return (sum_of_squares(u),)
