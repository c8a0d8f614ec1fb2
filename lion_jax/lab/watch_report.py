"""The report of watched rules: a table, a summary, a picture, the records."""

import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import matplotlib.figure
import numpy as np
import rich.box
import scipy.ndimage
from matplotlib.axes import Axes
from rich.table import Table

from lion_jax.lab import files
from lion_jax.lab.report import COLOURS, numbered
from lion_jax.lab.watching import Observation

PICTURE = "watch.png"
_LINES = ("-", "--", ":", "-.")
_WINDOWS = 15  # a running median is over a fifteenth of the records


class _Panel(NamedTuple):
    """A metric in the picture, and whether its axis begins at 0, is logarithmic or marks 0."""

    metric: str
    title: str
    scale: Literal["from 0", "log", "around 0"]


_PANELS = [
    _Panel("loss", "loss of the batch (nats)", "log"),
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


def table(observation: Observation) -> Table:
    """Three rows for each rule: medians of the first, the middle and the last tenth."""
    columns = Table(
        title=_title(observation),
        title_justify="left",
        caption="Norms: of the parameters before the step, of the moment after it. Cos: cosine of "
        "update and gradient, below 0 where the step goes downhill. Agree: share of entries that "
        "step downhill. Flip: share of the updates' signs that turned from one step to the next. "
        "Rows: medians of the first, the middle and the last tenth of the steps.",
        caption_justify="left",
        box=rich.box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )
    columns.add_column("rule", no_wrap=True)
    columns.add_column("", no_wrap=True)
    for name in _COLUMNS.values():
        columns.add_column(name, justify="right", no_wrap=True)
    for rule, values in observation.values.items():
        rate = observation.settings["learning_rates"][rule]
        for names, which, tenth in zip(
            (rule, f"lr {rate:.2g}", ""),
            ("start", "middle", "end"),
            _tenths(len(observation.steps)),
            strict=True,
        ):
            cells = [
                _number(metric, np.median(values[metric][tenth])) if metric in values else "-"
                for metric in _COLUMNS
            ]
            columns.add_row(names, which, *cells)
        columns.add_section()
    return columns


def _tenths(records: int) -> tuple[slice, slice, slice]:
    """The first, the middle and the last tenth of so many records, at least one each."""
    tenth = max(records // 10, 1)
    middle = (records - tenth) // 2
    return slice(tenth), slice(middle, middle + tenth), slice(records - tenth, records)


def summary(observation: Observation) -> list[str]:
    """Sentences on where the learning rates are from, and on runs that diverged."""
    rates, tuned = observation.settings["learning_rates"], observation.settings["tuned"]
    lines = []
    if tuned:
        found = ", ".join(f"{rule} {rates[rule]:.2g}" for rule in tuned)
        lines.append(f"Learning rates tuned on validation data, as lion-jax compare does: {found}.")
    for rule in observation.values:
        step = observation.first_not_finite(rule)
        if step is not None:
            lines.append(f"{rule} diverged: its loss is not finite at step {step}.")
    return lines


def picture(observation: Observation) -> matplotlib.figure.Figure:
    """A panel for each metric that a rule has, with a line for each rule over the steps."""
    panels = [panel for panel in _PANELS if panel.metric in observation.metrics]
    rows = -(-len(panels) // 3)
    figure = matplotlib.figure.Figure(figsize=(10, 2.3 * rows + 1), dpi=150, layout="constrained")
    grid = figure.subplots(rows, 3, sharex=True, squeeze=False)
    window = 2 * (len(observation.steps) // (2 * _WINDOWS)) + 1
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw(axes, panel, observation, window)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for axes in grid.flat[max(0, len(panels) - 3) : len(panels)]:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("step")
    figure.suptitle(_title(observation))
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


def _draw(axes: Axes, panel: _Panel, observation: Observation, window: int) -> None:
    numbers = numbered(observation.values)
    for (rule, values), number in zip(observation.values.items(), numbers, strict=True):
        if panel.metric not in values:
            continue
        look: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": _LINES[number // len(COLOURS) % len(_LINES)],
        }
        y = values[panel.metric]
        is_drawn = np.isfinite(y) & ((y > 0) | (panel.scale != "log"))
        x, y = observation.steps[is_drawn], y[is_drawn]
        rate = observation.settings["learning_rates"][rule]
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
    axes.set_title(panel.title, fontsize=10)
    axes.margins(x=0.01)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def save(observation: Observation, folder: Path, records: str = "csv") -> list[Path]:
    """Writes the picture and the records into `folder`, after both are ready.

    Args:
      observation: what to write.
      folder: where to; created if need be. Files of an earlier observation are replaced.
      records: ``"csv"``, a row for each rule and recorded step; or ``"json"``, with settings and
        versions.

    Returns:
      The paths written.

    Raises:
      OSError: the folder or a file in it cannot be written; nothing was.
    """

    def write_records(path: Path) -> None:
        if records == "csv":
            files.write_csv(observation.records(), path)
        else:
            document = {
                "task": observation.task.name,
                "settings": observation.settings,
                "versions": files.versions(),
                "device": jax.devices()[0].device_kind,
                "records": observation.records(),
            }
            files.write_json(document, path)

    writers = {
        PICTURE: lambda path: picture(observation).savefig(path),
        f"watch.{records}": write_records,
    }
    return files.write(folder, writers)


def _title(observation: Observation) -> str:
    settings = observation.settings
    every = f", 1 in {settings['every']} recorded" if settings["every"] > 1 else ""
    return (
        f"{observation.task.name}, {settings['steps']} steps of {settings['batch_size']} examples"
        f"{every}, {settings['schedule']} schedule, seed {settings['seed']}"
    )


def _number(metric: str, value: float) -> str:
    kind = metric.partition("/")[0]
    return format(value, {"share": ".0%", "cosine": ".2f"}.get(kind, ".2g"))
