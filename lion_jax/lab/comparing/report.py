"""The report of a comparison: each rule at its best, with intervals."""

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
import rich.box
from rich.table import Table
from rich.text import Text

from lion_jax.lab.comparing.drawing import draw
from lion_jax.lab.comparing.result import GOOD_WITHIN, Result, mean_of
from lion_jax.lab.plots import Picture
from lion_jax.lab.report import Report
from lion_jax.lab.statistics import (
    Difference,
    comparisons_among,
    corrected_for,
    difference,
    form_of,
    in_words,
)
from lion_jax.lab.trainer import Outcome


@dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
class Comparison(Report):
    """The results of :func:`lion_jax.lab.compare`.

    Attributes:
      task: names, sizes and hashes of the task's data.
      results: one for each rule that was run, in the order asked for.
      against: the rule that the others are compared to; None where that is the best.
    """

    command: ClassVar[str] = "comparing"
    task: dict[str, Any]
    results: tuple[Result, ...] = ()
    against: str | None = None

    @property
    def metric(self) -> str:
        """The metric that decides."""
        return next(iter(self.task["metrics"]))

    @property
    def is_up(self) -> bool:
        """Tells whether more of the metric is better."""
        return self.task["metrics"][self.metric] == "up"

    @property
    def ranked(self) -> list[Result]:
        """The results, the best on test data first."""
        sign = -1 if self.is_up else 1
        return sorted(
            self.results, key=lambda r: sign * r.test if math.isfinite(r.test) else math.inf
        )

    @property
    def best(self) -> Result:
        """The best result on test data."""
        return self.ranked[0]

    @property
    def baseline(self) -> Result:
        """The result that others are compared to: the rule asked for, or the best on test data."""
        named = (r for r in self.results if r.rule == self.against)
        return next(named, self.best)

    def difference(self, result: Result) -> Difference:
        """A result on test data minus the baseline, paired by seed; the interval is corrected."""
        with np.errstate(invalid="ignore"):
            return difference(result.tests - self.baseline.tests, self.comparisons)

    @property
    def comparisons(self) -> int:
        """The number of differences for which the intervals are corrected."""
        return comparisons_among(len(self.results), self.against is not None)

    def headline(self) -> str:
        """The task, and the best rule."""
        best = f"{self.best.rule} has the best {self.metric}, {mean_of(self.best)}"
        return f"{self.task['name']}, {len(self.results)} rules: {best}"

    def records(self) -> list[dict[str, Any]]:
        """One record for each run: rule, trial, seed, loss, metrics, divergence."""
        return [
            {
                "task": self.task["name"],
                "rule": result.rule,
                **{name: float(values[i]) for name, values in result.trials.items()},
                "seed": seed,
                "is_chosen": i == result.best,
                **{name: values[i, seed].item() for name, values in _columns(result.outcome)},
            }
            for result in self.results
            for i in range(len(result.learning_rates))
            for seed in range(self.settings["seeds"])
        ]

    def summary(self) -> list[dict[str, Any]]:
        """One record for each rule: what the table shows."""
        return [self._summary(result) for result in self.results]

    def _summary(self, result: Result) -> dict[str, Any]:
        band, behind = result.good_band, self.difference(result)
        return {
            **result.described,
            "rule": result.rule,
            "grid": {name: values.tolist() for name, values in result.trials.items()},
            **{f"best_{name}": value for name, value in result.chosen.items()},
            "is_best_at_edge": result.is_best_at_edge,
            f"test_{self.metric}": result.test,
            "standard_error": result.standard_error,
            "compared_to": self.baseline.rule,
            "difference": behind.mean,
            "difference_low": behind.low,
            "difference_high": behind.high,
            "good_learning_rates_low": band and band.low,
            "good_learning_rates_high": band and band.high,
            "is_band_open": band and band.is_open,
            "state_bytes_per_parameter": result.state_bytes_per_parameter,
            "weight_bytes_per_parameter": result.weight_bytes_per_parameter,
            "compile_seconds": result.timing.compile_seconds,
            "run_seconds": result.timing.run_seconds,
            "dead_in_bfloat16_at_peak": result.dead_at_peak,
            "dead_in_bfloat16_at_hundredth": result.dead_at_hundredth,
            "diverged_runs": int(result.outcome.diverged.sum()),
            "runs": result.outcome.diverged.size,
        }

    def table(self) -> Table:
        """A row for each rule, the best first.

        If a rule to compare with was named, a column has the difference to it; else columns have
        the range of good learning rates and the time that it took.
        """
        sizes, metric = self.task["examples"], self.metric
        if self.against is None:
            within = self.results[0].good_within
            close = f"{GOOD_WITHIN:.0%}" if within is None else f"{within:g}"
            notes = (
                f"Good rates: validation {metric} within {close} of the rule's best. Stored: "
                "weights + state. Seconds include compilation."
            )
        else:
            notes = (
                f"Minus {self.against}: the mean difference, paired by seed, ± half its 95% "
                f"interval{corrected_for(self.comparisons)}. Stored: weights + state."
            )
        columns = Table(
            title=Text(self.title()),
            caption=f"Learning rates chosen on {sizes['validation']} validation examples; {metric} "
            f"on {sizes['test']} test examples, mean ± standard error over seeds. {notes}",
            caption_justify="left",
            box=rich.box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        columns.add_column("rule", no_wrap=True)
        rows = [self._cells(result) for result in self.ranked]
        for name in dict.fromkeys(name for row in rows for name in row):
            columns.add_column(Text(name), justify="right", no_wrap=True)
        for result, cells in zip(self.ranked, rows, strict=True):
            columns.add_row(Text(result.rule), *cells.values())
        return columns

    def _cells(self, result: Result) -> dict[str, str]:
        """The cells of a rule's row in the table, by column."""
        band, diverged = result.good_band, result.outcome.diverged
        weights, state = result.weight_bytes_per_parameter, result.state_bytes_per_parameter
        others = dict.fromkeys(n for r in self.results for n in list(r.trials)[1:])
        cells = {
            "best\nlr": f"{result.best_learning_rate:.2g}" + "*" * result.is_best_at_edge,
            **{
                f"best\n{n}": f"{result.chosen[n]:.2g}" if n in result.chosen else "-"
                for n in others
            },
            f"test\n{self.metric}": mean_of(result),
        }
        if self.against is None:
            open_ = "≥ " if band and band.is_open else ""
            cells["good lr\nband"] = f"{open_}×{band.factor:.1f}" if band else "-"
        else:
            cells[f"minus\n{self.against}"] = self._minus(result)
        cells["stored\nB/param"] = f"{weights:g}+{state:.2f}"
        cells["diverged\nruns"] = f"{diverged.sum()}/{diverged.size}"
        if self.against is None:
            cells["seconds"] = f"{sum(result.timing):.1f}"
        return cells

    def _minus(self, result: Result) -> str:
        """A rule's mean difference to the baseline, with half its 95% interval."""
        if result is self.baseline:
            return "-"
        found, form = self.difference(result), form_of(self.baseline.test)
        return in_words(found.mean, found.half, form, sign="+")

    def lines(self) -> list[str]:
        """Sentences on the best rule, the gaps of the others, and whether they could be chance."""
        baseline = self.baseline
        said = (
            f"the best test {self.metric}," if self.against is None else f"a test {self.metric} of"
        )
        if not any(math.isfinite(result.test) for result in self.results):
            return [f"No rule has a finite test {self.metric}."]
        return [
            f"{baseline.rule} has {said} {mean_of(baseline)}.",
            *(self._place(other) for other in self.ranked if other is not baseline),
            *self._edges(),
            *self._dead_steps(),
        ]

    def _place(self, other: Result) -> str:
        """A sentence on a result's distance to the baseline, behind or ahead."""
        if not math.isfinite(other.test):
            return f"{other.rule} has no finite test {self.metric}."
        if not math.isfinite(self.baseline.test):
            return f"{other.rule} has a test {self.metric} of {mean_of(other)}."
        gap = self.baseline.tests - other.tests
        gap = gap if self.is_up else -gap
        is_ahead = gap.mean() < 0
        found = difference(-gap if is_ahead else gap, self.comparisons)
        form = form_of(self.baseline.test)
        place = f"{other.rule} is {found.mean:{form}} {'ahead' if is_ahead else 'behind'}"
        if math.isnan(found.low):
            return f"{place}; one seed says nothing about chance."
        interval = f"95% interval {found.low:+{form}} to {found.high:+{form}}"
        chance = ", which could be chance" if found.could_be_chance else ""
        return f"{place} ({interval}, paired by seed{corrected_for(self.comparisons)}){chance}."

    def _edges(self) -> list[str]:
        edges = [result.rule for result in self.results if result.is_best_at_edge]
        if not edges:
            return []
        return [
            f"* The best learning rate of {', '.join(edges)} is the smallest or largest tried: "
            "a wider range may do better."
        ]

    def _dead_steps(self) -> list[str]:
        """A sentence on the trained weights that would not move if they were bfloat16."""
        shares = [
            f"{result.rule} {result.dead_at_peak:.0%} ({result.dead_at_hundredth:.0%})"
            for result in self.ranked
            if result.described["moves_by_rate"]
        ]
        if not shares:
            return []
        return [
            "If the trained weights were bfloat16, rounded to the nearest, a step of the peak "
            "learning rate (of a hundredth of it) would not move a share of them: "
            f"{', '.join(shares)}."
        ]

    def picture(self) -> Picture:
        """The test metric against the learning rate, and the training loss over the steps."""
        unit = f" ({self.task['loss_unit']})" if self.task["loss_unit"] else ""
        steps, loss = self.settings["steps"], f"training loss{unit}"
        return draw(self.results, self.title(), self.is_up, steps, loss)

    def title(self) -> str:
        """Task, steps, batches, schedule and seeds."""
        settings = self.settings
        seeds = f"{settings['seeds']} seed{'s' if settings['seeds'] > 1 else ''}"
        return (
            f"{self.task['name']}, {settings['steps']} steps of {settings['batch_size']} examples, "
            f"{settings['schedule']} schedule, {seeds}"
        )


def _columns(outcome: Outcome) -> list[tuple[str, np.ndarray]]:
    """The columns of a run's record."""
    return [
        ("train_loss", outcome.train_loss),
        *((f"validation_{name}", values) for name, values in outcome.validation.items()),
        *((f"test_{name}", values) for name, values in outcome.test.items()),
        ("diverged", outcome.diverged),
        ("dead_in_bfloat16_at_peak", outcome.dead_in_bfloat16_at_peak),
        ("dead_in_bfloat16_at_hundredth", outcome.dead_in_bfloat16_at_hundredth),
    ]


REPORT = Comparison
