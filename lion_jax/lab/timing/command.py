"""The arguments of `lion-jax bench`."""

import argparse
import os
from collections.abc import Iterator
from typing import Any

from lion_jax.lab import arguments
from lion_jax.lab.timing.names import DTYPES, RULES

NAME = "bench"
HELP = "time a step of lion_jax, optax and what else is installed"
DESCRIPTION = (
    "Time optimizers side by side on the default device: a step, compilation, memory, and the "
    "share of the memory's bandwidth. flashoptim-jax, lion-pytorch, bitsandbytes and torch run "
    "beside lion_jax and optax where they are installed."
)
FOLDER = "benchmark"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what this command takes."""
    parser.add_argument(
        "--size",
        type=arguments.size,
        default="20M",
        metavar="N",
        help="parameters, such as 5e6, 124M or 1B",
    )
    parser.add_argument("--dtype", default="float32", help=f"one of: {', '.join(DTYPES)}")
    parser.add_argument(
        "--rules", help=f"comma-separated, from: {', '.join(RULES)}; by default all"
    )
    arguments.add_counts(
        parser,
        blocks=(12, "transformer blocks of 12 arrays each, over which the parameters are spread"),
        rounds=(20, "samples for each optimizer"),
        compilations=(3, "compilations of each program"),
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
