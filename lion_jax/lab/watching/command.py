"""The arguments of `lion-jax watch`."""

import argparse

from lion_jax.lab import arguments

NAME = "watch"
HELP = "record what a rule does at each step: loss, norms, sign flips"
DESCRIPTION = (
    "See what update rules do: train each once and record at each step the loss, the norms of "
    "gradient, update, parameters and moment, the cosines between them, how many entries step "
    "downhill, and for sign rules how many signs flip.\n\n"
    "Example: lion-jax watch --learning-rate lion=1e-3,adamw=1e-2 --every 10"
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
        help="peak learning rate: one for all rules, such as 1e-3, or one for each, such as "
        "lion=1e-3,adamw=1e-2. Rules without one are tuned first, as by lion-jax compare",
    )
    arguments.add_counts(parser, steps=(600, "training steps"), every=(1, "record every Nth step"))
    parser.add_argument(
        "--seed",
        type=arguments.whole,
        default=0,
        metavar="N",
        help="seed of parameters and data",
    )
    arguments.add_batches(parser)
    parser.add_argument(
        "--per-parameter", action="store_true", help="record the metrics of each parameter too"
    )
