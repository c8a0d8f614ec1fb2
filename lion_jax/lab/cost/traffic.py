"""The traffic of a compiled program: through a chip's memory, and between chips."""

import dataclasses
import operator
import re
from collections.abc import Callable, Iterable, Iterator

from lion_jax.lab.cost.accesses import reads, writes
from lion_jax.lab.cost.copies import is_copy
from lion_jax.lab.cost.hlo import Array, Computation, Instruction, Program
from lion_jax.lab.cost.loops import trip_count

_KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_COLLECTIVES = {kind + suffix: kind for kind in _KINDS for suffix in ("", "-start")}
# They name what is there, or wait for what was counted when it started.
_FREE = {
    "parameter",
    "constant",
    "get-tuple-element",
    "tuple",
    "bitcast",
    "after-all",
    "add-dependency",
    "opt-barrier",
    "partition-id",
    "replica-id",
    "async-update",
    "async-done",
    "copy-done",
    "slice-done",
    "send-done",
    "recv-done",
    *(f"{kind}-done" for kind in _KINDS),
}
_FREE_TARGETS = ("ConcatBitcast", "AllocateBuffer", "AssumeGatherIndicesInBound")
_SMALL = 1000  # bytes: a kernel that moves less takes as long as its launch


@dataclasses.dataclass(frozen=True)
class Moved:
    """Bytes through a chip's memory, and the operations that move them.

    Attributes:
      read: bytes read from HBM, without padding.
      written: bytes written to HBM, without padding.
      in_tiles: both, with the padding of the tiles that the elements lie in.
      kernels: operations that run; on a GPU each is a launch.
      small_kernels: those of them that move less than 1 kB.
      copies: those of them that only copy from HBM to HBM, 1 kB or more.
      copied: bytes that these read and write.
    """

    read: float = 0
    written: float = 0
    in_tiles: float = 0
    kernels: int = 0
    small_kernels: int = 0
    copies: int = 0
    copied: float = 0

    @property
    def total(self) -> float:
        """Bytes read and written, without padding."""
        return self.read + self.written

    def __add__(self, other: "Moved") -> "Moved":
        """The bytes of two parts of a program, one after the other."""
        return Moved(*map(operator.add, dataclasses.astuple(self), dataclasses.astuple(other)))

    def __mul__(self, times: int) -> "Moved":
        """The bytes of one part that runs several times."""
        return Moved(*(times * figure for figure in dataclasses.astuple(self)))


