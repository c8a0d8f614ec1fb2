"""Compiling a step for chips that are not there."""

from typing import Any

import jax

from lion_jax.lab.cost.gpus import Gpu
from lion_jax.lab.cost.names import Generation
from lion_jax.lab.errors import RequestError


def compile_step(
    lowered: jax.stages.Lowered, name: str, generation: Generation | Gpu
) -> jax.stages.Compiled:
    """Compiles the step of a rule.

    Raises:
      RequestError: a program that the compiler refuses, or that does not fit into the memory.
    """
    remedy = f"Try a smaller model, more {generation.device}s, or the sharding fsdp"
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise RequestError(
            f"the compiler refuses the step of {name} ({reason}). {remedy}"
        ) from error
    if isinstance(generation, Gpu):  # whose compiler takes what does not fit, too
        memory: Any = compiled.memory_analysis()
        results = memory.output_size_in_bytes - memory.alias_size_in_bytes
        needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes + results
        if needed > generation.memory:
            raise RequestError(
                f"the step of {name} needs {needed / 1e9:.1f} GB of each GPU, which has "
                f"{generation.memory / 1e9:.1f}. {remedy}"
            )
    return compiled
