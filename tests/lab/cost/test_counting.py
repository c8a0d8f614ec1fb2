"""Programs whose bytes are known are counted right: as recorded, and compiled anew."""

import importlib.util

import pytest
from lab.cost.known import FUSED, KNOWN, MIB, compiled, recorded
from lab.cost.known_on_gpus import ON_GPUS

from lion_jax.lab.cost import hlo, traffic
from lion_jax.lab.cost.names import parse
from lion_jax.lab.cost.wires import Torus, linked, sent

BY_NAME = {known.name: known for known in [*KNOWN, *ON_GPUS]}
SCALARS = 256 / MIB  # counters and such
COMPILERS = {"tpu": ("libtpu", "pods"), "gpu": ("jax_cuda13_plugin", "gpus")}


def platform_of(known):
    return parse(known.topology)[0].platform


def needs(known):
    """The mark of a test that compiles the program."""
    package, extra = COMPILERS[platform_of(known)]
    missing = importlib.util.find_spec(package) is None
    return [
        pytest.mark.slow,
        pytest.mark.skipif(missing, reason=f"needs {package}, from the extra {extra}"),
    ]


def each(programs):
    """Each program as recorded, and compiled anew."""
    return [pytest.param(known, recorded, id=f"recorded-{known.name}") for known in programs] + [
        pytest.param(known, compiled, id=f"compiled-{known.name}", marks=needs(known))
        for known in programs
    ]


def count(known, text):
    return traffic.count(hlo.parse(text(known), platform_of(known)))


def exchanges(known, text):
    """The bytes that each collective sends."""
    links = linked(*parse(known.topology))
    return [sent(c, links) for c in count(known, text).collectives]


@pytest.mark.parametrize(("known", "text"), each(BY_NAME.values()))
def test_what_goes_through_memory_is_what_counting_by_hand_says(known, text):
    moved = count(known, text).most
    assert moved.read / MIB == pytest.approx(known.read, abs=SCALARS)
    assert moved.written / MIB == pytest.approx(known.written, abs=SCALARS)
    assert moved.in_tiles / MIB == pytest.approx(known.read + known.written, rel=1e-3)


@pytest.mark.parametrize(("known", "text"), each(BY_NAME.values()))
def test_what_is_sent_is_what_the_formulas_say(known, text):
    assert tuple(c.kind for c in count(known, text).collectives) == known.kinds
    sends = exchanges(known, text)
    assert sum(s.nbytes for s in sends) / MIB == pytest.approx(known.sent)
    assert sum(s.hop_bytes for s in sends) / MIB == pytest.approx(known.crossed)
    assert sum(s.network_bytes for s in sends) / MIB == pytest.approx(known.network)


@pytest.mark.parametrize(("known", "text"), each(ON_GPUS))
def test_each_kernel_is_launched_as_often_as_it_runs_and_copies_are_told_apart(known, text):
    launched = count(known, text).most
    assert (launched.kernels, launched.small_kernels) == (known.kernels, known.small)
    assert launched.copied / MIB == pytest.approx(known.copied)
    assert (launched.copies > 0) == (known.copied > 0)


@pytest.mark.parametrize(("known", "text"), each([FUSED]))
def test_a_reduce_scatter_fused_from_an_all_reduce_is_one(known, text):
    counted = count(known, text)
    first, *rest = counted.collectives
    assert first.kind == "reduce-scatter"
    assert {c.kind for c in rest} <= {"collective-permute"}  # of what the padding misplaced
    # 512 rows of padding to 16384; the permutation moves at most two of sixteen parts.
    least = FUSED.sent * MIB
    total = sum(s.nbytes for s in exchanges(known, text))
    assert least <= total <= least * (1 + 512 / 16384 + 2 / 15)
    assert counted.most.read / MIB == pytest.approx(FUSED.read, rel=1e-4)


def test_a_loop_of_unknown_length_counts_once_and_is_named():
    assert count(BY_NAME["who_knows_how_often"], recorded).unknown_loops == ("jit(<lambda>)/while",)
    assert count(BY_NAME["five_times"], recorded).unknown_loops == ()


def test_the_cheapest_branch_is_counted_beside_the_dearest():
    counted = count(BY_NAME["sometimes"], recorded)
    assert counted.least.total / MIB == pytest.approx(0, abs=SCALARS)
    assert counted.most.total / MIB == pytest.approx(128, abs=SCALARS)


def test_a_collective_in_a_loop_runs_as_often_as_the_loop():
    (permutation,) = count(BY_NAME["five_permutations"], recorded).collectives
    assert permutation.times == 5
    assert permutation.operand_bytes == 32 * MIB
    assert permutation.dtypes == ("f32",)
    assert permutation.source.endswith("ppermute")


BRANCHES = """HloModule branches, is_scheduled=true

%sends (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0} parameter(0)
  ROOT %r = f32[8,128]{1,0} all-reduce(%p), replica_groups={}
}

%moves (q: f32[8,128]) -> f32[8,128] {
  %q = f32[8,128]{1,0} parameter(0)
  %s = f32[]{:S(6)} reduce(%q)
  %t = f32[]{:S(6)} all-reduce(%s), replica_groups={}
  %m = f32[8,128]{1,0} multiply(%q, %t)
  ROOT %o = f32[8,128]{1,0} copy(%m)
}

ENTRY %main (i: s32[], a: f32[8,128]) -> f32[8,128] {
  %i = s32[]{:S(6)} parameter(0)
  %a = f32[8,128]{1,0} parameter(1)
  ROOT %c = f32[8,128]{1,0} conditional(%i, %a, %a), branch_computations={%sends, %moves}
}
"""


