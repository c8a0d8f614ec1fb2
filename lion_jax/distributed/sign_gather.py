"""ZeRO-1 for rules made of signs: the signs are gathered, not the weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from lion_jax._checks import check_real, check_transformation
from lion_jax._dtypes import at_least_float32
from lion_jax.distributed._collectives import (
    LANES,
    AxisName,
    all_gather,
    check_axis_name,
    check_own,
    is_mapped,
    reduce_scatter,
    replicas,
    vary,
)
from lion_jax.distributed._packing import pack_tree, signs_of, unpack_tree
from lion_jax.distributed._splitting import split_dimensions

_SIGNS_PER_BYTE = 5


class SignGatherState(NamedTuple):
    """State of :func:`sign_gather`.

    Attributes:
      inner_state: of the inner transformation. From outside with the parameters' shapes, within
        `jax.shard_map` each replica's part of them.
    """

    inner_state: optax.OptState


def sign_gather(
    inner: optax.GradientTransformation, axis_name: AxisName
) -> optax.GradientTransformationExtraArgs:
    r"""Steps a part of the parameters on each replica, and gathers the signs of the updates.

    Replica :math:`i` of :math:`n` has the gradient :math:`g_i` of its part of the batch and the
    :math:`i`-th part :math:`m^{(i)}` of the state:

    .. math::
      g^{(i)} &= \Big(\frac{1}{n} \sum_{j=1}^n g_j\Big)^{(i)} && \text{(reduce-scatter)} \\
      u^{(i)}, m^{(i)} &= \text{inner}(g^{(i)}, m^{(i)}) \\
      u &= \operatorname{sign} (u^{(1)}, \dots, u^{(n)}) && \text{(all-gather of 1.6 bits each)}

    With an inner rule whose updates are signs, as Lion's before decay and learning rate, this is
    the unsharded rule bit for bit, with an n-th of its state on each chip. An all-reduce of float32
    gradients sends 8 bytes per parameter; this sends 4 to reduce and 0.2 to gather, where gathering
    weights would send another 4.

    ::

      optimizer = optax.chain(
          sign_gather(lion_jax.scale_by_sign_momentum(), "data"),
          lion_jax.add_decoupled_weight_decay(0.1),
          optax.scale_by_learning_rate(1e-4),
      )

    A hierarchy for slow links between slices of fast ones is a composition: full precision within a
    slice, one vote of each slice per parameter across them::

      sign_gather(optax.chain(lion_jax.scale_by_sign_momentum(), majority_vote("slice")), "chip")

    The state is placed by :func:`lion_jax.distributed.zero_sharding`, which splits just it, along
    the same dimensions; parameters that cannot be split are stepped whole on all replicas.

    Args:
      inner: any transformation of which the signs of the updates are wanted, elementwise: norms
        would be those of a replica's part.
      axis_name: the axis of `jax.shard_map` or `jax.pmap` around the update, or a tuple of axes.
        `init` within a `jax.pmap` of that axis gives each replica's part, elsewhere the whole.

    Returns:
      A transformation with :class:`SignGatherState`. `update` takes each replica's own gradient, of
      any real dtype; they are summed in float32 at least. Updates are -1, 0 or 1, of the
      gradient's dtype; NaN has no sign and gives 0.

    Raises:
      TypeError: ``inner`` is no transformation, ``axis_name`` is no name, gradients are complex.
      ValueError: within `update`, an axis that is not there, a state that is not split as the
        gradient is, or, as far as jax tells, gradients that are the same on all replicas:
        `jax.shard_map` sums the gradient of replicated parameters by itself unless they are made
        each replica's own by ``jax.lax.pcast(params, axis_name, to="varying")``.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import lion_jax
      >>> from lion_jax.distributed import sign_gather
      >>> tx = sign_gather(lion_jax.scale_by_sign_momentum(), "replicas")
      >>> gradients = jnp.array([[2.0, -1.0], [-1.0, -1.0]])  # of two replicas
      >>> def step(g):
      ...     return tx.update(g, tx.init(g))
      >>> updates, state = jax.vmap(step, axis_name="replicas")(gradients)
      >>> updates
      Array([[ 1., -1.],
             [ 1., -1.]], dtype=float32)
      >>> state.inner_state.mu.shape  # of each of the two: one of two entries
      (2, 1)

    References:
      Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models",
      2020, https://arxiv.org/abs/1910.02054, section 5.1.
    """
    check_transformation("inner", inner)
    check_axis_name(axis_name)
    inner = optax.with_extra_args_support(inner)

    def init(params):
        return SignGatherState(inner.init(_parts(params) if is_mapped(axis_name) else params))

    def update(updates, state, params=None, **extra_args):
        check_real(updates, "sign_gather")
        n = replicas(axis_name)
        gradients, treedef = jax.tree.flatten(updates)
        if gradients:
            check_own(updates, axis_name, "gradients")
        dimensions = _dimensions(updates, n)
        means = treedef.unflatten(_mean_parts(gradients, dimensions, axis_name, n))
        # Else XLA rounds the rule's products and sums in the division's loop as nowhere else.
        means = jax.tree.map(lax.optimization_barrier, means)
        _check_split(inner, means, state.inner_state)
        params = None if params is None else _parts(params)
        directions, inner_state = inner.update(means, state.inner_state, params, **extra_args)
        signs = _gather(treedef.flatten_up_to(directions), dimensions, axis_name, n)
        signs = [sign.astype(g.dtype) for sign, g in zip(signs, gradients, strict=True)]
        return treedef.unflatten(signs), SignGatherState(inner_state)

    def _parts(tree):
        """This replica's parts of a tree like the parameters."""
        dimensions = iter(_dimensions(tree, replicas(axis_name)))
        return jax.tree.map(lambda x: _part(x, next(dimensions), axis_name), tree)

    def _dimensions(tree, n):
        return jax.tree.structure(tree).flatten_up_to(split_dimensions(inner, tree, n))

    return optax.GradientTransformationExtraArgs(init, update)


