"""Arithmetic in at least float32, whatever the storage."""

import functools
import math
from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lion_jax._leaves import weights_of
from lion_jax._matching import check_match, check_same_shapes
from lion_jax._missing import gradients_of_weights, put_back, update_present

P = ParamSpec("P")
_FLOAT32, _FLOAT64 = jnp.dtype("float32"), jnp.dtype("float64")


def at_least_float32(*arrays: Any) -> jnp.dtype:
    """The dtype to compute in with `arrays`: their common one, or float32 if that is narrower."""
    dtypes = {_FLOAT32 if _is_narrow(dtype) else dtype for dtype in map(_dtype, arrays)}
    if len(dtypes) == 1:
        return dtypes.pop()
    with jax.numpy_dtype_promotion("standard"):  # where users forbid it, this still has to choose
        return jnp.result_type(*dtypes)


def dtypes_of(tree: Any) -> set[jnp.dtype]:
    """The dtypes among the leaves of `tree`."""
    return {_dtype(x) for x in jax.tree.leaves(tree)}


def mark_of_dtypes(tree: Any) -> jax.Array:
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


def computed_in_float32(
    factory: Callable[P, optax.GradientTransformation],
) -> Callable[P, optax.GradientTransformationExtraArgs]:
    """Makes `factory`'s transformation compute in at least float32 from one end to the other.

    Gradients and parameters narrower than float32 are widened before the first link of its chain
    and the updates rounded once, to the parameters' dtype, after the last: a chain in bfloat16
    would round at every link, and lose a weight decay of 0.1 * 0.02 beside a sign of 1 entirely.
    Without parameters, updates have the gradients' dtype. On float32 and float64 it changes
    nothing.

    The state starts from widened parameters, so accumulators are at least float32; it keeps its
    dtypes even if a hyperparameter comes in a wider one. What in it belongs to a parameter without
    a gradient (None) stays as it is, given the parameters. Leaves that are no weights (integers,
    booleans, random keys, functions) have no state, and their updates are 0, or None like their
    gradients.
    """

    @functools.wraps(factory)
    def widened(*args: P.args, **kwargs: P.kwargs) -> optax.GradientTransformationExtraArgs:
        inner = optax.with_extra_args_support(factory(*args, **kwargs))

        def init_fn(params):
            return inner.init(jax.tree.map(widen_abstract, weights_of(params)))

        def update_fn(updates, state, params=None, **extra_args):
            gradients, weights = gradients_of_weights(updates, params)
            likes = gradients if weights is None else weights
            if weights is not None:
                check_match("gradients", gradients, weights)
            if _are_arrays_of_one_width((gradients, weights)):  # nothing to round
                new_updates, new_state = update_present(
                    inner, gradients, state, weights, **extra_args
                )
                new_updates = as_before(new_updates, gradients)
            else:
                wide_gradients = map_present(widen, gradients, likes)
                wide_weights = None if weights is None else map_present(widen, weights, gradients)
                new_updates, new_state = update_present(
                    inner, wide_gradients, state, wide_weights, **extra_args
                )
                new_updates = map_present(_round_like, new_updates, likes)
            return put_back(new_updates, updates, params), as_before(new_state, state)

        return optax.GradientTransformationExtraArgs(init_fn, update_fn)

    return widened


def as_before(new: Any, old: Any) -> Any:
    """A tree in the dtypes that it had; refuses other shapes than it had."""
    check_same_shapes("gradients", new, old)
    return jax.tree.map(lambda x, like: cast(jnp.asarray(x), _dtype(like)), new, old)


def _are_arrays_of_one_width(tree: Any) -> bool:
    """Tells whether all leaves are arrays of float32, or all of float64."""
    leaves = jax.tree.leaves(tree)
    if not all(isinstance(x, jax.Array) for x in leaves):
        return False
    return {x.dtype for x in leaves} in ({_FLOAT32}, {_FLOAT64})


def _is_narrow(dtype: jnp.dtype) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32


def map_present(function: Callable[..., Any], tree: Any, other: Any) -> Any:
    """`jax.tree.map` that leaves a leaf alone where either tree has None, e.g. no gradient."""
    return jax.tree.map(
        lambda x, y: x if x is None or y is None else function(x, y),
        tree,
        other,
        is_leaf=lambda x: x is None,
    )


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
    """Rounds to 8 bits or fewer, where formats differ in what they do beyond their range."""
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


def widen(x: Any, other: Any) -> jax.Array:
    """A leaf in the dtype to compute in with it and another."""
    return jnp.asarray(x, at_least_float32(x, other))


def widen_abstract(p: Any) -> Any:
    """A parameter to start a state from; `init` only looks at its shape and dtype, or copies it."""
    if isinstance(p, jax.ShapeDtypeStruct):
        return p.update(dtype=at_least_float32(p))
    return jnp.asarray(p, at_least_float32(p))


def _round_like(update: jax.Array, like: Any) -> jax.Array:
    dtype = _dtype(like)
    return cast(update, dtype) if jnp.issubdtype(dtype, jnp.inexact) else update


def _dtype(x: Any) -> jnp.dtype:
    return x.dtype if isinstance(x, jax.Array) else jnp.result_type(x)
