"""Type names that the signatures of this library share."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import optax

PyTree: TypeAlias = Any
"""Any nest of containers that JAX knows; Python's type checkers have no type for it."""

Leaf: TypeAlias = Any
"""One leaf of such a nest: an array, an abstract one, a number, or what JAX takes for one."""

KeyPath: TypeAlias = jax.tree_util.KeyPath
"""The keys that lead to a leaf."""

Scalar: TypeAlias = float | jax.Array
"""A number, or an array of shape () that may be traced."""

Betas: TypeAlias = tuple[Scalar, ...]
"""PyTorch's way to give several decay rates."""

DType: TypeAlias = jax.typing.DTypeLike
"""A dtype, or a name for one, as `jnp.dtype` takes it."""

Mask: TypeAlias = Callable[[optax.Params], PyTree] | PyTree
"""A choice of leaves: a tree of booleans or shares like the parameters, a prefix of one, a function
from parameters to such a tree, or None for all.
"""

AxisName: TypeAlias = str | tuple[str, ...]
"""A named axis of `jax.shard_map` or `jax.pmap`, or several."""

LeafRule: TypeAlias = Callable[..., tuple[Leaf, ...]]
"""A rule for one leaf: `(update, *moments, *read, **hyperparameters) -> (update, *moments)`."""