def test_the_branch_that_sends_most_is_counted_be_it_the_cheapest_or_not():
    nbytes = 8 * 128 * 4
    counted = traffic.count(hlo.parse(BRANCHES))
    assert (counted.most.total, counted.least.total) == (5 * nbytes, 2 * nbytes)
    assert [c.operand_bytes for c in counted.collectives] == [nbytes]
    fewest = traffic.count(hlo.parse(BRANCHES), lambda c: -c.operand_bytes)
    assert [c.operand_bytes for c in fewest.collectives] == [4]


WRAPPED = """HloModule wrapped, is_scheduled=true

%gathering (p: f32[8,128]) -> f32[16,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %all-gather.1 = f32[16,128]{1,0:T(8,128)} all-gather(%p), replica_groups={{0,1},{2,3}}
}

%copying (q: f32[16,128]) -> f32[16,128] {
  %q = f32[16,128]{1,0:T(8,128)} parameter(0)
  ROOT %copy.1 = f32[16,128]{1,0:T(8,128)S(1)} copy(%q)
}

ENTRY %main (a: f32[8,128]) -> f32[16,128] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %s = ((f32[8,128]{1,0}), f32[16,128]{1,0}, u32[]{:S(2)}) async-start(%a), calls=%gathering
  %d = f32[16,128]{1,0:T(8,128)} async-done(%s)
  %g = (f32[8,128]{1,0}, f32[16,128]{1,0:S(1)}) all-gather-start(%a), replica_groups={}
  %h = f32[16,128]{1,0:S(1)} all-gather-done(%g)
  %c = f32[16,128]{1,0:S(1)} call(%d), to_apply=%copying
  %t = (f32[16,128]{1,0}, f32[16,128]{1,0:S(1)}) tuple(%d, %h)
  %r = (f32[16,128]{1,0}, f32[16,128]{1,0}) all-reduce(%t), replica_groups=[2,2]<=[4]
  ROOT %o = f32[16,128]{1,0} get-tuple-element(%r), index=0
}
"""


def test_what_is_wrapped_or_in_tuples_counts_like_what_is_not():
    small, large = 8 * 128 * 4, 16 * 128 * 4
    counted = traffic.count(hlo.parse(WRAPPED))
    # Twice the gather, once of it into the chip; the copy; the half of the tuple that is in HBM.
    assert counted.most.read == small + small + large + large
    assert counted.most.written == large + 0 + 0 + 2 * large
    kinds = [(c.kind, c.operand_bytes) for c in counted.collectives]
    assert kinds == [("all-gather", small), ("all-gather", small), ("all-reduce", 2 * large)]
    ring = Torus((4,), (True,))
    assert [sent(c, ring).nbytes for c in counted.collectives] == [small, 3 * small, 2 * large]


STARTED = """HloModule started, is_scheduled=true

%fused (x: f32[64,128], u: f32[8,128]) -> f32[64,128] {
  %x = f32[64,128]{1,0} parameter(0)
  %u = f32[8,128]{1,0} parameter(1)
  %c = s32[] constant(8)
  ROOT %d = f32[64,128]{1,0} dynamic-update-slice(%x, %u, %c, %c)
}

%copying (x: f32[64,128], y: f32[64,128]) -> (f32[64,128], f32[64,128]) {
  %x = f32[64,128]{1,0} parameter(0)
  %y = f32[64,128]{1,0} parameter(1)
  %v = f32[64,128]{1,0} copy(%x)
  %w = f32[64,128]{1,0} copy(%y)
  ROOT %t = (f32[64,128]{1,0}, f32[64,128]{1,0}) tuple(%v, %w)
}

ENTRY %main (a: f32[64,128], b: f32[8,128]) -> f32[64,128] {
  %a = f32[64,128]{1,0} parameter(0)
  %b = f32[8,128]{1,0} parameter(1)
  %s = ((f32[64,128]{1,0}, f32[8,128]{1,0}), f32[64,128]{1,0}, u32[]) fusion-start(%a, %b), calls=%fused
  %d = f32[64,128]{1,0} fusion-done(%s)
  %two = (f32[64,128]{1,0}, f32[64,128]{1,0}) fusion(%d, %a), calls=%copying
  %r = ((f32[8,128]{1,0:S(1)}), f32[4,128]{1,0:S(1)}) reduce-scatter-start(%b), replica_groups={}
  %e = f32[4,128]{1,0:S(1)} reduce-scatter-done(%r)
  %tiny = f32[2]{0} slice(%e)
  ROOT %o = f32[64,128]{1,0} get-tuple-element(%two), index=0
}
"""  # noqa: E501


def test_what_a_gpu_starts_and_awaits_is_a_kernel_and_two_copies_in_one_are_one():
    counted = traffic.count(hlo.parse(STARTED, "gpu"))
    large, update, part = 64 * 128 * 4, 8 * 128 * 4, 4 * 128 * 4
    moved = counted.most
    assert moved.read == update + 2 * large + update + 8
    assert moved.written == update + 2 * large + part + 8
    assert (moved.kernels, moved.small_kernels) == (4, 1)
    assert (moved.copies, moved.copied) == (1, 4 * large)
    assert [(c.kind, c.operand_bytes) for c in counted.collectives] == [("reduce-scatter", update)]
