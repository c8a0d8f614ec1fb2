"""The report of watched rules: medians of their metrics, and the metrics over the steps."""

import dataclasses
import math
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import rich.box
import scipy.ndimage
from matplotlib.axes import Axes
from rich.table import Table
from rich.text import Text

from lion_jax.lab.plots import Picture, looks, tidy
from lion_jax.lab.report import Report

_WINDOWS = 15  # a running median is over a fifteenth of the records


class _Panel(NamedTuple):
    """A metric in the picture, and whether its axis begins at 0, is logarithmic or marks 0."""

    metric: str
    title: str
    scale: Literal["from 0", "log", "around 0"]


_PANELS = [
    _Panel("loss", "loss of the batch", "log"),
    _Panel("share/sign_flips", "share of signs that flip", "from 0"),
    _Panel("share/agree", "share of entries that step downhill", "from 0"),
    _Panel("norm/grad", "norm of the gradient", "log"),
    _Panel("norm/update", "norm of the update", "log"),
    _Panel("cosine/update_grad", "cosine of update and gradient", "around 0"),
    _Panel("norm/param", "norm of the parameters", "from 0"),
    _Panel("norm/moment", "norm of the moment", "log"),
    _Panel("cosine/moment_grad", "cosine of moment and gradient", "around 0"),
]
_COLUMNS = {
    "loss": "loss",
    "norm/grad": "grad\nnorm",
    "norm/update": "update\nnorm",
    "norm/moment": "moment\nnorm",
    "norm/param": "param\nnorm",
    "cosine/update_grad": "cos\nu, g",
    "share/agree": "agree",
    "share/sign_flips": "flip",
}


@dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
class Observation(Report):
    """The steps and metrics that :func:`lion_jax.lab.watch` recorded.

    Attributes:
      task: names, sizes and hashes of the task's data.
      rules: everything that decides each rule's figures.
      steps: the steps recorded, counted from 1, of shape (records,).
      chosen: the learning rate of each rule, and what else it tunes.
      values: arrays of shape (records,) by rule and metric: ``loss``, the loss of the step's batch
        before the step; and the metrics that ``lion_jax.read_metrics`` gives.
    """

    command: ClassVar[str] = "watching"
    task: dict[str, Any]
    rules: dict[str, dict[str, Any]]
    steps: np.ndarray
    chosen: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    values: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)

    @property
    def learning_rates(self) -> dict[str, float]:
        """The peak learning rate of each rule."""
        return {rule: chosen["learning_rate"] for rule, chosen in self.chosen.items()}

    @property
    def metrics(self) -> list[str]:
        """Names of all that was recorded of any rule."""
        return list(dict.fromkeys(key for values in self.values.values() for key in values))

    def first_not_finite(self, rule: str) -> int | None:
        """The first recorded step of a rule whose loss is not finite; None if all are."""
        steps = self.steps[~np.isfinite(self.values[rule]["loss"])]
        return int(steps[0]) if len(steps) else None

    def headline(self) -> str:
        """The task, the rules and their learning rates."""
        rates = ", ".join(f"{rule} at {self.learning_rates[rule]:.2g}" for rule in self.values)
        return f"{self.task['name']}, {self.settings['steps']} steps: {rates}"

    def records(self) -> list[dict[str, Any]]:
        """One record for each rule and step; None for a metric that the rule does not have."""
        metrics = self.metrics
        return [
            {
                "rule": rule,
                "step": int(step),
                **{key: values[key][i].item() if key in values else None for key in metrics},
            }
            for rule, values in self.values.items()
            for i, step in enumerate(self.steps)
        ]

    def summary(self) -> list[dict[str, Any]]:
        """One record for each rule: its arguments and its learning rate."""
        return [{**self.rules[rule], **self.chosen[rule]} for rule in self.values]

    def table(self) -> Table:
        """Three rows for each rule: medians of the first, the middle and the last tenth."""
        columns = Table(
            title=Text(self.title()),
            title_justify="left",
            caption="Rows: medians over the first, the middle and the last tenth of the steps. "
            "Norms: param before the step, moment after it. Cos u, g: cosine of update and "
            "gradient; below 0 the step goes downhill. Agree: share of entries that step "
            "downhill. Flip: share of signs that changed since the step before.",
            caption_justify="left",
            box=rich.box.SIMPLE_HEAD,
            padding=0,
            pad_edge=False,
        )
        columns.add_column("rule", no_wrap=True)
        columns.add_column("", no_wrap=True)
        for name in _COLUMNS.values():
            columns.add_column(name, justify="right", no_wrap=True)
        for rule, values in self.values.items():
            rate = self.learning_rates[rule]
            for names, which, tenth in zip(
                (rule, f"lr {rate:.2g}", ""),
                ("start", "middle", "end"),
                _tenths(len(self.steps)),
                strict=True,
            ):
                cells = [
                    _number(metric, np.median(values[metric][tenth])) if metric in values else "-"
                    for metric in _COLUMNS
                ]
                columns.add_row(Text(names), which, *cells)
            columns.add_section()
        return columns

    def lines(self) -> list[str]:
        """Sentences on the origin of the learning rates, and on runs that diverged."""
        rates, tuned = self.learning_rates, self.settings["tuned"]
        lines = []
        if tuned:
            found = ", ".join(f"{rule} {rates[rule]:.2g}" for rule in tuned)
            lines.append(
                f"Learning rates tuned on validation data, as lion-jax compare does: {found}."
            )
        for rule in self.values:
            step = self.first_not_finite(rule)
            if step is not None:
                lines.append(f"{rule} diverged: its loss is not finite at step {step}.")
        return lines

    def picture(self) -> Picture:
        """A panel for each metric that a rule has, with a line for each rule over the steps."""
        panels = [panel for panel in _PANELS if panel.metric in self.metrics]
        rows = -(-len(panels) // 3)
        figure = Picture(figsize=(10, 2.3 * rows + 1), dpi=150, layout="constrained")
        grid = figure.subplots(rows, 3, sharex=True, squeeze=False)
        window = 2 * (len(self.steps) // (2 * _WINDOWS)) + 1
        for axes, panel in zip(grid.flat, panels, strict=False):
            _draw(axes, panel, self, window)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for axes in grid.flat[max(0, len(panels) - 3) : len(panels)]:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("step")
        figure.suptitle(self.title())
        lines = f"; bold: running median of {window} records" if window > 1 else ""
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            title=f"each rule with its peak learning rate{lines}",
            loc="outside lower center",
            ncols=4,
            frameon=False,
            fontsize=9,
            title_fontsize=9,
        )
        return figure

    def title(self) -> str:
        """Task, steps, batches, schedule and seed."""
        settings = self.settings
        every = f", 1 in {settings['every']} recorded" if settings["every"] > 1 else ""
        return (
            f"{self.task['name']}, {settings['steps']} steps of {settings['batch_size']} examples"
            f"{every}, {settings['schedule']} schedule, seed {settings['seed']}"
        )


def _tenths(records: int) -> tuple[slice, slice, slice]:
    """The first, the middle and the last tenth of so many records, at least one each."""
    tenth = max(records // 10, 1)
    middle = (records - tenth) // 2
    return slice(tenth), slice(middle, middle + tenth), slice(records - tenth, records)


def _draw(axes: Axes, panel: _Panel, observation: Observation, window: int) -> None:
    by_rule = looks(observation.values)
    for rule, values in observation.values.items():
        if panel.metric not in values:
            continue
        look = {**by_rule[rule], "marker": ""}
        y = values[panel.metric]
        is_drawn = np.isfinite(y) & ((y > 0) | (panel.scale != "log"))
        x, y = observation.steps[is_drawn], y[is_drawn]
        rate = observation.learning_rates[rule]
        end = observation.first_not_finite(rule)
        label = f"{rule}  at {rate:.2g}" + (f", diverged at step {end}" if end else "")
        if window > 1:
            axes.plot(x, y, **look, alpha=0.25, linewidth=0.6)
            y = scipy.ndimage.median_filter(y, window)  # what is beyond the ends is mirrored
        axes.plot(x, y, **look, linewidth=1.6, label=label)
        if end:
            axes.axvline(end, **look, linewidth=0.8)
    if panel.scale == "log":
        axes.set_yscale("log")
    elif panel.scale == "from 0":
        top = axes.dataLim.ymax
        axes.set_ylim(0, 1.05 * top if 0 < top < math.inf else 1)
    else:
        axes.axhline(0, color="black", linewidth=0.8, linestyle=":")
    unit = observation.task["loss_unit"] if panel.metric == "loss" else ""
    axes.set_title(panel.title + (f" ({unit})" if unit else ""), fontsize=10)
    axes.margins(x=0.01)
    tidy(axes)


def _number(metric: str, value: float) -> str:
    kind = metric.partition("/")[0]
    return format(value, {"share": ".0%", "cosine": ".2f"}.get(kind, ".2g"))


REPORT = Observation
