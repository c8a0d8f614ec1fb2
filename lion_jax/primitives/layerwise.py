"""Links that use whole leaves: rates by trust ratios, directions by projection."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.arithmetic import sum_of_squares
from lion_jax._core.checks import check_axis_of_leaves, check_has_params, check_real
from lion_jax._core.kinds import BOUNDS, CHANNEL_AXIS, MASK, NON_NEGATIVE, SHARES, TRANSFORMATION
from lion_jax._core.leafwise import leafwise, map_leaves
from lion_jax._core.rule import primitive
from lion_jax._core.shares import shares_of
from lion_jax._core.types import Mask, Scalar
from lion_jax._core.versions import init_empty_state


@primitive(scale_clip=BOUNDS)
def scale_by_trust_ratio(
    scale_clip: tuple[Scalar, Scalar] | None = (0.0, 10.0),
) -> optax.GradientTransformationExtraArgs:
    r"""Scales every leaf's update to the norm of its parameters, within bounds.

    .. math::

      u \leftarrow \frac{\phi(\lVert \theta \rVert_2)}{\lVert u \rVert_2} u, \qquad
      \phi(z) = \min(\max(z, \phi_l), \phi_u)

    for each leaf, and :math:`u \leftarrow u` where :math:`\phi` or :math:`\lVert u \rVert` is 0.
    ``optax.scale_by_trust_ratio`` has no upper bound, and its lower one bounds both norms.

    Args:
      scale_clip: :math:`(\phi_l, \phi_u)`, 0 <= low <= high, in the parameters' units; None is (0,
        infinity).

    Returns:
      A transformation of updates that keeps shapes, in the parameters' units and dtype. It has no
      state.

    Raises:
      ValueError: bounds out of order; at ``update``, missing parameters.
      TypeError: bounds that are no pair of numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import scale_by_trust_ratio
      >>> params, tx = jnp.array([0.0, 6.0]), scale_by_trust_ratio()
      >>> print(tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)[0])
      [3.6000001 4.8      ]

    References:
      You et al., `Large Batch Optimization for Deep Learning <https://arxiv.org/abs/1904.00962>`_,
      2020, Section 3.
    """
    low, high = _bounds(scale_clip)
    return leafwise(_trust_ratio, params_for="scale_by_trust_ratio", low=low, high=high)


def _trust_ratio(u, p, *, low, high):
    phi, u_norm = jnp.clip(norm(p), low, high), norm(u)
    return (jnp.where((phi > 0) & (u_norm > 0), _divide(phi, u_norm), 1.0) * u,)


@primitive(
    trust_coefficient=NON_NEGATIVE,
    weight_decay=NON_NEGATIVE,
    scale_clip=BOUNDS,
    weight_decay_mask=SHARES,
    trust_ratio_mask=MASK,
)
def scale_by_lars_ratio(
    trust_coefficient: optax.ScalarOrSchedule = 0.001,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    scale_clip: tuple[Scalar, Scalar] | None = None,
    *,
    weight_decay_mask: Mask = True,
    trust_ratio_mask: Mask = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Scales every leaf by a rate of its own: the norm of its parameters over its gradient's.

    .. math::

      u = r (g + \lambda \theta), \qquad
      r = \frac{\kappa \, \phi(\lVert \theta \rVert_2)}
        {\lVert g \rVert_2 + \lambda \lVert \theta \rVert_2}

    for each leaf, with the bounds :math:`\phi` of :func:`scale_by_trust_ratio`; :math:`r = 1`
    where either norm is 0. ``optax.lars`` divides by :math:`\lVert g + \lambda \theta \rVert`.

    Args:
      trust_coefficient: :math:`\kappa` >= 0.
      weight_decay: :math:`\lambda` >= 0.
      scale_clip: the bounds of :math:`\phi`, 0 <= low <= high, in the parameters' units; None is
        (0, infinity).
      weight_decay_mask: which leaves decay, or how much of :math:`\lambda` each gets; see
        :mod:`lion_jax.groups`. True is all.
      trust_ratio_mask: the leaves with a rate of their own; the others have :math:`r = 1`.

    Returns:
      A transformation from gradients to updates of the same shapes, in the parameters' units and
      dtype. It has no state.

    Raises:
      ValueError: a scalar or bound out of range; at ``update``, missing parameters.
      TypeError: a scalar that is no number, a mask that is no mask.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import scale_by_lars_ratio
      >>> params, tx = jnp.array([0.0, 6.0]), scale_by_lars_ratio(0.5)
      >>> print(tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)[0])
      [1.8000001 2.4      ]

    References:
      You et al., `Large Batch Training of Convolutional Networks
      <https://arxiv.org/abs/1708.03888>`_, 2017, Equation 6.
    """
    low, high = _bounds(scale_clip)

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        params = check_has_params(params, "scale_by_lars_ratio")
        decays = shares_of(weight_decay_mask, params, "weight_decay_mask")
        adapts = shares_of(trust_ratio_mask, params, "trust_ratio_mask")
        (updates,) = map_leaves(
            _lars_ratio,
            (updates,),
            (params, decays, adapts),
            trust_coefficient=trust_coefficient,
            weight_decay=weight_decay,
            low=low,
            high=high,
        )
        return updates, state

    return optax.GradientTransformationExtraArgs(init_empty_state, update_fn)


