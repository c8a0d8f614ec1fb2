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
HELP = "count what a step stores, moves and sends on a TPU pod or on GPUs, without one"
DESCRIPTION = (
    "Compile the step of each rule for a slice of a TPU pod or for NVIDIA GPUs, without one, and "
    "count in the program what each chip stores, moves through its memory and sends, each with its "
    "floor, and for GPUs the kernels that it launches. Needs a compiler: for TPUs the extra pods, "
    "for GPUs the extra gpus; where it is missing, a message says how to install it. By default "
    "the rules are lion and adamw, or lion alone with the shardings "
    f"{' and '.join(SIGN_SHARDINGS)}. For example: lion-jax cost "
    "--rules lion,adamw --model gpt2 --topology v5e:16x16 --sharding fsdp"
)
FOLDER = "cost"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what this command takes."""
    models = parser.add_mutually_exclusive_group()
    models.add_argument(
        "--model",
        default="gpt2",
        help=f"one of: {', '.join(MODELS)}; or a JSON file of shapes, "
        'such as {"w": [768, 3072], "b": [3072]}, nested at will',
    )
    models.add_argument(
        "--task",
        help="in place of a model, a task whose parameters are stepped: digits, text, or a "
        "lab.Task of your own: mine.py:task",
    )
    arguments.add_rules(parser, None)
    parser.add_argument(
        "--topology",
        default="v5e:16x16",
        metavar="NAME",
        help=f"a generation of TPUs ({', '.join(GENERATIONS)}) and a grid of chips, such as "
        f"v5p:8x8x8; or a GPU ({', '.join(GPUS)}) and how many, such as h100, h100:8 or, on 32 "
        "hosts, h100:32x8",
    )
    parser.add_argument(
        "--sharding",
        default="fsdp",
        help="; ".join(f"{name}: {what}" for name, what in SHARDINGS.items()),
    )
    parser.add_argument(
        "--dtype",
        help=f"of parameters and gradients: {', '.join(DTYPES)}; by default float32, or the "
        "task's own",
    )


def reports(options: argparse.Namespace, on_progress: Any) -> Iterator[Any]:
    """Ever longer lists of costs."""
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
