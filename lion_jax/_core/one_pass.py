"""Forms of the same numbers that compilers write in one pass and in place."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from lion_jax._core.types import PyTree


def in_place_of(old: jax.Array, new: jax.Array) -> jax.Array:
    """The new number, selected by the old one that it replaces.

    XLA:GPU writes in place only what is made of what it replaces, and copies all else once more.
    """
    return jnp.where((old == new) & (new != 0), old, new)  # 0 has a sign


def beside_moments(updates: optax.Updates, state: optax.OptState) -> optax.Updates:
    """The updates; on TPUs narrow ones depend on the moments that are stored beside them.

    XLA:TPU fuses what is made of each other. Of a moment in one pass with an addition in bfloat16
    it makes two passes where both read the old moment alone, and each reads moment and gradient.
    So the update is selected by the new moment: NaN where that is NaN, which it is there anyway.

    Args:
      updates: in the dtypes in which they are added to the parameters.
      state: the state after them, with trees like the updates for the moments.
    """
    leaves, treedef = jax.tree.flatten(updates)
    if not any(isinstance(u, Tracer) and u.dtype.itemsize < 4 for u in leaves):
        return updates
    columns = [treedef.flatten_up_to(tree) for tree in _trees_like(treedef, state)]
    moments = [
        [m for m in row if _is_beside(m, u)] for u, *row in zip(leaves, *columns, strict=True)
    ]
    chosen = jax.lax.platform_dependent(
        leaves, moments, tpu=_chosen_by, default=lambda leaves, _: leaves
    )
    return treedef.unflatten(chosen)


def _trees_like(treedef: Any, state: optax.OptState) -> list[PyTree]:
    def is_like(node):
        return jax.tree.structure(node) == treedef

    return [node for node in jax.tree.leaves(state, is_leaf=is_like) if is_like(node)]


def _is_beside(m: Any, u: jax.Array) -> bool:
    is_narrow = u.dtype.itemsize < 4
    return (
        is_narrow and jnp.shape(m) == u.shape and jnp.issubdtype(jnp.result_type(m), jnp.floating)
    )


def _chosen_by(leaves: list[jax.Array], moments: list[list[jax.Array]]) -> list[jax.Array]:
    for i, row in enumerate(moments):
        for m in row:
            leaves[i] = jnp.where(m == m, leaves[i], jnp.array(jnp.nan, leaves[i].dtype))
    return leaves
