"""Trees of our own beside the parameters, which may hold more leaves than ours."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def is_none(x: Any) -> bool:
    """Whether there is no leaf here."""
    return x is None


def is_array(leaf: Any) -> bool:
    """Whether a leaf has a dtype, as functions have none."""
    return hasattr(leaf, "dtype") or isinstance(leaf, bool | int | float | complex)


def is_key(leaf: Any) -> bool:
    """Whether a leaf holds typed keys of `jax.random`."""
    return jnp.issubdtype(getattr(leaf, "dtype", bool), jax.dtypes.prng_key)


def is_inexact(leaf: Any) -> bool:
    """Whether a leaf is of real or complex numbers, which a step can move."""
    return is_array(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def has_gradient(u: Any) -> bool:
    """Whether an update is there: neither None nor of the dtype float0, which has no numbers."""
    return u is not None and getattr(u, "dtype", None) != jax.dtypes.float0


def numbers_of(params: optax.Params) -> optax.Params:
    """The parameters with None in the place of functions and keys."""
    leaves, treedef = jax.tree.flatten(params)
    return treedef.unflatten([p if is_array(p) and not is_key(p) else None for p in leaves])


def matching(stored: Any, tree: Any) -> Any:
    """A tree with None where the stored one has no leaf or itself has no gradient."""
    leaves, treedef = jax.tree.flatten(stored, is_leaf=is_none)
    others = treedef.flatten_up_to(tree)
    pairs = zip(leaves, others, strict=True)
    return treedef.unflatten([x if s is not None and has_gradient(x) else None for s, x in pairs])


def check_no_imaginary_part(updates: Any, stored: Any, needed_by: str) -> None:
    """Refuses a complex update where what is stored is real, naming the first by its path."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(stored, is_leaf=is_none)
    for (path, s), u in zip(leaves, treedef.flatten_up_to(updates), strict=True):
        if _is_complex(u) and s is not None and not _is_complex(s):
            raise TypeError(
                f"{needed_by} keeps real numbers for real parameters; got an update of "
                f"{jnp.result_type(u)} at {jax.tree_util.keystr(path) or 'the root'}, where it has "
                f"{jnp.result_type(s)}. Try optax.contrib.split_real_and_imaginary around the "
                "whole, or the real part of the gradient."
            )


def _is_complex(x: Any) -> bool:
    return is_array(x) and jnp.issubdtype(jnp.result_type(x), jnp.complexfloating)
