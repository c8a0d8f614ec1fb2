"""Operations that compute nothing and only copy a buffer."""

from lion_jax.lab.cost.hlo import Instruction, Program

_COPIES = ("copy", "copy-start")
_COPYING = ("parameter", "copy", "bitcast", "tuple")


def is_copy(program: Program, i: Instruction) -> bool:
    """Tells whether an instruction is a copy, or a kernel that does nothing but copy."""
    if i.opcode != "fusion":
        return i.opcode in _COPIES
    (fused,) = (program.computations[name] for name in i.called("calls"))
    opcodes = {inner.opcode for inner in fused.instructions}
    return "copy" in opcodes and opcodes <= {*_COPYING}
