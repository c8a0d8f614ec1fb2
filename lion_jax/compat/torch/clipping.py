"""PyTorch's gradient clipping, of `torch.nn.utils <https://docs.pytorch.org/docs/stable/nn.html>`_."""

import jax.numpy as jnp
import optax

from lion_jax._core.rule import primitive
from lion_jax._core.types import Scalar
from lion_jax.primitives.clipping import MAX_NORM, scale_by_global_norm


@primitive(max_norm=MAX_NORM.constant())
def clip_grad_norm(max_norm: Scalar) -> optax.GradientTransformationExtraArgs:
    r"""``clip_grad_norm_`` of torch, for the 2-norm over all leaves.

    .. math::

      g \leftarrow g \min\left(1, \frac{c}{\lVert g \rVert_2 + 10^{-6}}\right)

    It departs from ``optax.clip_by_global_norm`` by the :math:`10^{-6}`. A norm that is not finite
    makes the gradients zero or NaN, as ``error_if_nonfinite=False`` does there.

    Args:
      max_norm: :math:`c` > 0, in the gradients' units.

    Returns:
      A transformation of gradients, to be chained before an optimizer. It has no state.

    Raises:
      ValueError, TypeError: ``max_norm`` out of range or no number.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> tx = compat.torch.clip_grad_norm(1.0)
      >>> print(tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0].round(3))
      [0.6 0.8]
    """
    return scale_by_global_norm(lambda norm: jnp.minimum(1.0, max_norm / (norm + 1e-6)))


@primitive(clip_value=MAX_NORM.constant())
def clip_grad_value(clip_value: Scalar) -> optax.GradientTransformationExtraArgs:
    """``clip_grad_value_`` of torch: ``optax.clip`` under torch's names.

    Args:
      clip_value: the largest magnitude > 0, in the gradients' units.

    Returns:
      A transformation of gradients, to be chained before an optimizer. It has no state.

    Raises:
      ValueError, TypeError: ``clip_value`` out of range or no number.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> tx = compat.torch.clip_grad_value(1.0)
      >>> print(tx.update(jnp.array([0.5, -4.0]), tx.init(jnp.zeros(2)))[0])
      [ 0.5 -1. ]
    """
    return optax.with_extra_args_support(optax.clip(clip_value))
