"""Running a command: its progress, its result on the screen and in a folder, and its end."""

import argparse
import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table

from lion_jax._interruption import heard
from lion_jax.lab import files, progress
from lion_jax.lab.report import RECORDS, RESULT, Report

_WIDTH = 110  # where the output is no terminal


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with a message on what was kept."""


def run(command: ModuleType, options: argparse.Namespace) -> int:
    """Runs a command that gives ever longer reports, saves what there is, and shows it."""
    folder: Path = options.folder
    files.check_writable(folder, [f"picture.{options.picture}", RECORDS, RESULT])
    _warn_of_earlier(folder, options)
    so_far: list[Report] = []
    try:
        with heard() as check, progress.on_command_line() as on_shown:

            def on_progress(of: progress.Progress) -> None:
                check()
                on_shown(of)

            for report in _reports(command, options, on_progress):
                so_far = [report]
                check()
        (finished,) = so_far
        written = finished.save(folder, options.picture)
        show(finished)
        print(f"Written: {', '.join(map(str, written))}")
    except KeyboardInterrupt as error:
        raise Interrupted(_keep(so_far, options)) from error
    return 0


def _reports(
    command: ModuleType, options: argparse.Namespace, on_progress: progress.OnProgress
) -> Iterator[Report]:
    """What the command's function gives for the options of its arguments' names."""
    if hasattr(command, "reports"):
        return command.reports(options, on_progress)
    run = importlib.import_module(f"{command.__package__}.run")
    function = getattr(run, command.FUNCTION)
    taken = inspect.signature(function).parameters
    given = {name: value for name, value in vars(options).items() if name in taken}
    return function.each(**given, on_progress=on_progress)


def show(report: Report) -> None:
    """Prints a report's table and its sentences, wrapped between words on a terminal."""
    screen = console()
    table, left_out = fit(report.table(), screen)
    screen.print(table)
    if left_out:
        screen.print(f"Too narrow for: {', '.join(left_out)}; {RESULT} has them.", highlight=False)
    for line in report.lines():
        screen.print(line, highlight=False, soft_wrap=not screen.is_terminal)


def console() -> Console:
    """The console that results are printed on; elsewhere than on a terminal it is wide."""
    found = _Screen(markup=False)
    return found if found.is_terminal else _Screen(markup=False, width=_WIDTH)


class _Screen(Console):
    """A console that leaves it to the command line what a broken pipe means."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def fit(renderable: RenderableType, screen: Console) -> tuple[RenderableType, list[str]]:
    """Drops the last columns of tables until they fit the console; says which."""
    if isinstance(renderable, Group):
        fitted = [fit(part, screen) for part in renderable.renderables]
        return Group(*(part for part, _ in fitted)), [name for _, names in fitted for name in names]
    left_out = []
    if isinstance(renderable, Table):
        while len(renderable.columns) > 2 and _least(renderable, screen) > screen.width:
            header = str(renderable.columns.pop().header)
            left_out.insert(0, " ".join(header.split()))
    return renderable, left_out


def _least(table: Table, screen: Console) -> int:
    """The width below which a table's cells would break."""
    title, caption = table.title, table.caption
    table.title = table.caption = None
    width = Measurement.get(screen, screen.options.update(width=10_000), table).maximum
    table.title, table.caption = title, caption
    return width


def _warn_of_earlier(folder: Path, options: argparse.Namespace) -> None:
    """Says what the folder holds that will be replaced."""
    if getattr(options, "resume", False) or not (folder / RESULT).is_file():
        return
    try:
        earlier = json.loads((folder / RESULT).read_text())
        what = f"a result of {earlier['provenance']['date']} ({earlier['provenance']['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        what = f"a {RESULT}"
    print(f"lion-jax: {folder} holds {what}, which will be replaced", file=sys.stderr)


def _keep(so_far: list[Report], options: argparse.Namespace) -> str:
    """Saves what an interruption left, and says where it is."""
    if not so_far or so_far[0].is_empty:
        return "interrupted; nothing was finished"
    (report,) = so_far
    report.save(options.folder, options.picture)
    if report.is_finished:
        return f"interrupted; the finished result lies in {options.folder}"
    how = ". --resume goes on with them" if hasattr(options, "resume") else ""
    return (
        f"interrupted; unfinished: what there is lies in {options.folder}, without "
        f"{', '.join(report.missing)}{how}"
    )
