"""Arithmetic in at least float32, whatever the storage."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import optax

P = ParamSpec("P")
_FLOAT32, _FLOAT64 = jnp.dtype("float32"), jnp.dtype("float64")


def at_least_float32(*arrays: Any) -> jnp.dtype:
    """The dtype to compute in with `arrays`: their common one, or float32 if that is narrower."""
    dtypes = {_dtype(a) for a in arrays}
    return jnp.result_type(*(jnp.float32 if _is_narrow(d) else d for d in dtypes))


def dtypes_of(tree: Any) -> set[jnp.dtype]:
    """The dtypes among the leaves of `tree`."""
    return {_dtype(x) for x in jax.tree.leaves(tree)}


def cast(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`x` in another dtype; refuses to drop an imaginary part."""
    if jnp.issubdtype(x.dtype, jnp.complexfloating) > jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(
            f"complex gradients, parameters and moments must all be complex; got {x.dtype} where "
            f"{dtype} is kept. Try optax.contrib.split_real_and_imaginary around the whole."
        )
    return x.astype(dtype)


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
    a gradient (None) stays as it is, given the parameters.
    """

    @functools.wraps(factory)
    def widened(*args: P.args, **kwargs: P.kwargs) -> optax.GradientTransformationExtraArgs:
        inner = optax.with_extra_args_support(factory(*args, **kwargs))

        def init_fn(params):
            return inner.init(jax.tree.map(_widen_abstract, params))

        def update_fn(updates, state, params=None, **extra_args):
            if dtypes_of((updates, params)) in ({_FLOAT32}, {_FLOAT64}):  # nothing to round
                new_updates, new_state = _update_present(
                    inner, updates, state, params, **extra_args
                )
                return _as_before(new_updates, updates), _as_before(new_state, state)
            likes = updates if params is None else params
            wide_updates = _map(_widen, updates, likes)
            wide_params = None if params is None else _map(_widen, params, updates)
            new_updates, new_state = _update_present(
                inner, wide_updates, state, wide_params, **extra_args
            )
            return _map(_round_like, new_updates, likes), _as_before(new_state, state)

        return optax.GradientTransformationExtraArgs(init_fn, update_fn)

    return widened


def _as_before(new: Any, old: Any) -> Any:
    """A tree in the dtypes that it had."""
    if dtypes_of(new) == dtypes_of(old):
        return new
    return jax.tree.map(lambda x, like: cast(x, _dtype(like)), new, old)


def _update_present(
    inner: optax.GradientTransformationExtraArgs,
    updates: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None,
    **extra_args: Any,
) -> tuple[optax.Updates, optax.OptState]:
    """Updates what has a gradient. optax's own primitives forget the moments of what has none."""
    if params is None or len(jax.tree.leaves(updates)) == len(jax.tree.leaves(params)):
        return inner.update(updates, state, params, **extra_args)
    missing = jax.tree.map(lambda p, g: g is None, params, updates)
    filled = jax.tree.map(lambda p, g: jnp.zeros_like(p) if g is None else g, params, updates)
    new_updates, new_state = inner.update(filled, state, params, **extra_args)
    is_untouched = optax.tree_utils.tree_map_params(
        inner,
        lambda _, is_missing: is_missing,
        state,
        missing,
        transform_non_params=lambda _: False,
        is_leaf=lambda x: isinstance(x, optax.MaskedNode),
    )
    state = jax.tree.map(
        lambda untouched, old, new: old if untouched else new, is_untouched, state, new_state
    )
    return jax.tree.map(lambda m, u: None if m else u, missing, new_updates), state


def _is_narrow(dtype: jnp.dtype) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32


def _map(function: Callable[..., Any], tree: Any, other: Any) -> Any:
    """`jax.tree.map` that leaves a leaf alone where either tree has None, e.g. no gradient."""
    return jax.tree.map(
        lambda x, y: x if x is None or y is None else function(x, y),
        tree,
        other,
        is_leaf=lambda x: x is None,
    )


def _widen(x: Any, other: Any) -> jax.Array:
    return jnp.asarray(x, at_least_float32(x, other))


def _widen_abstract(p: Any) -> Any:
    """A parameter to start a state from; `init` only looks at its shape and dtype, or copies it."""
    if isinstance(p, jax.ShapeDtypeStruct):
        return p.update(dtype=at_least_float32(p))
    return jnp.asarray(p, at_least_float32(p))


def _round_like(update: jax.Array, like: Any) -> jax.Array:
    dtype = _dtype(like)
    return cast(update, dtype) if jnp.issubdtype(dtype, jnp.inexact) else update


def _dtype(x: Any) -> jnp.dtype:
    return x.dtype if isinstance(x, jax.Array) else jnp.result_type(x)
