"""Leaves that are trained, and those that are not looked at."""

from typing import Any

import jax.numpy as jnp


def is_inexact(leaf: Any) -> bool:
    """Whether it is a floating-point or complex number, or an array of them.

    Functions, PRNG keys, integers and booleans are not.
    """
    dtype = getattr(leaf, "dtype", type(leaf))
    is_array = hasattr(leaf, "shape") and not isinstance(leaf, type)
    return (is_array or isinstance(leaf, float | complex)) and jnp.issubdtype(dtype, jnp.inexact)


def is_array(leaf: Any) -> bool:
    """Whether it has a shape and a dtype, as Python's numbers have too."""
    has_both = hasattr(leaf, "shape") and hasattr(leaf, "dtype") and not isinstance(leaf, type)
    return has_both or isinstance(leaf, bool | int | float | complex)


def is_absent(leaf: Any) -> bool:
    """Whether it is None, which stands for no leaf."""
    return leaf is None
