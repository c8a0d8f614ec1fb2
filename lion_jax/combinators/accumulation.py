"""Gradient accumulation over several calls."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.checks import check_match
from lion_jax._core.conditional import update_where
from lion_jax._core.counters import next_count, zero
from lion_jax._core.dtypes import widen
from lion_jax._core.kinds import TRANSFORMATION, integer
from lion_jax._core.leafwise import map_leaves, zeros_like
from lion_jax._core.leaves import is_none, is_weight
from lion_jax._core.rule import combinator


class AccumulationState(NamedTuple):
    """State of `with_accumulation`.

    Attributes:
      gradient_sum: sum of the gradients since the last step, a tree like the parameters, each leaf
        of its parameter's shape and dtype, but at least float32; None for leaves of no
        floating-point numbers.
      micro_step: the number of gradients in the sum, int32 of shape (), less than `every`.
      inner_state: state of the inner transformation.
    """

    gradient_sum: optax.Updates
    micro_step: jax.Array
    inner_state: optax.OptState


@combinator(inner=TRANSFORMATION, every=integer().trying("4"))
def with_accumulation(
    inner: optax.GradientTransformation, every: int
) -> optax.GradientTransformationExtraArgs:
    r"""Runs a transformation on the mean of every k gradients; updates in between are 0.

    .. math::

      u_t, s_t = \begin{cases}
        \operatorname{inner}\left(\frac{1}{k} \sum_{i=0}^{k-1} g_{t-i}, s_{t-1},
          \theta_{t-1}\right) & \text{if } k \text{ divides } t \\
        0, s_{t-1} & \text{otherwise}
      \end{cases}

    The mean of k gradients of mean losses is the gradient of one batch k times as large. The inner
    transformation, its schedules and the combinators within it count steps, not gradients.

    It is the rule of ``optax.MultiSteps`` with fewer bytes moved, and with a sum in at least
    float32 (float64 for float64 parameters). If all k batches are at hand inside one ``jit``,
    ``optax.microbatching`` is cheaper, since their gradients need not pass through the state.

    Args:
      inner: the transformation of the mean, its learning rate included.
      every: k >= 1, in calls of ``update``; 1 does not change the inner transformation.

    Returns:
      A transformation from gradients to updates of the parameters' shapes and units, in the inner
      transformation's dtypes; zero except at every k-th call. The mean is in at least float32, so
      optax's own rules give float32 updates of bfloat16 parameters. The state is an
      :class:`AccumulationState`. A parameter without a gradient at a k-th call takes no step there:
      its sum goes into the mean of its next one. Extra arguments are handed to the inner
      transformation at every call, but only those of the k-th call have an effect.

    Raises:
      ValueError: ``every`` out of range; at ``update``, a gradient of another shape than its
        parameter.
      TypeError: an ``inner`` that is no transformation, an ``every`` that is no integer.

    Example:
      >>> import jax.numpy as jnp
      >>> import lion_jax, optax
      >>> tx = lion_jax.with_accumulation(optax.sgd(1.0), every=2)
      >>> params = jnp.zeros(2)
      >>> state = tx.init(params)
      >>> for gradient in ([1.0, 0.0], [3.0, 5.0]):
      ...     updates, state = tx.update(jnp.array(gradient), state, params)
      ...     print(updates)
      [0. 0.]
      [-2.  -2.5]

    References:
      Goyal et al., `Accurate, Large Minibatch SGD <https://arxiv.org/abs/1706.02677>`_, 2017,
      Section 3, on the mean over workers, which are calls here.
    """
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        leaves, treedef = jax.tree.flatten(params)
        return AccumulationState(
            gradient_sum=treedef.unflatten(zeros_like(p) if is_weight(p) else None for p in leaves),
            micro_step=zero(),
            inner_state=inner.init(params),
        )

    def update_fn(updates, state, params=None, **extra_args):
        check_match("gradients", updates, state.gradient_sum)
        micro_step = next_count(state.micro_step)
        is_step = micro_step >= jnp.asarray(every, micro_step.dtype)
        mean, gradient_sum = _mean_and_sum(updates, state.gradient_sum, every, is_step)
        updates, inner_state = update_where(
            is_step, inner, mean, state.inner_state, params, **extra_args
        )
        micro_step = jnp.where(is_step, 0, micro_step)
        return updates, AccumulationState(gradient_sum, micro_step, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _mean_and_sum(updates, gradient_sum, every, is_step):
    """The mean for a step, and the next sum; leaves without a sum are handed on."""
    sums, treedef = jax.tree.flatten(gradient_sum, is_leaf=is_none)
    gradients = treedef.flatten_up_to(updates)
    wide = [
        None if g is None or total is None else widen(g, total)
        for g, total in zip(gradients, sums, strict=True)
    ]
    means, sums = map_leaves(_accumulate, (wide, sums), every=every, is_step=is_step)
    means = [g if mean is None else mean for g, mean in zip(gradients, means, strict=True)]
    return treedef.unflatten(means), treedef.unflatten(sums)


def _accumulate(g, gradient_sum, *, every, is_step):
    """The mean for a step, and the next sum.

    The sum is written twice, since one that both need would tempt the TPU compiler to put it into
    memory: AdamW would then move 56 bytes per parameter rather than 36.
    """
    mean = (gradient_sum + g) / jnp.asarray(every, g.dtype)
    return mean, jnp.where(is_step, 0, gradient_sum) + jnp.where(is_step, 0, g)
