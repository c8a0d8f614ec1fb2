"""The arguments of `lion-jax find`."""

import argparse

from lion_jax.lab import arguments

NAME = "find"
ALIASES = ("find-lr",)
HELP = "suggest a learning rate from one short run"
DESCRIPTION = (
    "Suggest where to begin the search for a learning rate: train each rule while its learning "
    "rate grows at every step, and take the rate at which the smoothed loss is lowest."
)
FUNCTION = "find"
FOLDER = "lr-finder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what this command takes."""
    arguments.add_task(parser)
    arguments.add_rules(parser, "lion")
    for name, text in (
        ("low", "first learning rate (default: a tenth of the rule's smallest in lion-jax list)"),
        ("high", "last learning rate (default: ten times the rule's largest there)"),
    ):
        parser.add_argument(f"--{name}", type=arguments.rate, metavar="LR", help=text)
    arguments.add_counts(
        parser, steps=(200, "training steps, at least 40"), seeds=(3, "runs with different seeds")
    )
    arguments.add_batches(parser, schedule=False)
