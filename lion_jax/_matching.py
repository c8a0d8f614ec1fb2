"""Gradients, updates and states must match what they are for, leaf by leaf."""

from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import optax

from lion_jax._leaves import is_none


def check_match(name: str, updates: optax.Updates, params: Any) -> None:
    """Refuses a leaf that would broadcast with its parameter, or lose an imaginary part to it.

    Args:
      name: what the updates are, for the message.
      updates: a tree like the parameters; None for what has no gradient.
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


def check_same_shapes(name: str, tree: Any, like: Any) -> None:
    """Refuses a leaf of `tree` whose shape is another than in `like`, by its path."""
    for i, (x, y) in enumerate(_pairs(tree, like)):
        if x is not None and y is not None and jnp.shape(x) != jnp.shape(y):
            refuse_shape(name, "the state's", x, y, path_of(tree, i))


def refuse_shape(name: str, whose: str, got: Any, expected: Any, path: str) -> NoReturn:
    """Raises a `ValueError` that names the leaf and both shapes."""
    raise ValueError(
        f"{name} must have {whose} shapes; got {jnp.shape(got)} for {jnp.shape(expected)} at "
        f"{path}. Try jax.grad of a loss that is one number; what takes a gradient for each "
        "example goes around this, not within it."
    )


def _pairs(tree: Any, like: Any) -> list[tuple[Any, Any]]:
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_none)
    return list(zip(leaves, treedef.flatten_up_to(like), strict=True))


def path_of(tree: Any, i: int) -> str:
    """The path of leaf number i, where None is a leaf too."""
    keys, _ = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_none)[i]
    return jax.tree_util.keystr(keys) or "the root"


def _is_complex(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.complexfloating)
