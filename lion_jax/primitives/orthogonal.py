"""Orthogonal directions: the polar factor of each matrix."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from lion_jax._core.arithmetic import sqrt, sum_of_squares
from lion_jax._core.checks import check_real
from lion_jax._core.kinds import NON_NEGATIVE, Static, choice, integer
from lion_jax._core.leaves import is_real
from lion_jax._core.rule import primitive
from lion_jax._core.types import Scalar

MUONS = (3.4445, -4.7750, 2.0315)
EPS = 1e-7


def _refuse_coefficients(name: str, value: object, advice: str) -> None:
    if not isinstance(value, tuple | list) or len(value) != 3 or not all(map(is_real, value)):
        raise TypeError(f"{name} must be three numbers (a, b, c); got {value!r}. {advice}")


def _refuse_sharding(name: str, value: object, advice: str) -> None:
    if not isinstance(value, NamedSharding) or not value.spec or value.spec[0] is None:
        raise TypeError(
            f"{name} must be None or a jax.sharding.NamedSharding whose first entry names axes; "
            f"got {value!r}. {advice}"
        )


@primitive(
    coefficients=Static(refusal=_refuse_coefficients),
    steps=integer(is_traced=False),
    eps=NON_NEGATIVE.constant(),
    scale=choice(None, "rows_over_columns", "columns_over_rows", "rms"),
    sharding=Static(refusal=_refuse_sharding, is_optional=True).trying(
        'jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))'
    ),
)
def orthogonalize(
    *,
    steps: int = 5,
    coefficients: tuple[float, float, float] = MUONS,
    eps: float = EPS,
    scale: str | None = None,
    sharding: NamedSharding | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Replaces each matrix by its approximate polar factor: the singular values become about 1.

    .. math::

      X_0 = \frac{C}{\lVert C \rVert_F + \varepsilon}, \qquad
      X_{k+1} = a X_k + (b A_k + c A_k^2) X_k, \qquad A_k = X_k X_k^\top

    for the last two axes of a leaf, which may have further ones before: a batch of matrices. Muon's
    coefficients bring all singular values into about [0.7, 1.2] rather than to 1. A vector is
    divided by its norm, which is its polar factor. As the shape of :func:`lion_jax.lion_k` with
    ``b1`` = b\ :sup:`2` and ``b2`` = b it gives the direction of Keller Jordan's Muon with momentum
    b; not that of ``optax.contrib.muon``, which corrects the bias of moment and gradient by
    different counts.

    Args:
      steps: iterations, >= 1.
      coefficients: (a, b, c).
      eps: :math:`\varepsilon` >= 0, in the gradients' units. It makes the result depend on the
        gradients' scale below 1e-6 or so.
      scale: the factor by which the result is multiplied: None is 1, ``"rows_over_columns"``
        :math:`\sqrt{\max(1, r/c)}` (Keller Jordan), ``"columns_over_rows"``
        :math:`\sqrt{\max(1, c/r)}` (optax), ``"rms"`` :math:`0.2 \sqrt{\max(r, c)}`. A vector is
        one column.
      sharding: a mesh and, as the first entry of the spec, its axes over which the iterations are
        spread: each device takes some of the matrices of a shape, or of one matrix some of the
        columns. For parameters that are the same on all devices, under ``jax.jit``. None leaves it
        to XLA, which repeats every iteration on each device.

    Returns:
      A transformation of updates that keeps shapes, without unit, in the parameters' dtype.

    Raises:
      ValueError, TypeError: an argument out of range or of the wrong type; at ``update``, a complex
        leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import orthogonalize
      >>> tx = orthogonalize(steps=12, coefficients=(1.5, -0.5, 0.0))  # converges to 1
      >>> matrix = jnp.array([[3.0, 0.0], [0.0, 4.0]])
      >>> print(jnp.abs(tx.update(matrix, tx.init(matrix))[0].round(4)))
      [[1. 0.]
       [0. 1.]]

    References:
      Jordan et al., `Muon <https://kellerjordan.github.io/posts/muon/>`_, 2024, and its code, which
      iterates in bfloat16; here it is at least float32, with JAX's precision of matrix products.
      As a shape: Chen et al., `Muon Optimizes Under Spectral Norm Constraints
      <https://arxiv.org/abs/2506.15054>`_, 2025.
    """
    options = _Options(int(steps), tuple(map(float, coefficients)), scale, sharding)

    def init_fn(params):
        check_real(params, "orthogonalize")
        return optax.EmptyState()

    def update_fn(updates, state, params=None, **extra_args):
        del params, extra_args
        check_real(updates, "orthogonalize")
        leaves, treedef = jax.tree.flatten(updates)
        leaves = list(map(jnp.asarray, leaves))
        for indices in _alike(leaves, sharding):
            of_batch = _orthogonalize_alike(options, eps, [leaves[i] for i in indices])
            for i, u in zip(indices, of_batch, strict=True):
                leaves[i] = u
        return treedef.unflatten(leaves), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class _Options(NamedTuple):
    """Arguments of `orthogonalize` that are known before tracing."""

    steps: int
    coefficients: tuple[float, ...]
    scale: str | None
    sharding: NamedSharding | None


