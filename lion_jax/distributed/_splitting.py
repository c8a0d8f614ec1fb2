"""Which leaves of an optimizer's state belong to which parameter, and how they can be cut."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

_ROWS, _COLUMNS = 8, 128  # of a TPU's tile


def map_state(
    optimizer: optax.GradientTransformation,
    params: Any,
    of_parameter: Callable[[jax.ShapeDtypeStruct, int], Any],
    otherwise: Callable[[jax.ShapeDtypeStruct], Any],
) -> Any:
    """A function of each leaf of the state that `optimizer.init(params)` would return.

    Args:
      optimizer: any transformation; nothing is computed, nothing is placed on a device.
      params: arrays or `jax.ShapeDtypeStruct`s.
      of_parameter: of a leaf that belongs to a parameter, and the parameter's index among the
        leaves of `params`.
      otherwise: of a leaf that belongs to none.
    """
    params = abstract(params)
    leaves, treedef = jax.tree.flatten(params)
    return optax.tree_utils.tree_map_params(
        lambda placeholder: jax.eval_shape(optimizer.init, placeholder),
        lambda leaf, i: leaf if _is_masked(leaf) else of_parameter(leaf, i),
        jax.eval_shape(optimizer.init, params),
        treedef.unflatten(range(len(leaves))),
        transform_non_params=lambda tree: jax.tree.map(otherwise, tree),  # may be more than a leaf
        is_leaf=_is_masked,
    )


def abstract(params: Any) -> Any:
    """Shapes and dtypes alone: an array's own sharding must not reach `init`."""
    return jax.tree.map(lambda p: jax.ShapeDtypeStruct(jnp.shape(p), jnp.result_type(p)), params)


def split_dimensions(
    optimizer: optax.GradientTransformation, params: Any, shards: int, taken: Any = None
) -> Any:
    """The dimension along which all of a parameter's state can be cut into equal parts.

    Of those that can, the first whose parts are whole tiles of a TPU (a multiple of 128 along the
    last dimension, of 8 along another), else the first; among equals one not split before.

    What counts as a parameter's state are its leaves of the parameter's rank with more than one
    entry: moments, codes, exponents. A dimension with a group's exponents in place of its entries
    can be cut where each part is of whole groups.

    Args:
      optimizer: any transformation.
      params: arrays or `jax.ShapeDtypeStruct`s.
      shards: the number of parts, >= 1.
      taken: a tree like `params` of tuples, the parts into which each dimension is cut already.

    Returns:
      A tree like `params` of dimensions, from 0, or None where there is none.
    """
    leaves, treedef = jax.tree.flatten(abstract(params))
    parts = [(1,) * p.ndim for p in leaves] if taken is None else treedef.flatten_up_to(taken)
    moments = _moments(optimizer, treedef, leaves)
    fitting = [
        [
            d
            for d in range(p.ndim)
            if p.size and all(x.shape[d] % (shards * cut[d]) == 0 for x in (p, *of_p))
        ]
        for p, cut, of_p in zip(leaves, parts, moments, strict=True)
    ]
    _drop_broken_groups(fitting, optimizer, treedef, leaves, moments, parts, shards)

    def cost(i, d):
        tile = _COLUMNS if d == leaves[i].ndim - 1 else _ROWS
        is_ragged = leaves[i].shape[d] // (shards * parts[i][d]) % tile != 0
        return is_ragged, parts[i][d] > 1, d

    return treedef.unflatten(
        [
            min(dimensions, key=lambda d, i=i: cost(i, d), default=None)
            for i, dimensions in enumerate(fitting)
        ]
    )


def dimensions_in(
    optimizer: Any, state: Any, params: Any, shards: int, otherwise: list[int | None]
) -> list[int | None]:
    """Along which dimension each parameter's state is split, as a part of it tells.

    Args:
      optimizer: whose state it is.
      state: one of `shards` equal parts.
      params: a tree like the parameters, whole.
      shards: the number of parts.
      otherwise: for parameters of which the state has nothing.

    Raises:
      ValueError: a leaf of the state that is neither whole nor such a part.
    """
    leaves, treedef = jax.tree.flatten_with_path(params)
    shapes = [[] for _ in leaves]

    def note(leaf, i):
        if not _is_masked(leaf) and jnp.ndim(leaf) == jnp.ndim(leaves[i][1]):
            shapes[i].append(jnp.shape(leaf))

    optax.tree_utils.tree_map_params(
        optimizer, note, state, treedef.unflatten(range(len(leaves))), is_leaf=_is_masked
    )
    return [
        _dimension(jnp.shape(p), of_state, shards, path) if of_state else dimension
        for (path, p), of_state, dimension in zip(leaves, shapes, otherwise, strict=True)
    ]


def _dimension(shape: Any, of_state: list[Any], shards: int, path: Any) -> int | None:
    if shape in of_state:
        return None
    for part in of_state:
        differing = [d for d, extent in enumerate(shape) if part[d] != extent]
        if len(differing) == 1 and part[differing[0]] * shards == shape[differing[0]]:
            return differing[0]
    raise ValueError(
        f"the state of sign_gather must be whole or one of {shards} equal parts; got a leaf of "
        f"shape {of_state[0]} for the parameter at {jax.tree_util.keystr(path) or 'the root'} of "
        f"shape {shape}. Try zero_sharding(optimizer, params, param_sharding, axis_name) to place "
        "it, and the specs of those shardings for jax.shard_map."
    )


def _moments(optimizer: Any, treedef: Any, leaves: list[Any]) -> list[list[Any]]:
    """For each parameter the leaves of its state that are to be cut as it is."""
    moments = [[] for _ in leaves]

    def note(leaf, i):
        if leaf.ndim == leaves[i].ndim and leaf.size > 1:
            moments[i].append(leaf)

    map_state(optimizer, treedef.unflatten(leaves), note, lambda _: None)
    return moments


def _drop_broken_groups(
    fitting: list[list[int]],
    optimizer: Any,
    treedef: Any,
    leaves: list[Any],
    moments: list[list[Any]],
    parts: list[Any],
    shards: int,
) -> None:
    """Strikes dimensions along which a part would end within a group.

    40 rows in groups of 32 have two exponents, as have two parts of 20 rows: extents alone do not
    tell. But as many parts as the largest group that may be meant has rows do, since they have
    less than an exponent each if groups cross their ends.
    """
    for d in range(max((p.ndim for p in leaves), default=0)):
        probes, counts = list(leaves), {}
        for i, (p, cut) in enumerate(zip(leaves, parts, strict=True)):
            groups = [x.shape[d] for x in moments[i] if d in fitting[i] and x.shape != p.shape]
            groups = [extent for extent in groups if 1 < extent != p.shape[d]]
            if groups:
                part = p.shape[d] // (shards * cut[d])
                counts[i] = max(math.ceil(p.shape[d] / (extent - 1)) for extent in groups)
                extents = (*p.shape[:d], part * counts[i], *p.shape[d + 1 :])
                probes[i] = p.update(shape=extents)
        if not counts:
            continue
        probed = _moments(optimizer, treedef, probes)
        for i, count in counts.items():
            share = shards * parts[i][d]
            expected = [x.shape[d] // share * count for x in moments[i]]
            if [x.shape[d] for x in probed[i]] != expected:
                fitting[i].remove(d)


def _is_masked(x: Any) -> bool:
    return isinstance(x, optax.MaskedNode)
