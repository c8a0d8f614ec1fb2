"""Finds the one field that a reader wants in a nested optimizer state."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import optax

from lion_jax._core.types import KeyPath, PyTree

_VALUE = jax.tree_util.GetAttrKey("value")


def the_only(state: optax.OptState, field: str, owner: str, *holders: str) -> Any:
    """The field of the only state of these types within `state`, at any depth, unwrapped."""
    return located(state, field, owner, *holders)[1]


def located(state: optax.OptState, field: str, owner: str, *holders: str) -> tuple[KeyPath, PyTree]:
    """The path of the field that :func:`the_only` finds, and the field."""
    found = all_fields(unwrapped(state), field, *holders)
    if not found:
        raise ValueError(
            f"state must hold the state of one {owner}; found 0 in this {type(state).__name__}. "
            "Try the state that the init of a transformation made with one returns."
        )
    if len(found) > 1:
        where = ", ".join(jax.tree_util.keystr(path) for path, _ in found)
        raise ValueError(
            f"state must hold the state of one {owner}; found {len(found)} ({where}). "
            "Try the state of the part that you mean."
        )
    return found[0]


def all_fields(state: optax.OptState, field: str, *holders: str) -> list[tuple[KeyPath, PyTree]]:
    """The path and the value of this field in each state of these types within `state`.

    A state that was restored as dictionaries, or that flax nnx split from its optimizer, has lost
    its types: there the name of the field decides.
    """
    return [*_fields_of(state, (), field, holders)] or [*_keys_of(state, (), field)]


def unwrapped(tree: PyTree) -> Any:
    """The tree without what flax nnx puts around each array, parameters and counts alike."""
    return jax.tree.map(
        lambda node: _value(node) if is_wrapper(node) else node, tree, is_leaf=is_wrapper
    )


def replaced(state: optax.OptState, where: KeyPath, new: PyTree) -> Any:
    """The state, in its wrappers if it has any, with the leaves of `new` at a path in it."""
    values = iter(jax.tree.leaves(new))
    below = jax.tree_util.tree_leaves_with_path(unwrapped(state))
    leaves = [next(values) if keys[: len(where)] == where else leaf for keys, leaf in below]
    return jax.tree.structure(state).unflatten(leaves)


def is_wrapper(node: PyTree) -> bool:
    """Tells whether only a leaf, or a stand-in for an absent one, is below it, as its `value`.

    A NamedTuple is a state, even if its only field is called so.
    """
    if isinstance(node, tuple) or is_leaf(node):
        return False
    children = children_of(node)
    if [key for key, _ in children] != [_VALUE]:
        return False
    return is_leaf(children[0][1]) or is_absent(children[0][1])


def children_of(node: PyTree) -> list[tuple[Any, Any]]:
    """The children of a node, by key."""
    children = jax.tree_util.tree_leaves_with_path(node, is_leaf=lambda x: x is not node)
    return [(key, child) for (key,), child in children]


def is_leaf(node: PyTree) -> bool:
    """Tells whether there is nothing below it because it is a leaf."""
    return jax.tree_util.all_leaves([node])


def is_absent(node: PyTree) -> bool:
    """Tells whether it is None, `optax.MaskedNode`, or what a checkpoint makes of one."""
    return node is None or (isinstance(node, dict | list | tuple) and not node)


def _value(node: PyTree) -> Any:
    return children_of(node)[0][1]


def _fields_of(
    node: PyTree, keys: KeyPath, field: str, holders: tuple[str, ...]
) -> Iterator[tuple[KeyPath, PyTree]]:
    """The fields of this name in NamedTuples of these types, outer ones first."""
    is_holder = isinstance(node, tuple) and type(node).__name__ in holders
    if is_holder and field in getattr(node, "_fields", ()):
        yield (*keys, jax.tree_util.GetAttrKey(field)), getattr(node, field)
    for key, child in [] if is_leaf(node) else children_of(node):
        yield from _fields_of(child, (*keys, key), field, holders)


def _keys_of(node: PyTree, keys: KeyPath, field: str) -> Iterator[tuple[KeyPath, PyTree]]:
    """The values of this key in mappings, but for those within a state that has a type."""
    if hasattr(node, "_fields"):
        return
    if isinstance(node, Mapping) and field in node:
        yield (*keys, jax.tree_util.DictKey(field)), node[field]
    for key, child in [] if is_leaf(node) else children_of(node):
        yield from _keys_of(child, (*keys, key), field)
