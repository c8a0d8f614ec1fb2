"""The text of a compiled and scheduled program, as computations of instructions."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

from lion_jax.lab.errors import RequestError

_ARRAY = re.compile(r"([a-z]+[0-9][a-z0-9]*|pred|token|opaque)\[([^\]]*)\](?:\{([^}]*)\})?")
_BITS_OF_NAME = re.compile(r"[a-z]+(\d+)")
_SPACE, _ELEMENT = re.compile(r"S\((\d+)\)"), re.compile(r"E\((\d+)\)")
_TILE = re.compile(r":T\(([\d,]+)\)")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) .*\{$")
_NAME = re.compile(r"%([\w.\-]+)")
HBM = 0
"""The memory space of what has no `S(n)` in its layout."""
_HOST = 5
"""The memory space of the host."""


@dataclasses.dataclass(frozen=True)
class Array:
    """An array in a program.

    Attributes:
      dtype: as the program writes it: `f32`, `bf16`, `s4`, `pred`.
      dims: its extents.
      bits: of one element in memory.
      padded: elements that its tiles hold, at least as many as the array has.
      space: memory space, the n of `S(n)`; 0 where there is none.
      platform: `tpu` or `gpu`, whose memory spaces differ.
    """

    dtype: str
    dims: tuple[int, ...]
    bits: int
    padded: int
    space: int = HBM
    platform: str = "tpu"

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def nbytes(self) -> float:
        """Bytes of the elements, without padding."""
        return self.size * self.bits / 8

    @property
    def padded_bytes(self) -> float:
        """Bytes of the tiles."""
        return self.padded * self.bits / 8

    @property
    def in_hbm(self) -> bool:
        """Tells whether the array lies in HBM.

        A TPU's other spaces are on the chip; a GPU's, but for the host's, are parts of HBM, such as
        the one that collectives exchange by.
        """
        return self.space != _HOST if self.platform == "gpu" else self.space == HBM


Type = Array | tuple["Type", ...]
"""The type of an instruction's result: an array or a tuple, which may hold tuples."""