def _alike(leaves: list[jax.Array], sharding: NamedSharding | None) -> list[list[int]]:
    """The leaves that go through one iteration together, by their numbers.

    Matrices in a batch are spread over devices; on one device a batch of GPT-2's would move three
    times the bytes of single ones. Outside a trace leaves may lie on devices of their own.
    """
    if sharding is None or not any(isinstance(x, Tracer) for x in leaves):
        return [[i] for i in range(len(leaves))]
    alike: dict[Any, list[int]] = {}
    for i, x in enumerate(leaves):
        is_tall = x.ndim == 2 and x.shape[0] > x.shape[1]
        alike.setdefault(jax.typeof(x.mT if is_tall else x), []).append(i)
    return list(alike.values())


@functools.partial(jax.jit, static_argnums=0)
def _orthogonalize_alike(
    options: _Options, eps: Scalar, leaves: list[jax.Array]
) -> list[jax.Array]:
    """Leaves of one shape, or its transpose, as one batch of matrices with rows <= columns."""
    if leaves[0].ndim < 2:
        return [_factor(c.size, 1, options.scale) * _normalize(c, eps) for c in leaves]
    is_tall = [c.shape[-2] > c.shape[-1] for c in leaves]
    wide = [c.mT if tall else c for c, tall in zip(leaves, is_tall, strict=True)]
    batch = _spread(jnp.stack(wide), options.sharding)
    polar = polar_factor(batch, options.steps, options.coefficients, eps)
    return [
        _factor(c.shape[-2], c.shape[-1], options.scale) * (u.mT if tall else u)
        for c, u, tall in zip(leaves, polar, is_tall, strict=True)
    ]


def _spread(batch: jax.Array, sharding: NamedSharding | None) -> jax.Array:
    """Gives every device some of the matrices, or where they are too few some of the columns."""
    if sharding is None:
        return batch
    axes = sharding.spec[0]
    names = axes if isinstance(axes, tuple) else (axes,)
    devices = math.prod(sharding.mesh.shape[name] for name in names)
    by_matrix = 2 * len(batch) >= devices
    spec = P(axes) if by_matrix else P(*[None] * (batch.ndim - 1), axes)
    return jax.lax.with_sharding_constraint(batch, NamedSharding(sharding.mesh, spec))


def polar_factor(c, steps, coefficients, eps):
    """Iterates Newton-Schulz on the last two axes, along the shorter of them."""
    is_tall = c.shape[-2] > c.shape[-1]
    x = c.mT if is_tall else c
    x = x / (sqrt(sum_of_squares(x, (-2, -1), keepdims=True)) + _or_tiny(eps, x))
    a, b, c3 = coefficients
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c3 * gram @ gram) @ x
    return x.mT if is_tall else x


def _normalize(c, eps):
    return c / (sqrt(sum_of_squares(c)) + _or_tiny(eps, c))


def _or_tiny(eps, x):
    """Keeps a matrix of zeros at 0 where there is no eps."""
    return jnp.maximum(eps, jnp.finfo(x.dtype).tiny)


def _factor(rows, columns, scale):
    match scale:
        case "rows_over_columns":
            return max(1.0, rows / max(columns, 1)) ** 0.5
        case "columns_over_rows":
            return max(1.0, columns / max(rows, 1)) ** 0.5
        case "rms":
            return 0.2 * max(rows, columns) ** 0.5
        case _:
            return 1.0
