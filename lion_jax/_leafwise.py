"""The one way a per-leaf function is mapped over trees."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lion_jax._dtypes import at_least_float32, cast


def map_leaves(
    function: Callable[..., Any], written: tuple[Any, ...], read: tuple[Any, ...] = ()
) -> tuple[Any, ...]:
    """Maps `function` over the leaves of several trees, in at least float32.

    A leaf that is None in the first tree (a parameter without a gradient) leaves that leaf of
    every written tree as it was.

    Args:
      function: `(*written_leaves, *read_leaves) -> new_written_leaves`, a tuple.
      written: trees to replace; the structure of the first decides.
      read: trees that are only read.

    Returns:
      The new written trees, each leaf in the dtype of the one it replaces.
    """
    first, *others = (*written, *read)
    leaves, treedef = jax.tree.flatten(first, is_leaf=lambda x: x is None)
    columns = [leaves, *(treedef.flatten_up_to(tree) for tree in others)]
    rows = [_map_leaf(function, row, len(written)) for row in zip(*columns, strict=True)]
    return tuple(treedef.unflatten([row[i] for row in rows]) for i in range(len(written)))


def _map_leaf(function: Callable[..., Any], leaves: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    if leaves[0] is None:
        return leaves[:count]
    dtype = at_least_float32(*leaves)
    results = function(*(jnp.asarray(leaf, dtype) for leaf in leaves))
    return tuple(
        cast(result, jnp.result_type(leaf))
        for result, leaf in zip(results, leaves[:count], strict=True)
    )