def _lars_ratio(g, p, decays, adapts, *, trust_coefficient, weight_decay, low, high):
    weight_decay = weight_decay * decays
    p_norm, g_norm = norm(p), norm(g)
    phi = jnp.clip(p_norm, low, high)
    r = _divide(trust_coefficient * phi, g_norm + weight_decay * p_norm)
    r = jnp.where((p_norm > 0) & (g_norm > 0) & (adapts > 0), r, 1.0)
    return (r * (g + weight_decay * p),)


@primitive(
    inner=TRANSFORMATION.trying("optax.scale_by_adam()", "or optax.trace(0.9)"),
    delta=NON_NEGATIVE,
    eps=NON_NEGATIVE,
    weight_decay=NON_NEGATIVE,
    wd_ratio=NON_NEGATIVE,
    channel_axis=CHANNEL_AXIS,
)
def project_to_tangent(
    inner: optax.GradientTransformation,
    delta: optax.ScalarOrSchedule = 0.1,
    eps: optax.ScalarOrSchedule = 1e-8,
    *,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    wd_ratio: optax.ScalarOrSchedule = 0.1,
    channel_axis: int = -1,
) -> optax.GradientTransformationExtraArgs:
    r"""Removes the radial part of the updates of scale-invariant weights.

    Weights before a normalization have gradients at right angles to them. Where the cosine shows
    this, the update loses its part along the weights:

    .. math::

      \max_{\text{views}} |\cos(\theta, g)| < \frac{\delta}{\sqrt{\dim \theta}}
      \quad\Rightarrow\quad
      u \leftarrow u - \left(\hat\theta \cdot u\right) \hat\theta, \qquad
      \hat\theta = \frac{\theta}{\lVert \theta \rVert_2 + \varepsilon}

    with the gradient :math:`g` and the inner transformation's update :math:`u`. The views are the
    channels; if one of them fails the test, the whole leaf is the only view. Then the decay is
    added: :math:`u \leftarrow u + \lambda r \theta`, where :math:`r` is 1 without a projection.
    Leaves of rank 0 and 1 are only decayed.

    Args:
      inner: the transformation from gradients to updates, e.g. ``optax.scale_by_adam()`` for AdamP,
        ``optax.trace(0.9)`` for SGDP. No learning rate.
      delta: :math:`\delta` >= 0.
      eps: :math:`\varepsilon` >= 0, in the parameters' units.
      weight_decay: :math:`\lambda` >= 0.
      wd_ratio: :math:`r` >= 0 of projected weights.
      channel_axis: the axis that tells channels apart: the last for the layouts of JAX, 0 for
        PyTorch's.

    Returns:
      A transformation from gradients to updates of the same shapes, in the parameters' dtype. Its
      state is the inner one.

    Raises:
      ValueError: a scalar out of range, an axis that a leaf of rank 2 or more does not have; at
        ``update``, missing parameters.
      TypeError: an ``inner`` that is no transformation, a number of the wrong type, a complex leaf.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from lion_jax.primitives import project_to_tangent
      >>> tx, params = project_to_tangent(optax.trace(0.5)), jnp.array([[1.0, 0.0]]).T
      >>> state = tx.init(params)
      >>> _, state = tx.update(jnp.array([[1.0, 0.0]]).T, state, params)
      >>> updates, state = tx.update(jnp.array([[0.0, 1.0]]).T, state, params)
      >>> print(updates.T)  # without the momentum along the weights
      [[0. 1.]]

    References:
      Heo et al., `AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant
      Weights <https://arxiv.org/abs/2006.08217>`_, 2021, Algorithms 1 and 2; the authors' package
      ``adamp`` 0.3.0.
    """
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        check_real(params, "project_to_tangent")
        check_axis_of_leaves("channel_axis", channel_axis, params)
        return inner.init(params)

    def update_fn(updates, state, params=None, **extra_args):
        check_has_params(params, "project_to_tangent")
        check_real(updates, "project_to_tangent")
        inner_updates, state = inner.update(updates, state, params, **extra_args)
        (inner_updates,) = map_leaves(
            _project,
            (inner_updates,),
            (updates, params),
            delta=delta,
            eps=eps,
            weight_decay=weight_decay,
            wd_ratio=wd_ratio,
            channels=(int(channel_axis),),
        )
        return inner_updates, state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _project(u, g, p, *, delta, eps, weight_decay, wd_ratio, channels):
    if p.ndim < 2:
        return (u + weight_decay * p,)
    layer = tuple(range(p.ndim))
    channel = tuple(axis for axis in layer if axis not in {layer[c] for c in channels})
    by_channel, is_by_channel = _project_view(u, g, p, delta, eps, channel)
    by_layer, is_by_layer = _project_view(u, g, p, delta, eps, layer)
    u = jnp.where(is_by_channel, by_channel, jnp.where(is_by_layer, by_layer, u))
    r = jnp.where(is_by_channel | is_by_layer, wd_ratio, 1.0)
    return (u + weight_decay * r * p,)


