r"""Shapes for Lion-K: functions that replace Lion's sign.

Each is a transformation from the interpolated momentum :math:`c` to a direction :math:`u` and has
no state: :func:`lion_jax.lion_k` puts one between the momentum and the weight decay. Each direction
is the slope of a convex function :math:`\mathcal{K}`, as Lion-K asks. Then weight decay bounds the
weights: after long enough :math:`\lambda \theta \in \operatorname{dom} \mathcal{K}^*`. The bound
stands with each shape.

References:
  Chen et al., `Lion Secretly Solves Constrained Optimization: As Lyapunov Predicts
  <https://arxiv.org/abs/2310.05898>`_, 2023.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lion_jax._core.arithmetic import sqrt, sum_of_squares
from lion_jax._core.checks import path_of
from lion_jax._core.kinds import CHANNEL_AXIS, POSITIVE, Number, Static
from lion_jax._core.leafwise import leafwise
from lion_jax._core.leaves import is_none, is_real, is_transformation
from lion_jax._core.rule import primitive
from lion_jax._core.types import Leaf, PyTree

__all__ = ["huber", "l2_normalize", "lp_sign", "scale_by_shape", "sign", "tanh", "top_k_sign"]
__dir__ = __all__.copy  # TAB offers no more

EXPONENT = Number(allowed="in [1, 2]", contains=lambda x: 1 <= x <= 2).trying(
    "1.5", "halfway between the sign and the normalized momentum"
)


def _refuse_count_or_share(name: str, value: object, advice: str) -> None:
    message = f"{name} must be an integer >= 1 or a share in (0, 1]; got {value!r}. {advice}"
    if isinstance(value, jax.Array) or not is_real(value) or np.ndim(value) != 0:
        raise TypeError(message)
    is_integer = isinstance(value, int | np.integer)
    if not (value >= 1 if is_integer else 0 < value <= 1):
        raise ValueError(message)


def _refuse_shape(name: str, value: object, advice: str) -> None:
    message = (
        f"{name} must be a transformation from the momentum to a direction, or a function of one "
        f"leaf; got {value!r} of type {type(value).__name__}"
    )
    if hasattr(value, "static_args"):
        raise TypeError(f"{message}; did you mean to call it, as in signs.sign()? {advice}")
    if not is_transformation(value) and not callable(value):
        raise TypeError(f"{message}. {advice}")


SHAPE = Static(refusal=_refuse_shape).trying("signs.tanh(10.0)", "or another of primitives.signs")
COUNT_OR_SHARE = Static(refusal=_refuse_count_or_share).trying("0.1", "a tenth of each leaf")


@primitive()
def sign() -> optax.GradientTransformationExtraArgs:
    r"""The sign: Lion's own shape.

    .. math::

      u_i = \operatorname{sign}(c_i), \qquad \mathcal{K}(c) = \lVert c \rVert_1

    Weight decay bounds the largest entry: :math:`\lVert \theta \rVert_\infty \le 1 / \lambda`.

    Returns:
      A transformation of updates that keeps shapes, each entry -1, 0 or 1 without unit, in the
      parameters' dtype. NaN stays NaN.

    Raises:
      TypeError: at ``update``, a complex leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import signs
      >>> tx = signs.sign()
      >>> print(tx.update(jnp.array([0.3, -2.0, 0.0]), tx.init(jnp.zeros(3)))[0])
      [ 1. -1.  0.]
    """
    return leafwise(_sign, real_for="signs.sign")


@primitive(p=EXPONENT)
def lp_sign(p: optax.ScalarOrSchedule = 1.5) -> optax.GradientTransformationExtraArgs:
    r"""A shape between the sign and the normalized momentum: the slope of an :math:`\ell_p` norm.

    .. math::

      u_i = \operatorname{sign}(c_i) \left(\frac{|c_i|}{\lVert c \rVert_p}\right)^{p-1}, \qquad
      \mathcal{K}(c) = \lVert c \rVert_p

    with the norm over the entries of one leaf. p = 1 is the sign, and p = 2 is
    :func:`l2_normalize`. A leaf of zeros stays 0. Weight decay bounds the dual norm:
    :math:`\lVert \theta \rVert_q \le 1 / \lambda` for each leaf, with :math:`1/p + 1/q = 1`.

    Args:
      p: in [1, 2].

    Returns:
      A transformation of updates that keeps shapes, each leaf of :math:`\ell_q` norm 1 without
      unit, in the parameters' dtype.

    Raises:
      ValueError, TypeError: ``p`` out of range or no number; at ``update``, a complex leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import signs
      >>> for p in (1.0, 1.5, 2.0):
      ...     tx = signs.lp_sign(p)
      ...     u, _ = tx.update(jnp.array([4.0, -3.0]), tx.init(jnp.zeros(2)))
      ...     print(f"{u[0]:.2f} {u[1]:.2f}")
      1.00 -1.00
      0.85 -0.73
      0.80 -0.60
    """
    return leafwise(_lp_sign, real_for="signs.lp_sign", p=p)


@primitive(scale=POSITIVE)
def tanh(scale: optax.ScalarOrSchedule = 1.0) -> optax.GradientTransformationExtraArgs:
    r"""A sign with a soft step at 0.

    .. math::

      u_i = \tanh(s c_i), \qquad \mathcal{K}(c) = \frac{1}{s} \sum_i \log \cosh(s c_i)

    Entries far above :math:`1/s` move by the learning rate, entries far below it as in SGD with the
    learning rate :math:`\eta s`. Weight decay bounds the largest entry:
    :math:`\lVert \theta \rVert_\infty \le 1 / \lambda`.

    Args:
      scale: :math:`s` > 0, in the inverse of the gradients' units.

    Returns:
      A transformation of updates that keeps shapes, each entry in [-1, 1] without unit, in the
      parameters' dtype.

    Raises:
      ValueError, TypeError: ``scale`` out of range or no number; at ``update``, a complex leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import signs
      >>> tx = signs.tanh(10.0)
      >>> u, _ = tx.update(jnp.array([0.3, -2.0, 0.01]), tx.init(jnp.zeros(3)))
      >>> print([f"{x:.2f}" for x in u])
      ['1.00', '-1.00', '0.10']
    """
    return leafwise(_tanh, real_for="signs.tanh", scale=scale)


@primitive(threshold=POSITIVE)
def huber(threshold: optax.ScalarOrSchedule = 1.0) -> optax.GradientTransformationExtraArgs:
    r"""A sign with a straight slope across 0: the slope of Huber's loss.

    .. math::

      u_i = \operatorname{clip}(c_i / e, -1, 1), \qquad \mathcal{K}(c) = \sum_i \begin{cases}
        c_i^2 / 2e & \text{if } |c_i| \le e \\ |c_i| - e / 2 & \text{otherwise}
      \end{cases}

    Weight decay bounds the largest entry: :math:`\lVert \theta \rVert_\infty \le 1 / \lambda`.

    Args:
      threshold: :math:`e` > 0, in the gradients' units: entries above it move by the learning rate.

    Returns:
      A transformation of updates that keeps shapes, each entry in [-1, 1] without unit, in the
      parameters' dtype.

    Raises:
      ValueError, TypeError: ``threshold`` out of range or no number; at ``update``, a complex leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import signs
      >>> tx = signs.huber(0.5)
      >>> print(tx.update(jnp.array([0.25, -2.0, 0.0]), tx.init(jnp.zeros(3)))[0])
      [ 0.5 -1.   0. ]
    """
    return leafwise(_huber, real_for="signs.huber", threshold=threshold)


@primitive(axis=CHANNEL_AXIS.or_none())
def l2_normalize(axis: int | None = None) -> optax.GradientTransformationExtraArgs:
    r"""The momentum divided by its norm, of each leaf or of each row.

    .. math::

      u = \frac{c}{\lVert c \rVert_2}, \qquad \mathcal{K}(c) = \sum \lVert c \rVert_2

    with the norm and the sum over leaves, or over the slices along ``axis``: -1 normalizes the rows
    of a matrix. Zeros stay 0. Weight decay bounds the same norm:
    :math:`\lVert \theta \rVert_2 \le 1 / \lambda` for each leaf or row.

    Args:
      axis: the axis along which a slice lies; None is the whole leaf. A leaf of rank 1 is one
        slice, and so is a scalar.

    Returns:
      A transformation of updates that keeps shapes, each leaf or slice of norm 1 without unit, in
      the parameters' dtype.

    Raises:
      TypeError: ``axis`` no integer; at ``update``, a complex leaf.
      ValueError: at ``update``, an axis that a leaf of rank 2 or more does not have.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import signs
      >>> tx = signs.l2_normalize(axis=-1)
      >>> print(tx.update(jnp.array([[3.0, 4.0], [0.0, 0.1]]), tx.init(jnp.zeros((2, 2))))[0])
      [[0.6 0.8]
       [0.  1. ]]
    """
    axes = () if axis is None else (int(axis),)
    return leafwise(_l2_normalize, real_for="signs.l2_normalize", axes=axes)


@primitive(k=COUNT_OR_SHARE)
def top_k_sign(k: float = 0.1) -> optax.GradientTransformationExtraArgs:
    r"""The sign of the largest entries of each leaf, and 0 for the others.

    .. math::

      u_i = \operatorname{sign}(c_i) \, [\,|c_i| \text{ is among the } k \text{ largest}\,], \qquad
      \mathcal{K}(c) = \sum_{j \le k} |c|_{(j)}

    Of equal entries the first ones count. Weight decay bounds the largest entry and the sum of
    magnitudes: :math:`\lVert \theta \rVert_\infty \le 1 / \lambda` and
    :math:`\lVert \theta \rVert_1 \le k / \lambda`.

    Args:
      k: the number of entries of each leaf, an integer >= 1, or the share of them in (0, 1],
        rounded up. It must be a Python number: the count is known before tracing.

    Returns:
      A transformation of updates that keeps shapes, each entry -1, 0 or 1 without unit, in the
      parameters' dtype.

    Raises:
      ValueError: ``k`` out of range; at ``init`` and ``update``, more than the entries of a leaf,
        by its path.
      TypeError: ``k`` no number; at ``update``, a complex leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import signs
      >>> tx = signs.top_k_sign(2)
      >>> print(tx.update(jnp.array([0.3, -2.0, 0.1, 1.0]), tx.init(jnp.zeros(4)))[0])
      [ 0. -1.  0.  1.]

    Notes:
      Each leaf is sorted, which takes far longer than the rest of a step; XLA gathers sharded
      leaves first.
    """
    inside = leafwise(_top_k_sign, real_for="signs.top_k_sign", k=(k,))

    def init_fn(params):
        _check_size(k, params)
        return inside.init(params)

    def update_fn(updates, state, params=None, **extra_args):
        _check_size(k, updates)
        return inside.update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


@primitive()
def scale_by_shape() -> optax.GradientTransformationExtraArgs:
    r"""Multiplies each matrix by 2 / (rows + columns), for learning rates that suit any width.

    .. math::

      u \leftarrow \frac{2}{\text{rows} + \text{columns}} u

    with the last two axes of a leaf; those before count layers or heads. Chain it behind a sign,
    with a learning rate as many times larger as the network is wide. Leaves of rank 0 and 1 do not
    change.

    Returns:
      A transformation of updates that keeps shapes and units, in the parameters' dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import signs
      >>> tx = signs.scale_by_shape()
      >>> print(tx.update(jnp.ones((3, 5)), tx.init(jnp.ones((3, 5))))[0][0])
      [0.25 0.25 0.25 0.25 0.25]

    References:
      `arXiv 2506.07254 <https://arxiv.org/abs/2506.07254>`_, 2025, as in ``Signum`` of NVIDIA's
      Emerging-Optimizers, which refuses leaves of another rank than 2.
    """
    return leafwise(_scale_by_shape)


def _sign(c):
    return (jnp.sign(c),)


def _scale_by_shape(u):
    return (u if u.ndim < 2 else u * (2 / max(sum(u.shape[-2:]), 1)),)


def _lp_sign(c, *, p):
    largest = jnp.max(jnp.abs(c), initial=0.0)  # or the powers would leave the range of floats
    r = jnp.abs(c) / jnp.where(largest > 0, largest, 1.0)
    is_moving = r > 0
    r = jnp.where(is_moving, r, 1.0)
    norm = jnp.sum(jnp.where(is_moving, r**p, 0.0)) ** (1 / p) if c.size else 1.0
    norm = jnp.where(largest > 0, norm, 1.0)
    return (jnp.where(is_moving, jnp.sign(c) * (r / norm) ** (p - 1), c * 0),)


def _tanh(c, *, scale):
    return (jnp.tanh(scale * c),)


def _huber(c, *, threshold):
    # A threshold of 0, which a schedule may come to, is the sign.
    return (jnp.clip(c / jnp.maximum(threshold, jnp.finfo(c.dtype).tiny), -1, 1),)


def _l2_normalize(c, *, axes):
    axes = axes if c.ndim > 1 else ()
    largest = jnp.max(jnp.abs(c), axes or None, initial=0.0, keepdims=bool(axes))
    r = c / jnp.where(largest > 0, largest, 1.0)  # its squares neither overflow nor vanish
    norm = sqrt(sum_of_squares(r, axes or None, keepdims=bool(axes)))
    return (r / jnp.where(norm > 0, norm, 1.0),)


def _top_k_sign(c, *, k):
    flat = c.ravel()
    _, largest = jax.lax.top_k(jnp.abs(flat), min(count_of(k[0], c.size), c.size))
    is_kept = jnp.zeros(flat.shape, bool).at[largest].set(True)
    return (jnp.where(is_kept, jnp.sign(flat), 0).reshape(c.shape),)


def count_of(k: float, size: int) -> int:
    """The number of entries, out of `size`, that a count or a share means."""
    return int(k) if isinstance(k, int | np.integer) else math.ceil(k * size)


def _check_size(k: float, tree: PyTree) -> None:
    for i, leaf in enumerate(jax.tree.leaves(tree, is_leaf=is_none)):
        size = 0 if leaf is None else math.prod(jnp.shape(leaf))
        if size and count_of(k, size) > size:
            raise ValueError(
                f"k must be at most the number of entries of each leaf; got {k} for the leaf at "
                f"{path_of(tree, i)} of {size}. Try k={size}, a share such as k=0.1, or "
                "optax.partition with another shape for small leaves."
            )


def shaped_by(shape: Any) -> optax.GradientTransformationExtraArgs:
    """The link of a chain that applies a shape; refuses a direction unlike the momentum.

    Args:
      shape: a transformation, or a function of one leaf.
    """
    link = optax.with_extra_args_support(shape if is_transformation(shape) else _of_leaves(shape))
    link = getattr(link, "inside", link)

    def update_fn(updates, state, params=None, **extra_args):
        directions, state = link.update(updates, state, params, **extra_args)
        check_shape(directions, updates)
        return directions, state

    return optax.GradientTransformationExtraArgs(link.init, update_fn)


def check_shape(directions: PyTree, updates: PyTree) -> None:
    """Refuses directions of another structure or shape than the momentum, by their path."""
    remedy = "Try lambda c: jnp.tanh(10.0 * c), which gives each leaf its own shape."
    expected, treedef = jax.tree.flatten(updates)
    if jax.tree.structure(directions) != treedef:
        raise ValueError(
            "shape must give a direction of the momentum's structure; got "
            f"{jax.tree.structure(directions)} for {treedef}. {remedy}"
        )
    for i, (u, c) in enumerate(zip(jax.tree.leaves(directions), expected, strict=True)):
        if jnp.shape(u) != jnp.shape(c):
            raise ValueError(
                f"shape must keep the shape of each leaf; got {jnp.shape(u)} for "
                f"{jnp.shape(c)} at {path_of(updates, i)}. {remedy}"
            )


def _of_leaves(function: Callable[[Leaf], Leaf]) -> optax.GradientTransformation:
    return optax.stateless_with_tree_map(lambda c, _: function(c))
