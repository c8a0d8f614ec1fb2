"""Groups of chips and distances between them, against brute force."""

import itertools
from collections import deque

import numpy as np
import pytest

from lion_jax.lab import RequestError
from lion_jax.lab.cost.groups import replica_groups, source_target_pairs
from lion_jax.lab.cost.hlo import Array
from lion_jax.lab.cost.names import GENERATIONS, parse
from lion_jax.lab.cost.traffic import Collective
from lion_jax.lab.cost.wires import Hosts, Torus, _rings, sent

TORI = [
    Torus((4, 4), (True, True)),
    Torus((2, 4), (False, False)),
    Torus((5, 3), (True, False)),
    Torus((4, 4, 4), (True, True, True)),
    Torus((1, 6), (True, True)),
]


def collective(kind, groups, nbytes=840):
    operand = Array("u8", (nbytes,), 8, nbytes)
    return Collective(kind, (operand,), groups, 1, "test")


def neighbours(torus):
    """For each chip those that a link reaches, without the torus's own arithmetic."""
    links = {c: set() for c in torus.coordinates}
    for c in torus.coordinates:
        for d, n in enumerate(torus.extents):
            for step in (-1, 1):
                other = [*c]
                other[d] += step
                if torus.wraps[d]:
                    other[d] %= n
                if tuple(other) in links and tuple(other) != c:
                    links[c].add(tuple(other))
    return links


@pytest.mark.parametrize("torus", TORI, ids=lambda torus: str(torus.extents))
def test_distances_are_those_of_a_walk_along_links(torus):
    links = neighbours(torus)
    for start in torus.coordinates:
        walked, waiting = {start: 0}, deque([start])
        while waiting:
            at = waiting.popleft()
            for other in links[at] - walked.keys():
                walked[other] = walked[at] + 1
                waiting.append(other)
        assert walked == {c: torus.distance(start, c) for c in torus.coordinates}
    assert torus.links_per_chip == pytest.approx(np.mean([len(n) for n in links.values()]))


@pytest.mark.parametrize("torus", TORI, ids=lambda torus: str(torus.extents))
def test_bytes_of_an_all_to_all_cross_the_mean_distance(torus):
    chips = torus.coordinates
    pairs = list(itertools.permutations(chips, 2))
    mean = np.mean([torus.distance(a, b) for a, b in pairs])
    counted = sent(collective("all-to-all", "replica_groups={}"), torus)
    assert counted.nbytes == pytest.approx(840 * (len(chips) - 1) / len(chips))
    assert counted.hop_bytes == pytest.approx(counted.nbytes * mean)


@pytest.mark.parametrize(
    ("extents", "wraps", "groups", "stretch"),
    [
        ((16, 16), (True, True), "{}", 1),
        ((8, 8, 8), (True, True, True), "{}", 1),
        ((4, 4), (False, False), "{}", 1),
        ((8, 8), (False, False), "{}", 1),
        ((3, 4), (False, False), "{}", 1),
        ((2, 2, 4), (False, False, False), "{}", 1),
        ((3, 5, 2), (False, False, False), "{}", 1),
        ((3, 3), (False, False), "{}", (8 + 2) / 9),  # the corners are of a colour, as on a board
        ((2, 4), (False, False), "{}", 1),
        ((1, 8), (False, False), "{}", (7 + 7) / 8),
        ((4, 4), (True, True), "[4,4]<=[16]", 1),
        ((4, 4), (True, True), "[4,4]<=[4,4]T(1,0)", 1),
        ((4, 4), (True, True), "{{0,2},{1,3},{4,6},{5,7},{8,10},{9,11},{12,14},{13,15}}", 2),
    ],
)
def test_a_ring_goes_from_neighbour_to_neighbour_where_it_can(extents, wraps, groups, stretch):
    torus = Torus(extents, wraps)
    counted = sent(collective("all-reduce", f"replica_groups={groups}"), torus)
    assert counted.hop_bytes / counted.nbytes == pytest.approx(stretch)


@pytest.mark.parametrize("extents", [(4, 4), (8, 8), (3, 4), (2, 2, 4), (3, 5, 2)])
def test_a_grid_with_an_even_side_has_a_ring_of_links(extents):
    torus = Torus(extents, (False,) * len(extents))
    links = neighbours(torus)
    rings = [ring for ring in _rings(torus.coordinates) if all_linked(ring, links)]
    assert rings
    assert all(sorted(ring) == torus.coordinates for ring in rings)


def all_linked(ring, links):
    return all(b in links[a] for a, b in itertools.pairwise([*ring, ring[0]]))


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        ("all-reduce", 2 * 3 / 4),
        ("all-gather", 3),
        ("reduce-scatter", 3 / 4),
        ("all-to-all", 3 / 4),
    ],
)
def test_what_is_sent_depends_on_the_size_of_the_group(kind, share):
    torus = Torus((4, 4), (True, True))
    counted = sent(collective(kind, "replica_groups=[4,4]<=[16]"), torus)
    assert (counted.nbytes, counted.group_size) == (840 * share, 4)