def _project_view(u, g, p, delta, eps, axes):
    """Projects within each slice over `axes`, and tells whether the gradient calls for it."""
    dim = math.prod(p.shape[axis] for axis in axes)
    p_norm, g_norm = norm(p, axes), norm(g, axes)
    dot = jnp.sum(p * g, axes, keepdims=True)
    norms = jnp.maximum(p_norm, eps) * jnp.maximum(g_norm, eps)
    cosine = jnp.abs(dot) / _nonzero(norms)
    is_tangent = jnp.max(cosine, initial=0.0) < delta / math.sqrt(max(dim, 1))
    is_tangent &= jnp.all(norms > 0)  # without eps a vector of 0 has no cosine
    p_hat = p / _nonzero(p_norm + eps)
    return u - jnp.sum(p_hat * u, axes, keepdims=True) * p_hat, is_tangent


def norm(x: jax.Array, axes: tuple[int, ...] | None = None) -> jax.Array:
    """Computes the 2-norm over all axes, or over some, which stay; where it is 0 its slope is 0."""
    squared = sum_of_squares(x, axes, keepdims=axes is not None)
    # With the root of `arithmetic` XLA:TPU would move 0.3 more bytes per parameter for LAMB.
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), squared)


def _divide(a: jax.Array, b: jax.Array) -> jax.Array:
    """Divides a by b, or by 1 where b is 0: finite with its derivatives, for a `where` to drop."""
    return a / _nonzero(b)


def _nonzero(b: jax.Array) -> jax.Array:
    return jnp.where(b > 0, b, 1.0)


def _bounds(scale_clip: tuple[Scalar, Scalar] | None) -> Sequence[Scalar]:
    return (0.0, math.inf) if scale_clip is None else scale_clip
