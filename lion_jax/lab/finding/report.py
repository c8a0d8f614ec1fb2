"""The report of a learning-rate range test: the suggestions and the losses behind them."""

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
import rich.box
from matplotlib.axes import Axes
from rich.table import Table
from rich.text import Text

from lion_jax.lab.errors import RequestError
from lion_jax.lab.finding.reading import CRITERION, Reading
from lion_jax.lab.plots import COLOURS, Picture, tidy
from lion_jax.lab.report import Report


@dataclasses.dataclass(frozen=True)
class RangeTest:
    """The runs of one rule.

    Attributes:
      described: everything that decides the rule's figures.
      learning_rates: one for each step, evenly spaced on a logarithmic scale, of shape (steps,).
      losses: loss of each step's batch, before its update, of shape (seeds, steps).
      readings: the reading of each seed, in the order of the losses.
    """

    described: dict[str, Any]
    learning_rates: np.ndarray
    losses: np.ndarray
    readings: tuple[Reading, ...]

    @property
    def smoothed(self) -> np.ndarray:
        """Smoothed losses of shape (seeds, steps), NaN where a run has ended."""
        smoothed = np.full(self.losses.shape, np.nan)
        for row, reading in zip(smoothed, self.readings, strict=True):
            row[: len(reading.smoothed)] = reading.smoothed
        return smoothed

    @property
    def suggestions(self) -> np.ndarray:
        """The suggestion of each seed, NaN where it has none, of shape (seeds,)."""
        return np.array([reading.suggestion for reading in self.readings])

    @property
    def suggestion(self) -> float | None:
        """The geometric mean over the seeds that have one; None unless most of them have."""
        found = self.suggestions[~np.isnan(self.suggestions)]
        return math.exp(np.log(found).mean()) if 2 * len(found) > len(self.readings) else None

    @property
    def diverged_at(self) -> np.ndarray:
        """The learning rate at which each seed diverged, NaN where none did, of shape (seeds,)."""
        return np.array([reading.diverged_at for reading in self.readings])


@dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
class Finding(Report):
    """The outcome of :func:`lion_jax.lab.find`.

    Attributes:
      task: names, sizes and hashes of the task's data.
      tests: the runs of each rule.
    """

    command: ClassVar[str] = "finding"
    task: dict[str, Any]
    tests: dict[str, RangeTest] = dataclasses.field(default_factory=dict)

    @property
    def suggestions(self) -> dict[str, float | None]:
        """The suggestion for each rule, None where there is none."""
        return {rule: test.suggestion for rule, test in self.tests.items()}

    @property
    def suggestion(self) -> float | None:
        """The suggestion for the only rule.

        Raises:
          RequestError: there are several; `suggestions` has them by rule.
        """
        if len(self.tests) != 1:
            raise RequestError(f"one rule has a suggestion; got {', '.join(self.tests)}")
        return next(iter(self.suggestions.values()))

    def headline(self) -> str:
        """The task and the suggestions."""
        found = ", ".join(f"{rule} {_suggested(s)}" for rule, s in self.suggestions.items())
        return f"{self.task['name']}: {found}"

    def records(self) -> list[dict[str, Any]]:
        """One record for each rule, seed and step; no smoothed loss where a run has ended."""
        return [
            {
                "rule": rule,
                "seed": seed,
                "step": step,
                "learning_rate": float(learning_rate),
                "loss": float(test.losses[seed, step]),
                "smoothed_loss": float(smoothed[seed, step]),
            }
            for rule, test in self.tests.items()
            for smoothed in [test.smoothed]
            for seed in range(len(test.losses))
            for step, learning_rate in enumerate(test.learning_rates)
        ]

    def summary(self) -> list[dict[str, Any]]:
        """One record for each rule, with a reading for each seed."""
        return [
            {
                **test.described,
                "rule": rule,
                "suggestion": test.suggestion,
                "criterion": CRITERION,
                "seeds": [
                    {name: value for name, value in seed._asdict().items() if name != "smoothed"}
                    for seed in test.readings
                ],
            }
            for rule, test in self.tests.items()
        ]

    def table(self) -> Table:
        """A row for each rule and seed."""
        columns = Table(
            title=Text(self.title()),
            title_justify="left",
            caption="Learning rates at which: the smoothed loss is lowest (suggestion); it falls "
            "fastest, a customary and more careful choice (steepest); it is back at its first "
            "value or not finite (diverged at).",
            caption_justify="left",
            box=rich.box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        columns.add_column("rule", no_wrap=True)
        for name in ("seed", "suggestion", "steepest", "diverged at", "first loss", "lowest loss"):
            columns.add_column(name, justify="right", no_wrap=True)
        for rule, test in self.tests.items():
            for seed, (losses, reading) in enumerate(zip(test.losses, test.readings, strict=True)):
                columns.add_row(
                    Text(rule) if seed == 0 else "",
                    str(seed),
                    _rate(reading.suggestion),
                    _rate(reading.steepest),
                    _rate(reading.diverged_at),
                    f"{losses[0]:.4g}",
                    f"{reading.smoothed.min():.4g}" if reading.smoothed.size else "-",
                )
            columns.add_section()
        return columns

    def lines(self) -> list[str]:
        """Sentences on the suggestions and how sure they are, or on why there is none."""
        alone = len(self.tests) == 1
        return [
            line if alone else f"{rule}: {line}"
            for rule, test in self.tests.items()
            for line in _lines(test)
        ]

    def picture(self) -> Picture:
        """Loss against learning rate for each rule and seed, with the suggestion."""
        columns = min(len(self.tests), 2)
        rows = -(-len(self.tests) // columns)
        figure = Picture(figsize=(4 + 4 * columns, 1 + 4 * rows), dpi=150, layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, (rule, test) in zip(grid.flat, self.tests.items(), strict=False):
            _draw(axes, test)
            unit = f" ({self.task['loss_unit']})" if self.task["loss_unit"] else ""
            axes.set(xlabel="learning rate of the step", ylabel=f"training loss{unit}", title=rule)
            axes.legend(frameon=False, fontsize=8, loc="upper left")
        for axes in grid.flat[len(self.tests) :]:
            axes.remove()
        figure.suptitle(self.title())
        return figure

    def title(self) -> str:
        """Task, steps, batches and seeds."""
        settings = self.settings
        seeds = f"{settings['seeds']} seed{'s' if settings['seeds'] > 1 else ''}"
        steps = f"{settings['steps']} steps of {settings['batch_size']} examples"
        return f"{self.task['name']}, {steps}, {seeds}"


def _lines(test: RangeTest) -> list[str]:
    found = test.suggestions[~np.isnan(test.suggestions)]
    seeds = len(test.readings)
    lines = []
    if test.suggestion is None:
        lines.append(f"No suggestion: {len(found)} of {seeds} seeds have one.")
    elif seeds == 1:
        lines.append(
            f"Suggested learning rate: {test.suggestion:.2g}, from one seed; other batches may "
            "suggest another."
        )
    else:
        lines.append(
            f"Suggested learning rate: {test.suggestion:.2g}, the geometric mean over "
            f"{len(found)} of {seeds} seeds, which range from {found.min():.2g} to "
            f"{found.max():.2g}."
        )
    if test.suggestion is not None:
        lines.append(
            f"It is {CRITERION}. Tune the peak from there, up to four times smaller and larger."
        )
    objections = [reading.objection for reading in test.readings if reading.objection]
    return lines + [
        f"For {objections.count(objection)} of {seeds} seeds {objection}."
        for objection in dict.fromkeys(objections)
    ]


def _draw(axes: Axes, test: RangeTest) -> None:
    rates, smoothed = test.learning_rates, test.smoothed
    for i, losses in enumerate(test.losses):
        label = "loss of a batch" if i == 0 else None
        axes.plot(rates, losses, color=COLOURS[1], alpha=0.25, linewidth=0.7, label=label)
    for i, row in enumerate(smoothed):
        label = "smoothed, a line for each seed" if i == 0 else None
        axes.plot(rates, row, color=COLOURS[1], linewidth=1.5, label=label)
    _mark_suggestion(axes, test)
    diverged_at = test.diverged_at[~np.isnan(test.diverged_at)]
    if len(diverged_at):
        who = "a seed has" if len(test.losses) > 1 else "it has"
        label = f"{diverged_at.min():.2g}: {who} diverged"
        axes.axvline(float(diverged_at.min()), color=COLOURS[0], linestyle=":", label=label)
    axes.set(xscale="log", xlim=(rates[0], rates[-1]), ylim=_loss_limits(test.losses, smoothed))
    tidy(axes)


def _mark_suggestion(axes: Axes, test: RangeTest) -> None:
    if test.suggestion is None:
        axes.plot([], [], " ", label="no suggestion")
        return
    lowest, highest = np.nanmin(test.suggestions), np.nanmax(test.suggestions)
    label = f"{test.suggestion:.2g}: suggested"
    if len(test.losses) > 1:
        axes.axvspan(lowest, highest, color=COLOURS[2], alpha=0.2, linewidth=0)
        label += f", {lowest:.2g} to {highest:.2g} over seeds"
    axes.axvline(test.suggestion, color=COLOURS[2], label=label)


def _loss_limits(losses: np.ndarray, smoothed: np.ndarray) -> tuple[float, float] | None:
    """The range of all losses but those of an explosion."""
    finite = losses[np.isfinite(losses)]
    if not finite.size:
        return None
    low, first = finite.min(), losses[:, 0].max()
    high = np.nanmax([first, *smoothed[~np.isnan(smoothed)]])
    height = high - low or 1.0
    return low - 0.05 * height, high + 0.5 * height


def _suggested(suggestion: float | None) -> str:
    return "none" if suggestion is None else f"{suggestion:.2g}"


def _rate(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2g}"


REPORT = Finding
