"""Layers that are stacked in one leaf, each updated as a leaf of its own."""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lion_jax._core import inner as _inner
from lion_jax._core.checks import check_match, path_of
from lion_jax._core.kinds import TRANSFORMATION, Static
from lion_jax._core.leaves import is_function, is_none, rebuilt, weights_of
from lion_jax._core.missing import gradients_of_weights, put_back
from lion_jax._core.paths import Pattern, first_match
from lion_jax._core.rule import combinator
from lion_jax._core.shares import shares_of
from lion_jax._core.types import KeyPath, Leaf, PyTree

Where = Pattern | Callable[[optax.Params], PyTree] | PyTree
Prefix = tuple[int, ...]


def _refuse_where(name: str, value: Any, advice: str) -> None:
    if isinstance(value, str | re.Pattern) or is_function(value):
        return
    leaves = jax.tree.leaves(value)
    wrong = [leaf for leaf in leaves if not _is_count(leaf)]
    if wrong or not leaves:
        raise TypeError(
            f"{name} must be a regular expression, a tree of integers >= 0 (or a prefix of one), "
            f"or a function from parameters to such a tree; got {wrong[0] if wrong else value!r}. "
            f"{advice}"
        )


def _is_count(leaf: Leaf) -> bool:
    return isinstance(leaf, int | np.integer) and int(leaf) >= 0


WHERE = Static(refusal=_refuse_where).trying('"^blocks/"', "the path of what is stacked")


@combinator(inner=TRANSFORMATION, where=WHERE)
def per_layer(
    inner: optax.GradientTransformation, where: Where
) -> optax.GradientTransformationExtraArgs:
    r"""Applies a transformation to each layer of a stacked leaf as if it were a leaf of its own.

    Models that scan over their layers keep all of them in one leaf of shape (layers, rows,
    columns). A rule that uses a leaf as a whole (LAMB, clipping by leaf, orthogonalization) would
    then take one norm for the whole network. Inside this wrapper it takes one norm for each layer,
    with the same results as for a list of separate layers:

    .. math::

      u_l, s_l = \operatorname{inner}(g_l, s_l, \theta_l) \quad \text{for every layer } l

    Args:
      inner: the transformation of a layer: any that treats each leaf by itself. Transformations
        that use all leaves together, such as clipping by the global norm or metrics, belong
        outside.
      where: the number of leading axes of a leaf that count layers. A regular expression means one
        axis of the leaves whose path it matches, as in :mod:`lion_jax.groups`. A tree of integers
        like the parameters, or a function to one such as ``groups.labels({"^blocks/": 1}, 0)``,
        says it for each leaf; 0 leaves a leaf whole.

    Returns:
      A transformation from gradients to updates of the parameters' shapes and units, in the inner
      transformation's dtypes. Its state is that of ``inner.init(params)``. Arrays that belong to a
      stacked parameter have the layers as leading axes: moments keep the parameters' layout, and a
      number per leaf becomes a number per layer. Counts are shared.

    Raises:
      ValueError: an expression that matches no leaf (with its near misses); a leaf of fewer axes
        than ``where`` says, by its path; at ``update``, an inner state with an array for each layer
        that belongs to no parameter.
      TypeError: an ``inner`` that is no transformation, a ``where`` of another kind.

    Example:
      >>> import jax.numpy as jnp
      >>> import lion_jax
      >>> params = {"blocks": jnp.stack([jnp.ones((2, 2)), 10 * jnp.ones((2, 2))])}
      >>> lamb = lion_jax.lamb(0.1, scale_clip=None)
      >>> for tx in (lamb, lion_jax.per_layer(lamb, "^blocks")):
      ...     updates, _ = tx.update(params, tx.init(params), params)
      ...     print(f"{updates['blocks'][0, 0, 0]:.2f} {updates['blocks'][1, 0, 0]:.2f}")
      -0.71 -0.71
      -0.10 -1.00

    References:
      ``vectorized_tree_map`` of `axlearn <https://github.com/apple/axlearn>`_ and
      ``scan_aware_tree_map`` of `levanter <https://github.com/marin-community/levanter>`_ do it for
      rules that are written with them.
    """
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        weights = weights_of(params)
        if any(isinstance(p, jax.ShapeDtypeStruct) for p in jax.tree.leaves(weights)):
            return jax.eval_shape(init_fn, weights)
        paths, treedef = _paths(jax.eval_shape(inner.init, weights))
        leaves: dict[KeyPath, Leaf] = {}
        for prefix, part in _parts(weights, weights, _layers(where, weights)).items():
            state = _init_part(inner, prefix, part)
            leaves |= dict(jax.tree_util.tree_leaves_with_path(state))
        return treedef.unflatten(leaves[path] for path in paths)

    def update_fn(updates, state, params=None, **extra_args):
        gradients, weights = gradients_of_weights(updates, params)
        if weights is not None:
            check_match("gradients", gradients, weights)
        like = gradients if weights is None else weights
        layers = _layers(where, like)
        paths, treedef = _paths(state)
        before = dict(zip(paths, jax.tree.leaves(state), strict=True))
        after = dict(before)
        new, of_updates = jax.tree.flatten(gradients, is_leaf=is_none)
        of_weights = {} if weights is None else _parts(weights, like, layers)
        for prefix, part in _parts(gradients, like, layers).items():
            of_part = like if weights is None else of_weights[prefix]
            init_part = functools.partial(_init_part, inner, prefix)
            part_paths, of_state = _paths(jax.eval_shape(init_part, of_part))
            old = of_state.unflatten(before[path] for path in part_paths)
            moved, kept = _update_part(inner, prefix, part, old, of_weights.get(prefix), extra_args)
            after |= dict(zip(part_paths, jax.tree.leaves(kept), strict=True))
            new = [
                n if u is None else u
                for n, u in zip(new, of_updates.flatten_up_to(moved), strict=True)
            ]
        new_state = treedef.unflatten(after[path] for path in paths)
        return put_back(of_updates.unflatten(new), updates, params), new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _layers(where: Where, params: optax.Params) -> list[int]:
    """The number of leading axes of each leaf that are layers, None included."""
    by_path = isinstance(where, str | re.Pattern)
    tree = first_match([(where, 1)], default=0) if by_path else where
    leaves = jax.tree.leaves(params, is_leaf=is_none)
    counts = shares_of(tree, params, "where")
    for i, (p, count) in enumerate(zip(leaves, counts, strict=True)):
        if p is None:
            continue
        if not _is_count(count):
            raise TypeError(
                f"where must give integers >= 0; got {count!r} for the leaf at "
                f"{path_of(params, i)}. Try groups.labels({{...: 1}}, 0)."
            )
        if count > len(jnp.shape(p)):
            raise ValueError(
                f"where must give at most the axes of a leaf; got {count} for the leaf at "
                f"{path_of(params, i)} of shape {jnp.shape(p)}. Try where=0 for it."
            )
    return [0 if p is None else int(count) for p, count in zip(leaves, counts, strict=True)]


