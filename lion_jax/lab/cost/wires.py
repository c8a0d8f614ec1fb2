"""Bytes that collectives put on the links between chips, and how many links they cross."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from lion_jax.lab.cost.gpus import Gpu
from lion_jax.lab.cost.groups import replica_groups, source_target_pairs
from lion_jax.lab.cost.names import Generation
from lion_jax.lab.cost.traffic import Collective
from lion_jax.lab.errors import RequestError

Coordinates = tuple[int, ...]
_RINGS = ("all-reduce", "reduce-scatter", "all-gather", "collective-broadcast")
"""Exchanges that go around a ring, or through a host and then between hosts."""


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

    @property
    def chips(self) -> int:
        """The number of chips."""
        return math.prod(self.extents)

    def crossed(self, kind: str, group: Sequence[int]) -> float:
        """Links that a byte crosses when a group exchanges, the mean."""
        return float((_ring_stretch if kind in _RINGS else _mean_distance)(self, group))

    def between_hosts(self, kind: str, group: Sequence[int]) -> float:
        """The share of the bytes that leave a host by the network: none within a slice."""
        return 0.0


@dataclasses.dataclass(frozen=True)
class Hosts:
    """GPUs in hosts: within one NVLink's switch joins all, between them a network.

    The k GPUs of a group on each of h hosts are assumed to reduce and gather in two levels: within
    a host, and between the GPUs of one rank on all hosts. Of the bytes sent, (h - 1) / (hk - 1)
    are between hosts.

    Attributes:
      hosts: their number.
      per_host: GPUs of each. The first of all hosts have the first numbers, then the second.
    """

    hosts: int
    per_host: int

    links_per_chip: ClassVar[float] = 1.0

    @property
    def chips(self) -> int:
        """The number of GPUs."""
        return self.hosts * self.per_host

    def crossed(self, kind: str, group: Sequence[int]) -> float:
        """Links that a byte crosses: one, NVLink's or the network's."""
        return float(len(set(group)) > 1)

    def between_hosts(self, kind: str, group: Sequence[int]) -> float:
        """The share of the bytes that a group sends from host to host."""
        hosts, on_each = np.unique(np.asarray(group) % self.hosts, return_counts=True)
        g = len(group)
        if kind in _RINGS:
            return (len(hosts) - 1) / max(g - 1, 1)
        return 1 - float(np.sum(on_each * (on_each - 1))) / max(g * (g - 1), 1) if g > 1 else 0.0


Links = Torus | Hosts


def linked(generation: Generation | Gpu, extents: tuple[int, ...]) -> Links:
    """The links between chips of a generation."""
    if isinstance(generation, Gpu):
        hosts, per_host = (1, *extents)[-2:]
        return Hosts(hosts, per_host)
    return Torus(extents, generation.wraps(extents))


@dataclasses.dataclass(frozen=True)
class Sent:
    """The bytes that a collective sends in a step, each figure the mean over all chips.

    Attributes:
      nbytes: bytes that a chip sends.
      hop_bytes: the same times the links that each byte crosses.
      group_size: chips that exchange with each other; 2 in a permutation.
      network_bytes: those bytes that go from host to host by a network.
    """

    nbytes: float
    hop_bytes: float
    group_size: int
    network_bytes: float = 0.0


def sent(collective: Collective, links: Links) -> Sent:
    r"""Counts a collective with the formulas of the bandwidth-optimal algorithms.

    With :math:`b` bytes that each of :math:`g` chips brings, each chip sends
    :math:`2 b (g-1)/g` in an all-reduce, :math:`b (g-1)/g` in a reduce-scatter or an all-to-all,
    :math:`b (g-1)` in an all-gather and :math:`b` in a permutation. The bytes of an all-to-all and
    of a permutation take a shortest way. All others go around a ring through the group's chips. Its
    neighbours are a link apart where the group goes around the torus, or is a box of an even number
    of chips and no line. In another box the last chip is further from the first. What GPUs send
    within a host and between hosts, :class:`Hosts` says.
    Whatever the compiler does better or worse than that is not counted.

    Args:
      collective: a collective, whose chips are numbered like the torus's coordinates.
      links: the links between the chips.

    Raises:
      RequestError: a kind or groups that cannot be counted.
    """
    kind, b = collective.kind, collective.operand_bytes * collective.times
    if kind == "collective-permute":
        moving = [(a, c) for a, c in source_target_pairs(collective.attributes) if a != c]
        each = b / links.chips
        crossed = sum(links.crossed(kind, pair) for pair in moving)
        between = sum(links.between_hosts(kind, pair) for pair in moving)
        return Sent(each * len(moving), each * crossed, 2, each * between)
    groups = replica_groups(collective.attributes, links.chips)
    g = groups.shape[1]
    shares = {
        "all-reduce": 2 * (g - 1) / g,
        "reduce-scatter": (g - 1) / g,
        "all-gather": g - 1,
        "all-to-all": (g - 1) / g,
        "collective-broadcast": 1,
    }
    if kind not in shares:
        raise RequestError(
            f"cannot count the bytes of {kind} ({collective.source}); "
            f"possible: {', '.join(shares)}, collective-permute"
        )
    nbytes = b * shares[kind]
    crossed = float(np.mean([links.crossed(kind, row) for row in groups]))
    between = float(np.mean([links.between_hosts(kind, row) for row in groups]))
    return Sent(nbytes, nbytes * crossed, g, nbytes * between)


def _mean_distance(torus: Torus, group: Sequence[int]) -> float:
    """The mean distance of two different chips of a group, in links."""
    at = np.array([torus.coordinates[i] for i in group])
    total = 0.0
    for column, n, wrapped in zip(at.T, torus.extents, torus.wraps, strict=True):
        apart = np.abs(column[:, None] - column[None])
        total += np.sum(np.minimum(apart, n - apart) if wrapped else apart)
    return total / max(len(at) * (len(at) - 1), 1)


def _ring_stretch(torus: Torus, group: Sequence[int]) -> float:
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
