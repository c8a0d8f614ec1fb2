"""Tiger's scale: each tensor moves in proportion to its size."""

import re

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.arithmetic import sqrt, sum_of_squares
from lion_jax._core.checks import check_has_params
from lion_jax._core.kinds import NON_NEGATIVE
from lion_jax._core.leafwise import map_leaves
from lion_jax._core.leaves import is_none
from lion_jax._core.paths import first_match
from lion_jax._core.rule import primitive
from lion_jax._core.types import Leaf, PyTree

MIN_RMS = NON_NEGATIVE.trying("1e-3")
_BIAS = re.compile(r"(?i)bias|beta|gamma|(^|[_/])scale$")
_EMBEDDING = re.compile(r"(?i)embed")
TENSOR, ROW, HALF = "tensor", "row", "half"


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
        kinds, treedef = jax.tree.flatten(kinds_of(params))
        scaled = updates
        for kind, rule in _RULES.items():
            chosen = treedef.unflatten([k if k == kind else None for k in kinds])
            (new,) = map_leaves(rule, (_only(chosen, updates),), (params,), min_rms=min_rms)
            scaled = jax.tree.map(lambda x, u: u if x is None else x, new, scaled, is_leaf=is_none)
        return scaled, state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update_fn)


def is_bias_or_gain(path: str, leaf: Leaf) -> bool:
    """Tells by its path whether Tiger halves the step of a leaf, and does not decay it."""
    del leaf
    return _BIAS.search(path) is not None


def kinds_of(params: optax.Params) -> PyTree:
    """What the scale of each leaf is taken over, a tree of strings like the parameters."""
    return first_match(
        ((is_bias_or_gain, HALF), (lambda path, _: _EMBEDDING.search(path) is not None, ROW)),
        default=TENSOR,
    )(params)


def _only(chosen: PyTree, updates: optax.Updates) -> optax.Updates:
    return jax.tree.map(
        lambda kind, u: None if kind is None else u, chosen, updates, is_leaf=is_none
    )


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


_RULES = {TENSOR: _by_tensor, ROW: _by_row, HALF: _half}
