"""Leaves that an update leaves alone: those without a gradient, and those that are no weights.

A weight is an array of real or complex numbers. Beside weights a tree may hold the functions of an
equinox module, random keys, integers and booleans: no gradient moves them. Nothing here asks such a
leaf for its shape or dtype.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax


def is_weight(x: Any) -> bool:
    """Whether a leaf is of real or complex numbers."""
    return jnp.issubdtype(x.dtype, jnp.inexact) if _has_dtype(x) else isinstance(x, float | complex)


def has_gradient(g: Any) -> bool:
    """Whether there is a gradient: neither None nor JAX's float0, which is one of nothing."""
    return g is not None and not (_has_dtype(g) and g.dtype == jax.dtypes.float0)


def weights_of(params: optax.Params) -> optax.Params:
    """The parameters with None in place of what is no weight."""
    return _only(is_weight, params)


def arrays_of(params: optax.Params) -> optax.Params:
    """The parameters with None in place of what is no number: functions and random keys."""
    return _only(_is_number, params)


def gradients_of_weights(
    updates: optax.Updates, params: optax.Params | None
) -> tuple[optax.Updates, optax.Params | None]:
    """Gradients and parameters with None in place of what is no weight.

    Raises:
      TypeError: a gradient of real numbers for an integer or a boolean, by its path.
    """
    gradients, treedef = jax.tree.flatten(updates, is_leaf=_is_none)
    if params is None:
        kept = [g if has_gradient(g) else None for g in gradients]
        return _rebuilt(updates, treedef, gradients, kept), None
    leaves = treedef.flatten_up_to(params)
    weights = [p if is_weight(p) else None for p in leaves]
    kept = [
        g if p is not None and has_gradient(g) else None
        for g, p in zip(gradients, weights, strict=True)
    ]
    for i, (g, p) in enumerate(zip(gradients, weights, strict=True)):
        if p is None and has_gradient(g) and is_weight(g):
            keys, _ = jax.tree_util.tree_leaves_with_path(updates, is_leaf=_is_none)[i]
            raise TypeError(
                f"parameters with a gradient must be real or complex; got {_kind(leaves[i])} with "
                f"a gradient of {g.dtype} at {jax.tree_util.keystr(keys) or 'the root'}. Try "
                "jnp.asarray(parameter, float), or None as its gradient, which leaves it alone."
            )
    return (
        _rebuilt(updates, treedef, gradients, kept),
        _rebuilt(params, treedef, leaves, weights),
    )


def put_back(
    new_updates: optax.Updates, updates: optax.Updates, params: optax.Params | None
) -> optax.Updates:
    """New updates with 0 for what had a gradient, but is no weight and stays where it is."""
    old, treedef = jax.tree.flatten(updates, is_leaf=_is_none)
    new = treedef.flatten_up_to(new_updates)
    leaves = [None] * len(old) if params is None else treedef.flatten_up_to(params)
    kept = [
        jnp.zeros_like(p) if u is None and g is not None and _is_number(p) else u
        for u, g, p in zip(new, old, leaves, strict=True)
    ]
    return _rebuilt(new_updates, treedef, new, kept)


def update_present(
    inner: optax.GradientTransformationExtraArgs,
    updates: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None,
    **extra_args: Any,
) -> tuple[optax.Updates, optax.OptState]:
    """Updates what has a gradient. optax's own primitives forget the moments of what has none."""
    gradients, treedef = jax.tree.flatten(updates, is_leaf=_is_none)
    missing = [i for i, g in enumerate(gradients) if not has_gradient(g)]
    if params is None or not missing:
        return inner.update(updates, state, params, **extra_args)
    leaves = treedef.flatten_up_to(params)
    is_seen = is_weight if _has_weights_only(inner, state, params) else _is_number
    present = [p if is_seen(p) else None for p in leaves]
    filled = [
        None if p is None else g if has_gradient(g) else jnp.zeros_like(p)
        for g, p in zip(gradients, present, strict=True)
    ]
    new_updates, new_state = inner.update(
        treedef.unflatten(filled), state, treedef.unflatten(present), **extra_args
    )
    new = treedef.flatten_up_to(new_updates)
    for i in missing:
        new[i] = None
    paths = jax.tree_util.tree_leaves_with_path(updates, is_leaf=_is_none)
    new_state = _keep(inner, state, new_state, {paths[i][0] for i in missing})
    return put_back(treedef.unflatten(new), updates, params), new_state


def _has_weights_only(inner: Any, state: optax.OptState, params: optax.Params) -> bool:
    """Whether a state was made from the weights alone, and not from the integers beside them."""
    if all(is_weight(p) or not _is_number(p) for p in jax.tree.leaves(params)):
        return True
    of_all = jax.eval_shape(inner.init, arrays_of(params))
    return jax.tree.structure(of_all) != jax.tree.structure(state)


def _keep(inner: Any, state: Any, new_state: Any, paths: set[Any]) -> Any:
    """The new state, in which what belongs to the parameters at some paths is as it was."""
    kept = []

    def keep(new, old):
        """The new leaves of a tree like the parameters, and the old ones below these paths."""
        before = jax.tree_util.tree_leaves_with_path(old)
        after, treedef = jax.tree.flatten(new)
        return treedef.unflatten(
            x if any(keys[:i] in paths for i in range(len(keys) + 1)) else y
            for (keys, x), y in zip(before, after, strict=True)
        )

    map_trees = optax.tree_utils.tree_map_params
    map_trees(inner, lambda old: kept.append(old) or old, state, is_leaf=lambda _: True)
    in_order = iter(kept)
    return map_trees(
        inner, lambda new: keep(new, next(in_order)), new_state, is_leaf=lambda _: True
    )


def _only(is_kept: Callable[[Any], bool], tree: Any) -> Any:
    leaves, treedef = jax.tree.flatten(tree)
    return _rebuilt(tree, treedef, leaves, [x if is_kept(x) else None for x in leaves])


def _rebuilt(tree: Any, treedef: Any, leaves: list[Any], new: list[Any]) -> Any:
    """The tree with new leaves; itself if they are the old ones, since a node may check them."""
    is_same = all(x is y for x, y in zip(leaves, new, strict=True))
    return tree if is_same else treedef.unflatten(new)


def _is_number(x: Any) -> bool:
    """Whether a leaf is a weight or an array of integers or booleans."""
    if is_weight(x):
        return True
    return _has_dtype(x) and (jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == bool)


def _has_dtype(x: Any) -> bool:
    return hasattr(x, "dtype")


def _kind(x: Any) -> str:
    return str(x.dtype) if _has_dtype(x) else f"{x!r} of type {type(x).__name__}"


def _is_none(x: Any) -> bool:
    return x is None
