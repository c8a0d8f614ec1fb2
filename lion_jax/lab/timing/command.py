"""The arguments of `lion-jax bench`."""

import argparse
import os
from collections.abc import Iterator
from typing import Any

from lion_jax.lab import arguments
from lion_jax.lab.timing.names import DTYPES, RULES

NAME = "bench"
HELP = "time a step of lion_jax, optax and other installed packages"
DESCRIPTION = (
    "Time optimizers on this machine, side by side: a step, its compilation, its memory, and how "
    "much of the memory's bandwidth it uses. lion_jax is timed against optax, and against "
    "flashoptim-jax, lion-pytorch, bitsandbytes and torch where they are installed."
)
FOLDER = "benchmark"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what this command takes."""
    parser.add_argument(
        "--size",
        type=arguments.size,
        default="20M",
        metavar="N",
        help="number of parameters, such as 5e6, 124M or 1B",
    )
    parser.add_argument("--dtype", default="float32", help=f"one of: {', '.join(DTYPES)}")
    parser.add_argument(
        "--rules",
        help=f"rules to time, separated by commas: {', '.join(RULES)} (default: all)",
    )
    arguments.add_counts(
        parser,
        blocks=(12, "transformer blocks to spread the parameters over, 12 arrays each"),
        rounds=(20, "timings of each optimizer"),
        compilations=(3, "timed compilations of each program"),
    )


def reports(options: argparse.Namespace, on_progress: Any) -> Iterator[Any]:
    """The benchmark."""
    # Several frameworks may share a GPU; by default JAX takes three quarters of it at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from lion_jax.lab.timing.run import benchmark

    return benchmark.each(
        options.size,
        blocks=options.blocks,
        dtype=options.dtype,
        rules=options.rules,
        rounds=options.rounds,
        compilations=options.compilations,
        on_progress=on_progress,
    )