def _part(x: jax.Array, dimension: int | None, axis_name: AxisName) -> jax.Array:
    if dimension is None:
        return x
    size = x.shape[dimension] // lax.axis_size(axis_name)
    return lax.dynamic_slice_in_dim(x, lax.axis_index(axis_name) * size, size, dimension)


def _mean_parts(
    gradients: list[jax.Array], dimensions: list[int | None], axis_name: AxisName, n: int
) -> list[jax.Array]:
    """This replica's parts of the mean gradient, and all of it where it cannot be split."""
    wide = [vary(g.astype(at_least_float32(g)), axis_name) for g in gradients]
    split = {i: d for i, d in enumerate(dimensions) if d is not None}
    parts = reduce_scatter([wide[i] for i in split], list(split.values()), axis_name)
    sums = dict(zip(split, parts, strict=True))
    for i, g in enumerate(wide):
        if i not in split:
            sums[i] = lax.psum(g, axis_name)
    return [(sums[i] / n).astype(g.dtype) for i, g in enumerate(gradients)]


def _gather(
    directions: list[jax.Array], dimensions: list[int | None], axis_name: AxisName, n: int
) -> list[jax.Array]:
    """The signs of all replicas' parts, joined, and of what each of them has in whole."""
    signs = [signs_of(u) for u in directions]
    split = {i: d for i, d in enumerate(dimensions) if d is not None}
    if not split:
        return signs
    parts = [signs[i] for i in split]
    code = pack_tree(parts, _SIGNS_PER_BYTE)
    padded = vary(jnp.pad(code, (0, -len(code) % LANES)), axis_name)
    codes = all_gather(padded, axis_name).reshape(n, -1)[:, : len(code)]
    gathered = jax.vmap(lambda code: unpack_tree(code, parts, _SIGNS_PER_BYTE))(codes)
    for (i, d), part in zip(split.items(), gathered, strict=True):
        shape = list(signs[i].shape)
        shape[d] *= n
        # Else a TPU lays them out as numbers of the gradient's width instead of bytes.
        signs[i] = lax.optimization_barrier(jnp.moveaxis(part, 0, d).reshape(shape))
    return signs


def _check_split(inner: optax.GradientTransformation, parts: Any, state: Any) -> None:
    """Refuses a state that is not split as the gradient is."""
    expected = jax.eval_shape(inner.init, parts)
    shapes = [jax.tree.map(jnp.shape, jax.tree.leaves(tree)) for tree in (state, expected)]
    if shapes[0] != shapes[1]:
        wrong = next((a, b) for a, b in zip(*shapes, strict=False) if a != b)
        raise ValueError(
            f"the state of sign_gather must be each replica's part of it; got a leaf of shape "
            f"{wrong[0]} where the gradient's part needs {wrong[1]}. Try "
            "zero_sharding(optimizer, params, param_sharding, axis_name) for jax.jit's "
            "out_shardings, and the specs of those shardings for jax.shard_map."
        )
