"""The arguments of `lion-jax cost`."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lion_jax.lab import arguments
from lion_jax.lab.cost.gpus import GPUS
from lion_jax.lab.cost.names import DTYPES, GENERATIONS, SHARDINGS, SIGN_SHARDINGS
from lion_jax.lab.cost.published import MODELS

NAME = "cost"
HELP = "count the bytes of a step on a TPU pod or on GPUs, without having one"
DESCRIPTION = (
    "Count what an optimizer's step costs on a TPU pod or on NVIDIA GPUs that you do not have: "
    "the bytes that each chip stores, moves through its memory and sends, beside the least that "
    "is possible, and on GPUs the kernels. They are counted in the program that the real compiler "
    "makes; nothing is timed.\n\n"
    "The compilers are packages: the extra pods for TPUs, gpus for GPUs. Where one is missing, a "
    "message says how to install it, or how to have it for one command. For example:\n\n"
    "  lion-jax cost --topology v5e:16x16 --sharding fsdp --rules lion,adamw\n"
    "  lion-jax cost --topology h100:8"
)
FOLDER = "cost"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what this command takes."""
    models = parser.add_mutually_exclusive_group()
    models.add_argument(
        "--model",
        default="gpt2",
        help=f"model whose parameters are stepped: {', '.join(MODELS)}; or a JSON file of "
        'shapes, such as {"w": [768, 3072], "b": [3072]}, which may be nested',
    )
    models.add_argument(
        "--task",
        help="task whose parameters are stepped, instead of a model: digits, text, or a lab.Task "
        "of your own, as FILE.py:NAME",
    )
    arguments.add_rules(
        parser,
        None,
        f"default: lion,adamw; with --sharding {' or '.join(SIGN_SHARDINGS)}, lion",
    )
    parser.add_argument(
        "--topology",
        default="v5e:16x16",
        metavar="NAME",
        help=f"TPUs ({', '.join(GENERATIONS)}) and the grid of their chips, such as v5p:8x8x8; or "
        f"GPUs ({', '.join(GPUS)}) and how many, such as h100, h100:8 or, on 32 hosts, h100:32x8",
    )
    parser.add_argument(
        "--sharding",
        default="fsdp",
        help="where parameters, gradients and state are:\n"
        + "\n".join(f"{name}: {what}" for name, what in SHARDINGS.items())
        + "\n",
    )
    parser.add_argument(
        "--dtype",
        help=f"dtype of parameters and gradients: {' or '.join(DTYPES)} (default: float32, or the "
        "task's own)",
    )


def reports(options: argparse.Namespace, on_progress: Any) -> Iterator[Any]:
    """The costs so far, after each rule."""
    from lion_jax.lab.choosing import choose_task
    from lion_jax.lab.cost.run import cost

    with _on_cpus():
        yield from cost.each(
            options.model if options.task is None else choose_task(options.task),
            options.rules,
            options.topology,
            options.sharding,
            dtype=options.dtype,
            on_progress=on_progress,
        )


@contextmanager
def _on_cpus() -> Iterator[None]:
    """Keeps jax from looking for a TPU or a GPU where there is none but its compiler.

    Backends that it starts in the meantime, as compiling does, stay what they are.
    """
    import jax

    before = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_platforms", "cpu")
    try:
        yield
    finally:
        jax.config.update("jax_platforms", before)
