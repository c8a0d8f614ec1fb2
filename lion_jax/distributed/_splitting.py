"""The leaves of an optimizer's state: to which parameter each belongs, and how it can be cut."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import KeyPath

from lion_jax._core.types import PyTree

Arrays = list[jax.ShapeDtypeStruct]
Dimensions = list[int | None]  # of each parameter, the one that is split

_ROWS, _COLUMNS = 8, 128  # of a TPU's tile


def map_state(
    optimizer: optax.GradientTransformation,
    params: optax.Params,
    of_parameter: Callable[[jax.ShapeDtypeStruct, int], Any],
    otherwise: Callable[[jax.ShapeDtypeStruct], Any],
) -> PyTree:
    """A function of each leaf of the state that `optimizer.init(params)` would return.

    Args:
      optimizer: any transformation; nothing is computed, nothing is placed on a device.
      params: arrays or `jax.ShapeDtypeStruct`s.
      of_parameter: of a leaf that belongs to a parameter, and the parameter's index among the
        leaves of `params`.
      otherwise: of a leaf that belongs to none.
    """
    params = abstract(params)
    state = jax.eval_shape(optimizer.init, params)
    return _map_parts(optimizer, jax.tree.structure(params), state, of_parameter, otherwise)


def _map_parts(
    optimizer: optax.GradientTransformation,
    treedef: Any,
    state: optax.OptState,
    of_parameter: Callable[[Any, int], Any],
    otherwise: Callable[[Any], Any],
) -> PyTree:
    """A function of each leaf of a state, by whether it belongs to a parameter.

    `optax` knows where a state holds trees like the parameters, since it has `init` make one from
    a tree without leaves. Some optimizers cannot do that, a line search for example, which looks
    at the first leaf. There such trees are known by their structure.
    """

    def of_tree(tree):
        parts = _parts_of(tree, treedef)
        if parts is None:
            return jax.tree.map(otherwise, tree)
        return treedef.unflatten(
            jax.tree.map(lambda leaf, i=i: of_parameter(leaf, i), part)
            for i, part in enumerate(parts)
        )

    try:
        marked = optax.tree_utils.tree_map_params(
            lambda placeholder: jax.eval_shape(optimizer.init, placeholder),
            _LikeParameters,
            state,
            transform_non_params=_LikeNone,  # may be more than a leaf
            is_leaf=lambda _: True,
        )
    except Exception:  # of any kind, from an `init` that needs a leaf
        marked = jax.tree.map(
            lambda x: _LikeParameters(x) if _is_like(x, treedef) else _LikeNone(x),
            state,
            is_leaf=lambda x: _is_like(x, treedef),
        )
    return jax.tree.map(
        lambda x: (
            of_tree(x.tree) if type(x) is _LikeParameters else jax.tree.map(otherwise, x.tree)
        ),
        marked,
        is_leaf=lambda x: type(x) in (_LikeParameters, _LikeNone),
    )


class _LikeParameters(NamedTuple):
    """Marks a part of a state that is a tree like the parameters."""

    tree: PyTree


class _LikeNone(NamedTuple):
    """Marks a part of a state that belongs to no parameter."""

    tree: PyTree


def _parts_of(tree: PyTree, treedef: Any) -> list[Any] | None:
    """The part of a tree in the place of each parameter; None for a tree of other parts."""
    try:
        return treedef.flatten_up_to(tree)
    except ValueError:
        return None


def _is_like(tree: PyTree, treedef: Any) -> bool:
    """Tells whether a tree has one leaf, or a masked one, for each parameter."""
    if treedef.num_leaves == 0:
        return False
    parts = _parts_of(tree, treedef)
    return parts is not None and all(
        is_masked(part) or jax.tree_util.all_leaves([part]) for part in parts
    )


def abstract(params: optax.Params) -> PyTree:
    """Shapes and dtypes alone: an array's own sharding must not reach `init`."""
    return jax.tree.map(lambda p: jax.ShapeDtypeStruct(jnp.shape(p), jnp.result_type(p)), params)


def split_dimensions(
    optimizer: optax.GradientTransformation, params: optax.Params, shards: int, taken: PyTree = None
) -> PyTree:
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
    optimizer: optax.GradientTransformation,
    state: optax.OptState,
    params: optax.Params,
    shards: int,
    otherwise: Dimensions,
) -> Dimensions:
    """The dimension along which each parameter's state is split, as a part of it tells.

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
        if jnp.ndim(leaf) == jnp.ndim(leaves[i][1]):
            shapes[i].append(jnp.shape(leaf))

    _map_parts(optimizer, treedef, state, note, lambda _: None)
    return [
        _dimension(jnp.shape(p), of_state, shards, path) if of_state else dimension
        for (path, p), of_state, dimension in zip(leaves, shapes, otherwise, strict=True)
    ]


def _dimension(
    shape: tuple[int, ...], of_state: list[tuple[int, ...]], shards: int, path: KeyPath
) -> int | None:
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


def _moments(optimizer: optax.GradientTransformation, treedef: Any, leaves: Arrays) -> list[Arrays]:
    """The leaves of each parameter's state that are to be cut as it is."""
    moments = [[] for _ in leaves]

    def note(leaf, i):
        if leaf.ndim == leaves[i].ndim and leaf.size > 1:
            moments[i].append(leaf)

    map_state(optimizer, treedef.unflatten(leaves), note, lambda _: None)
    return moments


def _drop_broken_groups(
    fitting: list[list[int]],
    optimizer: optax.GradientTransformation,
    treedef: Any,
    leaves: Arrays,
    moments: list[Arrays],
    parts: list[tuple[int, ...]],
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


def is_masked(x: Any) -> bool:
    """Tells whether optax has hidden a leaf here."""
    return isinstance(x, optax.MaskedNode)
