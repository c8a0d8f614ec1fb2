"""Ways to write updates and moments so that compilers store them in one pass and in place."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jax.tree_util import GetAttrKey

from lion_jax._core.types import PyTree

_SLOW = GetAttrKey("slow_params")


def in_place_of(old: jax.Array, new: jax.Array) -> jax.Array:
    """The new number, selected by the old one that it replaces.

    XLA:GPU writes in place only what is made of what it replaces, and copies all else once more.
    """
    return jnp.where((old == new) & (new != 0), old, new)  # 0 has a sign


def beside_moments(updates: optax.Updates, state: optax.OptState) -> optax.Updates:
    """The updates, which on TPUs depend on the moments that are stored beside them.

    XLA:TPU makes in one pass what is made of each other. Where the update and the new moment only
    have the old one in common, an addition in bfloat16 or a rounding gets a pass of its own, which
    reads moment and gradient again. So the update is selected by the new moment: NaN where that is
    NaN, which it is there anyway.

    Args:
      updates: a tree of arrays.
      state: the state after them, with trees like the updates for the moments.
    """
    leaves, treedef = jax.tree.flatten(updates)
    if not any(isinstance(u, Tracer) for u in leaves):
        return updates
    columns = [treedef.flatten_up_to(tree) for tree in _moments_like(treedef, state)]
    moments = [
        [m for m in row if _is_beside(m, u)] for u, *row in zip(leaves, *columns, strict=True)
    ]
    chosen = jax.lax.platform_dependent(
        leaves, moments, tpu=_chosen_by, default=lambda leaves, _: leaves
    )
    return treedef.unflatten(chosen)


def _moments_like(treedef: Any, state: optax.OptState) -> list[PyTree]:
    """The trees in a state of this structure; slow weights, which a conditional gives, are none."""

    def is_like(node):
        return jax.tree.structure(node) == treedef

    found = jax.tree_util.tree_leaves_with_path(state, is_leaf=is_like)
    return [node for path, node in found if is_like(node) and _SLOW not in path]


def _is_beside(m: Any, u: jax.Array) -> bool:
    return jnp.shape(m) == u.shape and jnp.issubdtype(jnp.result_type(m), jnp.floating)


def _chosen_by(leaves: list[jax.Array], moments: list[list[jax.Array]]) -> list[jax.Array]:
    def choose(u, row):
        for m in row:
            u = jnp.where(m == m, u, jnp.array(jnp.nan, u.dtype))
        return u

    return [choose(u, row) for u, row in zip(leaves, moments, strict=True)]
