"""The progress of long work: bars on a terminal, lines in a notebook or a log."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

_TOO_EARLY = 0.02
"""The share of the work before which no remaining time is estimated."""


class Progress(NamedTuple):
    """The stage that runs, how far it is, and how long the rest takes.

    Attributes:
      stage: what runs, such as a rule's name.
      place: its place among all stages, from 1.
      stages: how many there are.
      done: how much of the stage is done, such as steps; 0 while it compiles.
      total: how much there is to do in it.
      remaining: estimate of the seconds that all the rest takes; None before there is one.
    """

    stage: str
    place: int
    stages: int
    done: int
    total: int
    remaining: float | None


OnProgress = Callable[[Progress], None]
Tell = Callable[[str, int, int], None]
"""A function that commands call with a stage, the steps done and the steps in all."""


def teller(on_progress: OnProgress, stages: Sequence[str]) -> Tell:
    """Tells of stages, with their places and an estimate of what remains."""
    started = time.monotonic()
    places = {stage: place for place, stage in enumerate(stages, 1)}
    shares: dict[str, float] = {}

    def tell(stage: str, done: int, total: int) -> None:
        place = places.setdefault(stage, len(places) + 1)
        shares[stage] = done / total
        share = sum(shares.values()) / len(places)
        spent = time.monotonic() - started
        remaining = spent * (1 - share) / share if share > _TOO_EARLY else None
        on_progress(Progress(stage, place, len(places), done, total, remaining))

    return tell


@contextmanager
def shown(on_progress: OnProgress | None = None) -> Iterator[OnProgress]:
    """Shows progress: as bars on a terminal, as lines in a notebook, elsewhere not at all.

    A given `on_progress` is called instead.
    """
    console = Console(stderr=True)
    if on_progress is not None:
        yield on_progress
    elif console.is_terminal and not console.is_jupyter:
        with _bars(console) as on_bars:
            yield on_bars
    elif console.is_jupyter:
        yield in_lines
    else:
        yield silent


@contextmanager
def on_command_line() -> Iterator[OnProgress]:
    """Shows progress: as bars on a terminal, as lines in a log."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield in_lines
    else:
        with _bars(console) as on_bars:
            yield on_bars


def silent(progress: Progress) -> None:
    """Shows nothing."""


def in_lines(progress: Progress) -> None:
    """A line on standard error for the start and the end of each stage."""
    if progress.done in (0, progress.total):
        print(f"{_place(progress)}: {_status(progress)}", file=sys.stderr, flush=True)


@contextmanager
def _bars(console: Console) -> Iterator[OnProgress]:
    with Bars(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
        console=console,
    ) as bars:
        tasks = {}

        def on_bars(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bars.add_task(
                    _place(progress), total=progress.total, status=""
                )
            is_over = progress.done == progress.total  # what remained then is stale at once
            of = progress._replace(remaining=None) if is_over else progress
            bars.update(tasks[of.stage], completed=of.done, status=_status(of))

        yield on_bars


def _place(progress: Progress) -> str:
    return f"{progress.stage} ({progress.place} of {progress.stages})"


def _status(progress: Progress) -> str:
    done = f"{progress.done} of {progress.total}" if progress.done else "started"
    remaining = progress.remaining
    if remaining is None or (progress.place == progress.stages and progress.done == progress.total):
        return done
    return f"{done}, about {duration(remaining)} left"


def duration(seconds: float) -> str:
    """A time in words, in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