def test_a_permutation_sends_what_moves_as_far_as_it_goes():
    torus = Torus((4, 4), (True, True))
    pairs = "source_target_pairs={{0,0},{1,2},{2,8}}"
    assert source_target_pairs(pairs) == [(0, 0), (1, 2), (2, 8)]
    counted = sent(collective("collective-permute", pairs), torus)
    assert counted.nbytes == 840 * 2 / 16
    assert counted.hop_bytes == 840 * (1 + 4) / 16


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("{{0,2},{1,3}}", [[0, 2], [1, 3]]),
        ("{{3,1,2,0}}", [[3, 1, 2, 0]]),
        ("{}", [[0, 1, 2, 3]]),
        ("[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("mesh['a'=2,'b'=2] {'a'}", [[0, 2], [1, 3]]),
        ("mesh['a'=2,'b'=2] {'b','a'}", [[0, 2, 1, 3]]),
        ("mesh['a'=4] {'a':(1)2}", [[0, 2], [1, 3]]),
        ("mesh['a'=4] {'a':(2)2}", [[0, 1], [2, 3]]),
        ("mesh['a'=4,'one'=1] {'a','one'}", [[0, 1, 2, 3]]),
    ],
)
def test_groups_are_read_in_all_their_forms(text, groups):
    attributes = f", channel_id=1, replica_groups={text}, use_global_device_ids=true"
    assert replica_groups(attributes, 4).tolist() == groups


def test_a_large_mesh_groups_as_an_array_of_its_shape_does():
    ids = np.arange(64).reshape(4, 2, 8)
    text = "replica_groups=mesh['x'=4,'y'=2,'z'=8] {'z':(2)2,'x'}"
    by_hand = ids.reshape(4, 2, 2, 2, 2).transpose(1, 2, 4, 3, 0).reshape(8, 8)
    assert replica_groups(text, 64).tolist() == by_hand.tolist()


@pytest.mark.parametrize(
    ("kind", "groups", "message"),
    [
        ("all-reduce", "replica_groups=spiral(3)", "unknown form of replica groups"),
        ("all-reduce", "replica_groups=mesh['a'=16], device_ids=(3) {'a'}", "unknown form"),
        ("all-reduce", "replica_groups={{0},{1,2}}", "groups of several sizes"),
        ("collective-permute", "", "unknown form of source_target_pairs"),
        ("ragged-all-to-all", "replica_groups={}", "possible: all-reduce, "),
    ],
)
def test_what_cannot_be_counted_is_an_error_rather_than_nothing(kind, groups, message):
    with pytest.raises(RequestError, match=message):
        sent(collective(kind, groups), TORI[0])


@pytest.mark.parametrize(
    ("name", "wraps", "links"),
    [
        ("v5e:16x16", (True, True), 4),
        ("v5e:8x16", (False, True), 2 * 7 / 8 + 2),
        ("v6e:4x4", (False, False), 3),
        ("v5p:8x8x8", (True, True, True), 6),
        ("v5p:2x4x4", (False, False, False), 1 + 1.5 + 1.5),
        ("v4:4x4x8", (True, True, True), 6),
    ],
)
def test_slices_are_rings_where_the_pod_closes_them(name, wraps, links):
    generation, extents = parse(name)
    assert generation.wraps(extents) == wraps
    assert Torus(extents, wraps).links_per_chip == pytest.approx(links)


def test_every_shape_that_is_offered_is_one():
    for kind, generation in GENERATIONS.items():
        for shape in generation.shapes:
            assert parse(f"{kind}:{shape}")[1] == tuple(int(n) for n in shape.split("x"))


@pytest.mark.parametrize(
    ("kind", "nvlink", "network"),
    [
        # Three hosts of four; number n is on host n mod 3. 840 bytes on each, by hand:
        ("all-reduce", 2 * 840 * 3 / 4, 2 * 840 / 4 * 2 / 3),
        ("reduce-scatter", 840 * 3 / 4, 840 / 4 * 2 / 3),
        ("all-gather", 3 * 840 * 3, 840 * 2),  # between hosts first, then all of it within
        ("all-to-all", 840 / 12 * 3, 840 / 12 * 8),
    ],
)
def test_gpus_exchange_within_their_host_and_between_those_of_a_rank(kind, nvlink, network):
    counted = sent(collective(kind, "replica_groups={}"), Hosts(3, 4))
    assert counted.group_size == 12
    assert counted.network_bytes == pytest.approx(network)
    assert counted.nbytes - counted.network_bytes == pytest.approx(nvlink)
    assert counted.hop_bytes == pytest.approx(counted.nbytes)


@pytest.mark.parametrize("kind", ["all-reduce", "all-gather", "all-to-all"])
@pytest.mark.parametrize(("groups", "share"), [("{{0,3},{1,4},{2,5}}", 0), ("[2,3]<=[6]", 1)])
def test_groups_on_one_host_or_with_one_gpu_on_each_use_one_kind_of_link(kind, groups, share):
    counted = sent(collective(kind, f"replica_groups={groups}"), Hosts(3, 2))
    assert counted.nbytes > 0
    assert counted.network_bytes == share * counted.nbytes


def test_a_permutation_crosses_the_network_where_it_leaves_a_host():
    pairs = "source_target_pairs={{0,0},{0,2},{1,2}}"
    counted = sent(collective("collective-permute", pairs), Hosts(2, 2))
    assert (counted.nbytes, counted.network_bytes) == (840 * 2 / 4, 840 / 4)


@pytest.mark.parametrize("kind", ["all-reduce", "all-to-all"])
def test_a_gpu_alone_sends_nothing(kind):
    counted = sent(collective(kind, "replica_groups={}"), Hosts(1, 1))
    assert (counted.nbytes, counted.network_bytes) == (0, 0)