@dataclasses.dataclass(frozen=True)
class Collective:
    """An exchange between chips.

    Attributes:
      kind: such as `all-reduce`; a `reduce-scatter` may be fused from an all-reduce and a slice.
      operands: the arrays that each chip brings.
      attributes: the text that says who exchanges with whom.
      times: how often it runs in a step.
      source: the operation of the traced program that it stems from.
    """

    kind: str
    operands: tuple[Array, ...]
    attributes: str
    times: int
    source: str

    @property
    def operand_bytes(self) -> float:
        """Bytes that each chip brings, each time, without padding."""
        return sum(x.nbytes for x in self.operands)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The types of the operands, each named once."""
        return tuple(dict.fromkeys(x.dtype for x in self.operands))


@dataclasses.dataclass(frozen=True)
class Traffic:
    """The traffic of one run of a program, or of a part of one.

    Attributes:
      most: bytes through HBM, where each `conditional` takes its dearest branch.
      least: the same with the cheapest branches.
      collectives: those of the branches that send most, even if others move more.
      unknown_loops: loops whose number of runs is unknown; counted once.
    """

    most: Moved = Moved()
    least: Moved = Moved()
    collectives: tuple[Collective, ...] = ()
    unknown_loops: tuple[str, ...] = ()

    def __add__(self, other: "Traffic") -> "Traffic":
        """The traffic of two parts of a program, one after the other."""
        return Traffic(
            self.most + other.most,
            self.least + other.least,
            self.collectives + other.collectives,
            self.unknown_loops + other.unknown_loops,
        )

    def __mul__(self, times: int) -> "Traffic":
        """The traffic of one part that runs several times."""
        repeated = [dataclasses.replace(c, times=c.times * times) for c in self.collectives]
        return Traffic(self.most * times, self.least * times, tuple(repeated), self.unknown_loops)


def count(
    program: Program,
    sends: Callable[[Collective], float] = lambda c: c.operand_bytes * c.times,
) -> Traffic:
    """Counts what one run of a program moves, from its scheduled text.

    Each operation counts with what it reads and writes in HBM: operands and results whose layout
    names no other memory space. A fusion reads of an operand what it slices, and writes an update
    in place. A copy that runs ahead counts when it starts. A collective reads its operands and
    writes its results once. A loop counts as often as it runs. Each operation is a kernel; what
    only names an array or waits is none, and a `call` is what it calls.

    Args:
      program: the program.
      sends: bytes that a collective sends, by which branches are compared; by default what each
        chip brings.
    """
    return _Counter(program, sends).of(program.entry)


class _Counter:
    def __init__(self, program: Program, sends: Callable[[Collective], float]):
        self._program = program
        self._sends = sends
        self._counted: dict[str, Traffic] = {}

    def of(self, computation: Computation) -> Traffic:
        """The traffic of a computation that runs once."""
        if computation.name not in self._counted:
            parts = [self._of_instruction(computation, i) for i in computation.instructions]
            self._counted[computation.name] = sum(parts, Traffic())
        return self._counted[computation.name]

    def _of_instruction(self, computation: Computation, i: Instruction) -> Traffic:
        is_free = i.opcode in _FREE or i.opcode.endswith("-done")  # of whatever was started
        if is_free or any(f'"{target}"' in i.attributes for target in _FREE_TARGETS):
            return Traffic()
        if i.opcode == "while":
            return self._of_loop(computation, i)
        if i.opcode == "conditional":
            keys = "branch_computations", "true_computation", "false_computation"
            branches = [self.of(c) for c in self._called(i, *keys)]
            dearest = max(branches, key=lambda t: t.most.total)
            cheapest = min(branches, key=lambda t: t.least.total)
            sending = max(
                branches, key=lambda t: (sum(map(self._sends, t.collectives)), len(t.collectives))
            )
            loops = dict.fromkeys((*dearest.unknown_loops, *sending.unknown_loops))
            return Traffic(dearest.most, cheapest.least, sending.collectives, tuple(loops))
        if i.opcode in ("call", "async-start"):
            return sum((self.of(c) for c in self._called(i, "to_apply", "calls")), Traffic())
        moved = _moved(reads(self._program, computation, i), writes(self._program, computation, i))
        moved = self._launched(i, moved)
        return Traffic(moved, moved, tuple(self._collectives(computation, i)))

    def _launched(self, i: Instruction, moved: Moved) -> Moved:
        """The bytes of one operation, with what it is."""
        is_small = moved.total < _SMALL
        copies = moved.read and moved.written and not is_small and is_copy(self._program, i)
        return dataclasses.replace(
            moved,
            kernels=1,
            small_kernels=int(is_small),
            copies=int(copies),
            copied=moved.total if copies else 0,
        )

    def _of_loop(self, computation: Computation, i: Instruction) -> Traffic:
        once = sum((self.of(c) for c in self._called(i, "condition", "body")), Traffic())
        trips = trip_count(self._program, computation, i)
        if trips is None:
            return once + Traffic(unknown_loops=(i.source or i.name,))
        return once * trips

    def _called(self, i: Instruction, *keys: str) -> list[Computation]:
        return [self._program.computations[name] for name in i.called(*keys)]

    def _collectives(self, computation: Computation, i: Instruction) -> Iterator[Collective]:
        """The collective that an instruction is, or the collectives that are fused into it."""
        if i.opcode == "fusion":
            for fused in self._called(i, "calls"):
                for inner in fused.instructions:
                    yield from self._collectives(fused, inner)
        elif i.opcode in _COLLECTIVES:
            kind = _COLLECTIVES[i.opcode]
            operands = [x for name in i.operands for x in computation.by_name[name].arrays]
            users = [u.opcode for u in computation.users.get(i.name, [])]
            if kind == "all-reduce" and users == ["dynamic-slice"] and _is_fused(computation):
                kind = "reduce-scatter"
            yield Collective(kind, tuple(operands), _exchange(i), 1, i.source)


def _is_fused(computation: Computation) -> bool:
    """Tells whether the compiler made it of an all-reduce and a slice of its result."""
    return computation.name.startswith("all-reduce-scatter")


def _exchange(i: Instruction) -> str:
    match = re.search(r"(?:replica_groups|source_target_pairs)=.*?(?=, [a-z_]+=|$)", i.attributes)
    return match.group(0) if match else ""


def _moved(read: Iterable[tuple[Array, int]], written: Iterable[tuple[Array, int]]) -> Moved:
    bytes_, in_tiles = [], []
    for uses in (read, written):
        in_hbm = [(array, n) for array, n in uses if array.in_hbm and array.size]
        bytes_.append(sum(n * array.bits / 8 for array, n in in_hbm))
        in_tiles.append(sum(n * array.padded_bytes / array.size for array, n in in_hbm))
    return Moved(bytes_[0], bytes_[1], sum(in_tiles))
