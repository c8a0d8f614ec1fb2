"""The command line: `lion-jax` with `compare`, `find-lr`, `watch`, `bench`, `cost`, `list`."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table

from lion_jax.lab import (
    arguments,
    benchmark_report,
    files,
    finder,
    finder_report,
    progress,
    report,
    watch_report,
)
from lion_jax.lab.benchmark import benchmark
from lion_jax.lab.comparison import compare
from lion_jax.lab.cost import report as cost_report
from lion_jax.lab.cost.pods import pod_costs
from lion_jax.lab.cost.steps import SIGN_SHARDINGS
from lion_jax.lab.errors import RequestError
from lion_jax.lab.rules import AMONG_REPLICAS, IN_FEWER_BYTES, IN_FLOAT32
from lion_jax.lab.tasks import TASKS, Task
from lion_jax.lab.watching import watch

_WIDTH = 110  # where the output is no terminal
_NARROWEST = 80  # a narrower terminal wraps the lines of a table rather than losing figures


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    parser = arguments.parser()
    options = parser.parse_args(words)
    if options.command is None:
        parser.print_help()
        return 0
    commands = {
        "compare": _compare,
        "find-lr": _find,
        "watch": _watch,
        "bench": _bench,
        "cost": _cost,
        "list": _list,
    }
    try:
        return commands[options.command](options)
    except RequestError as error:
        print(f"lion-jax: {error}", file=sys.stderr)
        return 2


def _compare(options: argparse.Namespace) -> int:
    with _output_errors(options.output):
        files.check_writable(options.output, ["accuracy.png", f"records.{options.records}"])
    with progress.rules(options.steps) as on_progress:
        comparison = compare(
            options.task,
            arguments.names(options.rules),
            against=getattr(options, "against", None),
            learning_rates=options.learning_rates,
            steps=options.steps,
            seeds=options.seeds,
            batch_size=options.batch_size,
            schedule=options.schedule,
            on_progress=on_progress,
        )
    with _output_errors(options.output):
        written = report.save(comparison, options.output, options.records)
    console = _console()
    console.print(report.table(comparison))
    lines = [*report.verdict(comparison), *report.dead_steps(comparison)]
    for line in [*lines, f"Written: {', '.join(map(str, written))}"]:
        console.print(line, highlight=False, soft_wrap=True)
    return 0


def _find(options: argparse.Namespace) -> int:
    with _output_errors(options.output):
        files.check_writable(options.output, [finder_report.PICTURE, f"records.{options.records}"])
    with progress.rules(options.steps) as on_progress:
        finding = finder.find(
            options.task,
            options.rule,
            low=getattr(options, "low", None),
            high=getattr(options, "high", None),
            steps=options.steps,
            seeds=options.seeds,
            batch_size=options.batch_size,
            on_progress=on_progress,
        )
    with _output_errors(options.output):
        written = finder_report.save(finding, options.output, options.records)
    console = _console()
    console.print(finder_report.table(finding))
    for line in [*finder_report.summary(finding), f"Written: {', '.join(map(str, written))}"]:
        console.print(line, highlight=False, soft_wrap=True)
    return 0


def _watch(options: argparse.Namespace) -> int:
    with _output_errors(options.output):
        files.check_writable(options.output, [watch_report.PICTURE, f"watch.{options.records}"])
    with progress.rules(options.steps) as on_progress:
        observation = watch(
            arguments.names(options.rules),
            options.task,
            learning_rate=getattr(options, "learning_rate", None),
            steps=options.steps,
            seed=options.seed,
            every=options.every,
            batch_size=options.batch_size,
            schedule=options.schedule,
            per_parameter=options.per_parameter,
            on_progress=on_progress,
        )
    with _output_errors(options.output):
        written = watch_report.save(observation, options.output, options.records)
    console = _console()
    console.print(watch_report.table(observation))
    for line in [*watch_report.summary(observation), f"Written: {', '.join(map(str, written))}"]:
        console.print(line, highlight=False, soft_wrap=True)
    return 0


def _bench(options: argparse.Namespace) -> int:
    with _output_errors(options.output):
        files.check_writable(options.output, ["step.png", f"records.{options.records}"])
    # Several frameworks may share a GPU; by default JAX takes three quarters of it at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with progress.stages() as on_progress:
        result = benchmark(
            options.size,
            blocks=options.blocks,
            dtype=options.dtype,
            rules=arguments.names(options.rules),
            rounds=options.rounds,
            compilations=options.compilations,
            on_progress=on_progress,
        )
    with _output_errors(options.output):
        written = benchmark_report.save(result, options.output, options.records)
    console = _console()
    console.print(*benchmark_report.tables(result))
    lines = benchmark_report.summary(result)
    for line in [*lines, f"Written: {', '.join(map(str, written))}"]:
        console.print(line, highlight=False, soft_wrap=True)
    return 0


def _cost(options: argparse.Namespace) -> int:
    with _output_errors(options.output):
        files.check_writable(options.output, [cost_report.PICTURE, f"records.{options.records}"])
    rules = "lion" if options.sharding in SIGN_SHARDINGS else "lion,adamw"
    with _on_cpus(), progress.stages() as on_progress:
        costs = pod_costs(
            arguments.names(getattr(options, "rule", rules)),
            options.model,
            options.topology,
            options.sharding,
            dtype=options.dtype,
            on_progress=on_progress,
        )
    with _output_errors(options.output):
        written = cost_report.save(costs, options.output, options.records)
    console = _console()
    console.print(cost_report.table(costs))
    for line in [*cost_report.summary(costs), f"Written: {', '.join(map(str, written))}"]:
        console.print(line, highlight=False, soft_wrap=True)
    return 0


def _list(options: argparse.Namespace) -> int:
    tasks = Table("task", "what it is", title="Tasks", title_justify="left")
    for name, make in TASKS.items():
        tasks.add_row(name, _description(make))
    rules = Table("rule", "what is fixed", "learning rates", title="Rules", title_justify="left")
    for rule in IN_FLOAT32.values():
        low, high = rule.learning_rates
        rules.add_row(rule.name, rule.description, f"{low:g} to {high:g}")
    stored = Table("rule", "what it is", title="In fewer bytes", title_justify="left")
    for rule in IN_FEWER_BYTES.values():
        stored.add_row(rule.name, rule.description)
    shared = Table("rule", "what it is", title="Among replicas, for compare", title_justify="left")
    for rule in AMONG_REPLICAS.values():
        shared.add_row(rule.name, rule.description)
    console = _console()
    console.print(tasks, rules, stored, shared)
    return 0


def _description(make: Callable[[], Task]) -> str:
    """The description of a task, or the reason why this machine does not have it."""
    try:
        return make().description
    except RequestError as error:
        return str(error)


def _console() -> Console:
    console = Console()
    width = max(_NARROWEST, console.width) if console.is_terminal else _WIDTH
    return Console(width=width)


@contextmanager
def _on_cpus() -> Iterator[None]:
    """Keeps jax from looking for a TPU where there is none but libtpu is installed.

    Backends that it starts in the meantime, as compiling does, stay what they are.
    """
    before = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_platforms", "cpu")
    try:
        yield
    finally:
        jax.config.update("jax_platforms", before)


@contextmanager
def _output_errors(folder: Path) -> Iterator[None]:
    """Says in one line that the output folder cannot be written to."""
    try:
        yield
    except OSError as error:
        raise RequestError(
            f"cannot write to the output folder {folder} ({error.strerror or error}); "
            "possible: --output with a folder that exists or can be created"
        ) from error
