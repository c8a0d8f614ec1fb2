"""PyTorch's gradient clipping, of `torch.nn.utils <https://docs.pytorch.org/docs/stable/nn.html>`_."""

import jax.numpy as jnp
import optax

from lion_jax._checks import check_number, check_peer
from lion_jax._dtypes import computed_in_float32
from lion_jax._leafwise import map_leaves
from lion_jax.compat._moments import Scalar
from lion_jax.primitives.clipping import global_norm, scale


@computed_in_float32
def clip_grad_norm(max_norm: Scalar) -> optax.GradientTransformationExtraArgs:
    r"""``clip_grad_norm_`` of torch, for the 2-norm over all leaves.

    .. math::

      g \leftarrow g \min\left(1, \frac{c}{\lVert g \rVert_2 + 10^{-6}}\right)

    Departs from ``optax.clip_by_global_norm`` by the :math:`10^{-6}`. A norm that is not finite
    makes the gradients zero or NaN, as ``error_if_nonfinite=False`` does there.

    Args:
      max_norm: :math:`c` > 0, in the gradients' units: a number or a traced scalar.

    Returns:
      A transformation of gradients, to be chained before an optimizer. It has no state.

    Raises:
      ValueError: ``max_norm`` out of range.
      TypeError: ``max_norm`` no number.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> tx = compat.torch.clip_grad_norm(1.0)
      >>> print(tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0].round(3))
      [0.6 0.8]
    """
    check_number("max_norm", max_norm)

    def update_fn(updates, state, params=None, **extra_args):
        del params, extra_args
        factor = jnp.minimum(1.0, max_norm / (global_norm(updates) + 1e-6))
        return map_leaves(scale, (updates,), factor=factor)[0], state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update_fn)


@computed_in_float32
def clip_grad_value(clip_value: Scalar) -> optax.GradientTransformationExtraArgs:
    """``clip_grad_value_`` of torch: ``optax.clip`` under the peer's names.

    Args:
      clip_value: the largest magnitude > 0, in the gradients' units: a number or a traced scalar.

    Returns:
      A transformation of gradients, to be chained before an optimizer. It has no state.

    Raises:
      ValueError: ``clip_value`` out of range.
      TypeError: ``clip_value`` no number.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> tx = compat.torch.clip_grad_value(1.0)
      >>> print(tx.update(jnp.array([0.5, -4.0]), tx.init(jnp.zeros(2)))[0])
      [ 0.5 -1. ]
    """
    check_peer(max_norm=("clip_value", clip_value))
    return optax.with_extra_args_support(optax.clip(clip_value))
