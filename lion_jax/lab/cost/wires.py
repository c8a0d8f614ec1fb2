"""Bytes that collectives put on the links between chips, and how many links they cross."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from lion_jax.lab.cost.groups import replica_groups, source_target_pairs
from lion_jax.lab.cost.traffic import Collective
from lion_jax.lab.errors import RequestError

Coordinates = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Torus:
    """Chips on a grid, each linked to its neighbours.

    Attributes:
      extents: chips along each dimension.
      wraps: whether the last chip along a dimension is linked to the first.
    """

    extents: tuple[int, ...]
    wraps: tuple[bool, ...]

    @functools.cached_property
    def coordinates(self) -> list[Coordinates]:
        """Coordinates of all chips, in order: the last dimension changes fastest."""
        return [tuple(map(int, c)) for c in np.ndindex(*self.extents)]

    def distance(self, a: Coordinates, b: Coordinates) -> int:
        """Links on a shortest way between two chips."""
        steps = zip(a, b, self.extents, self.wraps, strict=True)
        return sum(min(abs(x - y), n - abs(x - y)) if w else abs(x - y) for x, y, n, w in steps)

    @property
    def links_per_chip(self) -> float:
        """Outgoing links of a chip, the mean over all: 4 and 6 on a whole torus, fewer at edges."""
        return sum(
            2 if wrapped and n > 2 else 2 * (n - 1) / n
            for n, wrapped in zip(self.extents, self.wraps, strict=True)
        )


@dataclasses.dataclass(frozen=True)
class Sent:
    """The bytes that a collective sends in a step, each figure the mean over all chips.

    Attributes:
      nbytes: bytes that a chip sends.
      hop_bytes: the same times the links that each byte crosses.
      group_size: chips that exchange with each other; 2 in a permutation.
    """

    nbytes: float
    hop_bytes: float
    group_size: int


def sent(collective: Collective, torus: Torus) -> Sent:
    r"""Counts a collective with the formulas of the bandwidth-optimal algorithms.

    With :math:`b` bytes that each of :math:`g` chips brings, each chip sends
    :math:`2 b (g-1)/g` in an all-reduce, :math:`b (g-1)/g` in a reduce-scatter or an all-to-all,
    :math:`b (g-1)` in an all-gather and :math:`b` in a permutation. The bytes of an all-to-all and
    of a permutation take a shortest way. All others go around a ring through the group's chips. Its
    neighbours are a link apart where the group goes around the torus, or is a box of an even number
    of chips and no line. In another box the last chip is further from the first.
    Whatever the compiler does better or worse than that is not counted.

    Args:
      collective: a collective, whose chips are numbered like the torus's coordinates.
      torus: the chips.

    Raises:
      RequestError: a kind or groups that cannot be counted.
    """
    chips, b = len(torus.coordinates), collective.operand_bytes * collective.times
    if collective.kind == "collective-permute":
        pairs = source_target_pairs(collective.attributes)
        distances = [_distance(torus, pair) for pair in pairs]
        moving = sum(distance > 0 for distance in distances)
        return Sent(b * moving / chips, b * sum(distances) / chips, 2)
    groups = replica_groups(collective.attributes, chips)
    g = groups.shape[1]
    shares = {
        "all-reduce": 2 * (g - 1) / g,
        "reduce-scatter": (g - 1) / g,
        "all-gather": g - 1,
        "all-to-all": (g - 1) / g,
        "collective-broadcast": 1,
    }
    if collective.kind not in shares:
        raise RequestError(
            f"cannot count the bytes of {collective.kind} ({collective.source}); "
            f"possible: {', '.join(shares)}, collective-permute"
        )
    nbytes = b * shares[collective.kind]
    stretch = _mean_distance if collective.kind == "all-to-all" else _ring_stretch
    return Sent(nbytes, nbytes * float(np.mean([stretch(torus, row) for row in groups])), g)


def _distance(torus: Torus, pair: Sequence[int]) -> int:
    a, b = (torus.coordinates[i] for i in pair)
    return torus.distance(a, b)


def _mean_distance(torus: Torus, group: np.ndarray) -> float:
    """The mean distance of two different chips of a group, in links."""
    at = np.array([torus.coordinates[i] for i in group])
    total = 0.0
    for column, n, wrapped in zip(at.T, torus.extents, torus.wraps, strict=True):
        apart = np.abs(column[:, None] - column[None])
        total += np.sum(np.minimum(apart, n - apart) if wrapped else apart)
    return total / max(len(at) * (len(at) - 1), 1)


def _ring_stretch(torus: Torus, group: np.ndarray) -> float:
    """Links between neighbours of a ring through a group's chips, the mean over the best ring."""
    at = [torus.coordinates[i] for i in group]
    ranks = [{v: r for r, v in enumerate(sorted(set(column)))} for column in zip(*at, strict=True)]
    places = {tuple(r[v] for r, v in zip(ranks, c, strict=True)): c for c in at}
    return min(
        sum(torus.distance(places[a], places[b]) for a, b in itertools.pairwise([*ring, ring[0]]))
        / len(ring)
        for ring in _rings(list(places))
    )


def _rings(places: list[Coordinates]) -> Iterator[list[Coordinates]]:
    """Ways around a grid: a snake, which may end far from its start, and those that come back.

    One that comes back takes the chips in rows, each a snake through all other dimensions. It goes
    through them forth and back but for their first chips, along which it returns.
    """
    yield sorted(places, key=_place_in_snake)
    for d in range(len(places[0])):
        rest = {p: (*p[:d], *p[d + 1 :]) for p in places}
        along = {r: n for n, r in enumerate(sorted(set(rest.values()), key=_place_in_snake))}

        def key(p, d=d, rest=rest, along=along):
            row, place = p[d], along[rest[p]]
            return (0, row, -place if row % 2 else place) if place else (1, -row, 0)

        yield sorted(places, key=key)


def _place_in_snake(at: Coordinates) -> list[int]:
    """A key that orders a grid so that each row runs back where the one before ran forth."""
    key, crossed = [], 0
    for value in at:
        key.append(-value if crossed % 2 else value)
        crossed += value
    return key
