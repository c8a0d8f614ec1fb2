"""The arrays that an instruction reads and writes, with numbers of elements."""

from collections.abc import Iterator

from lion_jax.lab.cost.hlo import Array, Computation, Instruction, Program

_SLICES = ("dynamic-slice", "slice", "gather")
_UPDATES = {"dynamic-update-slice": 1, "scatter": -1}
"""The index of the operand that is the update; operand 0 is the array that it updates."""
_ELEMENT_BY_ELEMENT = ("bitcast", "reshape", "copy", "transpose", "convert")
_WITH_OPERANDS = ("all-gather-start", "collective-permute-start")
"""Operations that give a tuple of their operands and their results."""


def reads(
    program: Program, computation: Computation, i: Instruction
) -> Iterator[tuple[Array, int]]:
    """Arrays that an instruction reads, with the number of elements.

    A slice reads what it cuts out, also within a fusion. An update in place reads nothing of what
    it updates, but a scatter that adds reads what it adds to. An operand given twice is read once.
    """
    whole: set[str] = set()
    for number, name in enumerate(i.operands):
        operand = computation.by_name[name]
        elements = None
        if i.opcode == "fusion":
            (fused,) = (program.computations[c] for c in i.called("calls"))
            elements = _read_of(program, fused, fused.parameters[number].name)
        elif number == 0 and i.opcode in _SLICES:
            elements = i.arrays[0].size
        elif number == 0 and i.opcode == "scatter":
            elements = _read_by_scatter(program, computation, i)
        elif number == 0 and i.opcode == "dynamic-update-slice":
            elements = 0
        if elements is not None:
            array = operand.arrays[0]
            yield array, min(elements, array.size)
        elif name not in whole:
            whole.add(name)
            yield from ((array, array.size) for array in operand.arrays)


def writes(
    program: Program, computation: Computation, i: Instruction
) -> Iterator[tuple[Array, int]]:
    """Arrays that an instruction writes, with the number of elements.

    An update in place, also as the result of a fusion, writes the update alone.
    """
    if i.opcode == "dynamic-update-slice":
        yield i.arrays[0], computation.by_name[i.operands[1]].arrays[0].size
    elif i.opcode == "scatter":
        updates = computation.by_name[i.operands[-1]].arrays[0].size
        yield from ((array, min(updates, array.size)) for array in i.arrays)
    elif i.opcode == "fusion":
        (fused,) = (program.computations[c] for c in i.called("calls"))
        root = fused.root
        if root.opcode != "tuple":
            yield from _in_place(program, fused, root.name, i.arrays)
        for number, name in enumerate(root.operands if root.opcode == "tuple" else ()):
            yield from _in_place(program, fused, name, i.part(number))
    else:
        written = i.arrays
        if i.opcode in _WITH_OPERANDS:
            written = i.part(1)
        elif i.opcode == "copy-start":
            written = i.part(0)
        yield from ((array, array.size) for array in written)


def _in_place(
    program: Program, fused: Computation, name: str, results: list[Array]
) -> Iterator[tuple[Array, int]]:
    """The arrays that a fusion writes for one of its results, with the number of elements."""
    if len(results) > 1:
        yield from ((array, array.size) for array in results)
    else:
        for array in results:
            yield array, min(_written_to(program, fused, name), array.size)


def _read_of(program: Program, fused: Computation, parameter: str) -> int | None:
    """Elements that a fusion reads of a parameter; None is all of them."""
    total, names = 0, [parameter]
    for name in names:  # which grows
        if fused.by_name[name].is_root:
            return None
        for user in fused.users.get(name, []):
            position = user.operands.index(name)
            if user.opcode in _ELEMENT_BY_ELEMENT:
                names.append(user.name)
            elif user.opcode in _SLICES and position == 0:
                total += user.arrays[0].size
            elif user.opcode == "fusion":
                (inner,) = (program.computations[c] for c in user.called("calls"))
                read = _read_of(program, inner, inner.parameters[position].name)
                if read is None:
                    return None
                total += read
            elif user.opcode == "scatter" and position == 0:
                total += _read_by_scatter(program, fused, user)
            elif user.opcode != "dynamic-update-slice" or position != 0:
                return None
    return total


def _read_by_scatter(program: Program, computation: Computation, i: Instruction) -> int:
    """Elements that a scatter reads of what it updates: none where it overwrites them."""
    (combined,) = (program.computations[c] for c in i.called("to_apply"))
    overwrites = _behind_names(combined, combined.root).name == combined.parameters[-1].name
    return 0 if overwrites else computation.by_name[i.operands[-1]].arrays[0].size


def _written_to(program: Program, fused: Computation, name: str) -> int:
    """Elements that a fusion writes of a result: of an array updated in place, the update."""
    result = _behind_names(fused, fused.by_name[name])
    if result.opcode in _UPDATES:
        updated = _behind_names(fused, fused.by_name[result.operands[0]])
        if updated.opcode == "parameter":
            return fused.by_name[result.operands[_UPDATES[result.opcode]]].arrays[0].size
    if result.opcode == "fusion":
        (inner,) = (program.computations[c] for c in result.called("calls"))
        if inner.root.opcode != "tuple":
            return _written_to(program, inner, inner.root.name)
    return sum(array.size for array in fused.by_name[name].arrays)


def _behind_names(computation: Computation, i: Instruction) -> Instruction:
    """Finds the instruction that was renamed, reshaped or copied."""
    while i.opcode in ("bitcast", "reshape", "copy"):
        i = computation.by_name[i.operands[0]]
    return i
