"""The progress of commands, told on standard error: in bars on a terminal, else in lines."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def rules(steps: int) -> Iterator[Callable[[str, int], None]]:
    """A bar for each rule on a terminal, a line for each rule elsewhere."""
    with _bars() as (console, progress):
        bars = {}

        def on_progress(name: str, done: int) -> None:
            if name not in bars:
                bars[name] = progress.add_task(name, total=steps, status="")
            status = "compiling" if done == 0 else f"step {done} of {steps}"
            progress.update(bars[name], completed=done, status=status)
            if not console.is_terminal and done in (0, steps):
                print(f"{name}: {status}", file=sys.stderr, flush=True)

        yield on_progress


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each stage on a terminal, a line for each stage elsewhere."""
    with _bars() as (console, progress):
        bars = {}

        def on_progress(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                bars[stage] = progress.add_task(stage, total=total, status="")
                if not console.is_terminal:
                    print(f"{stage} ({total})", file=sys.stderr, flush=True)
            progress.update(bars[stage], completed=done, status=f"{done} of {total}")

        yield on_progress


@contextmanager
def _bars() -> Iterator[tuple[Console, Progress]]:
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        yield console, progress
