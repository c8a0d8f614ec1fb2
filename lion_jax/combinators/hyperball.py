"""Steps on a sphere: weights keep their initial norm."""

import math
from typing import NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from lion_jax._core import inner as _inner
from lion_jax._core.arithmetic import sqrt, sum_of_squares
from lion_jax._core.checks import check_has_params, path_of
from lion_jax._core.dtypes import at_least_float32
from lion_jax._core.kinds import MASK, NON_NEGATIVE, SUMMED_AXES, TRANSFORMATION
from lion_jax._core.leafwise import map_by_rule
from lion_jax._core.leaves import is_none, is_weight
from lion_jax._core.missing import gradients_of_weights
from lion_jax._core.rule import combinator, number
from lion_jax._core.shares import shares_of
from lion_jax._core.types import AxisName, Leaf, Mask


class HyperballState(NamedTuple):
    """State of `hyperball`.

    Attributes:
      radius: the norm R that each leaf started with, a tree like the parameters of numbers of shape
        (), at least float32; 0 for leaves that are not held.
      inner_state: state of the inner transformation.
    """

    radius: optax.Params
    inner_state: optax.OptState


@combinator(
    inner=TRANSFORMATION.trying(
        "lion_jax.scale_by_sign_momentum()", "or another without a learning rate"
    ),
    learning_rate=NON_NEGATIVE.trying("1e-2"),
    where=MASK,
    axis_name=SUMMED_AXES,
)
def hyperball(
    inner: optax.GradientTransformation,
    learning_rate: optax.ScalarOrSchedule,
    where: Mask = None,
    *,
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Keeps the norm of each weight matrix fixed, instead of decaying it.

    .. math::

      W_t = R \, n\left(W_{t-1} - \eta_t R \, n(u_t)\right), \qquad
      n(x) = \frac{x}{\lVert x \rVert_2}, \qquad R = \lVert W_0 \rVert_2

    with the direction :math:`u_t` of the inner transformation and :math:`n(0) = 0`, for every leaf
    of rank 2 or more, or those that ``where`` names. The other leaves take the plain step
    :math:`\theta_t = \theta_{t-1} - \eta_t u_t`. A step turns a matrix by about :math:`\eta_t`
    radians, whatever the size of matrix and gradient. With Lion's direction this is LionH, with
    Adam's AdamH, with that of :func:`~lion_jax.primitives.orthogonalize` MuonH.

    Args:
      inner: from gradients to directions, without a learning rate and without weight decay, e.g.
        :func:`lion_jax.scale_by_sign_momentum` or ``optax.scale_by_adam()``.
      learning_rate: :math:`\eta` >= 0, in radians. The authors carry a rate over as
        :math:`\sqrt{\eta_{\text{old}} \lambda}`.
      where: the leaves whose norm is kept: a tree of booleans like the parameters, a prefix of one,
        or a function to one; see :mod:`lion_jax.groups`. None is all of rank 2 or more. The authors
        train embeddings, the head and all vectors with Adam: ``optax.partition`` does that. For
        matrices stacked in one leaf, wrap this in :func:`lion_jax.per_layer`.
      axis_name: the axis of ``jax.shard_map`` over which devices hold different parts of every held
        leaf; under ``jax.jit`` norms are those of the whole without it.

    Returns:
      A transformation from gradients to updates of the parameters' shapes and units. For bfloat16
      and float16 parameters the updates are float32, so that ``optax.apply_updates`` rounds the new
      weights once; otherwise they have the parameters' dtypes. The state is a
      :class:`HyperballState`.

    Raises:
      ValueError: ``learning_rate`` out of range; at ``init``, a held leaf of norm 0 (by its path),
        which has no sphere; under ``jax.jit`` and within :func:`lion_jax.per_layer` its value is
        not known, and it stays 0. At ``update``, missing parameters.
      TypeError: an ``inner`` that is no transformation, a ``where`` that is no mask.

    Example:
      >>> import jax.numpy as jnp
      >>> import lion_jax
      >>> tx = lion_jax.hyperball(lion_jax.scale_by_sign_momentum(), 0.1)
      >>> params = jnp.array([[3.0], [4.0]])
      >>> state = tx.init(params)
      >>> for _ in range(100):
      ...     updates, state = tx.update(jnp.array([[1.0], [-1.0]]), state, params)
      ...     params = params + updates
      >>> print(f"{jnp.linalg.norm(params):.4f} {params[0, 0]:.1f} {params[1, 0]:.1f}")
      5.0000 -3.5 3.5

    References:
      `Hyperball <https://arxiv.org/abs/2606.16899>`_, 2026. Copies of it differ: marin projects to
      the current norm, heavyball decays within the direction and its ``HyperBallAdamW`` has no
      first moment, and rollfast takes one norm for a stack of matrices.
    """
    inner = optax.with_extra_args_support(inner)
    axes = () if axis_name is None else (axis_name,)

    def init_fn(params):
        leaves, treedef = jax.tree.flatten(params, is_leaf=is_none)
        held = _held(where, params)
        radii = [_radius(p, is_held, axes) for p, is_held in zip(leaves, held, strict=True)]
        for i, is_held in enumerate(held):
            if is_held and math.prod(jnp.shape(leaves[i])) and _is_zero(radii[i]):
                _refuse_zero(path_of(params, i))
        return HyperballState(treedef.unflatten(radii), inner.init(params))

    def update_fn(updates, state, params=None, **extra_args):
        params = check_has_params(params, "hyperball")
        present, _ = gradients_of_weights(updates, params)
        directions, inner_state = _inner.update(
            inner, updates, state.inner_state, params, **extra_args
        )
        leaves, treedef = jax.tree.flatten(directions, is_leaf=is_none)
        gradients, weights, radii = map(treedef.flatten_up_to, (present, params, state.radius))
        held = _held(where, params)
        eta = number(learning_rate)
        rules = [
            None if u is None or g is None else _turn if is_held else _step
            for u, g, is_held in zip(leaves, gradients, held, strict=True)
        ]
        wide = [u if r is None else _widened(u) for u, r in zip(leaves, rules, strict=True)]
        moved = map_by_rule(rules, wide, weights, radii, eta=eta, axes=axes)
        new = [
            u if r is None else _as_updates_of(u, p)
            for u, r, p in zip(moved, rules, weights, strict=True)
        ]
        return treedef.unflatten(new), HyperballState(state.radius, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _held(where: Mask, params: optax.Params) -> list[bool]:
    """Tells of each leaf whether it is held, None included."""
    leaves = jax.tree.leaves(params, is_leaf=is_none)
    if where is None:
        return [p is not None and is_weight(p) and jnp.ndim(p) > 1 for p in leaves]
    chosen = zip(leaves, shares_of(where, params, "where"), strict=True)
    return [p is not None and is_weight(p) and bool(is_held) for p, is_held in chosen]


def _radius(p: Leaf, is_held: bool, axes: tuple[AxisName, ...]) -> Leaf:
    if p is None or not is_weight(p):
        return None
    dtype = jnp.finfo(at_least_float32(p)).dtype
    if isinstance(p, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((), dtype)
    return _norm(jnp.asarray(p, at_least_float32(p)), axes) if is_held else jnp.zeros((), dtype)


def _is_zero(radius: Leaf) -> bool:
    """Tells whether it is 0, as far as it is known."""
    is_known = isinstance(radius, jax.Array) and not isinstance(radius, Tracer)
    return is_known and not radius > 0


def _refuse_zero(path: str) -> NoReturn:
    raise ValueError(
        f"hyperball needs leaves of a norm > 0; got 0 at {path}, which has no sphere to stay on. "
        "Try where=groups.exclude(...) with its path, which leaves it to the plain rule, or a "
        "start other than zeros."
    )


def _turn(u, p, radius, *, eta, axes):
    w = p - eta * radius * u / _nonzero(_norm(u, axes))
    return (radius * w / _nonzero(_norm(w, axes)) - p,)


def _step(u, p, radius, *, eta, axes):
    del p, radius, axes
    return (-eta * u,)


def _norm(x, axes):
    squares = sum_of_squares(x)
    return sqrt(jax.lax.psum(squares, *axes) if axes else squares)


def _nonzero(x):
    return jnp.where(x > 0, x, 1.0)


def _widened(u):
    return jnp.asarray(u, at_least_float32(u))


def _as_updates_of(x, p):
    dtype = jnp.result_type(p)
    return x if jnp.finfo(dtype).bits < 32 else x.astype(dtype)
