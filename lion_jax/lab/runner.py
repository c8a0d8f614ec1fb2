"""Running a command: its progress, its result on the screen and in a folder, and its end."""

import argparse
import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from lion_jax._interruption import heard
from lion_jax.lab import files, progress
from lion_jax.lab.report import RECORDS, RESULT, Report


class Interrupted(KeyboardInterrupt):
    """The exception of Ctrl-C, with a message on what was kept."""


def run(command: ModuleType, options: argparse.Namespace) -> int:
    """Runs a command, saves its reports as they grow, and shows the last one."""
    folder: Path = options.folder
    files.check_writable(folder, [f"picture.{options.picture}", RECORDS, RESULT])
    so_far: list[Report] = []
    earlier = _earlier(folder, options)
    try:
        with heard() as check, progress.on_command_line() as on_shown:

            def on_progress(of: progress.Progress) -> None:
                check()
                on_shown(of)

            for report in _reports(command, options, on_progress):
                if earlier and not so_far:  # nothing was refused
                    print(earlier, file=sys.stderr)
                so_far = [report]
                check()
        (finished,) = so_far
        written = finished.save(folder, options.picture)
        finished.show()
        print(f"Written: {', '.join(map(str, written))}")
    except KeyboardInterrupt as error:
        raise Interrupted(_keep(so_far, options)) from error
    return 0


def _reports(
    command: ModuleType, options: argparse.Namespace, on_progress: progress.OnProgress
) -> Iterator[Report]:
    """Calls the command's function with the options that have its arguments' names."""
    if hasattr(command, "reports"):
        return command.reports(options, on_progress)
    run = importlib.import_module(f"{command.__package__}.run")
    function = getattr(run, command.FUNCTION)
    taken = inspect.signature(function).parameters
    given = {name: value for name, value in vars(options).items() if name in taken}
    return function.each(**given, on_progress=on_progress)


def _earlier(folder: Path, options: argparse.Namespace) -> str:
    """A warning of the result that will be replaced; empty if there is none."""
    if getattr(options, "resume", False) or not (folder / RESULT).is_file():
        return ""
    try:
        earlier = json.loads((folder / RESULT).read_text())
        what = f"a result of {earlier['provenance']['date']} ({earlier['provenance']['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        what = f"a {RESULT}"
    return f"lion-jax: {folder} holds {what}, which will be replaced"


def _keep(so_far: list[Report], options: argparse.Namespace) -> str:
    """Saves the result so far after an interruption, and says so."""
    if not so_far or so_far[0].is_empty:
        return "interrupted; nothing was finished"
    (report,) = so_far
    report.save(options.folder, options.picture)
    if report.is_finished:
        return f"interrupted; the finished result is in {options.folder}"
    how = ". To go on, give the same command with --resume" if hasattr(options, "resume") else ""
    return (
        f"interrupted; what was finished is in {options.folder}, without "
        f"{', '.join(report.missing)}{how}"
    )
