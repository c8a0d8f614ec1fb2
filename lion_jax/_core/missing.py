"""Updates of trees in which some leaves have no gradient, or are no weights."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.checks import path_of
from lion_jax._core.leaves import has_gradient, is_none, is_number, is_weight, numbers_of, rebuilt
from lion_jax._core.types import KeyPath, Leaf, PyTree


def gradients_of_weights(
    updates: optax.Updates, params: optax.Params | None
) -> tuple[optax.Updates, optax.Params | None]:
    """Gradients and parameters with None in place of leaves that are no weights.

    Raises:
      TypeError: a gradient of real numbers for an integer or a boolean, by its path.
    """
    gradients, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    if params is None:
        kept = [g if has_gradient(g) else None for g in gradients]
        return rebuilt(updates, treedef, gradients, kept), None
    leaves = treedef.flatten_up_to(params)
    weights = [p if is_weight(p) else None for p in leaves]
    pairs = list(zip(gradients, weights, strict=True))
    for i, (g, p) in enumerate(pairs):
        if p is None and is_weight(g):
            _refuse_gradient(g, leaves[i], path_of(updates, i))
    kept = [g if p is not None and has_gradient(g) else None for g, p in pairs]
    return rebuilt(updates, treedef, gradients, kept), rebuilt(params, treedef, leaves, weights)


def put_back(
    new_updates: optax.Updates, updates: optax.Updates, params: optax.Params | None
) -> optax.Updates:
    """New updates with 0 for what had a gradient, but is no weight and stays where it is."""
    old, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    new = treedef.flatten_up_to(new_updates)
    leaves: list[Leaf] = [None] * len(old) if params is None else treedef.flatten_up_to(params)
    kept = [
        jnp.zeros_like(p) if u is None and g is not None and is_number(p) else u
        for u, g, p in zip(new, old, leaves, strict=True)
    ]
    return rebuilt(new_updates, treedef, new, kept)


def update_present(
    inner: optax.GradientTransformationExtraArgs,
    updates: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None,
    **extra_args: Any,
) -> tuple[optax.Updates, optax.OptState]:
    """Updates the leaves with a gradient; optax's primitives forget the moments of the others."""
    gradients, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    missing = [i for i, g in enumerate(gradients) if not has_gradient(g)]
    if params is None or not missing:
        return inner.update(updates, state, params, **extra_args)
    leaves = treedef.flatten_up_to(params)
    is_seen = is_weight if _has_weights_only(inner, state, params) else is_number
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
    new_state = _keep(inner, state, new_state, {_keys(updates, i) for i in missing})
    return put_back(treedef.unflatten(new), updates, params), new_state


def _has_weights_only(
    inner: optax.GradientTransformation, state: optax.OptState, params: optax.Params
) -> bool:
    """Tells whether a state was made from the weights alone, without the integers beside them."""
    if all(is_weight(p) or not is_number(p) for p in jax.tree.leaves(params)):
        return True
    of_all = jax.eval_shape(inner.init, numbers_of(params))
    return jax.tree.structure(of_all) != jax.tree.structure(state)


def _keep(
    inner: optax.GradientTransformation,
    state: optax.OptState,
    new_state: optax.OptState,
    paths: set[KeyPath],
) -> optax.OptState:
    """The new state, in which what belongs to the parameters at some paths is as it was."""
    trees = []

    def keep(new, old):
        """The new leaves of a tree like the parameters, and the old ones below these paths."""
        before = jax.tree_util.tree_leaves_with_path(old)
        after, treedef = jax.tree.flatten(new)
        return treedef.unflatten(
            x if any(keys[:i] in paths for i in range(len(keys) + 1)) else y
            for (keys, x), y in zip(before, after, strict=True)
        )

    def map_trees(function, tree):
        return optax.tree_utils.tree_map_params(inner, function, tree, is_leaf=lambda _: True)

    map_trees(lambda old: trees.append(old) or old, state)
    in_order = iter(trees)
    return map_trees(lambda new: keep(new, next(in_order)), new_state)


def _refuse_gradient(g: Leaf, p: Leaf, path: str) -> None:
    kind = str(jnp.result_type(p)) if is_number(p) else f"{p!r} of type {type(p).__name__}"
    raise TypeError(
        f"parameters with a gradient must be real or complex; got {kind} with a gradient of "
        f"{jnp.result_type(g)} at {path}. Try jnp.asarray(parameter, float), or None as its "
        "gradient, which leaves it alone."
    )


def _keys(tree: PyTree, i: int) -> KeyPath:
    return jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_none)[i][0]
