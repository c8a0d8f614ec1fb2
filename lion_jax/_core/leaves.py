"""Kinds of leaves: weights, which a gradient moves, and all others.

A weight is an array of real or complex numbers. Beside weights a tree may hold the functions of an
equinox module, random keys, integers and booleans: no gradient moves them. None stands for no leaf.
"""

from collections.abc import Callable
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from lion_jax._core.types import Leaf, PyTree


def is_none(leaf: Leaf) -> bool:
    """Tells whether there is no leaf here."""
    return leaf is None


def is_array(leaf: Leaf) -> bool:
    """Tells whether it is an array, also an abstract one, or a Python number."""
    has_both = hasattr(leaf, "shape") and hasattr(leaf, "dtype") and not isinstance(leaf, type)
    return has_both or isinstance(leaf, bool | int | float | complex)


def is_number(leaf: Leaf) -> bool:
    """Tells whether it holds numbers or booleans: no random keys, no float0."""
    dtype = getattr(leaf, "dtype", None)
    is_odd = dtype == jax.dtypes.float0 or jnp.issubdtype(dtype or bool, jax.dtypes.extended)
    return is_array(leaf) and not is_odd


def is_weight(leaf: Leaf) -> bool:
    """Tells whether it is of real or complex numbers."""
    return is_number(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def is_real(value: object) -> TypeGuard[int | float | jax.Array]:
    """Tells whether it is a real number, no boolean, or an array of such numbers."""
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return jnp.issubdtype(value.dtype, jnp.integer) or jnp.issubdtype(value.dtype, jnp.floating)
    return isinstance(value, int | float) and not isinstance(value, bool)


def has_gradient(g: Leaf) -> bool:
    """Tells whether there is a gradient: neither None nor float0, JAX's gradient of nothing."""
    return g is not None and getattr(g, "dtype", None) != jax.dtypes.float0


def is_function(mask: object) -> bool:
    """Tells whether it is a function, not a tree that can be called too, like an equinox module."""
    return callable(mask) and jax.tree_util.all_leaves([mask])


def is_transformation(value: object) -> bool:
    """Tells whether it is a pair of `init` and `update`, as optax has them."""
    return callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))


def arrays_of(tree: PyTree) -> PyTree:
    """The tree with None in place of leaves without a dtype, such as functions."""
    return _only(is_array, tree)


def numbers_of(tree: PyTree) -> PyTree:
    """The tree with None in place of functions and random keys."""
    return _only(is_number, tree)


def weights_of(tree: PyTree) -> PyTree:
    """The tree with None in place of leaves that are no weights."""
    return _only(is_weight, tree)


def matching(stored: PyTree, tree: PyTree) -> PyTree:
    """A tree with None where the stored one has no leaf, or where itself has no gradient."""
    leaves, treedef = jax.tree.flatten(stored, is_leaf=is_none)
    others = treedef.flatten_up_to(tree)
    pairs = zip(leaves, others, strict=True)
    new = [x if s is not None and has_gradient(x) else None for s, x in pairs]
    return treedef.unflatten(new)


def rebuilt(tree: PyTree, treedef: Any, leaves: list[Leaf], new: list[Leaf]) -> PyTree:
    """The tree with new leaves; itself if they are the old ones, since a node may check them."""
    is_same = all(x is y for x, y in zip(leaves, new, strict=True))
    return tree if is_same else treedef.unflatten(new)


def _only(is_kept: Callable[[Leaf], bool], tree: PyTree) -> PyTree:
    leaves, treedef = jax.tree.flatten(tree)
    return rebuilt(tree, treedef, leaves, [x if is_kept(x) else None for x in leaves])


def map_present(function: Callable[..., Leaf], tree: PyTree, other: PyTree) -> PyTree:
    """`jax.tree.map` that leaves a leaf alone where either tree has None, e.g. no gradient."""
    return jax.tree.map(
        lambda x, y: x if x is None or y is None else function(x, y),
        tree,
        other,
        is_leaf=lambda x: x is None,
    )
