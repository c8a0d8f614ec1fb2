"""pylocron's wrappers around optimizers."""

import math

import optax

from lion_jax._core.kinds import FRACTION, TRANSFORMATION, integer
from lion_jax._core.rule import takes
from lion_jax._core.types import Scalar
from lion_jax.combinators.lookahead import lookahead as core_lookahead
from lion_jax.combinators.scout import scout_with


@takes(inner=TRANSFORMATION, sync_rate=FRACTION.constant(), sync_period=integer())
def lookahead(
    inner: optax.GradientTransformation, sync_rate: Scalar = 0.5, sync_period: int = 6
) -> optax.GradientTransformationExtraArgs:
    r"""``Lookahead`` of pylocron: :func:`lion_jax.lookahead` under its names.

    Args:
      inner: the transformation that moves the fast weights.
      sync_rate: :math:`\alpha` in [0, 1].
      sync_period: k >= 1, in steps.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError: ``sync_rate`` or ``sync_period`` out of range; at ``update``, missing parameters.
      TypeError: an ``inner`` that is no transformation, a number of the wrong type.

    Example:
      >>> import optax
      >>> from lion_jax import compat
      >>> tx = compat.holocron.lookahead(compat.torch.sgd(0.1), sync_rate=0.5, sync_period=5)

    References:
      `pylocron <https://github.com/frgfm/Holocron>`_ 0.3.0, ``holocron.optim.wrapper.Lookahead``.
    """
    return core_lookahead(inner, sync_period, sync_rate)


@takes(inner=TRANSFORMATION, sync_rate=FRACTION.constant(), sync_period=integer())
def scout(
    inner: optax.GradientTransformation, sync_rate: Scalar = 0.5, sync_period: int = 6
) -> optax.GradientTransformationExtraArgs:
    r"""``Scout`` of pylocron.

    It departs from :func:`lion_jax.scout`: a single entry that does not move, or a period of 1,
    makes the coherence 0 / 0; then all fast weights return to the slow ones, and these do not move.

    Args:
      inner: the transformation that moves the fast weights.
      sync_rate: the least slow step, in [0, 1].
      sync_period: k >= 1, in steps.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError: ``sync_rate`` or ``sync_period`` out of range; at ``update``, missing parameters.
      TypeError: an ``inner`` that is no transformation, a number of the wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> params, tx = jnp.ones(2), compat.holocron.scout(compat.torch.sgd(0.1), sync_period=1)
      >>> print(params + tx.update(jnp.ones(2), tx.init(params), params)[0])
      [1. 1.]

    References:
      `pylocron <https://github.com/frgfm/Holocron>`_ 0.3.0, ``holocron.optim.wrapper.Scout``.
    """
    return scout_with(inner, sync_period, sync_rate, standstill=math.nan)
