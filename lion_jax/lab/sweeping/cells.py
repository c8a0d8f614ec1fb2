"""A cell of a sweep: one task at one size, batch size and length, and each rule's runs in it."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from lion_jax.lab.statistics import (
    Difference,
    comparisons_among,
    difference_with_tuning,
    standard_error,
)
from lion_jax.lab.trainer import Outcome, Timing


@dataclasses.dataclass(frozen=True)
class Place:
    """The place of a cell on the axes of a sweep.

    Attributes:
      task: the task's name.
      size: the size of its model; None where the task has one size.
      batch_size: examples in a batch.
      steps: of a run.
    """

    task: str
    size: int | None
    batch_size: int
    steps: int

    def __str__(self) -> str:
        """The place in words."""
        size = "" if self.size is None else f"size {self.size}, "
        return f"{self.task}, {size}batch {self.batch_size}, {self.steps} steps"


@dataclasses.dataclass(frozen=True)
class Tuned:
    """All runs of one rule in a cell.

    Attributes:
      rule: the rule's name.
      described: everything that decides its figures: call, fixed arguments, ranges.
      trials: the values tried, by argument, arrays of shape (trials, studies).
      tuning: what came of each trial, arrays of shape (trials, studies), without curves.
      selection: what came of each study's best trial on the seeds of all studies, arrays of shape
        (studies, studies), without curves.
      final: what came of the chosen values on fresh seeds, arrays of shape (1, seeds); the curve,
        of shape (1, 1, points), is the mean over them.
      timing: wall seconds for compiling and running.
      widened: how often its ranges were widened.
    """

    rule: str
    described: dict[str, Any]
    trials: dict[str, np.ndarray]
    tuning: Outcome
    selection: Outcome
    final: Outcome
    timing: Timing
    widened: int = 0


@dataclasses.dataclass(frozen=True)
class Cell:
    """Results of all rules in one place.

    Attributes:
      place: where.
      task: names, sizes and hashes of the task's data.
      results: one for each rule that was run.
    """

    place: Place
    task: dict[str, Any]
    results: tuple[Tuned, ...] = ()

    @property
    def metric(self) -> str:
        """The metric that decides."""
        return next(iter(self.task["metrics"]))

    @property
    def is_up(self) -> bool:
        """Tells whether more of the metric is better."""
        return self.task["metrics"][self.metric] == "up"

    def chosen(self, result: Tuned) -> dict[str, float]:
        """The values of the study that did best in the selection, by argument."""
        candidates = best_of_each_study(result.trials, result.tuning, self.metric, self.is_up)
        return chosen(candidates, result.selection, self.metric, self.is_up)

    def edges(self, result: Tuned) -> dict[str, int]:
        """The arguments whose chosen value is the smallest, -1, or the largest tried, 1."""
        return edges(result.trials, self.chosen(result))

    def best_of_studies(self, result: Tuned) -> np.ndarray:
        """The test metric of each study's best trial on validation data, of shape (studies,)."""
        best = _scores(result.tuning, self.metric, self.is_up).argmax(axis=0)
        return result.tuning.test[self.metric][best, np.arange(len(best))]

    def median_of_studies(self, result: Tuned) -> float:
        """The median over studies of the best of its trials, which says how easy tuning is."""
        return float(np.median(self.best_of_studies(result)))

    def tests(self, result: Tuned) -> np.ndarray:
        """The test metric of the chosen values on each fresh seed, of shape (seeds,)."""
        return result.final.test[self.metric][0]

    def test(self, result: Tuned) -> float:
        """Its mean."""
        return float(self.tests(result).mean())

    def standard_error(self, result: Tuned) -> float:
        """The standard error of that mean; NaN for a single seed."""
        return float(standard_error(self.tests(result)))

    @property
    def ranked(self) -> list[Tuned]:
        """The results, the best on test data first."""
        return sorted(self.results, key=lambda result: self._loss(self.test(result)))

    def rank(self, result: Tuned) -> int:
        """The place of a rule among all, from 1, at the end of training."""
        return 1 + [other.rule for other in self.ranked].index(result.rule)

    def baseline(self, against: str | None) -> Tuned:
        """The result that others are compared to: the rule asked for, or the best on test data."""
        named = (result for result in self.results if result.rule == against)
        return next(named, self.ranked[0])

    def difference(self, result: Tuned, against: str | None) -> Difference:
        """A rule's test metric minus the baseline's, paired by seed.

        The interval is corrected for the number of comparisons, and has the luck of tuning in it:
        by how much the difference would change if one study had been left out, a jackknife.
        """
        count = comparisons_among(len(self.results), against is not None)
        base = self.baseline(against)
        with np.errstate(invalid="ignore"):
            gap = self.tests(result) - self.tests(base)
            without_each = self._without_each_study(result) - self._without_each_study(base)
        return difference_with_tuning(gap, without_each, count)

    def _without_each_study(self, result: Tuned) -> np.ndarray:
        """The test metric of what would be chosen without one study, of shape (studies,)."""
        selection = result.selection
        order = _scores(selection, self.metric, self.is_up).mean(axis=1).argsort()[::-1]
        tests = selection.test[self.metric].mean(axis=1)
        best, second = order[0], order[min(1, len(order) - 1)]
        return np.where(np.arange(len(order)) == best, tests[second], tests[best])

    def relative(self, result: Tuned, against: str | None) -> Difference:
        """The same as a share of the baseline's error, so that less is better for any metric.

        The error is 1 minus the metric where more is better, and the metric itself where less is.
        """
        mean, low, high = self.difference(result, against)
        of = self.test(self.baseline(against))
        error = 1 - of if self.is_up else of
        if self.is_up:
            mean, low, high = -mean, -high, -low
        return Difference(*(x / error if error > 0 else math.nan for x in (mean, low, high)))

    def _loss(self, value: float) -> float:
        return math.inf if not math.isfinite(value) else -value if self.is_up else value


def best_of_each_study(
    trials: dict[str, np.ndarray], tuning: Outcome, metric: str, is_up: bool
) -> dict[str, np.ndarray]:
    """The values of each study's best trial on validation data, arrays of shape (studies,)."""
    best = _scores(tuning, metric, is_up).argmax(axis=0)
    return {name: values[best, np.arange(len(best))] for name, values in trials.items()}


def chosen(
    candidates: dict[str, np.ndarray], selection: Outcome, metric: str, is_up: bool
) -> dict[str, float]:
    """The candidate with the best mean over seeds on validation data; the first of equals."""
    best = _scores(selection, metric, is_up).mean(axis=1).argmax()
    return {name: float(values[best]) for name, values in candidates.items()}


def edges(trials: dict[str, np.ndarray], values: dict[str, float]) -> dict[str, int]:
    """The arguments whose value is the smallest, -1, or the largest of several tried, 1."""
    ends = {name: (tried.min(), tried.max()) for name, tried in trials.items()}
    return {
        name: -1 if values[name] == low else 1
        for name, (low, high) in ends.items()
        if low < high and values[name] in (low, high)
    }


def _scores(outcome: Outcome, metric: str, is_up: bool) -> np.ndarray:
    """The metric on validation data, signed so that more is better."""
    signed = outcome.validation[metric] * (1 if is_up else -1)
    return np.where(np.isfinite(signed), signed, -np.inf)


def along(cells: Iterable[Cell], axis: str) -> list[Any]:
    """The values that some cells have on an axis, in order."""
    found = {getattr(cell.place, axis) for cell in cells}
    return sorted(found, key=lambda value: (value is None, value))