def _parts(tree: PyTree, like: PyTree, layers: list[int]) -> dict[Prefix, PyTree]:
    """The leaves of each count of layers, by that count: trees with None for all others."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_none)
    prefixes = [
        None if p is None else jnp.shape(p)[:count]
        for p, count in zip(treedef.flatten_up_to(like), layers, strict=True)
    ]
    present = [prefix for prefix in dict.fromkeys(prefixes) if prefix is not None]
    return {
        prefix: rebuilt(
            tree,
            treedef,
            leaves,
            [x if own == prefix else None for x, own in zip(leaves, prefixes, strict=True)],
        )
        for prefix in present or [()]
    }


def _paths(tree: PyTree) -> tuple[list[KeyPath], Any]:
    return [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)], jax.tree.structure(tree)


def _init_part(
    inner: optax.GradientTransformation, prefix: Prefix, part: optax.Params
) -> optax.OptState:
    """The state of some leaves, those with the same layers."""
    return _over_layers(inner.init, prefix, (0,), _axes(inner, prefix, part))(part)


def _update_part(inner, prefix, part, state, params, extra_args):
    """One update of some leaves, those with the same layers."""
    axes = _axes(inner, prefix, part if params is None else params)

    def update(gradients, state, params):
        return _inner.update(inner, gradients, state, params, **extra_args)

    try:
        return _over_layers(update, prefix, (0, axes, 0), (0, axes))(part, state, params)
    except ValueError as error:
        if "out_axes" not in str(error):
            raise
        raise ValueError(
            "inner must keep only arrays that belong to a layer's parameters; got one whose "
            "state has a number that depends on all leaves together, such as a guard or metrics. "
            "Try it around per_layer, not inside."
        ) from error


def _over_layers(function: Callable[..., Any], prefix: Prefix, in_axes: Any, out_axes: Any) -> Any:
    """The function mapped over each axis of layers, the outer ones first."""
    for _ in prefix:
        function = jax.vmap(function, in_axes=in_axes, out_axes=out_axes)
    return function


def _axes(inner: optax.GradientTransformation, prefix: Prefix, part: optax.Params) -> PyTree:
    """The axis of layers of everything in the state of one layer: None for what belongs to none."""
    layer = jax.tree.map(
        lambda p: jax.ShapeDtypeStruct(jnp.shape(p)[len(prefix) :], jnp.result_type(p)), part
    )
    return optax.tree_utils.tree_map_params(
        inner, lambda _: 0, jax.eval_shape(inner.init, layer), transform_non_params=lambda _: None
    )
