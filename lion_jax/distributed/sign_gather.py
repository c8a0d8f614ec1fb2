"""ZeRO-1 for sign rules: gathers the signs, not the weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from lion_jax._core.checks import check_has_params, check_match, check_real
from lion_jax._core.dtypes import at_least_float32
from lion_jax._core.kinds import AXIS_NAME, TRANSFORMATION
from lion_jax._core.leaves import is_none
from lion_jax._core.rule import takes
from lion_jax._core.types import AxisName
from lion_jax.distributed._collectives import (
    LANES,
    all_gather,
    check_all_manual,
    check_own,
    in_mesh_order,
    is_mapped,
    reduce_scatter,
    replicas,
    vary,
)
from lion_jax.distributed._packing import pack_tree, signs_of, unpack_tree
from lion_jax.distributed._splitting import Dimensions, dimensions_in, is_masked, split_dimensions

_SIGNS_PER_BYTE = 5

Leaves = list[jax.Array | None]


class SignGatherState(NamedTuple):
    """State of `sign_gather`.

    Attributes:
      inner_state: state of the inner transformation. From outside it has the parameters' shapes,
        within ``jax.shard_map`` those of each replica's part of them.
    """

    inner_state: optax.OptState


@takes(inner=TRANSFORMATION, axis_name=AXIS_NAME)
def sign_gather(
    inner: optax.GradientTransformation, axis_name: AxisName
) -> optax.GradientTransformationExtraArgs:
    r"""Updates a part of the parameters on each replica, and gathers the signs of the updates.

    .. math::

      g^{(i)} &= \Big(\frac{1}{n} \sum_{j=1}^n g_j\Big)^{(i)} && \text{(reduce-scatter)} \\
      u^{(i)}, m^{(i)} &= \text{inner}(g^{(i)}, m^{(i)}) \\
      u &= \operatorname{sign} (u^{(1)}, \dots, u^{(n)}) && \text{(all-gather of 1.6 bits each)}

    Replica :math:`i` of :math:`n` has the gradient :math:`g_i` of its part of the batch and the
    :math:`i`-th part :math:`m^{(i)}` of the state. With an inner rule whose updates are signs, as
    Lion's before decay and learning rate, the updates are those of the unsharded rule from the same
    mean gradient, bit for bit, with 1/n of its state on each chip. An all-reduce of float32
    gradients sends 8 bytes per parameter; this sends 4 to reduce and 0.2 to gather, where gathering
    weights would send another 4. ::

      optimizer = optax.chain(
          sign_gather(lion_jax.scale_by_sign_momentum(), "data"),
          lion_jax.add_decoupled_weight_decay(0.1),
          optax.scale_by_learning_rate(1e-4),
      )

    For slices with fast links inside and slow links between them, compose the two: full precision
    within a slice, and one vote of each slice per parameter across them::

      sign_gather(optax.chain(lion_jax.scale_by_sign_momentum(), majority_vote("slice")), "chip")

    Place the state by :func:`lion_jax.distributed.zero_sharding`, which splits only this part. Put
    transformations that change or keep gradients (clipping, accumulation, metrics) inside: outside,
    the gradients are each replica's own.

    Args:
      inner: any elementwise transformation; the signs of its updates are used. Norms would be those
        of a replica's part.
      axis_name: the axis of the replicas. The order of several does not matter: it is the mesh's.

    Returns:
      A transformation from each replica's own gradient, of any real dtype, to updates that are -1,
      0 or 1, of the gradient's dtype; NaN has no sign and gives 0. Gradients are summed in at least
      float32. The state is a :class:`SignGatherState`: each replica's part where ``init`` is mapped
      over all of the axes, as in ``jax.pmap``, elsewhere the whole.

    Raises:
      ValueError: at ``update``, an axis that is not there, a gradient of another shape than its
        parameter, a state that is not split, or otherwise than into parts, Explicit axes left out
        of the ``jax.shard_map``, or, as far as JAX tells, gradients that are the same on all
        replicas. ``jax.shard_map`` sums the gradient of replicated parameters by itself unless they
        are made each replica's own by ``jax.lax.pcast(params, axis_name, to="varying")``.
      TypeError: an ``inner`` that is no transformation, an ``axis_name`` that is no name; at
        ``update``, a complex leaf, by its path.

    Notes:
      Each update finds in the shapes of the state how it is split; what cannot be split is stepped
      whole on all replicas. Over several axes, and more than 16 replicas of one, gradients are
      summed level by level, in another order than by an all-reduce.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import lion_jax
      >>> from lion_jax.distributed import sign_gather
      >>> tx = sign_gather(lion_jax.scale_by_sign_momentum(), "replicas")
      >>> gradients = jnp.array([[2.0, -1.0], [-1.0, -1.0]])  # of two replicas
      >>> def step(g):
      ...     return tx.update(g, tx.init(g))
      >>> updates, state = jax.jit(jax.vmap(step, axis_name="replicas"))(gradients)
      >>> print(updates)
      [[ 1. -1.]
       [ 1. -1.]]
      >>> print(state.inner_state.mu.shape)  # of each of the two: one of two entries
      (2, 1)

    References:
      Rajbhandari et al., `ZeRO: Memory Optimizations Toward Training Trillion Parameter Models
      <https://arxiv.org/abs/1910.02054>`_, 2020, Section 5.1.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params):
        if not is_mapped(axis_name):
            return SignGatherState(inner.init(params))
        dimensions = _splittable(inner, params, replicas(axis_name))
        # Of the whole: what `inner` decides by size must not differ from a state cut elsewhere.
        return SignGatherState(
            _part_of(inner, inner.init(params), params, dimensions, in_mesh_order(axis_name))
        )

    def update(updates, state, params=None, **extra_args):
        check_real(updates, "sign_gather")
        n, axes = replicas(axis_name), in_mesh_order(axis_name)
        check_own(updates, axes, "gradients")
        check_all_manual("sign_gather")
        # A parameter without a gradient, None, is a leaf of `like` alone.
        if any(map(is_none, jax.tree.leaves(updates, is_leaf=is_none))):
            check_has_params(params, "sign_gather, of parameters without a gradient,")
        if params is not None:
            check_match("gradients", updates, params)
        like = updates if params is None else params
        leaves, treedef = jax.tree.flatten(like)
        gradients = treedef.flatten_up_to(updates)
        splittable = _splittable(inner, like, n)
        dimensions = dimensions_in(inner, state.inner_state, like, n, splittable)
        _check_split(dimensions, splittable, n)
        means = _mean_parts(gradients, dimensions, axes, n)
        if params is not None:
            params = treedef.unflatten(_parts(leaves, dimensions, axes))
        directions, inner_state = inner.update(
            treedef.unflatten(means), state.inner_state, params, **extra_args
        )
        signs = _gather(treedef.flatten_up_to(directions), dimensions, axes, n)
        updates = treedef.unflatten(map(_like, signs, gradients))
        return updates, SignGatherState(inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _splittable(inner: optax.GradientTransformation, params: optax.Params, n: int) -> Dimensions:
    """The dimension along which each parameter's state can be split into n parts."""
    return jax.tree.structure(params).flatten_up_to(split_dimensions(inner, params, n))


def _check_split(dimensions: Dimensions, splittable: Dimensions, n: int) -> None:
    """Refuses a state that is all whole and need not be: forgotten, it would cost all it can."""
    if n > 1 and dimensions != splittable and all(d is None for d in dimensions):
        raise ValueError(
            f"the state of sign_gather must be split among the {n} replicas; got all of it on "
            "each. Try zero_sharding(optimizer, params, param_sharding, axis_name) to place it, "
            "and the specs of those shardings for jax.shard_map."
        )


def _parts(leaves: list[jax.Array], dimensions: Dimensions, axis_name: AxisName) -> list[jax.Array]:
    """This replica's parts of the leaves."""

    def part(x, dimension):
        if dimension is None:
            return x
        size = x.shape[dimension] // lax.axis_size(axis_name)
        return lax.dynamic_slice_in_dim(x, lax.axis_index(axis_name) * size, size, dimension)

    return list(map(part, leaves, dimensions))


def _part_of(
    inner: optax.GradientTransformation,
    state: optax.OptState,
    params: optax.Params,
    dimensions: Dimensions,
    axis_name: AxisName,
) -> optax.OptState:
    """This replica's part of a whole state: of each parameter's leaves that are cut as it is."""
    leaves, treedef = jax.tree.flatten(params)

    def part(x, i):
        if is_masked(x):
            return x
        is_cut = jnp.ndim(x) == jnp.ndim(leaves[i]) and jnp.size(x) > 1
        return _parts([x], [dimensions[i]], axis_name)[0] if is_cut else x

    return optax.tree_utils.tree_map_params(
        inner,
        part,
        state,
        treedef.unflatten(range(len(leaves))),
        is_leaf=is_masked,
    )


def _mean_parts(gradients: Leaves, dimensions: Dimensions, axis_name: AxisName, n: int) -> Leaves:
    """This replica's parts of the mean gradient, and all of it where it cannot be split."""
    wide = {
        i: vary(g.astype(at_least_float32(g)), axis_name)
        for i, g in enumerate(gradients)
        if g is not None
    }
    split = {i: d for i in wide if (d := dimensions[i]) is not None}
    sums = {i: lax.psum(g, axis_name) for i, g in wide.items() if i not in split}
    parts = reduce_scatter([wide[i] for i in split], list(split.values()), axis_name)
    sums |= dict(zip(split, parts, strict=True))
    # Else XLA rounds the rule's products and sums in the division's loop as nowhere else.
    means = {i: lax.optimization_barrier(total / n) for i, total in sums.items()}
    return [_like(means.get(i), g) for i, g in enumerate(gradients)]


def _gather(directions: Leaves, dimensions: Dimensions, axis_name: AxisName, n: int) -> Leaves:
    """The signs of all replicas' parts, joined, and of leaves that each replica has in whole."""
    signs = [None if u is None else signs_of(u) for u in directions]
    split = {i: d for i, d in enumerate(dimensions) if d is not None and signs[i] is not None}
    parts = [signs[i] for i in split]
    if not parts:
        return signs
    code = pack_tree(parts, _SIGNS_PER_BYTE)
    padded = vary(jnp.pad(code, (0, -len(code) % LANES)), axis_name)
    codes = all_gather(padded, axis_name).reshape(n, -1)[:, : len(code)]
    gathered = jax.vmap(lambda code: unpack_tree(code, parts, _SIGNS_PER_BYTE))(codes)
    for (i, d), part in zip(split.items(), gathered, strict=True):
        shape = list(part.shape[1:])
        shape[d] *= n
        # Else a TPU lays them out as numbers of the gradient's width instead of bytes.
        signs[i] = lax.optimization_barrier(jnp.moveaxis(part, 0, d).reshape(shape))
    return signs


def _like(x: Any, gradient: jax.Array | None) -> jax.Array | None:
    """In the gradient's dtype; None where there is none."""
    return None if gradient is None else x.astype(gradient.dtype)
