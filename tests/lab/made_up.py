"""Comparisons of made-up figures, and what their tables print."""

import dataclasses

import numpy as np
from rich.console import Console

from lion_jax.lab.comparing.report import Comparison
from lion_jax.lab.comparing.result import Result
from lion_jax.lab.rules.catalogue import RULES
from lion_jax.lab.trainer import Outcome, Timing


def result(
    validation,
    test,
    rates=(1e-3, 1e-2, 1e-1),
    name="lion",
    diverged=None,
    dead=(0.0, 0.0),
    direction="up",
    of="lion",
):
    """A result with made-up accuracies of shape (learning rates, seeds)."""
    validation, test = np.asarray(validation, float), np.asarray(test, float)
    dead = [np.broadcast_to(share, test.shape) for share in dead]
    diverged = np.zeros(test.shape, bool) if diverged is None else np.asarray(diverged)
    curve = np.ones((test.shape[1], 7))
    metric = {"up": "accuracy", "down": "loss"}[direction]
    return Result(
        rule=name,
        described=dataclasses.replace(RULES[of], name=name).described(),
        metric=metric,
        direction=direction,
        good_within=0.01 if direction == "up" else None,
        trials={"learning_rate": np.asarray(rates)},
        outcome=Outcome(
            np.zeros_like(test), {metric: validation}, {metric: test}, diverged, *dead, curve
        ),
        timing=Timing(1.0, 2.0),
        state_bytes_per_parameter=4.0,
    )


def comparison_of(task, *results, against=None, missing=()):
    """A comparison of results on a task."""
    seeds = results[0].outcome.diverged.shape[1]
    settings = {"steps": 7, "seeds": seeds, "batch_size": 400, "schedule": "cosine"}
    return Comparison(
        settings=settings, missing=missing, task=task.described(), results=results, against=against
    )


def rendered(table, width=100):
    """The text that a table prints."""
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    return capture.get()
