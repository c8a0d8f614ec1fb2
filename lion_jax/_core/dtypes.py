"""Arithmetic in at least float32, for storage of any dtype."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lion_jax._core.types import Leaf, PyTree

_FLOAT32, _FLOAT64 = jnp.dtype("float32"), jnp.dtype("float64")


def at_least_float32(*arrays: Leaf) -> jnp.dtype:
    """The dtype to compute in with `arrays`: their common one, or float32 if that is narrower."""
    dtypes = {_FLOAT32 if _is_narrow(dtype) else dtype for dtype in map(_dtype, arrays)}
    if len(dtypes) == 1:
        return dtypes.pop()
    with jax.numpy_dtype_promotion("standard"):  # where users forbid it, this still has to choose
        return jnp.result_type(*dtypes)


def dtypes_of(tree: PyTree) -> set[jnp.dtype]:
    """The dtypes among the leaves of `tree`."""
    return {_dtype(x) for x in jax.tree.leaves(tree)}


def mark_of_dtypes(tree: PyTree) -> jax.Array:
    """A number whose dtype is that of the leaves, or float32 where they have several or none."""
    dtypes = dtypes_of(tree)
    return jnp.zeros((), dtypes.pop() if len(dtypes) == 1 else _FLOAT32)


def cast(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`x` in another dtype; refuses to drop an imaginary part."""
    if jnp.issubdtype(x.dtype, jnp.complexfloating) > jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(
            f"complex gradients, parameters and moments must all be complex; got {x.dtype} where "
            f"{dtype} is kept. Try optax.contrib.split_real_and_imaginary around the whole."
        )
    return x if x.dtype == dtype else x.astype(dtype)


def have_one_width(tree: PyTree) -> bool:
    """Tells whether all leaves are arrays of float32, or all of float64."""
    leaves = jax.tree.leaves(tree)
    if not all(isinstance(x, jax.Array) for x in leaves):
        return False
    return {x.dtype for x in leaves} in ({_FLOAT32}, {_FLOAT64})


def are_narrow(tree: PyTree) -> bool:
    """Tells whether any leaf is narrower than float32."""
    return any(map(_is_narrow, dtypes_of(tree)))


def _is_narrow(dtype: jnp.dtype) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32


def round_to(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`x` rounded as another dtype would store it, but in its own.

    A compiler may keep what is cast there and back as wide as it was.
    """
    if x.dtype == dtype or not _is_narrow(dtype):
        return x
    info = jnp.finfo(dtype)
    if info.bits < 16:
        return _round_to_tiny(x, info)
    rounded = jax.lax.reduce_precision(x, info.nexp, info.nmant)  # which has no subnormals
    if info.nexp >= 8:
        return rounded
    return _round_subnormals(x, rounded, info)


def _round_to_tiny(x: jax.Array, info: Any) -> jax.Array:
    """Rounds to 8 bits or fewer, where formats differ beyond their range."""
    if info.nmant == 0:  # powers of two, subnormal ones too, without a sign
        return jax.lax.optimization_barrier(x.astype(info.dtype)).astype(x.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        at_infinity, at_nan, at_minus_zero = (
            float(np.float32(special).astype(info.dtype)) for special in (np.inf, np.nan, -0.0)
        )
    rounded = jax.lax.reduce_precision(x, jnp.finfo(x.dtype).nexp, info.nmant)
    rounded = _round_subnormals(x, rounded, info)
    beyond = jnp.where(x > 0, at_infinity, -at_infinity)
    rounded = jnp.where(jnp.abs(rounded) > float(info.max), beyond, rounded)
    if math.copysign(1.0, at_minus_zero) > 0:
        rounded = jnp.where(rounded == 0, 0.0, rounded)
    return jnp.where(jnp.isnan(x), at_nan, rounded)


def _round_subnormals(x: jax.Array, rounded: jax.Array, info: Any) -> jax.Array:
    grain = float(info.smallest_subnormal)
    return jnp.where(jnp.abs(x) < float(info.tiny), jnp.round(x / grain) * grain, rounded)


def widen(x: Leaf, other: Leaf) -> jax.Array:
    """`x` in the dtype in which to compute with `x` and `other`."""
    return jnp.asarray(x, at_least_float32(x, other))


def widen_abstract(p: Leaf) -> Leaf:
    """A parameter to start a state from; `init` only looks at its shape and dtype, or copies it."""
    if isinstance(p, jax.ShapeDtypeStruct):
        return p.update(dtype=at_least_float32(p))
    return jnp.asarray(p, at_least_float32(p))


def _dtype(x: Leaf) -> jnp.dtype:
    return x.dtype if isinstance(x, jax.Array) else jnp.result_type(x)
