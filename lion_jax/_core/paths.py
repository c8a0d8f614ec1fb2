"""Patterns for the paths of leaves, with their matches and near misses."""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.leaves import is_array, is_none
from lion_jax._core.states import is_absent, unwrapped
from lion_jax._core.types import KeyPath, Leaf, PyTree

Names = tuple[str, ...]
Pattern = str | re.Pattern[str] | Callable[[str, Any], bool]

_NEAR = 0.6  # difflib's own idea of a good enough match


def path_of_each(tree: PyTree) -> list[str]:
    """The path of each leaf, in the order of the leaves, None included."""
    below = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_none)
    return [jax.tree_util.keystr(keys, simple=True, separator="/") for keys, _ in below]


def present_paths(tree: PyTree) -> list[str]:
    """The path of each leaf."""
    return [path for path, leaf in _with_paths(tree) if not _is_absent(leaf)]


def distinct_paths(tree: PyTree) -> list[str]:
    """The path of each leaf, told apart from every other: a slash within a key is %2F.

    That of a tree which is a single leaf is a dot.
    """
    return [
        "/".join(_quoted(key) for key in keys) if keys else "."
        for keys, leaf in _with_keys(tree)
        if not _is_absent(leaf)
    ]


def name_of(key: Any) -> str:
    """A key without its type: what a checkpoint calls it."""
    return jax.tree_util.keystr((key,), simple=True)


def names_of(keys: KeyPath) -> Names:
    """A path without the types of its keys."""
    return tuple(map(name_of, keys))


def names_below(node: PyTree) -> list[tuple[Names, Leaf]]:
    """The leaves below a node, and placeholders of absent ones, by their names."""
    below = jax.tree_util.tree_leaves_with_path(node, is_leaf=is_absent)
    return [(names_of(keys), leaf) for keys, leaf in below]


def is_covered(names: Names, absent: set[Names]) -> bool:
    """Tells whether it, or something that it is below, is absent."""
    return any(names[:i] in absent for i in range(len(names) + 1))


def _quoted(key: Any) -> str:
    return name_of(key).replace("%", "%25").replace("/", "%2F")


class _Rule(NamedTuple):
    """A compiled pattern, and the value of the leaves that it is the first to match."""

    pattern: Pattern
    matches: Callable[[str, Any], bool]
    value: Leaf


def first_match(
    items: Iterable[tuple[Pattern, Any]], default: Any
) -> Callable[[optax.Params], Any]:
    """From parameters to a tree like them: the value of the first pattern that matches each leaf.

    Args:
      items: patterns, each with the value that it gives.
      default: the value where none matches.

    Raises:
      ValueError: no valid regular expression; at use, one that matches no leaf.
      TypeError: a pattern neither string nor function; at use, a step count for the parameters.
    """
    rules = [_Rule(pattern, _matcher(pattern), value) for pattern, value in items]

    def by_path(params):
        _refuse_count(params)
        named = _with_paths(params)
        for rule in rules:
            _refuse_unmatched(rule, named)
        values = (
            next((rule.value for rule in rules if rule.matches(path, leaf)), default)
            for path, leaf in named
            if not _is_absent(leaf)
        )
        return jax.tree.structure(params).unflatten(values)

    return by_path


def _matcher(pattern: Pattern) -> Callable[[str, Any], bool]:
    if not isinstance(pattern, str | re.Pattern):
        if callable(pattern):
            return lambda path, leaf: is_array(leaf) and pattern(path, leaf)
        raise TypeError(
            "pattern must be a regular expression or a function (path, leaf) -> bool; got "
            f"{pattern!r} of type {type(pattern).__name__}. "
            'Try one argument for each, or "first|second".'
        )
    try:
        search = re.compile(pattern).search
    except re.error as error:
        raise ValueError(
            f"pattern must be a valid regular expression; got {pattern!r}: {error}. "
            f"Try {re.escape(str(pattern))!r} (re.escape) to match it as it stands."
        ) from error
    return lambda path, leaf: search(path) is not None


def _refuse_count(params: Leaf) -> None:
    """Refuses a single integer, which is what a schedule gets; no parameter is one."""
    if not jax.tree_util.all_leaves([params]):
        return
    dtype = getattr(params, "dtype", type(params))
    is_integer = not jnp.issubdtype(dtype, jnp.bool_) and jnp.issubdtype(dtype, jnp.integer)
    if is_integer and jnp.shape(params) == ():
        raise TypeError(
            "params must be the parameters, from which a function of lion_jax.groups makes a tree "
            f"like them; got {params!r}, which looks like a step count: optax.inject_hyperparams "
            "takes any function for a schedule. Try to name the argument that this function is "
            'given as: optax.inject_hyperparams(lion_jax.lion, static_args=("mask",)).'
        )


def _refuse_unmatched(rule: _Rule, named: Sequence[tuple[str, Any]]) -> None:
    """Refuses a regular expression without a leaf, unless some are hidden from us.

    Below an `optax.MaskedNode` there may have been anything. A None, for a missing gradient or an
    unused bias, counts as a leaf.
    """
    if not isinstance(rule.pattern, str | re.Pattern):
        return
    if any(rule.matches(path, None) for path, _ in named):
        return
    pattern = re.compile(rule.pattern).pattern
    count = sum(not _is_absent(leaf) for _, leaf in named)
    if count == 0 or any(isinstance(leaf, optax.MaskedNode) for _, leaf in named):
        return
    near = _near_misses(pattern, [path for path, _ in named])
    raise ValueError(
        f"pattern must be found in the path of at least one of the {count} leaves; "
        f"got {pattern!r}, which is in none. "
        f"{'Near misses' if near else 'Nothing is near it; the first paths'}: "
        f"{', '.join(map(repr, near or [path for path, _ in named[:3]]))}. "
        "Try one of them, or groups.paths(params) to see all."
    )


def _near_misses(pattern: str, names: Sequence[str]) -> list[str]:
    """At most five paths, or parts of them, that look like the pattern or an alternative in it."""
    parts = [part for name in names for part in name.split("/")]
    candidates = {candidate.lower(): candidate for candidate in (*parts, *names)}
    near = [
        candidates[match]
        for alternative in re.sub(r"[\\^$.*+?()\[\]{}]", "", pattern).lower().split("|")
        for match in difflib.get_close_matches(alternative, candidates, 5, _NEAR)
    ]
    return list(dict.fromkeys(near))[:5]


def _is_absent(leaf: Leaf) -> bool:
    return leaf is None or isinstance(leaf, optax.MaskedNode)


def _with_paths(tree: PyTree) -> list[tuple[str, Any]]:
    """Leaves, and placeholders of absent ones, by path."""
    return [
        (jax.tree_util.keystr(keys, simple=True, separator="/"), leaf)
        for keys, leaf in _with_keys(tree)
    ]


def _with_keys(tree: PyTree) -> list[tuple[KeyPath, PyTree]]:
    return jax.tree_util.tree_leaves_with_path(unwrapped(tree), is_leaf=_is_absent)
