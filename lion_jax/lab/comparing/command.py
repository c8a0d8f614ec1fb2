"""The arguments of `lion-jax compare`."""

import argparse
from collections.abc import Iterator
from typing import Any

from lion_jax.lab import arguments

NAME = "compare"
HELP = "tune several update rules on one task and compare them"
DESCRIPTION = (
    "Compare update rules, each at its best learning rate: train each with several learning rates "
    "and seeds, choose its rate on validation data, and report its result on test data. After "
    "Ctrl-C, --resume goes on where it stopped.\n\n"
    "Several tasks, sizes, batch sizes or numbers of steps make it a sweep. In each combination, "
    "every rule is tuned with the same budget, its weight decay too.\n\n"
    "Example: lion-jax compare --rules lion,adamw --against adamw"
)
FOLDER = "comparison"
_SWEEPING = ("trials", "studies", "sizes", "batch_sizes", "first_seed", "jobs", "extend")
"""Options that make it a sweep."""
_LEARNING_RATES, _STEPS, _SEEDS = 10, 600, 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what this command takes."""
    arguments.add_task(parser)
    arguments.add_rules(parser, "lion,lookahead_lion,adamw,sgd")
    parser.add_argument(
        "--against",
        metavar="RULE",
        help="rule to compare the others with (default: the best)",
    )
    parser.add_argument(
        "--learning-rates",
        type=arguments.count,
        metavar="N",
        help=f"learning rates to try for each rule (default: {_LEARNING_RATES}); not in a sweep",
    )
    parser.add_argument(
        "--steps",
        type=arguments.counts,
        metavar="N,...",
        help=f"training steps (default: {_STEPS}); several numbers make a sweep",
    )
    arguments.add_counts(parser, seeds=(_SEEDS, "runs with different seeds"))
    arguments.add_batches(parser)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep what the output folder has, and run the rest",
    )
    sweeping = parser.add_argument_group("options of a sweep (any of them makes it one)")
    for name, text in {
        "trials": "values to try in each study (default: 5)",
        "studies": "times to tune each rule, each with another seed (default: 5)",
        "jobs": "rules to train side by side (default: one for each CPU core)",
    }.items():
        sweeping.add_argument(f"--{name}", type=arguments.count, metavar="N", help=text)
    for name, text in {
        "sizes": "sizes of the model, such as 1,2,4",
        "batch-sizes": "batch sizes, such as 16,256",
    }.items():
        sweeping.add_argument(f"--{name}", type=arguments.counts, metavar="N,...", help=text)
    sweeping.add_argument(
        "--first-seed",
        type=arguments.whole,
        metavar="N",
        help="seed of the first study (default: 0); another one gives an independent repetition",
    )
    sweeping.add_argument(
        "--extend",
        action="store_true",
        default=None,
        help="while a best value is at the edge of its range, widen that range tenfold and tune "
        "again, at most three times",
    )


def reports(options: argparse.Namespace, on_progress: Any) -> Iterator[Any]:
    """The reports of a comparison or of a sweep, whichever the options ask for."""
    tasks = arguments.names(options.task)
    shared = {
        name: getattr(options, name)
        for name in ("rules", "against", "seeds", "schedule", "folder", "resume")
    }
    given = {name: getattr(options, name) for name in _SWEEPING}
    given = {name: value for name, value in given.items() if value is not None}
    steps = options.steps or [_STEPS]
    if given or len(tasks) > 1 or len(steps) > 1:
        return _sweep(options, tasks, {"steps": steps, **shared, **given}, on_progress)
    from lion_jax.lab.comparing.run import compare

    return compare.each(
        options.task,
        learning_rates=options.learning_rates or _LEARNING_RATES,
        steps=steps[0],
        batch_size=options.batch_size,
        **shared,
        on_progress=on_progress,
    )


def _sweep(
    options: argparse.Namespace, tasks: list[str], given: dict[str, Any], on_progress: Any
) -> Iterator[Any]:
    from lion_jax.lab.errors import RequestError
    from lion_jax.lab.sweeping.run import sweep

    if options.learning_rates is not None:
        raise RequestError(
            f"--learning-rates must be left out in a sweep; got {options.learning_rates}. Try "
            "--trials, the values to try in each study"
        )
    if options.batch_size is not None:
        if "batch_sizes" in given:
            raise RequestError(
                f"--batch-size must be left out where --batch-sizes is given; got "
                f"{options.batch_size}"
            )
        given["batch_sizes"] = options.batch_size
    return sweep.each(tasks, **given, on_progress=on_progress)
