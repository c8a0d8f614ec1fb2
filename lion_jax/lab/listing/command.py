"""The arguments of `lion-jax list`, and its output."""

import argparse

NAME = "list"
HELP = "list the tasks, rules, models and topologies"
DESCRIPTION = (
    "List the names that --task, --rules, --model and --topology take, with a line on each."
)
KINDS = ("tasks", "rules", "models", "topologies")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what this command takes."""
    parser.add_argument(
        "kinds", nargs="*", metavar="KIND", help=f"one or several of: {', '.join(KINDS)}; or all"
    )
    parser.add_argument("--plain", action="store_true", help="print the names only, one per line")


def run(options: argparse.Namespace) -> int:
    """Prints the names."""
    from lion_jax.lab.errors import known
    from lion_jax.lab.listing.names import sections
    from lion_jax.lab.screen import console

    kinds = [known("kind", kind, KINDS) for kind in options.kinds] or list(KINDS)
    for section in sections(kinds):
        if options.plain:
            print("\n".join(section.names))
        else:
            console().print(section.table())
    return 0
