"""Orthogonal directions: the polar factor of each matrix."""

import jax.numpy as jnp
import optax

from lion_jax._core.arithmetic import sqrt, sum_of_squares
from lion_jax._core.kinds import NON_NEGATIVE, Static, choice, integer
from lion_jax._core.leafwise import leafwise
from lion_jax._core.leaves import is_real
from lion_jax._core.rule import primitive

MUONS = (3.4445, -4.7750, 2.0315)
EPS = 1e-7


def _refuse_coefficients(name: str, value: object, advice: str) -> None:
    if not isinstance(value, tuple | list) or len(value) != 3 or not all(map(is_real, value)):
        raise TypeError(f"{name} must be three numbers (a, b, c); got {value!r}. {advice}")


@primitive(
    coefficients=Static(refusal=_refuse_coefficients),
    steps=integer(is_traced=False),
    eps=NON_NEGATIVE.constant(),
    scale=choice(None, "rows_over_columns", "columns_over_rows", "rms"),
)
def orthogonalize(
    *,
    steps: int = 5,
    coefficients: tuple[float, float, float] = MUONS,
    eps: float = EPS,
    scale: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Replaces each matrix by about its polar factor: equal singular values, the same directions.

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
      scale: what the factor is multiplied by: None is 1, ``"rows_over_columns"``
        :math:`\sqrt{\max(1, r/c)}` (Keller Jordan), ``"columns_over_rows"``
        :math:`\sqrt{\max(1, c/r)}` (optax), ``"rms"`` :math:`0.2 \sqrt{\max(r, c)}`. A vector is
        one column.

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
    return leafwise(
        _orthogonalize,
        real_for="orthogonalize",
        steps=(int(steps),),
        coefficients=tuple(map(float, coefficients)),
        eps=eps,
        scale=(scale,),
    )


def _orthogonalize(c, *, steps, coefficients, eps, scale):
    if c.ndim < 2:
        return (_factor(c.size, 1, scale[0]) * _normalize(c, eps),)
    rows, columns = c.shape[-2:]
    return (_factor(rows, columns, scale[0]) * polar_factor(c, steps[0], coefficients, eps),)


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
