"""The runs of one rule in a comparison, and how its figures are written."""

import dataclasses
import math
from typing import Any

import numpy as np

from lion_jax.lab.statistics import Band, form_of, good_band, in_words, standard_error
from lion_jax.lab.trainer import Outcome, Timing

GOOD_WITHIN = 0.01
"""A figure is good within this share of the best, where the task's metric does not say."""


@dataclasses.dataclass(frozen=True)
class Result:
    """All runs of one rule.

    Attributes:
      rule: the rule's name.
      described: everything that decides its figures: call, fixed arguments, ranges.
      metric: the metric that decides.
      direction: whether larger is better, ``"up"``, or smaller, ``"down"``.
      good_within: how close to the best a figure is good; None is a hundredth of the best.
      trials: the values tried, by argument, arrays of shape (trials,); the learning rates first.
      outcome: what came of each run, arrays of shape (trials, seeds); of the curve only the chosen
        trial's, of shape (seeds, points).
      timing: wall seconds for compiling and running.
      state_bytes_per_parameter: size of the optimizer's state.
      weight_bytes_per_parameter: size of a stored parameter.
    """

    rule: str
    described: dict[str, Any]
    metric: str
    direction: str
    good_within: float | None
    trials: dict[str, np.ndarray]
    outcome: Outcome
    timing: Timing
    state_bytes_per_parameter: float
    weight_bytes_per_parameter: float = 4.0

    @property
    def scores(self) -> np.ndarray:
        """The deciding metric on validation data, signed so that more is better."""
        sign = 1 if self.direction == "up" else -1
        with np.errstate(invalid="ignore"):
            means = sign * self.outcome.validation[self.metric].mean(axis=1)
        return np.where(np.isfinite(means), means, -np.inf)

    @property
    def best(self) -> int:
        """Index of the trial with the best mean on validation data; the first of equals."""
        return int(np.argmax(self.scores))

    @property
    def chosen(self) -> dict[str, float]:
        """The values chosen on the validation split, by argument."""
        return {name: float(values[self.best]) for name, values in self.trials.items()}

    @property
    def learning_rates(self) -> np.ndarray:
        """The peak learning rates tried, of shape (trials,)."""
        return self.trials["learning_rate"]

    @property
    def best_learning_rate(self) -> float:
        """The learning rate chosen on the validation split."""
        return self.chosen["learning_rate"]

    @property
    def is_best_at_edge(self) -> bool:
        """Tells whether the best learning rate, of several, is the smallest or largest tried."""
        rates = self.learning_rates
        return len(rates) > 1 and self.best_learning_rate in (rates.min(), rates.max())

    @property
    def tests(self) -> np.ndarray:
        """The deciding metric on test data, of each seed of the chosen trial."""
        return self.outcome.test[self.metric][self.best]

    @property
    def test(self) -> float:
        """The mean of the deciding metric on test data, of the chosen trial."""
        return float(self.tests.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of that mean over seeds; NaN for a single seed."""
        return float(standard_error(self.tests))

    @property
    def dead_at_peak(self) -> float:
        """Mean share of trained weights that the best rate could not move, stored in bfloat16."""
        return float(self.outcome.dead_in_bfloat16_at_peak[self.best].mean())

    @property
    def dead_at_hundredth(self) -> float:
        """The same for a hundredth of the best rate."""
        return float(self.outcome.dead_in_bfloat16_at_hundredth[self.best].mean())

    @property
    def good_band(self) -> Band | None:
        """The learning rates around the best that are good; None if more than they were tuned."""
        if len(self.trials) > 1 or not math.isfinite(self.scores.max()):
            return None
        best = abs(float(self.scores.max()))
        within = GOOD_WITHIN * best if self.good_within is None else self.good_within
        return good_band(self.learning_rates, self.scores, within)


def mean_of(result: Result) -> str:
    """The mean on test data with its standard error."""
    return in_words(result.test, result.standard_error, form_of(result.test))
