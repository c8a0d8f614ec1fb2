"""The arguments of `lion-jax compare`."""

import argparse
from collections.abc import Iterator
from typing import Any

from lion_jax.lab import arguments

NAME = "compare"
HELP = "tune each rule and compare the rules"
DESCRIPTION = (
    "Train each rule with several learning rates and seeds, choose its learning rate on validation "
    "data, and report its accuracy on test data. With --trials, --studies, --sizes, --batch-sizes, "
    "or several tasks or --steps, it is a sweep: in every cell every rule tunes its learning rate, "
    "its weight decay and what else it declares, with the same budget. After Ctrl-C, --resume goes "
    "on with what is missing."
)
FOLDER = "comparison"
_SWEEPING = ("trials", "studies", "sizes", "batch_sizes", "first_seed", "jobs", "extend")
"""The options of which any makes it a sweep."""
_LEARNING_RATES, _STEPS, _SEEDS = 10, 600, 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what this command takes."""
    arguments.add_task(parser)
    arguments.add_rules(parser, "lion,lookahead_lion,adamw,sgd")
    parser.add_argument(
        "--against",
        metavar="RULE",
        help="the one of the rules that differences are taken to; by default the best",
    )
    parser.add_argument(
        "--learning-rates",
        type=arguments.count,
        metavar="N",
        help=f"learning rates of each rule (default: {_LEARNING_RATES}); a sweep has --trials",
    )
    parser.add_argument(
        "--steps",
        type=arguments.counts,
        metavar="N,...",
        help=f"steps of a run, or several numbers of them (default: {_STEPS})",
    )
    arguments.add_counts(parser, seeds=(_SEEDS, "runs for each trial; in a sweep for the best one"))
    arguments.add_batches(parser)
    parser.add_argument(
        "--resume", action="store_true", help="take what is finished from the output folder"
    )
    sweeping = parser.add_argument_group("a sweep: any of these tunes all that a rule declares")
    for name, text in {
        "trials": "runs of each study, quasi-random in the logarithm (default: 5)",
        "studies": "repetitions of the tuning, each with its seed (default: 5)",
        "jobs": "rules to train side by side (default: one for each core of a CPU)",
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
        help="seed of the first study (default: 0); another one repeats it with other luck",
    )
    sweeping.add_argument(
        "--extend",
        action="store_true",
        default=None,
        help="widen a range by a factor of ten while the best value is at its edge",
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
            "--learning-rates is for a single learning rate to tune; in a sweep give --trials, "
            "the runs of each study"
        )
    if options.batch_size is not None:
        if "batch_sizes" in given:
            raise RequestError("give --batch-size or --batch-sizes, not both")
        given["batch_sizes"] = options.batch_size
    return sweep.each(tasks, **given, on_progress=on_progress)
