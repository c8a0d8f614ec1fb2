"""Checks of trees at `init` and `update`: presence, dtypes, and shapes leaf by leaf."""

from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lion_jax._core.dtypes import dtypes_of
from lion_jax._core.leaves import is_none, is_real
from lion_jax._core.types import Leaf, PyTree

_STORABLE = {jnp.dtype(name) for name in ("float16", "bfloat16", "float32", "float64")}


def check_has_params(params: optax.Params | None, needed_by: str) -> optax.Params:
    """Returns the parameters; refuses an update without them."""
    if params is None:
        raise ValueError(
            f"{needed_by} reads the parameters; got params=None. "
            "Try update(grads, state, params), with the parameters as third argument."
        )
    return params


def check_real(tree: PyTree, needed_by: str) -> None:
    """Refuses complex leaves, naming the first by its path."""
    if not any(jnp.issubdtype(dtype, jnp.complexfloating) for dtype in dtypes_of(tree)):
        return
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating):
            raise TypeError(
                f"{needed_by} needs real leaves; got {jnp.result_type(leaf)} at "
                f"{jax.tree_util.keystr(path) or 'the root'}. "
                "Try optax.contrib.split_real_and_imaginary around the transformation."
            )


def check_storable(tree: PyTree, needed_by: str, remedy: str) -> None:
    """Refuses leaves of other dtypes than parameters have, naming the first by its path."""
    if dtypes_of(tree) <= _STORABLE:
        return
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.result_type(leaf) not in _STORABLE:
            raise TypeError(
                f"{needed_by} needs leaves of float16, bfloat16, float32 or float64; got "
                f"{jnp.result_type(leaf)} at {jax.tree_util.keystr(path) or 'the root'}. "
                f"Try {remedy}."
            )


def check_metric(value: Leaf, needed_by: str) -> None:
    """Refuses a missing metric, where the rule reads one, and one that is no single number."""
    remedy = "Try update(grads, state, params, value=loss)."
    if value is None:
        raise ValueError(f"{needed_by} reads a metric; got value=None. {remedy}")
    if not is_real(value):
        raise TypeError(
            f"value must be a number; got {value!r} of type {type(value).__name__}. {remedy}"
        )
    if np.ndim(value) != 0:
        raise ValueError(
            f"value must be a scalar; got an array of shape {np.shape(value)}. "
            "Try value=loss.mean()."
        )


def check_axis_of_leaves(name: str, axis: int, params: optax.Params) -> None:
    """Refuses an axis that a matrix or a larger leaf does not have, by its path."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        rank = len(jnp.shape(leaf))
        if rank > 1 and not -rank <= axis < rank:
            raise ValueError(
                f"{name} must be an axis of every leaf of rank 2 or more; got {axis} for the leaf "
                f"at {jax.tree_util.keystr(path) or 'the root'} of shape {jnp.shape(leaf)}. "
                f"Try {name}=-1, the last axis."
            )


def check_match(name: str, updates: optax.Updates, params: PyTree) -> None:
    """Refuses a leaf that would broadcast with its parameter, or lose an imaginary part to it.

    Args:
      name: a word for the updates, for the message.
      updates: a tree like the parameters; None for a missing gradient.
      params: the parameters; looked at only where there is an update.

    Raises:
      ValueError: a leaf of another shape than its parameter's, by its path.
      TypeError: a complex leaf for a real parameter, by its path.
    """
    for i, (u, p) in enumerate(_pairs(updates, params)):
        if u is None or p is None:
            continue
        if jnp.shape(u) != jnp.shape(p):
            refuse_shape(name, "their parameters'", u, p, path_of(updates, i))
        if _is_complex(u) and not _is_complex(p):
            raise TypeError(
                f"complex {name}, parameters and moments must all be complex; got "
                f"{jnp.result_type(u)} where {jnp.result_type(p)} is kept, at "
                f"{path_of(updates, i)}. Try optax.contrib.split_real_and_imaginary around the "
                "whole."
            )


def check_same_shapes(name: str, tree: PyTree, like: PyTree) -> None:
    """Refuses a leaf of `tree` whose shape is another than in `like`, by its path."""
    for i, (x, y) in enumerate(_pairs(tree, like)):
        if x is not None and y is not None and jnp.shape(x) != jnp.shape(y):
            refuse_shape(name, "the state's", x, y, path_of(tree, i))


def refuse_shape(name: str, whose: str, got: Leaf, expected: Leaf, path: str) -> NoReturn:
    """Raises a `ValueError` that names the leaf and both shapes."""
    raise ValueError(
        f"{name} must have {whose} shapes; got {jnp.shape(got)} for {jnp.shape(expected)} at "
        f"{path}. Try jax.grad of a loss that is one number. A transformation that takes a "
        "gradient for each example must wrap this one, not be inside it."
    )


def _pairs(tree: PyTree, like: PyTree) -> list[tuple[Leaf, Leaf]]:
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_none)
    return list(zip(leaves, treedef.flatten_up_to(like), strict=True))


def path_of(tree: PyTree, i: int) -> str:
    """The path of leaf number i, where None is a leaf too."""
    keys, _ = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_none)[i]
    return jax.tree_util.keystr(keys) or "the root"


def _is_complex(x: Leaf) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.complexfloating)
