"""The command line: `lion-jax` with `compare`, `find-lr`, `bench` and `list`."""

import argparse
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

import lion_jax
from lion_jax.lab import benchmark_report, files, finder, finder_report, progress, report
from lion_jax.lab.benchmark import DTYPES, benchmark
from lion_jax.lab.comparison import DEFAULT_RULES, compare
from lion_jax.lab.contenders import RULES as BENCHED
from lion_jax.lab.errors import RequestError
from lion_jax.lab.finding import LEAST_STEPS
from lion_jax.lab.rules import RULES
from lion_jax.lab.tasks import TASKS
from lion_jax.lab.training import SCHEDULES

_WIDTH = 110  # where the output is no terminal
_NARROWEST = 80  # a narrower terminal wraps the lines of a table rather than losing figures


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line each."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        return options.command(options)
    except RequestError as error:
        print(f"lion-jax: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lion-jax",
        description="Compare the Lion optimizer with its neighbours: accuracy on real data, and "
        "what a step costs on this machine.",
    )
    parser.set_defaults(command=None)
    parser.add_argument("--version", action="version", version=lion_jax.__version__)
    commands = parser.add_subparsers(title="commands", metavar="{compare,find-lr,bench,list}")

    comparing = commands.add_parser(
        "compare",
        help="tune the learning rate of each rule and compare the rules",
        description="Train each rule with several learning rates and seeds, choose its learning "
        "rate on validation data, and report its accuracy on test data. Prints a table; writes a "
        "picture (accuracy.png) and the records of all runs.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    comparing.set_defaults(command=_compare)
    comparing.add_argument("--task", default="digits", help=f"one of: {', '.join(TASKS)}")
    comparing.add_argument(
        "--rules",
        default=",".join(DEFAULT_RULES),
        help=f"comma-separated, from: {', '.join(RULES)}",
    )
    comparing.add_argument(
        "--learning-rates",
        type=_count,
        default=10,
        metavar="N",
        help="learning rates for a rule",
    )
    comparing.add_argument("--steps", type=_count, default=600, metavar="N", help="steps of a run")
    comparing.add_argument(
        "--seeds", type=_count, default=5, metavar="N", help="runs for each learning rate"
    )
    comparing.add_argument(
        "--batch-size", type=_count, default=64, metavar="N", help="examples in a batch"
    )
    comparing.add_argument(
        "--schedule",
        default="cosine",
        help=f"one of: {', '.join(SCHEDULES)}; cosine warms up over a twentieth of the steps",
    )
    _add_output(comparing, "comparison", "csv: a row for each run; json: with summary, settings")

    finding = commands.add_parser(
        "find-lr",
        help="find a learning rate for a rule in one short run",
        description="Train a rule while its learning rate grows at every step, on a logarithmic "
        "scale, and suggest the rate at which the smoothed loss is lowest. Prints a table; writes "
        f"a picture ({finder_report.PICTURE}) and the records of all steps.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    finding.set_defaults(command=_find)
    finding.add_argument("--task", default="digits", help=f"one of: {', '.join(TASKS)}")
    finding.add_argument("--rule", default="lion", help=f"one of: {', '.join(RULES)}")
    for name, default in (
        ("low", "first learning rate; by default a tenth of the rule's smallest in lion-jax list"),
        ("high", "last learning rate; by default ten times the rule's largest there"),
    ):
        finding.add_argument(
            f"--{name}", type=_rate, default=argparse.SUPPRESS, metavar="LR", help=default
        )
    finding.add_argument(
        "--steps", type=_count, default=200, metavar="N", help=f"at least {LEAST_STEPS}"
    )
    finding.add_argument(
        "--seeds", type=_count, default=3, metavar="N", help="runs, each with its own suggestion"
    )
    finding.add_argument(
        "--batch-size", type=_count, default=64, metavar="N", help="examples in a batch"
    )
    _add_output(finding, "lr-finder", "csv: a row for each step; json: with suggestion, settings")

    timing = commands.add_parser(
        "bench",
        help="time a step of lion_jax, optax and what else is installed",
        description="Time optimizers side by side on the default device: a step, compilation, "
        "memory, and the share of the memory's bandwidth. flashoptim-jax, lion-pytorch, "
        "bitsandbytes and torch run beside lion_jax and optax where they are installed. Prints "
        "tables; writes a picture (step.png) and the records.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    timing.set_defaults(command=_bench)
    timing.add_argument(
        "--size", type=_size, default="20M", metavar="N", help="parameters, e.g. 5e6, 124M or 1B"
    )
    timing.add_argument(
        "--blocks",
        type=_count,
        default=12,
        metavar="N",
        help="transformer blocks of 12 arrays each, over which the parameters are spread",
    )
    timing.add_argument("--dtype", default="float32", help=f"one of: {', '.join(DTYPES)}")
    timing.add_argument(
        "--rules", default=",".join(BENCHED), help=f"comma-separated, from: {', '.join(BENCHED)}"
    )
    timing.add_argument(
        "--rounds", type=_count, default=20, metavar="N", help="samples for each optimizer"
    )
    timing.add_argument(
        "--compilations", type=_count, default=3, metavar="N", help="compilations of each program"
    )
    _add_output(timing, "benchmark", "csv: a row for each time; json: with settings, memory")

    listing = commands.add_parser("list", help="name the tasks and rules")
    listing.set_defaults(command=_list)
    return parser


def _add_output(parser: argparse.ArgumentParser, folder: str, records: str) -> None:
    parser.add_argument(
        "--output", type=Path, default=Path(folder), metavar="DIR", help="folder to write to"
    )
    parser.add_argument(
        "--records", choices=("csv", "json"), default="csv", help=f"{records} and versions"
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1; got {text!r}")
    return int(text)


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(
            f"must be a learning rate, finite and > 0, such as 1e-4; got {text!r}"
        )
    return value


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _size(text: str) -> float:
    units = {"K": 1e3, "M": 1e6, "B": 1e9}
    unit = units.get(text[-1:].upper(), 1)
    try:
        value = float(text if unit == 1 else text[:-1]) * unit
    except ValueError:
        value = math.nan
    if not 1 <= value < math.inf:
        raise argparse.ArgumentTypeError(
            f"must be a number of parameters, such as 5e6, 124M or 1B; got {text!r}"
        )
    return value


def _compare(options: argparse.Namespace) -> int:
    with _output_errors(options.output):
        files.check_writable(options.output, ["accuracy.png", f"records.{options.records}"])
    with progress.rules(options.steps) as on_progress:
        comparison = compare(
            options.task,
            _names(options.rules),
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
    for line in [*report.verdict(comparison), f"Written: {', '.join(map(str, written))}"]:
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
            rules=_names(options.rules),
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


def _list(options: argparse.Namespace) -> int:
    tasks = Table("task", "what it is", title="Tasks", title_justify="left")
    for name, make in TASKS.items():
        tasks.add_row(name, make().description)
    rules = Table("rule", "what is fixed", "learning rates", title="Rules", title_justify="left")
    for rule in RULES.values():
        low, high = rule.learning_rates
        rules.add_row(rule.name, rule.description, f"{low:g} to {high:g}")
    console = _console()
    console.print(tasks, rules)
    return 0


def _console() -> Console:
    console = Console()
    width = max(_NARROWEST, console.width) if console.is_terminal else _WIDTH
    return Console(width=width)


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
