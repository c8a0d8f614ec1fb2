"""The report of a comparison: each rule at its best, and what could be chance."""

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
import rich.box
from matplotlib.axes import Axes
from rich.table import Table
from rich.text import Text

from lion_jax.lab.comparing.statistics import (
    Band,
    Difference,
    difference,
    good_band,
    half_interval,
    standard_error,
)
from lion_jax.lab.plots import Picture, looks, tidy
from lion_jax.lab.report import Report
from lion_jax.lab.training import Outcome, Timing

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
        """Whether more of the metric is better."""
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
        """A result on test data minus the baseline, paired by seed."""
        with np.errstate(invalid="ignore"):
            return difference(result.tests - self.baseline.tests)

    def headline(self) -> str:
        """The task, and who is ahead."""
        best = f"{self.best.rule} has the best {self.metric}, {_mean(self.best)}"
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

        One against a rule says the difference to it, where one against the best says how wide the
        good learning rates are and what it took.
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
                "interval. Stored: weights + state."
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
            f"test\n{self.metric}": _mean(result),
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
        mean, low, high = self.difference(result)
        form = _form(self.baseline)
        return f"{mean:+{form}} ± " + ("?" if math.isnan(low) else f"{(high - low) / 2:{form}}")

    def lines(self) -> list[str]:
        """Sentences on who is ahead, by how much, and whether that could be chance."""
        baseline = self.baseline
        said = (
            f"the best test {self.metric}," if self.against is None else f"a test {self.metric} of"
        )
        if not any(math.isfinite(result.test) for result in self.results):
            return [f"No rule has a finite test {self.metric}."]
        return [
            f"{baseline.rule} has {said} {_mean(baseline)}.",
            *(self._place(other) for other in self.ranked if other is not baseline),
            *self._edges(),
            *self._dead_steps(),
        ]

    def _place(self, other: Result) -> str:
        """How far a result is behind the baseline, or ahead of it."""
        if not math.isfinite(other.test):
            return f"{other.rule} has no finite test {self.metric}."
        if not math.isfinite(self.baseline.test):
            return f"{other.rule} has a test {self.metric} of {_mean(other)}."
        gap = self.baseline.tests - other.tests
        gap = gap if self.is_up else -gap
        is_ahead = gap.mean() < 0
        mean, low, high = difference(-gap if is_ahead else gap)
        form = _form(self.baseline)
        place = f"{other.rule} is {mean:{form}} {'ahead' if is_ahead else 'behind'}"
        if math.isnan(low):
            return f"{place}; one seed says nothing about chance."
        chance = "" if low > 0 else ", which could be chance"
        return f"{place} (95% interval {low:+{form}} to {high:+{form}}, paired by seed){chance}."

    def _edges(self) -> list[str]:
        edges = [result.rule for result in self.results if result.is_best_at_edge]
        if not edges:
            return []
        return [
            f"* The best learning rate of {', '.join(edges)} is the smallest or largest tried: "
            "a wider range may do better."
        ]

    def _dead_steps(self) -> list[str]:
        """A sentence on the trained weights that steps would not move if they were bfloat16."""
        shares = [
            f"{result.dead_at_peak:.0%} ({result.dead_at_hundredth:.0%}) of {result.rule}'s"
            for result in self.ranked
            if result.described["moves_by_rate"]
        ]
        if not shares:
            return []
        return [
            "Rounded to the nearest bfloat16, a step of the peak learning rate (of a hundredth of "
            f"it) would not move {', '.join(shares)} trained weights."
        ]

    def picture(self) -> Picture:
        """The test metric against the learning rate, and the training loss over the steps."""
        figure = Picture(figsize=(11, 5), dpi=150, layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        self._draw_rates(left)
        self._draw_curves(right)
        figure.suptitle(self.title())
        figure.legend(
            *left.get_legend_handles_labels(),
            title="large marker: the rate chosen on validation data, with mean ± standard error",
            loc="outside lower center",
            ncols=2,
            frameon=False,
            fontsize=9,
            title_fontsize=9,
        )
        return figure

    def _draw_rates(self, axes: Axes) -> None:
        """A line, a 95% interval and the chosen rate per rule; points where more was tuned."""
        chosen = [result.test for result in self.results if math.isfinite(result.test)]
        if self.is_up and all(0 <= value <= 1 for value in chosen):
            floor = max(0.0, math.floor(10 * min(chosen, default=0) - 1) / 10)
            axes.set_ylim(floor, 1.0)
        elif chosen:
            worst, best = (min(chosen), max(chosen)) if self.is_up else (max(chosen), min(chosen))
            margin = abs(worst - best) or abs(best) or 1.0
            ends = sorted((best + 0.3 * (best - worst), worst + 2 * (worst - best or -margin)))
            axes.set_ylim(*ends)
        floor = axes.get_ylim()[0 if self.is_up else 1]
        for result, look in zip(self.results, self._looks(), strict=True):
            tests, rates = result.outcome.test[self.metric], result.learning_rates
            mean, half = tests.mean(axis=1), np.nan_to_num(half_interval(tests))
            colour, is_grid = look["color"], len(result.trials) == 1
            line = {**look, "linestyle": look["linestyle"] if is_grid else "none"}
            if is_grid:
                low, high = mean - half, mean + half
                axes.fill_between(rates, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(rates, mean, **line, markersize=4, linewidth=1.5)
            at = ", ".join(f"{value:.2g}" for value in result.chosen.values())
            axes.plot(
                result.best_learning_rate,
                result.test,
                **{**line, "linestyle": "none"},
                markersize=10,
                markeredgecolor="black",
                label=f"{result.rule}  {_mean(result)}  at {at}",
            )
            diverged = rates[result.outcome.diverged.any(axis=1)]
            if len(diverged):
                floors = np.full(len(diverged), floor)
                axes.plot(
                    diverged, floors, "x", color=colour, markersize=8, clip_on=False, zorder=3
                )
        if any(result.outcome.diverged.any() for result in self.results):
            axes.plot([], [], "x", color="gray", label="a seed or more diverged")
        axes.set(
            xscale="log",
            xlabel="peak learning rate",
            ylabel=f"test {self.metric}",
            title="mean and 95% interval",
        )
        tidy(axes)

    def _draw_curves(self, axes: Axes) -> None:
        """The training loss at the chosen rate, the mean over seeds."""
        for result, look in zip(self.results, self._looks(), strict=True):
            curve = result.outcome.curve.mean(axis=0)
            steps = self.settings["steps"] * (np.arange(len(curve)) + 0.5) / len(curve)
            axes.plot(steps, curve, **{**look, "marker": ""}, linewidth=1.2)
            if np.all(curve > 0):
                axes.set_yscale("log")
        unit = f" ({self.task['loss_unit']})" if self.task["loss_unit"] else ""
        axes.set(xlabel="step", ylabel=f"training loss{unit}", title="at the chosen rate")
        tidy(axes)

    def _looks(self) -> list[dict[str, Any]]:
        return list(looks(result.rule for result in self.results).values())

    def title(self) -> str:
        """Task, steps, batches, schedule and seeds."""
        settings = self.settings
        seeds = f"{settings['seeds']} seed{'s' if settings['seeds'] > 1 else ''}"
        return (
            f"{self.task['name']}, {settings['steps']} steps of {settings['batch_size']} examples, "
            f"{settings['schedule']} schedule, {seeds}"
        )


def _mean(result: Result) -> str:
    """The mean on test data with its standard error."""
    error, form = result.standard_error, _form(result)
    return f"{result.test:{form}} ± " + ("?" if math.isnan(error) else f"{error:{form}}")


def _form(result: Result) -> str:
    """Four decimals, unless the figure is so small or large that they say little."""
    return ".4f" if 0.01 <= abs(result.test) < 1000 or result.test == 0 else ".4g"


def _columns(outcome: Outcome) -> list[tuple[str, np.ndarray]]:
    """What a record of a run says of it."""
    return [
        ("train_loss", outcome.train_loss),
        *((f"validation_{name}", values) for name, values in outcome.validation.items()),
        *((f"test_{name}", values) for name, values in outcome.test.items()),
        ("diverged", outcome.diverged),
        ("dead_in_bfloat16_at_peak", outcome.dead_in_bfloat16_at_peak),
        ("dead_in_bfloat16_at_hundredth", outcome.dead_in_bfloat16_at_hundredth),
    ]


REPORT = Comparison
