"""The arguments of `lion-jax watch`."""

import argparse

from lion_jax.lab import arguments

NAME = "watch"
HELP = "watch norms, cosines and sign flips over the steps of a run"
DESCRIPTION = (
    "Train each rule once and record the loss and the metrics of its steps: norms of gradients, "
    "updates, parameters and moments, their cosines, how many entries step downhill, and of sign "
    "rules how many signs flip. For example: lion-jax watch --rules lion,adamw "
    "--learning-rate lion=1e-3,adamw=1e-2 --every 10"
)
FUNCTION = "watch"
FOLDER = "watch"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what this command takes."""
    arguments.add_task(parser)
    arguments.add_rules(parser, "lion,adamw")
    parser.add_argument(
        "--learning-rate",
        type=arguments.rates,
        metavar="LR",
        help="peak for all rules, such as 1e-3, or for some, such as lion=1e-3,adamw=1e-2; "
        "by default tuned first, as lion-jax compare does by default",
    )
    arguments.add_counts(parser, steps=(600, "steps of a run"), every=(1, "record every Nth step"))
    parser.add_argument(
        "--seed", type=arguments.whole, default=0, metavar="N", help="of parameters and batches"
    )
    arguments.add_batches(parser)
    parser.add_argument(
        "--per-parameter", action="store_true", help="record each metric for each parameter too"
    )
