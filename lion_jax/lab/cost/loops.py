"""Trip counts of loops: a TPU's program does not tell them, so the counters are followed."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from lion_jax.lab.cost.hlo import Computation, Instruction, Program

_MOST_TRIPS = 1_000_000
_TOLD = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_DIRECTIONS: dict[str, Callable[[int, int], bool]] = {
    "LT": lambda a, b: a < b,
    "LE": lambda a, b: a <= b,
    "GT": lambda a, b: a > b,
    "GE": lambda a, b: a >= b,
    "EQ": lambda a, b: a == b,
    "NE": lambda a, b: a != b,
}
_ARITHMETIC: dict[str, Callable[..., int]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "maximum": max,
    "minimum": min,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "select": lambda p, a, b: a if p else b,
}
_THE_SAME = ("copy", "bitcast", "convert", "reshape", "opt-barrier")


def trip_count(program: Program, computation: Computation, loop: Instruction) -> int | None:
    """Counts how often the body of a `while` runs.

    A GPU's program says it. Else the scalar integers that the loop carries are followed from their
    first values through condition and body, as the program would.

    Args:
      program: the program.
      computation: where the loop is.
      loop: the `while`.

    Returns:
      The number, or None where it depends on data, or is beyond a million.
    """
    if told := _TOLD.search(loop.attributes):
        return int(told.group(1))
    (condition,) = (program.computations[name] for name in loop.called("condition"))
    (body,) = (program.computations[name] for name in loop.called("body"))
    carried = _Values(program, computation).of(loop.operands[0])
    if not isinstance(carried, tuple):
        return None
    carried = _only(carried, _needed(condition, body))
    for trips in range(_MOST_TRIPS):
        goes_on = _Values(program, condition, [carried]).of(condition.root.name)
        if goes_on is None:
            return None
        if not goes_on:
            return trips
        values = _Values(program, body, [carried])
        carried = tuple(
            None if old is None else values.of(name)
            for old, name in zip(carried, body.root.operands, strict=True)
        )
    return None


def _needed(condition: Computation, body: Computation) -> set[int]:
    """Indices of the carried elements that the condition depends on, from trip to trip."""
    needed, new = set(), _elements(condition, [condition.root.name])
    while new:
        needed |= new
        new = _elements(body, [body.root.operands[i] for i in new]) - needed
    return needed


def _elements(computation: Computation, names: Sequence[str]) -> set[int]:
    """Indices of the elements of the computation's one parameter that some values depend on."""
    found, seen, waiting = set(), set(), list(names)
    while waiting:
        instruction = computation.by_name[waiting.pop()]
        if instruction.name in seen:
            continue
        seen.add(instruction.name)
        if instruction.opcode == "get-tuple-element":
            (of,) = instruction.operands
            if computation.by_name[of].opcode == "parameter":
                found.add(_index(instruction))
                continue
        waiting += instruction.operands
    return found


def _only(values: tuple[Any, ...], needed: set[int]) -> tuple[Any, ...]:
    return tuple(v if i in needed else None for i, v in enumerate(values))


class _Values:
    """Integers that a computation makes of what it is called with; None is unknown."""

    def __init__(self, program: Program, computation: Computation, arguments: Any = ()):
        self._program = program
        self._computation = computation
        self._arguments = arguments
        self._known: dict[str, Any] = {}

    def of(self, name: str) -> Any:
        """The value under a name: an integer, a truth value, a tuple of them, or None."""
        if name not in self._known:
            self._known[name] = self._evaluate(self._computation.by_name[name])
        return self._known[name]

    def _evaluate(self, i: Instruction) -> Any:
        if i.opcode == "parameter":
            number = int(i.arguments)
            return self._arguments[number] if number < len(self._arguments) else None
        if i.opcode == "constant":
            return _constant(i.arguments)
        if i.opcode == "tuple":
            return tuple(self.of(name) for name in i.operands)
        if i.opcode == "get-tuple-element":
            whole = self.of(i.operands[0])
            return whole[_index(i)] if isinstance(whole, tuple) else None
        if i.opcode in _THE_SAME or i.opcode.endswith("-done"):
            return self.of(i.operands[0])
        if i.opcode == "copy-start":
            return self.of(i.operands[0])
        if i.opcode in ("fusion", "call"):
            (name,) = i.called("calls", "to_apply")
            inner = self._program.computations[name]
            arguments = [self.of(o) for o in i.operands]
            return _Values(self._program, inner, arguments).of(inner.root.name)
        return self._compute(i)

    def _compute(self, i: Instruction) -> Any:
        operands = [self.of(name) for name in i.operands]
        if any(not isinstance(x, int) for x in operands):
            return None
        if i.opcode == "compare":
            direction = i.attributes.partition("direction=")[2][:2]
            return _DIRECTIONS[direction](*operands)
        return _ARITHMETIC[i.opcode](*operands) if i.opcode in _ARITHMETIC else None


def _constant(text: str) -> int | None:
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        return None


def _index(i: Instruction) -> int:
    return int(i.attributes.partition("index=")[2].split(",")[0].split("}")[0])
