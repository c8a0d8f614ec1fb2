"""The arguments of the command line `lion-jax`, and its help texts."""

import argparse
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import lion_jax
from lion_jax.lab import comparison, finder_report, watch_report, watching
from lion_jax.lab.benchmark import DTYPES
from lion_jax.lab.contenders import RULES as BENCHED
from lion_jax.lab.cost.models import MODELS
from lion_jax.lab.cost.pods import DTYPES as POD_DTYPES
from lion_jax.lab.cost.report import PICTURE as COST_PICTURE
from lion_jax.lab.cost.steps import SHARDINGS, SIGN_SHARDINGS
from lion_jax.lab.cost.topology import GENERATIONS
from lion_jax.lab.finding import LEAST_STEPS
from lion_jax.lab.rules import AMONG_REPLICAS, RULES
from lion_jax.lab.tasks import TASKS
from lion_jax.lab.training import SCHEDULES


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line each."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; what it parses has the name of its command."""
    whole = _Parser(
        prog="lion-jax",
        description="Compare the Lion optimizer with its neighbours: accuracy on real data, and "
        "what a step costs on this machine.",
    )
    whole.add_argument("--version", action="version", version=lion_jax.__version__)
    commands = whole.add_subparsers(
        title="commands", metavar="{compare,find-lr,watch,bench,cost,list}", dest="command"
    )
    _add_compare(commands)
    _add_find(commands)
    _add_watch(commands)
    _add_bench(commands)
    _add_cost(commands)
    commands.add_parser("list", help="name the tasks and rules")
    return whole


