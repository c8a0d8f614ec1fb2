"""Takes optimizer states apart into fields, and finds the old field for each new one."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.tree_util import KeyPath

from lion_jax._core.paths import Names, is_covered, name_of, names_below, names_of
from lion_jax._core.states import children_of, is_absent, is_leaf
from lion_jax._core.types import PyTree

# Where a schedule is: the counters of optax's schedules and of those here count the same.
_SAME_COUNT = {"schedule_count": "count"}
# What reads schedules at its count, so that all of them may go on from the same one.
_SCHEDULES = {
    *("WrappedScheduleState", "ScaleByScheduleState"),
    *("HyperparametersState", "ScheduledState"),
}
# What stands for a moment in another form. Its fields mean nothing without each other.
_FORMS = {"Quantized"}
# Where nu is no square, so that its integers mean other numbers.
_SIGNED_NU = {"SophiaState", "ScaleBySM3State"}
# Fields that tell by their shape and dtype how integers are meant.
UNITS = ("group_size", "correction_of")
# Nothing reads it, so its place need not be filled for a momentum to go on.
_UNREAD = {("ScaleByLionState", "count")}


@dataclasses.dataclass(frozen=True, eq=False)
class Leaf:
    """A leaf, where it is, and the field that it is of."""

    keys: KeyPath
    field: str
    value: Any

    @property
    def path(self) -> str:
        """The path as people read it."""
        return jax.tree_util.keystr(self.keys, simple=True, separator="/")


@dataclasses.dataclass
class Link:
    """The leaves of one NamedTuple in a state, not of a wrapper or a chain.

    Attributes:
      type_name: that of the NamedTuple; empty if it was restored as a dict.
      names: the names above it, without the positions in chains.
      leaves: by field and by the names below it.
      absent: the same for leaves that are masked or None.
      moments: the fields that are trees like the parameters.
      fresh: the leaves that are neither to be carried nor compared.
      wholes: for each leaf that is a part of a moment in another form, the key that its parts
        share.
    """

    type_name: str
    names: Names
    leaves: dict[Names, Leaf] = dataclasses.field(default_factory=dict)
    absent: set[Names] = dataclasses.field(default_factory=set)
    moments: set[str] = dataclasses.field(default_factory=set)
    fresh: set[Names] = dataclasses.field(default_factory=set)
    wholes: dict[Names, Names] = dataclasses.field(default_factory=dict)

    def places(self) -> dict[Names, Leaf]:
        """The leaves that may be carried, by the key under which they are looked up."""
        alias = {} if self.moments else _SAME_COUNT
        return {
            (alias.get(key[0], key[0]), *key[1:]): leaf
            for key, leaf in self.leaves.items()
            if key not in self.fresh
        }

    def units(self) -> dict[str, Leaf]:
        """By field what tells how the integers here, or in states within, are meant."""
        return {leaf.field: leaf for leaf in self.leaves.values() if leaf.field in UNITS}

    def fields(self) -> set[str]:
        """The fields with leaves."""
        return {key[0] for key in self.leaves}


class Reader:
    """Takes states apart into links, by the names of the parameters."""

    def __init__(self, params: set[Names], like: Iterable[Link] = ()):
        self.params = params
        self.keys = {key for link in like for key in (*link.leaves, *link.places())}
        self.fields = {field for link in like for field in link.moments}
        self.links: dict[tuple[str, Names], Link] = {}

    def read(self, state: PyTree) -> list[Link]:
        """The links of a state, in order."""
        self._visit(state, (), None, 0)
        return [link for link in self.links.values() if link.leaves or link.absent]

    def _visit(self, node, keys, type_name, start):
        """Records what is at `keys`, whose field is the one at `start` if there is a type."""
        is_moment = (
            type(node).__name__ in _FORMS
            or self._fits(node)
            or self._is_misfit(node, keys, type_name, start)
        )
        if is_moment or is_absent(node) or is_leaf(node):
            self._record(node, keys, type_name, start, is_moment)
            return
        for key, child in children_of(node):
            if isinstance(key, jax.tree_util.GetAttrKey):
                self._visit(child, (*keys, key), type(node).__name__, len(keys))
            else:
                self._visit(child, (*keys, key), type_name, start)

    def _record(self, node, keys, type_name, start, is_moment):
        names = names_of(keys)
        if type_name is None:
            type_name, start = "", self._field_of(names)
        link_names = names[:start]
        link = self.links.setdefault(
            (type_name, link_names), Link(type_name, _without_positions(link_names))
        )
        field = names[start] if names else ""
        below = jax.tree_util.tree_leaves_with_path(node, is_leaf=is_absent)
        for rest, leaf in below:
            key = (field, *names[start + 1 :], *names_of(rest))
            if is_absent(leaf):
                link.absent.add(key)
            else:
                link.leaves[key] = Leaf((*keys, *rest), field, leaf)
                if type(node).__name__ in _FORMS:
                    link.wholes[key] = (*names[start:], *names_of(rest[1:]))
                if is_moment and field not in UNITS and (self.params != {()} or shape_of(leaf)):
                    link.moments.add(field)

    def _field_of(self, names: Names) -> int:
        """The place of the field among names without types: the most that is known, or the last."""
        known = (i for i in range(len(names)) if names[i:] in self.keys)
        words = (i for i in reversed(range(len(names))) if not names[i].isdigit())
        return next(known, next(words, 0))

    def _fits(self, node) -> bool:
        """Tells whether it is a tree like the parameters, of which some may be masked."""
        if is_absent(node):
            return False
        below = names_below(node)
        present = {names for names, leaf in below if not is_absent(leaf)}
        absent = {names for names, leaf in below if is_absent(leaf)}
        return present <= self.params and all(
            is_covered(names, absent) for names in self.params - present
        )

    def _is_misfit(self, node, keys, type_name, start) -> bool:
        """Tells whether it has the name of a moment but is a tree like other parameters."""
        if not keys or is_leaf(node) or (type_name is not None and len(keys) != start + 1):
            return False
        return names_of(keys)[-1] in self.fields and not self._has_moments(node)

    def _has_moments(self, node) -> bool:
        return not is_leaf(node) and any(
            (name_of(key) in self.fields and self._fits(child)) or self._has_moments(child)
            for key, child in children_of(node)
        )


def match(old: list[Link], new: list[Link]) -> dict[Leaf, Leaf]:
    """The old leaf for each new leaf that has one."""
    sources: dict[Leaf, Leaf] = {}
    taken: dict[Leaf, set[Names]] = collections.defaultdict(set)
    for _, source, target in sorted(_pairs(old, new), key=lambda pair: pair[0]):
        ours, theirs = target.places(), source.places()
        pairs = [
            (leaf, theirs[place])
            for place, leaf in ours.items()
            if place in theirs and _may_replace(theirs[place], leaf)
        ]
        moves = [
            (leaf, move)
            for leaf, move in pairs
            if leaf not in sources
            and (
                target.type_name in _SCHEDULES
                or not any(_are_in_series(target.names, names) for names in taken[move])
            )
        ]
        moves = _whole(moves, target)
        # A count belongs to the moments beside it.
        if not target.moments or any(leaf.field in target.moments for leaf, _ in moves):
            for leaf, move in moves:
                sources[leaf] = move
                taken[move].add(target.names)
    return sources


def _whole(moves: list[tuple[Leaf, Leaf]], target: Link) -> list[tuple[Leaf, Leaf]]:
    """The moves that leave no part of a moment behind."""
    moving = {leaf for leaf, _ in moves}
    parts = collections.defaultdict(list)
    for key, whole in target.wholes.items():
        parts[whole].append(target.leaves[key])
    halved = {leaf for leaves in parts.values() if not moving.issuperset(leaves) for leaf in leaves}
    return [move for move in moves if move[0] not in halved]


def _may_replace(old: Leaf, new: Leaf) -> bool:
    """Tells whether both have entries, or neither: metrics keep no signs if there are too many."""
    if new.field in UNITS:
        return unit_of(old) == unit_of(new)
    return _is_empty(old) == _is_empty(new)


def unit_of(leaf: Leaf) -> str:
    """The group size, which is a key, or the dtype of the parameters that a correction is of."""
    return name_of(leaf.keys[-1]) if leaf.field == "group_size" else str(leaf.value.dtype)


def _is_empty(leaf: Leaf) -> bool:
    """Tells whether it has no entries."""
    return 0 in shape_of(leaf.value)


def _pairs(old: list[Link], new: list[Link]) -> Iterator[tuple[tuple[int, ...], Link, Link]]:
    """Links between which leaves may move, each with its rank: the first the likeliest."""
    order = {
        id(link): sum(other.type_name == link.type_name for other in links[:i])
        for links in (old, new)
        for i, link in enumerate(links)
    }
    for target in new:
        ours = target.places()
        for source in old:
            common = len(ours.keys() & source.places().keys())
            is_same = source.type_name == target.type_name
            if common and (is_same or _goes_on(source, target)) and _may_move(source, target):
                distance = abs(order[id(source)] - order[id(target)])
                is_other = source.fields() != target.fields()
                end = _common_end(source.names, target.names)
                yield (not is_same, is_other, -common, -end, distance), source, target


def _goes_on(source: Link, target: Link) -> bool:
    """Tells whether a link can take over from one of another type."""
    if bool(source.moments) is not bool(target.moments):
        return False
    if target.wholes and (source.type_name in _SIGNED_NU) is not (target.type_name in _SIGNED_NU):
        return False
    needed = {f for f in target.fields() if (target.type_name, f) not in _UNREAD}
    return not target.moments or needed <= source.fields()


def _may_move(source: Link, target: Link) -> bool:
    """Tells whether arrays of other shapes than the parameters' are below the same parameter."""
    is_plain = target.moments or not any(shape_of(leaf.value) for leaf in target.leaves.values())
    shortest = min(len(source.names), len(target.names))
    return bool(is_plain) or _common_end(source.names, target.names) == shortest


def _are_in_series(one: Names, other: Names) -> bool:
    """Tells whether two links see the same gradients: no two labels of `optax.partition`."""
    parted = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    return not parted or one[parted - 1] != "inner_states"


def _common_end(one: Names, other: Names) -> int:
    """The number of names at the end that are the same."""
    same = [a == b for a, b in zip(reversed(one), reversed(other), strict=False)]
    return same.index(False) if False in same else len(same)


def leaves_of(links: Iterable[Link]) -> Iterator[Leaf]:
    """All leaves, in order."""
    return (leaf for link in links for leaf in link.leaves.values())


def _without_positions(names: Names) -> Names:
    """Names without numbers, unless the number is a label of `optax.partition`."""
    before = ("", *names)
    return tuple(
        name
        for name, last in zip(names, before, strict=False)
        if not name.isdigit() or last == "inner_states"
    )


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape, also of an abstract array or a Python number."""
    return value.shape if hasattr(value, "shape") else np.shape(value)