def arrays(type_: "Type") -> Iterator[Array]:
    """The arrays of a type, in order."""
    if isinstance(type_, Array):
        yield type_
    else:
        for part in type_:
            yield from arrays(part)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An instruction.

    Attributes:
      name: unique within its computation.
      opcode: such as `fusion` or `all-reduce`.
      type: what it gives.
      operands: names of the instructions that it reads.
      arguments: what stands between its parentheses, for parameters and constants.
      attributes: what follows them.
      is_root: whether it is its computation's result.
    """

    name: str
    opcode: str
    type: "Type"
    operands: tuple[str, ...]
    arguments: str
    attributes: str
    is_root: bool

    def called(self, *keys: str) -> list[str]:
        """The computations that it names under some attributes, e.g. `body`."""
        pattern = rf"\b(?:{'|'.join(keys)})=(?:\{{([^}}]*)\}}|%?([\w.\-]+))"
        found = re.findall(pattern, self.attributes)
        return [n.strip().lstrip("%") for many, one in found for n in (many or one).split(",")]

    @property
    def arrays(self) -> list[Array]:
        """The arrays of its result, one after the other."""
        return list(arrays(self.type))

    def part(self, number: int) -> list[Array]:
        """The arrays of one element of what it gives, a tuple."""
        return list(arrays(self.type[number])) if isinstance(self.type, tuple) else []

    @property
    def source(self) -> str:
        """The operation of the traced program that it stems from; empty if unknown."""
        match = re.search(r'op_name="([^"]*)"', self.attributes)
        return match.group(1) if match else ""


@dataclasses.dataclass(frozen=True)
class Computation:
    """A list of instructions, in the order in which they run."""

    name: str
    instructions: tuple[Instruction, ...]

    @functools.cached_property
    def by_name(self) -> dict[str, Instruction]:
        """Its instructions by their names."""
        return {i.name: i for i in self.instructions}

    @functools.cached_property
    def parameters(self) -> list[Instruction]:
        """Its parameters, in the order of the call."""
        found = [i for i in self.instructions if i.opcode == "parameter"]
        return sorted(found, key=lambda i: int(i.arguments))

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """The instructions that read each name."""
        table: dict[str, list[Instruction]] = {}
        for instruction in self.instructions:
            for name in dict.fromkeys(instruction.operands):
                table.setdefault(name, []).append(instruction)
        return table

    @property
    def root(self) -> Instruction:
        """The instruction whose result is the computation's."""
        return next(i for i in self.instructions if i.is_root)


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program: computations by name, of which `entry` runs."""

    computations: dict[str, Computation]
    entry: Computation


def parse(text: str, platform: str = "tpu") -> Program:
    """Reads the text of a compiled program, as `jax.stages.Compiled.as_text` gives it.

    Args:
      text: the text.
      platform: `tpu` or `gpu`, for which the program was compiled.

    Raises:
      RequestError: a text that is no scheduled program.
    """
    if "is_scheduled=true" not in text[:10000]:
        raise RequestError(
            "the text must be of a compiled program, with is_scheduled=true in its first line; "
            "possible: what jax.jit(step).lower(...).compile().as_text() gives"
        )
    computations, lines, entry, name = {}, [], "", ""
    for line in text.splitlines():
        if line[:1] not in (" ", "}", "") and (header := _COMPUTATION.match(line)):
            name, lines = header.group(2), []
            entry = name if header.group(1) else entry
        elif line.startswith("}") and name:
            computations[name] = Computation(name, tuple(lines))
            name = ""
        elif name and (match := _INSTRUCTION.match(line)):
            root, label, rest = match.groups()
            lines.append(_instruction(root, label, rest, platform))
    return Program(computations, computations[entry])


def parse_type(text: str, platform: str = "tpu") -> "Type":
    """Reads an array's type, with its layout, or a tuple's."""
    type_, _ = _type(text, 0, platform)
    return type_


def _instruction(root: str | None, name: str, text: str, platform: str) -> Instruction:
    type_, end = _type(text, 0, platform)
    opening = text.index("(", end)
    closing = _closing(text, opening)
    arguments = text[opening + 1 : closing]
    opcode, type_ = _what_starts(text[end:opening].strip(), type_)
    return Instruction(
        name=name,
        opcode=opcode,
        type=type_,
        operands=tuple(_NAME.findall(arguments)),
        arguments=arguments.strip(),
        attributes=text[closing + 1 :],
        is_root=root is not None,
    )


def _what_starts(opcode: str, type_: "Type") -> tuple[str, "Type"]:
    """The operation that an instruction starts, which gives operands in a tuple, and its result."""
    started = opcode.removesuffix("-start")
    if started in (opcode, "async") or not isinstance(type_, tuple):
        return opcode, type_
    return (started, type_[1]) if isinstance(type_[0], tuple) else (opcode, type_)


def _type(text: str, start: int, platform: str) -> tuple["Type", int]:
    """The type that begins at a place in the text, and where it ends."""
    if text[start] != "(":
        match = _ARRAY.match(text, start)
        if match is None:
            raise RequestError(f"unknown type in the program: {text[start : start + 60]!r}")
        dtype, dims, layout = match.groups()
        return _array(dtype, dims, layout, platform), match.end()
    parts, place = [], start + 1
    while text[place] != ")":
        if text[place] in ", ":
            place += 1
        elif text.startswith("/*", place):  # the number of an element, for people
            place = text.index("*/", place) + 2
        else:
            part, place = _type(text, place, platform)
            parts.append(part)
    return tuple(parts), place + 1


@functools.lru_cache(maxsize=4096)
def _array(dtype: str, dims_text: str, layout: str | None, platform: str) -> Array:
    layout = layout or ""
    dims = tuple(int(d.removeprefix("<=")) for d in dims_text.split(",") if d)
    match = _BITS_OF_NAME.match(dtype)
    bits = int(match.group(1)) if match else 8 if dtype == "pred" else 0
    if match := _ELEMENT.search(layout):
        bits = int(match.group(1))
    match = _SPACE.search(layout)
    space = int(match.group(1)) if match else HBM
    return Array(dtype, dims, bits, _padded(dims, layout), space, platform)


def _padded(dims: tuple[int, ...], layout: str) -> int:
    """Elements in whole tiles of the fastest dimensions."""
    match = _TILE.search(layout)
    if match is None:
        return math.prod(dims)
    tile = [int(t) for t in reversed(match.group(1).split(","))]
    order = [int(d) for d in layout.partition(":")[0].split(",") if d]
    extents = [dims[d] for d in order]
    extents += [1] * (len(tile) - len(extents))
    tiled = [-(-n // t) * t for n, t in zip(extents, tile, strict=False)]
    return math.prod(tiled) * math.prod(extents[len(tile) :])


def _closing(text: str, opening: int) -> int:
    """Finds the place where the parenthesis at `opening` closes."""
    depth = 0
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise RequestError(f"unbalanced parentheses in the program: {text[:60]!r}")
