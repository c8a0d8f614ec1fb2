"""Weight decay that bypasses the moments."""

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.checks import check_has_params, check_real
from lion_jax._core.kinds import FINITE, NON_NEGATIVE, SHARES, choice, is_off
from lion_jax._core.leafwise import PerLeaf, map_leaves
from lion_jax._core.rule import number, primitive
from lion_jax._core.shares import map_shares, shares_of
from lion_jax._core.types import Mask

CAUTIOUS = choice(True, False, ">", "sign_bits")
MULTIPLIER = FINITE.or_none().trying("1.0", "which does not change the weight decay")


@primitive(
    weight_decay=NON_NEGATIVE.trying("0.1"), mask=SHARES, multiplier=MULTIPLIER, cautious=CAUTIOUS
)
def add_decoupled_weight_decay(
    weight_decay: optax.ScalarOrSchedule,
    mask: Mask = None,
    *,
    multiplier: optax.ScalarOrSchedule | None = None,
    cautious: bool | str = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Adds a multiple of the parameters to the updates.

    .. math::

      u_t \leftarrow u_t + k \lambda \, \theta_t

    with the weight decay :math:`\lambda` and the multiplier :math:`k`. Chained before the learning
    rate (AdamW's place), a step shrinks the weights by :math:`1 - \eta_t k \lambda`. A multiplier
    of one over the initial learning rate makes the decay independent of it: see
    :func:`~lion_jax.decoupled_lion`.

    The cautious forms decay only entries that the update drives toward zero anyway. The sign is
    that of an update yet to be subtracted: chain them before the learning rate.

    ===============  ======================================  ====================================
    ``cautious``     decays where                            whose
    ===============  ======================================  ====================================
    ``True``         :math:`u_t \theta_t \ge 0`               the paper; dion
    ``">"``          :math:`u_t \theta_t > 0`                 lion-pytorch, behind a cautious update
    ``"sign_bits"``  the sign bits of both are equal         heavyball
    ===============  ======================================  ====================================

    They differ where the update is 0, as where :func:`lion_jax.cautious` has masked it, or the
    parameter is.

    Args:
      weight_decay: :math:`\lambda` >= 0. The number 0 adds nothing and reads no parameters.
      mask: which leaves decay, or how much of :math:`\lambda` each gets; see
        :mod:`lion_jax.groups`. None is all.
      multiplier: :math:`k`; None is 1. After the learning rate, where updates have changed their
        sign, it has to be negative.
      cautious: the entries that decay, see above; False is all.

    Returns:
      A transformation of updates that keeps shapes, in the parameters' dtype.

    Raises:
      ValueError: a scalar or a number in the mask out of range; at ``update``, missing parameters.
      TypeError: a scalar that is no number, a mask that is no mask; at ``update``, complex leaves
        in the cautious form.

    Example:
      >>> import jax.numpy as jnp, lion_jax
      >>> params, updates = jnp.array([2.0, -2.0]), jnp.array([1.0, 1.0])
      >>> for cautious in (False, True):
      ...     tx = lion_jax.add_decoupled_weight_decay(0.25, cautious=cautious)
      ...     print(tx.update(updates, tx.init(params), params)[0])
      [1.5 0.5]
      [1.5 1. ]

    References:
      Loshchilov and Hutter, `Decoupled Weight Decay Regularization
      <https://arxiv.org/abs/1711.05101>`_, 2019, Section 2; the cautious form: Chen et al.,
      `Cautious Weight Decay <https://arxiv.org/abs/2510.12402>`_, 2025, Algorithm 1.
    """

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        if is_off(weight_decay):
            return updates, state
        check_has_params(params, "add_decoupled_weight_decay")
        if cautious:
            check_real((updates, params), "cautious weight decay")
        decay = _DECAYS[cautious]
        k = 1.0 if multiplier is None else multiplier
        return _map(decay, updates, params, mask, weight_decay=weight_decay, k=k), state

    return optax.GradientTransformationExtraArgs(_init_for(mask), update_fn)


@primitive(
    learning_rate=NON_NEGATIVE.trying("1e-3"), weight_decay=NON_NEGATIVE.trying("0.1"), mask=SHARES
)
def apply_proximal_weight_decay(
    learning_rate: optax.ScalarOrSchedule, weight_decay: optax.ScalarOrSchedule, mask: Mask = None
) -> optax.GradientTransformationExtraArgs:
    r"""Decays the parameters by a proximal step after the update.

    .. math::

      \theta_t = \frac{\theta_{t-1} + u_t}{1 + \eta_t \lambda} = \arg\min_\theta
        \tfrac{1}{2} \lVert \theta - (\theta_{t-1} + u_t) \rVert^2
        + \tfrac{1}{2} \eta_t \lambda \lVert \theta \rVert^2

    Chain it after the learning rate.

    Args:
      learning_rate: :math:`\eta` >= 0.
      weight_decay: :math:`\lambda` >= 0. The number 0 changes nothing and reads no parameters.
      mask: which leaves decay, or how much of :math:`\lambda` each gets; see
        :mod:`lion_jax.groups`. None is all.

    Returns:
      A transformation of updates, learning rate included, that keeps shapes and units, in the
      parameters' dtype.

    Raises:
      ValueError: a scalar or a number in the mask out of range; at ``update``, missing parameters.
      TypeError: a scalar that is no number, a mask that is no mask.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import apply_proximal_weight_decay
      >>> params, tx = jnp.array([3.0]), apply_proximal_weight_decay(0.5, weight_decay=2.0)
      >>> updates, _ = tx.update(jnp.array([-1.0]), tx.init(params), params)
      >>> print(params + updates)
      [1.]

    References:
      Xie et al., `Adan: Adaptive Nesterov Momentum Algorithm <https://arxiv.org/abs/2208.06677>`_,
      2022, Algorithm 1; Zhuang et al., `Understanding AdamW through Proximal Methods
      <https://arxiv.org/abs/2202.00089>`_, 2022, Section 2.
    """

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        if is_off(weight_decay):
            return updates, state
        check_has_params(params, "apply_proximal_weight_decay")
        shrinkage = number(learning_rate) * number(weight_decay)
        return _map(_proximal, updates, params, mask, shrinkage=shrinkage), state

    return optax.GradientTransformationExtraArgs(_init_for(mask), update_fn)


def _init_for(mask: Mask) -> optax.TransformInitFn:
    """Makes an empty state, after a check that the mask fits the parameters."""

    def init_fn(params):
        # Without a mask nothing can misfit; and optax asks with no parameters what is like them.
        if mask is not None and jax.tree.leaves(params):
            _shares(mask, params)
        return optax.EmptyState()

    return init_fn


def _map(decay, updates, params, mask, **hyperparameters):
    if mask is None:
        return map_leaves(decay, (updates,), (params,), **hyperparameters)[0]
    return map_shares(decay, updates, (params,), _shares(mask, params), 0, **hyperparameters)


def _shares(mask: Mask, params: optax.Params) -> PerLeaf:
    shares = shares_of(mask, params)
    SHARES.check("mask", [*shares])
    return shares


def _proximal(u, p, share=1.0, *, shrinkage):
    shrinkage = share * shrinkage
    return ((u - shrinkage * p) / (1 + shrinkage),)


def _decay(u, p, share=1.0, *, weight_decay, k):
    return (u + k * weight_decay * share * p,)


def _decay_unless_against(u, p, share=1.0, *, weight_decay, k):
    (decayed,) = _decay(u, p, share, weight_decay=weight_decay, k=k)
    return (jnp.where(jnp.sign(u) * jnp.sign(p) >= 0, decayed, u),)


def _decay_where_along(u, p, share=1.0, *, weight_decay, k):
    (decayed,) = _decay(u, p, share, weight_decay=weight_decay, k=k)
    return (jnp.where(jnp.sign(u) * jnp.sign(p) > 0, decayed, u),)


def _decay_where_bits_agree(u, p, share=1.0, *, weight_decay, k):
    (decayed,) = _decay(u, p, share, weight_decay=weight_decay, k=k)
    return (jnp.where(jnp.signbit(u) == jnp.signbit(p), decayed, u),)


_DECAYS = {
    False: _decay,
    True: _decay_unless_against,
    ">": _decay_where_along,
    "sign_bits": _decay_where_bits_agree,
}
