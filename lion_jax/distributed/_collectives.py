"""Collectives over named axes, in a form that XLA for TPUs does not replace.

XLA turns a reduce-scatter or an all-gather among 64 chips or more into an all-reduce of the whole,
unless what it moves is large and cut into whole tiles. Among 16 it does not: so both go level by
level, over the names of a tuple and over factors of a long axis.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType

from lion_jax._core import versions
from lion_jax._core.types import AxisName, PyTree

LANES = 128  # of a TPU's tile
_ROWS = 8
_WIDTH = 1024  # of what is joined: a multiple of the tile's that XLA reduces in parts
_MOST = 16  # chips of a level


def names_of(axis_name: AxisName) -> tuple[str, ...]:
    """The names, one or several, as a tuple."""
    return (axis_name,) if isinstance(axis_name, str) else axis_name


def replicas(axis_name: AxisName) -> int:
    """The number of replicas along an axis; a `ValueError` where there is no such axis."""
    try:
        return lax.axis_size(axis_name)
    except NameError as error:
        axes = ", ".join(map(repr, _manual_axes()))
        possible = f"here the mapped axes are {axes}" if axes else "none is known here"
        raise ValueError(
            f"axis_name must name an axis of the jax.shard_map or jax.pmap around the update; "
            f"got {axis_name!r}, and {possible}. Try to call the update within "
            f"jax.shard_map(step, mesh=mesh, ...) of a mesh with that axis."
        ) from error


def is_mapped(axis_name: AxisName) -> bool:
    """Tells whether the surrounding program is mapped over an axis."""
    try:
        return lax.axis_size(axis_name) > 0
    except NameError:
        return False


def check_own(tree: PyTree, axis_name: AxisName, what: str) -> None:
    """Raises a `ValueError` if jax knows that a leaf is the same on all replicas.

    With `check_vma=True` the gradient of replicated parameters has been summed over all replicas,
    in full precision, before an optimizer sees it.
    """
    for name in filter(_is_tracked, names_of(axis_name)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if not versions.is_varying(leaf, name):
                raise ValueError(
                    f"{what} must be each replica's own along axis_name={name!r}; got the same on "
                    f"all of them at {jax.tree_util.keystr(path) or 'the root'}: jax.shard_map "
                    "sums the gradient of replicated parameters. Try to differentiate at "
                    f'jax.lax.pcast(params, {name!r}, to="varying").'
                )


def check_all_manual(needed_by: str) -> None:
    """Raises a `ValueError` beside Explicit axes, over which jax does not reshape split arrays."""
    mesh = jax.sharding.get_abstract_mesh()
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    explicit = [name for name, kind in types.items() if kind == AxisType.Explicit]
    if mesh.manual_axes and explicit:
        raise ValueError(
            f"{needed_by} needs a jax.shard_map over all Explicit axes of the mesh; got one that "
            f"leaves out {', '.join(map(repr, explicit))}. Try jax.shard_map without axis_names."
        )


def in_mesh_order(axis_name: AxisName) -> AxisName:
    """Several names, put in the order of the mesh."""
    order = [name for name in _manual_axes() if name in names_of(axis_name)]
    return tuple(order) if len(order) == len(names_of(axis_name)) > 1 else axis_name


def vary(x: jax.Array, axis_name: AxisName) -> jax.Array:
    """The same array, of which jax does not assume that it is the same on all replicas."""
    for name in names_of(axis_name):
        if name in _manual_axes() and not versions.is_varying(x, name):
            x = versions.as_varying(x, name)
    return x


def all_gather(x: jax.Array, axis_name: AxisName) -> jax.Array:
    """The arrays of all replicas, joined along the last dimension: the same on each."""
    last = x.ndim - 1
    for name in reversed(names_of(axis_name)):
        if _is_tracked(name):  # where only this form is known to give the same on all
            x = versions.all_gather_alike(x, name, last)
            continue
        for groups in reversed(_levels(name)):
            x = lax.all_gather(x, name, axis=last, tiled=True, axis_index_groups=groups)
    return x


def reduce_scatter(
    leaves: Sequence[jax.Array], dimensions: Sequence[int], axis_name: AxisName
) -> list[jax.Array]:
    """The sums of arrays over all replicas, of which each gets its part along one dimension."""
    leaves = list(leaves)
    for name in names_of(axis_name):
        for groups in _levels(name):
            leaves = _reduce_scatter(leaves, dimensions, name, groups)
    return leaves


def _reduce_scatter(
    leaves: list[jax.Array], dimensions: Sequence[int], name: str, groups: list[list[int]] | None
) -> list[jax.Array]:
    """One level: leaves whose parts are whole tiles as they are, the others joined to one array."""
    n = len(groups[0]) if groups else lax.axis_size(name)

    def scatter(x, dimension):
        return lax.psum_scatter(
            x, name, scatter_dimension=dimension, axis_index_groups=groups, tiled=True
        )

    def is_tiled(x, dimension):
        tile = LANES if dimension == x.ndim - 1 else _ROWS
        return x.ndim > 1 and x.shape[dimension] % (n * tile) == 0

    out = [scatter(x, d) if is_tiled(x, d) else x for x, d in zip(leaves, dimensions, strict=True)]
    ragged = [i for i, d in enumerate(dimensions) if not is_tiled(leaves[i], d)]
    if not ragged:
        return out
    rows = [jnp.moveaxis(leaves[i], dimensions[i], 0) for i in ragged]
    joined = jnp.concatenate([row.reshape(n, -1) for row in rows], axis=1)
    joined = jnp.pad(joined, ((0, 0), (0, -joined.shape[1] % (_ROWS * _WIDTH))))
    part, at = scatter(joined.reshape(-1, _WIDTH), 0).ravel(), 0
    for i, row in zip(ragged, rows, strict=True):
        size = row.size // n
        shape = (row.shape[0] // n, *row.shape[1:])
        out[i] = jnp.moveaxis(part[at : at + size].reshape(shape), 0, dimensions[i])
        at += size
    return out


def _is_tracked(name: str) -> bool:
    """Tells whether jax tracks what differs between an axis's replicas (`check_vma=True`)."""
    return name in _manual_axes() and versions.is_varying(lax.axis_index(name), name)


def _manual_axes() -> tuple[str, ...]:
    """The axes of the surrounding `jax.shard_map` or `jax.pmap`; those of `jax.vmap` are hidden."""
    return tuple(jax.sharding.get_abstract_mesh().manual_axes)


def _levels(name: str) -> list[list[list[int]] | None]:
    """Groups of at most 16 replicas for each level, from the most distant to neighbours."""
    size = lax.axis_size(name)
    if size <= _MOST or name not in _manual_axes():
        return [None]
    levels, inside = [], size
    while inside > 1:
        factor = max((d for d in range(2, _MOST + 1) if inside % d == 0), default=inside)
        inside //= factor
        starts = [i for i in range(size) if i // inside % factor == 0]
        levels.append([[start + inside * j for j in range(factor)] for start in starts])
    return levels
