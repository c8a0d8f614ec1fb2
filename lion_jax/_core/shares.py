"""Numbers that differ from leaf to leaf, beside the hyperparameters that all leaves share."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.dtypes import at_least_float32
from lion_jax._core.leafwise import PerLeaf, in_order_of, map_leaves
from lion_jax._core.leaves import is_function, is_none
from lion_jax._core.types import Leaf, LeafRule, Mask, PyTree


def spread(mask: Mask, params: optax.Params, name: str = "mask") -> PyTree:
    """A tree like the parameters from a prefix of one, a function to one, or None for True."""
    leaves, treedef = jax.tree.flatten(params, is_leaf=is_none)
    shares = shares_of(mask, params, name)
    return treedef.unflatten(
        None if p is None else share for p, share in zip(leaves, shares, strict=True)
    )


def shares_of(mask: Mask, params: optax.Params, name: str = "mask") -> PerLeaf:
    """The leaves of `spread`."""
    tree = mask(params) if is_function(mask) else True if mask is None else mask
    if isinstance(tree, PerLeaf):
        return tree
    shares, treedef = jax.tree.flatten(tree, is_leaf=is_none)
    try:
        parts = treedef.flatten_up_to(params)
        below = [jax.tree.leaves(part, is_leaf=is_none) for part in parts]
        if any(s is None and leaves != [None] for s, leaves in zip(shares, below, strict=True)):
            raise ValueError("None stands where the parameters have a leaf")
    except ValueError as error:
        raise ValueError(
            f"{name} must be a tree like the parameters, or a prefix of one; got {tree!r}, which "
            f"does not fit: {error}. Try lion_jax.groups, whose masks come from the parameters."
        ) from error
    return PerLeaf(s for s, leaves in zip(shares, below, strict=True) for _ in leaves)


def map_shares(
    function: LeafRule,
    updates: optax.Updates,
    read: tuple[PyTree, ...],
    shares: PyTree,
    idle: float,
    **hyperparameters: Any,
) -> optax.Updates:
    """Maps `function` over the leaves whose share is not `idle`; the others are not even read.

    The shares are arrays to it, so that leaves of a shape have one trace whatever their shares.

    Args:
      function: `(update, *read_leaves, share, **hyperparameters) -> (new_update,)`, a function of a
        module, as in `map_leaves`.
      updates: the tree to replace.
      read: trees that are only read.
      shares: `PerLeaf`, or a tree like the updates: booleans, numbers, or jax arrays, which are
        never idle.
      idle: the share with which the function changes nothing.
      **hyperparameters: as in `map_leaves`.

    Returns:
      The new updates.
    """
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    columns = [treedef.flatten_up_to(tree) for tree in read]
    shares = in_order_of(treedef, shares)
    is_idle = [
        u is None or (not isinstance(s, jax.Array) and s == idle)
        for u, s in zip(leaves, shares, strict=True)
    ]
    busy = [None if idle else u for idle, u in zip(is_idle, leaves, strict=True)]
    weights = [
        None if u is None else jnp.asarray(s, _dtype_beside(u))
        for u, s in zip(busy, shares, strict=True)
    ]
    (new,) = map_leaves(function, (busy,), (*columns, weights), **hyperparameters)
    return treedef.unflatten(
        u if idle else x for idle, u, x in zip(is_idle, leaves, new, strict=True)
    )


def _dtype_beside(u: Leaf) -> jnp.dtype:
    """A share beside an integer is no integer."""
    return jnp.promote_types(at_least_float32(u), jnp.float32)
