"""Tiger's scale: steps in proportion to the size of each tensor."""

import re

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.arithmetic import sqrt, sum_of_squares
from lion_jax._core.checks import check_has_params
from lion_jax._core.kinds import NON_NEGATIVE
from lion_jax._core.leafwise import PerLeaf, map_by_rule
from lion_jax._core.leaves import is_none
from lion_jax._core.paths import path_of_each
from lion_jax._core.rule import primitive
from lion_jax._core.types import LeafRule
from lion_jax._core.versions import init_empty_state

MIN_RMS = NON_NEGATIVE.trying("1e-3")
_BIAS = re.compile(r"(?i)bias|beta|gamma|(^|[_/])scale$")
_EMBEDDING = re.compile(r"(?i)embed")


@primitive(min_rms=MIN_RMS)
def scale_by_parameter_rms(
    min_rms: optax.ScalarOrSchedule = 0.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Multiplies each update by the root mean square of its parameters: Tiger's step size.

    .. math::

      u \leftarrow \max(\operatorname{RMS}(\theta), r) \, u, \qquad
      \operatorname{RMS}(\theta) = \sqrt{\tfrac{1}{n} \sum_i \theta_i^2}

    over each leaf; over each row (the last axis) of an embedding; and :math:`u \leftarrow u / 2`
    for biases and gains. The names in a leaf's path decide, as in the authors' code: ``bias``,
    ``beta``, ``gamma`` (and flax's ``scale``) are halved, ``embed`` in the path is an embedding.
    ``optax.scale_by_param_block_rms`` knows no rows and no biases, and its least RMS is 1e-3.

    Args:
      min_rms: :math:`r` >= 0, in the parameters' units. With 0, the authors' rule, a leaf of zeros
        never moves.

    Returns:
      A transformation of updates without unit that keeps shapes, in the parameters' units and
      dtype. It has no state.

    Raises:
      ValueError, TypeError: ``min_rms`` out of range or no number; at ``update``, missing
        parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.primitives import scale_by_parameter_rms
      >>> tx, params = scale_by_parameter_rms(), {"bias": jnp.ones(1), "w": jnp.array([1.0, 7.0])}
      >>> updates, _ = tx.update({"bias": jnp.ones(1), "w": jnp.ones(2)}, tx.init(params), params)
      >>> print(updates["bias"], updates["w"])
      [0.5] [5. 5.]

    References:
      Su, `Tiger: A Tight-fisted Optimizer <https://github.com/bojone/tiger>`_, 2023: its code.
    """

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        params = check_has_params(params, "scale_by_parameter_rms")
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
        weights, rules = treedef.flatten_up_to(params), rules_of(params)
        return treedef.unflatten(map_by_rule(rules, leaves, weights, min_rms=min_rms)), state

    return optax.GradientTransformationExtraArgs(init_empty_state, update_fn)


def not_bias_or_gain(params: optax.Params) -> PerLeaf:
    """A mask of Tiger: False for the leaves whose step it halves, and which it does not decay."""
    return PerLeaf(rule is not _half for rule in rules_of(params))


def rules_of(params: optax.Params) -> list[LeafRule]:
    """The rule of each leaf, by its path."""
    return [
        _half if _BIAS.search(path) else _by_row if _EMBEDDING.search(path) else _by_tensor
        for path in path_of_each(params)
    ]


def _by_tensor(u, p, *, min_rms):
    return (jnp.maximum(_rms(p, None), min_rms) * u,)


def _by_row(u, p, *, min_rms):
    return (jnp.maximum(_rms(p, -1 if p.ndim else None), min_rms) * u,)


def _half(u, p, *, min_rms):
    del p, min_rms
    return (0.5 * u,)


def _rms(p, axis):
    count = p.size if axis is None else p.shape[axis]
    axes = None if axis is None else (axis,)
    return sqrt(sum_of_squares(p, axes, keepdims=axis is not None) / max(count, 1))
