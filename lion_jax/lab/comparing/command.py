"""The arguments of `lion-jax compare`."""

import argparse

from lion_jax.lab import arguments

NAME = "compare"
HELP = "tune the learning rate of each rule and compare the rules"
DESCRIPTION = (
    "Train each rule with several learning rates and seeds, choose its learning rate on validation "
    "data, and report its accuracy on test data. After Ctrl-C, --resume goes on with the rules "
    "that are missing."
)
FUNCTION = "compare"
FOLDER = "comparison"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what this command takes."""
    arguments.add_task(parser)
    arguments.add_rules(parser, "lion,lookahead_lion,adamw,sgd")
    parser.add_argument(
        "--against",
        metavar="RULE",
        help="the one of the rules that differences are taken to; by default the best",
    )
    arguments.add_counts(
        parser,
        learning_rates=(10, "trials of each rule"),
        steps=(600, "steps of a run"),
        seeds=(5, "runs for each trial"),
    )
    arguments.add_batches(parser)
    parser.add_argument(
        "--resume", action="store_true", help="take what is finished from the output folder"
    )
