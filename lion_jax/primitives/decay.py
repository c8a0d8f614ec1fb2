"""Weight decay that bypasses the moments."""

# A schedule never reaches the body of a factory: accepts_schedules has made it a number.
# pyright: reportOperatorIssue=false

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lion_jax._checks import (
    check_flag,
    check_has_params,
    check_real,
    check_scalars,
    check_shares,
    is_off,
)
from lion_jax._dtypes import computed_in_float32
from lion_jax._leafwise import PerLeaf, map_leaves
from lion_jax._schedules import accepts_schedules
from lion_jax._shares import map_shares, shares_of


@computed_in_float32
@accepts_schedules("weight_decay", "multiplier")
def add_decoupled_weight_decay(
    weight_decay: optax.ScalarOrSchedule,
    mask: Any = None,
    *,
    multiplier: optax.ScalarOrSchedule | None = None,
    cautious: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Adds a multiple of the parameters to the updates.

    .. math::

      u_t \leftarrow u_t + k \lambda \, \theta_t

    with the weight decay :math:`\lambda` and the multiplier :math:`k`. Chained before the learning
    rate (AdamW's place), a step shrinks the weights by :math:`1 - \eta_t k \lambda`. A multiplier
    of one over the initial learning rate makes the decay independent of it: see
    :func:`~lion_jax.decoupled_lion`.

    The cautious form decays only entries that the update drives toward zero anyway,
    :math:`u_t \theta_t \ge 0`, where the sign is that of an update yet to be subtracted: chain it
    before the learning rate.

    Args:
      weight_decay: :math:`\lambda` >= 0: a number, a traced scalar, or a schedule from the update
        count. The number 0 adds nothing and reads no parameters.
      mask: which leaves decay, or how much of :math:`\lambda` each gets: a tree of booleans or of
        numbers >= 0 like the parameters or a prefix of one, or a function from parameters to such a
        tree, as in :mod:`lion_jax.groups`; None is all of them. ``static_args`` for
        ``optax.inject_hyperparams``: ``("mask", "cautious")``.
      multiplier: :math:`k`, likewise a number, a traced scalar or a schedule; None is 1. Chained
        after the learning rate, where updates have changed their sign, it has to be negative.
      cautious: whether to decay only where update and parameter agree in sign.

    Returns:
      A transformation of updates that keeps shapes, in the parameters' dtype. The arithmetic is at
      least float32.

    Raises:
      ValueError: a scalar or a number in the mask out of range; at ``update``, missing parameters.
      TypeError: a scalar that is no number, a mask that is no mask; at ``update``, complex leaves
        in the cautious form.

    Example:
      >>> import jax.numpy as jnp
      >>> import lion_jax
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
    k = 1.0 if multiplier is None else multiplier
    check_scalars(weight_decay=weight_decay, multiplier=k)
    check_shares("mask", mask)
    check_flag("cautious", cautious)

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        if is_off(weight_decay):
            return updates, state
        check_has_params(params, "add_decoupled_weight_decay")
        if cautious:
            check_real((updates, params), "cautious weight decay")
        decay = _decay_cautiously if cautious else _decay
        return _map(decay, updates, params, mask, weight_decay=weight_decay, k=k), state

    return optax.GradientTransformationExtraArgs(_init_for(mask), update_fn)


@computed_in_float32
@accepts_schedules("learning_rate", "weight_decay")
def apply_proximal_weight_decay(
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: optax.ScalarOrSchedule,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Decays the parameters by a proximal step after the update.

    .. math::

      \theta_t = \frac{\theta_{t-1} + u_t}{1 + \eta_t \lambda} = \arg\min_\theta
        \tfrac{1}{2} \lVert \theta - (\theta_{t-1} + u_t) \rVert^2
        + \tfrac{1}{2} \eta_t \lambda \lVert \theta \rVert^2

    Chain it after the learning rate.

    Args:
      learning_rate: :math:`\eta` >= 0: a number, a traced scalar, or a schedule from the update
        count.
      weight_decay: :math:`\lambda` >= 0, likewise. The number 0 changes nothing and reads no
        parameters.
      mask: which leaves decay, or how much of :math:`\lambda` each gets: a tree of booleans or of
        numbers >= 0 like the parameters or a prefix of one, or a function from parameters to such a
        tree, as in :mod:`lion_jax.groups`; None is all of them. ``static_args`` for
        ``optax.inject_hyperparams``: ``("mask",)``.

    Returns:
      A transformation of updates, learning rate included, that keeps shapes and units, in the
      parameters' dtype. The arithmetic is at least float32.

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
    check_scalars(learning_rate=learning_rate, weight_decay=weight_decay)
    check_shares("mask", mask)

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        if is_off(weight_decay):
            return updates, state
        check_has_params(params, "apply_proximal_weight_decay")
        shrinkage = learning_rate * weight_decay
        return _map(_proximal, updates, params, mask, shrinkage=shrinkage), state

    return optax.GradientTransformationExtraArgs(_init_for(mask), update_fn)


def _init_for(mask: Any) -> optax.TransformInitFn:
    """An empty state, once the mask fits the parameters."""

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


def _shares(mask: Any, params: optax.Params) -> PerLeaf:
    shares = shares_of(mask, params)
    check_shares("mask", [*shares])
    return shares


def _proximal(u, p, share=1.0, *, shrinkage):
    shrinkage = share * shrinkage
    return ((u - shrinkage * p) / (1 + shrinkage),)


def _decay(u, p, share=1.0, *, weight_decay, k):
    return (u + k * weight_decay * share * p,)


def _decay_cautiously(u, p, share=1.0, *, weight_decay, k):
    (decayed,) = _decay(u, p, share, weight_decay=weight_decay, k=k)
    return (jnp.where(jnp.sign(u) * jnp.sign(p) >= 0, decayed, u),)
