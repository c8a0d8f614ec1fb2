"""Majority vote as in Distributed Lion: each replica sends signs instead of gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from lion_jax._core.checks import check_real
from lion_jax._core.dtypes import at_least_float32
from lion_jax._core.kinds import AXIS_NAME, FLAG, choice
from lion_jax._core.rule import takes
from lion_jax._core.types import AxisName
from lion_jax.distributed._collectives import (
    LANES,
    all_gather,
    check_all_manual,
    check_own,
    replicas,
    vary,
)
from lion_jax.distributed._packing import lay_out, pack, pack_tree, signs_of, unpack, unpack_tree

_SIGNS_PER_BYTE = {"bits": 5, "int8": 1}


@takes(axis_name=AXIS_NAME, wire=choice("bits", "int8", "float"), average=FLAG)
def majority_vote(
    axis_name: AxisName, *, wire: str = "bits", average: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""Replaces each update by the sign that most replicas voted for.

    .. math::

      \Delta = \operatorname{sign} \sum_{i=1}^n \operatorname{sign} u_i
      \qquad\text{or, with an average,}\qquad
      \Delta = \frac{1}{n} \sum_{i=1}^n \operatorname{sign} u_i

    Replica :math:`i` of :math:`n` has updates :math:`u_i` of its own, from its own gradient and its
    own momentum; all of them get :math:`\Delta`, to the last bit. An entry that is 0 or NaN
    abstains. A tie gives 0 on all replicas: no step but for weight decay.

    Chain it after the momentum, of which each replica keeps its own, and before weight decay and
    learning rate, which are the same on all. Parameters are replicated, the state is not: outside
    the mapped function its leaves have one more leading dimension, the replicas.

    Args:
      axis_name: the axis of the replicas. Among 64 chips or more name both or all three dimensions
        of the torus, e.g. ``("x", "y")``. Axes that a ``jax.shard_map`` leaves to the compiler must
        be Auto, and leaves that are split over them are gathered, but for ``"float"``.
      wire: the form in which a chip sends its signs, per parameter: ``"bits"``, five in a byte, 0.2
        + 0.2 bytes; ``"int8"``, one in a byte, 1 + 1; ``"float"``, one in a float32, 4 + 4, as much
        as gradients in full precision. All give the same, for any number of replicas.
      average: whether to return the mean of the votes instead of their sign. The second number of
        ``"bits"`` and ``"int8"`` is then 1 byte up to 127 replicas, 2 up to 32,767, and else 4.

    Returns:
      A transformation without state, for updates of any real dtype; the dtype is kept.

    Raises:
      ValueError: an unknown ``wire``; at ``update``, an axis that is not there, or, as far as JAX
        tells, updates that are the same on all replicas. ``jax.shard_map`` sums the gradient of
        replicated parameters by itself, in full precision, unless they are made each replica's
        own by ``jax.lax.pcast(params, axis_name, to="varying")``.
      TypeError: an ``axis_name`` that is no name, an ``average`` that is no bool; at ``update``, a
        complex leaf, by its path.

    Notes:
      ``"bits"`` and ``"int8"`` take two phases. Each chip gets all replicas' signs for its part of
      the parameters and counts them; then all gather the outcome. ``"float"`` is one all-reduce.
      Sums are of integers, and exact.

      XLA for TPUs turns the second phase into an all-reduce, of up to eight times the bytes, where
      it has more than 16 chips in one axis and less than some megabytes for it. So the gather goes
      axis by axis; and within a long one by groups, which ``check_vma=True`` does not allow.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from lion_jax.distributed import majority_vote
      >>> vote = majority_vote("replicas")
      >>> updates = jnp.array([[2.0, -1.0, 3.0], [1.0, -1.0, -3.0]])  # of two replicas
      >>> def outcome(u):
      ...     return vote.update(u, vote.init(u))[0]
      >>> print(jax.jit(jax.vmap(outcome, axis_name="replicas"))(updates))
      [[ 1. -1.  0.]
       [ 1. -1.  0.]]

    References:
      Liu et al., `Communication Efficient Distributed Training with Distributed Lion
      <https://arxiv.org/abs/2404.00438>`_, 2024, Algorithm 1 (majority vote and averaging).
    """

    def update(updates, state, params=None, **extra_args):
        del params, extra_args
        check_real(updates, "majority_vote")
        n = replicas(axis_name)
        check_own(updates, axis_name, "updates")
        has_entries = any(jnp.size(u) for u in jax.tree.leaves(updates))
        if wire == "float" or not has_entries:
            return _count(updates, axis_name, n, average), state
        check_all_manual(f'majority_vote with wire="{wire}"')
        return _two_phases(updates, axis_name, n, average, _SIGNS_PER_BYTE[wire]), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _count(updates: optax.Updates, axis_name: AxisName, n: int, average: bool) -> optax.Updates:
    signs = jax.tree.map(lambda u: signs_of(u).astype(jnp.float32), updates)

    def outcome(u, sign):
        total = lax.psum(vary(sign, axis_name), axis_name)
        return _mean(total, n, u) if average else jnp.sign(total).astype(u.dtype)

    return jax.tree.map(outcome, updates, signs)


def _two_phases(
    updates: optax.Updates, axis_name: AxisName, n: int, average: bool, per_byte: int
) -> optax.Updates:
    code = pack_tree(updates, per_byte)
    size = len(code)
    parts = jnp.pad(code, (0, -size % (n * LANES))).reshape(n, -1)
    mine = lax.all_to_all(vary(parts, axis_name), axis_name, 0, 0, tiled=True)
    counts = [jnp.sum(votes, axis=0, dtype=jnp.int32) for votes in unpack(mine, per_byte)]
    if not average:
        outcome = all_gather(pack([signs_of(count) for count in counts]), axis_name)
        return unpack_tree(outcome[:size], updates, per_byte)
    # The least integer type that has both n and -n.
    totals = all_gather(jnp.stack(counts).astype(np.min_scalar_type(-n - 1)), axis_name)
    laid_out = lay_out(list(totals[:, :size]), updates)
    return jax.tree.map(lambda u, total: _mean(total, n, u), updates, laid_out)


def _mean(total: jax.Array, n: int, like: jax.Array) -> jax.Array:
    return (total.astype(at_least_float32(like)) / n).astype(like.dtype)
