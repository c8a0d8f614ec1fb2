"""The command line: a command for each folder that has a `command.py`; imports no jax itself."""

import argparse
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Sequence
from types import ModuleType

import lion_jax
from lion_jax.lab.arguments import Help, Parser, add_output
from lion_jax.lab.errors import RequestError


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    try:
        status = _run(words)
        sys.stdout.flush()
        return status
    except RequestError as error:
        print(f"lion-jax: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(words: Sequence[str] | None) -> int:
    whole = parser()
    options = whole.parse_args(words)
    if options.completion:
        import shtab

        print(shtab.complete(whole, options.completion))
        return 0
    if options.command is None:
        whole.print_help()
        return 0
    command = commands()[options.command]
    if not hasattr(command, "FOLDER"):
        return command.run(options)
    from lion_jax.lab import runner

    return runner.run(command, options)


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; its options hold the name of the command."""
    whole = Parser(
        prog="lion-jax",
        description="Compare the Lion optimizer with others, on real data or on your own model, "
        "and measure what a training step costs.",
    )
    whole.add_argument("--version", action="version", version=lion_jax.__version__)
    whole.add_argument(
        "--completion", choices=("bash", "zsh", "tcsh"), help="print a completion for your shell"
    )
    by_name = commands()
    groups = whole.add_subparsers(
        title="commands", metavar=f"{{{','.join(by_name)}}}", dest="command"
    )
    for name, command in by_name.items():
        added = groups.add_parser(
            name,
            aliases=getattr(command, "ALIASES", ()),
            help=command.HELP,
            description=command.DESCRIPTION,
            formatter_class=Help,
        )
        added.set_defaults(command=name)
        command.add_arguments(added)
        if hasattr(command, "FOLDER"):
            add_output(added, command.FOLDER)
    return whole


def commands() -> dict[str, ModuleType]:
    """The commands by name: the module `command` of each folder beside this file that has one."""
    found = [
        importlib.import_module(f"{__package__}.{folder.name}.command")
        for folder in pkgutil.iter_modules([os.path.dirname(__file__)])  # noqa: PTH120
        if folder.ispkg
        and importlib.util.find_spec(f"{__package__}.{folder.name}.command") is not None
    ]
    return {module.NAME: module for module in sorted(found, key=lambda module: module.NAME)}