def _add_compare(commands: Any) -> None:
    comparing = commands.add_parser(
        "compare",
        help="tune the learning rate of each rule and compare the rules",
        description="Train each rule with several learning rates and seeds, choose its learning "
        "rate on validation data, and report its accuracy on test data. Prints a table; writes a "
        "picture (accuracy.png) and the records of all runs.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_task(comparing)
    _add_rules(comparing, comparison.DEFAULT_RULES, [*RULES, *AMONG_REPLICAS])
    comparing.add_argument(
        "--against",
        default=argparse.SUPPRESS,
        metavar="RULE",
        help="the one of the rules that differences are taken to; by default the best",
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
    _add_batch_size(comparing)
    _add_schedule(comparing)
    _add_output(comparing, "comparison", "csv: a row for each run; json: with summary, settings")


def _add_find(commands: Any) -> None:
    finding = commands.add_parser(
        "find-lr",
        help="find a learning rate for a rule in one short run",
        description="Train a rule while its learning rate grows at every step, on a logarithmic "
        "scale, and suggest the rate at which the smoothed loss is lowest. Prints a table; writes "
        f"a picture ({finder_report.PICTURE}) and the records of all steps.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_task(finding)
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
    _add_batch_size(finding)
    _add_output(finding, "lr-finder", "csv: a row for each step; json: with suggestion, settings")


def _add_watch(commands: Any) -> None:
    watched = commands.add_parser(
        "watch",
        help="watch norms, cosines and sign flips over the steps of a run",
        description="Train each rule once and record the loss and the metrics of its steps: norms "
        "of gradients, updates, parameters and moments, their cosines, how many entries step "
        "downhill, and of sign rules how many signs flip. Prints a table; writes a picture "
        f"({watch_report.PICTURE}) and the records. For example: lion-jax watch --rules lion,adamw "
        "--learning-rate lion=1e-3,adamw=1e-2 --every 10",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_task(watched)
    _add_rules(watched, watching.DEFAULT_RULES)
    watched.add_argument(
        "--learning-rate",
        type=_rates,
        default=argparse.SUPPRESS,
        metavar="LR",
        help="peak for all rules, such as 1e-3, or for some, such as lion=1e-3,adamw=1e-2; "
        "by default tuned first, as lion-jax compare does by default",
    )
    watched.add_argument("--steps", type=_count, default=600, metavar="N", help="steps of a run")
    watched.add_argument(
        "--every", type=_count, default=1, metavar="N", help="record every Nth step"
    )
    watched.add_argument(
        "--seed", type=_whole, default=0, metavar="N", help="of parameters and batches"
    )
    _add_batch_size(watched)
    _add_schedule(watched)
    watched.add_argument(
        "--per-parameter",
        action="store_true",
        help="record each metric for each parameter too",
    )
    _add_output(watched, "watch", "csv: a row for each rule and step; json: with settings")


def _add_bench(commands: Any) -> None:
    timing = commands.add_parser(
        "bench",
        help="time a step of lion_jax, optax and what else is installed",
        description="Time optimizers side by side on the default device: a step, compilation, "
        "memory, and the share of the memory's bandwidth. flashoptim-jax, lion-pytorch, "
        "bitsandbytes and torch run beside lion_jax and optax where they are installed. Prints "
        "tables; writes a picture (step.png) and the records.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
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


def _add_cost(commands: Any) -> None:
    costing = commands.add_parser(
        "cost",
        help="count what a step stores, moves and sends on a TPU pod, without one",
        description="Compile the step of each rule for a slice of a TPU pod, with no TPU, and "
        "count in the program what each chip stores, moves through its memory and sends, each with "
        f"its floor. Needs the extra pods. Prints a table; writes a picture ({COST_PICTURE}) and "
        "the records. For example: lion-jax cost --rule lion,adamw --model gpt2 "
        "--topology v5e:16x16 --sharding fsdp",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    costing.add_argument(
        "--rule",
        default=argparse.SUPPRESS,
        help=f"comma-separated, from: {', '.join(RULES)}; by default lion,adamw, and lion alone "
        f"with the shardings {' and '.join(SIGN_SHARDINGS)}",
    )
    costing.add_argument(
        "--model",
        default="gpt2",
        help=f"one of: {', '.join(MODELS)}; or a JSON file of shapes, "
        'such as {"w": [768, 3072], "b": [3072]}, nested at will',
    )
    costing.add_argument(
        "--topology",
        default="v5e:16x16",
        metavar="NAME",
        help=f"a generation ({', '.join(GENERATIONS)}) and a grid of chips, e.g. v5p:8x8x8",
    )
    costing.add_argument(
        "--sharding",
        default="fsdp",
        help="; ".join(f"{name}: {what}" for name, what in SHARDINGS.items()),
    )
    costing.add_argument(
        "--dtype", default="float32", help=f"of parameters and gradients: {', '.join(POD_DTYPES)}"
    )
    _add_output(costing, "cost", "csv: a row for each rule; json: with collectives")


def _add_task(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", default="digits", help=f"one of: {', '.join(TASKS)}")


def _add_rules(
    parser: argparse.ArgumentParser, default: tuple[str, ...], possible: Iterable[str] = RULES
) -> None:
    parser.add_argument(
        "--rules", default=",".join(default), help=f"comma-separated, from: {', '.join(possible)}"
    )


def _add_batch_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch-size", type=_count, default=64, metavar="N", help="examples in a batch"
    )


def _add_schedule(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--schedule",
        default="cosine",
        help=f"one of: {', '.join(SCHEDULES)}; cosine warms up over a twentieth of the steps",
    )


def _add_output(parser: argparse.ArgumentParser, folder: str, records: str) -> None:
    parser.add_argument(
        "--output", type=Path, default=Path(folder), metavar="DIR", help="folder to write to"
    )
    parser.add_argument(
        "--records", choices=("csv", "json"), default="csv", help=f"{records} and versions"
    )


def _whole(text: str, least: int = 0) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least {least}; got {text!r}"
        )
    return int(text)


def _count(text: str) -> int:
    return _whole(text, least=1)


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


def _rates(text: str) -> float | dict[str, float]:
    """One learning rate, or several by rule."""
    if "=" not in text:
        return _rate(text)
    pairs = [pair.partition("=") for pair in names(text)]
    rates = {rule.strip(): _rate(rate.strip()) for rule, _, rate in pairs}
    if len(rates) < len(pairs):
        raise argparse.ArgumentTypeError(f"must name each rule once; got {text!r}")
    return rates


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


def names(text: str) -> list[str]:
    """The names that stand between the commas."""
    return [name.strip() for name in text.split(",") if name.strip()]
