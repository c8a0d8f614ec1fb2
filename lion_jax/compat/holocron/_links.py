"""Links of chains for pylocron's departures from the papers; not public."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.arithmetic import sqrt
from lion_jax._core.checks import check_has_params
from lion_jax._core.leafwise import leafwise, map_leaves, of_leaves, zeros_like
from lion_jax._core.types import Scalar
from lion_jax.primitives.layerwise import norm


def scale_by_outer_lars_ratio(
    inner: optax.GradientTransformation, weight_decay: Scalar
) -> optax.GradientTransformationExtraArgs:
    r"""LARS with the ratio outside the momentum.

    .. math::

      u = r \cdot \text{inner}(g + \lambda \theta), \qquad
      r = \frac{\lVert \theta \rVert}{\lVert g \rVert + \lambda \lVert \theta \rVert}

    with :math:`r = 1` where the numerator or the denominator is 0.
    """

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        check_has_params(params, "lars")
        (decayed,) = map_leaves(_decay, (updates,), (params,), weight_decay=weight_decay)
        ratios = of_leaves(_ratio, updates, params, weight_decay=weight_decay)
        decayed, state = inner.update(decayed, state, params)
        leaves, treedef = jax.tree.flatten(decayed)
        scaled = [r.astype(u.dtype) * u for (r,), u in zip(ratios, leaves, strict=True)]
        return treedef.unflatten(scaled), state

    return optax.GradientTransformationExtraArgs(inner.init, update_fn)


def _decay(g, p, *, weight_decay):
    return (g + weight_decay * p,)


def _ratio(g, p, *, weight_decay):
    numerator = norm(p)
    denominator = norm(g) + weight_decay * numerator
    is_defined = (numerator > 0) & (denominator > 0)
    return (jnp.where(is_defined, numerator / jnp.where(is_defined, denominator, 1.0), 1.0),)


def project_by_signed_cosine(
    inner: optax.GradientTransformation, delta: Scalar, eps: Scalar
) -> optax.GradientTransformationExtraArgs:
    r"""AdamP's projection of whole leaves, of every rank, by a cosine with its sign.

    .. math::

      \cos(\theta, g) < \frac{\delta}{\sqrt{d}} \quad\Rightarrow\quad
      u \leftarrow u - (n \cdot u) n, \qquad n = \frac{\theta}{\lVert \theta \rVert + \varepsilon}
    """

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        check_has_params(params, "adamp")
        directions, state = inner.update(updates, state, params)
        (directions,) = map_leaves(_project, (directions,), (updates, params), delta=delta, eps=eps)
        return directions, state

    return optax.GradientTransformationExtraArgs(inner.init, update_fn)


def _project(u, g, p, *, delta, eps):
    p_norm, g_norm = norm(p), norm(g)
    cosine = jnp.sum(p * g) / (jnp.maximum(p_norm, 1e-8) * jnp.maximum(g_norm, 1e-8))
    n = p / (p_norm + eps)
    is_projected = cosine < delta / math.sqrt(max(p.size, 1))
    return (jnp.where(is_projected, u - jnp.sum(n * u) * n, u),)


class ScaleByForgetfulAdanState(NamedTuple):
    """State of `scale_by_forgetful_adan`.

    Attributes:
      count: updates so far, int32 of shape ().
      mu: average of the gradients m, a tree like the parameters, at least float32.
      mu_difference: their average v at another rate, of the same shapes and dtypes.
      nu: average of the squares n, of the same shapes and dtypes.
      nu_max: the largest n so far, of the same shapes and dtypes; None without ``amsgrad``.
    """

    count: jax.Array
    mu: optax.Updates
    mu_difference: optax.Updates
    nu: optax.Updates
    nu_max: optax.Updates | None


def scale_by_forgetful_adan(
    b1: Scalar, b2: Scalar, b3: Scalar, eps: Scalar, *, amsgrad: bool
) -> optax.GradientTransformationExtraArgs:
    r"""Adan's direction where the last gradient is always 0: :math:`\Delta_t = g_t`."""
    start = {"nu_max": zeros_like if amsgrad else None}
    return leafwise(
        _forgetful_adan, ScaleByForgetfulAdanState, start=start, b1=b1, b2=b2, b3=b3, eps=eps
    )


def _forgetful_adan(g, m, v, n, *n_max, b1, b2, b3, eps, bias1, bias2, bias3):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g
    n = b3 * n + (1 - b3) * (g + b2 * g) ** 2
    n_max = tuple(jnp.maximum(largest, n) for largest in n_max)
    (denominator,) = n_max or (n,)
    u = (m / bias1 + b2 * v / bias2) / (sqrt(denominator / bias3) + eps)
    return u, m, v, n, *n_max
