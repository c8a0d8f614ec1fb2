"""The report of a learning-rate range test: a table, a summary, a picture, the records."""

import math
from pathlib import Path
from typing import Any

import jax
import matplotlib.figure
import numpy as np
import rich.box
from matplotlib.axes import Axes
from rich.table import Table

from lion_jax.lab import files
from lion_jax.lab.finding import Finding
from lion_jax.lab.report import COLOURS

PICTURE = "learning_rate.png"


def table(finding: Finding) -> Table:
    """A row for each seed."""
    columns = Table(
        title=_title(finding),
        title_justify="left",
        caption="Suggestion: where the smoothed loss is lowest. Steepest: where it falls fastest, "
        "a customary and more careful choice. Diverged: where it is back where it began, or the "
        "loss is not finite.",
        caption_justify="left",
        box=rich.box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in ("seed", "suggestion", "steepest", "diverged at", "first loss", "lowest, smoothed"):
        columns.add_column(name, justify="right", no_wrap=True)
    for seed, (losses, reading) in enumerate(zip(finding.losses, finding.readings, strict=True)):
        columns.add_row(
            str(seed),
            _rate(reading.suggestion),
            _rate(reading.steepest),
            _rate(reading.diverged_at),
            f"{losses[0]:.4g}",
            f"{reading.smoothed.min():.4g}" if reading.smoothed.size else "-",
        )
    return columns


def summary(finding: Finding) -> list[str]:
    """Sentences on the suggestion and how sure it is, or on why there is none."""
    found = finding.suggestions[~np.isnan(finding.suggestions)]
    seeds = len(finding.readings)
    lines = []
    if finding.suggestion is None:
        lines.append(f"No suggestion: {len(found)} of {seeds} seeds have one.")
    elif seeds == 1:
        lines.append(
            f"Suggested learning rate: {finding.suggestion:.2g}, of one seed: other batches may "
            "suggest another."
        )
    else:
        lines.append(
            f"Suggested learning rate: {finding.suggestion:.2g}, the geometric mean of "
            f"{len(found)} of {seeds} seeds, from {found.min():.2g} to {found.max():.2g}."
        )
    if finding.suggestion is not None:
        lines.append(
            f"It is {finding.criterion}: a peak to tune around, by a factor of four either way."
        )
    objections = [reading.objection for reading in finding.readings if reading.objection]
    for objection in dict.fromkeys(objections):
        lines.append(f"For {objections.count(objection)} of {seeds} seeds {objection}.")
    return lines


def picture(finding: Finding) -> matplotlib.figure.Figure:
    """Loss against learning rate: each seed's, smoothed and as it was, and what it suggests."""
    figure = matplotlib.figure.Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.subplots()
    rates, smoothed = finding.learning_rates, finding.smoothed
    for i, losses in enumerate(finding.losses):
        label = "loss of a batch" if i == 0 else None
        axes.plot(rates, losses, color=COLOURS[1], alpha=0.25, linewidth=0.7, label=label)
    for i, row in enumerate(smoothed):
        label = "smoothed, a line for each seed" if i == 0 else None
        axes.plot(rates, row, color=COLOURS[1], linewidth=1.5, label=label)
    _mark_suggestion(axes, finding)
    diverged_at = finding.diverged_at[~np.isnan(finding.diverged_at)]
    if len(diverged_at):
        rate = float(diverged_at.min())
        label = (
            f"{rate:.2g}: a seed has diverged"
            if len(finding.losses) > 1
            else f"{rate:.2g}: it has diverged"
        )
        axes.axvline(rate, color=COLOURS[0], linestyle=":", label=label)
    unit = f" ({finding.loss_unit})" if finding.loss_unit else ""
    axes.set(
        xscale="log",
        xlim=(rates[0], rates[-1]),
        ylim=_loss_limits(finding.losses, smoothed),
        xlabel="learning rate of the step",
        ylabel=f"training loss{unit}",
        title=_title(finding),
    )
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def save(finding: Finding, folder: Path, records: str = "csv") -> list[Path]:
    """Writes the picture and the records into `folder`, after both are ready.

    Args:
      finding: what to write.
      folder: where to; created if need be. Files of an earlier test are replaced.
      records: ``"csv"``, a row for each seed and step; or ``"json"``, with suggestion, settings and
        versions.

    Returns:
      The paths written.

    Raises:
      OSError: the folder or a file in it cannot be written; nothing was.
    """

    def write_records(path: Path) -> None:
        if records == "csv":
            files.write_csv(finding.records(), path)
        else:
            files.write_json(_document(finding), path)

    writers = {
        PICTURE: lambda path: picture(finding).savefig(path),
        f"records.{records}": write_records,
    }
    return files.write(folder, writers)


def _document(finding: Finding) -> dict[str, Any]:
    return {
        "subject": finding.subject,
        "settings": finding.settings,
        "versions": files.versions(),
        "device": jax.devices()[0].device_kind,
        "suggestion": finding.suggestion,
        "criterion": finding.criterion,
        "seeds": [
            {
                "suggestion": reading.suggestion,
                "steepest": reading.steepest,
                "diverged_at": reading.diverged_at,
                "objection": reading.objection,
            }
            for reading in finding.readings
        ],
        "records": finding.records(),
    }


def _mark_suggestion(axes: Axes, finding: Finding) -> None:
    if finding.suggestion is None:
        axes.plot([], [], " ", label="no suggestion")
        return
    lowest, highest = np.nanmin(finding.suggestions), np.nanmax(finding.suggestions)
    label = f"{finding.suggestion:.2g}: suggested"
    if len(finding.losses) > 1:
        axes.axvspan(lowest, highest, color=COLOURS[2], alpha=0.2, linewidth=0)
        label += f", {lowest:.2g} to {highest:.2g} over seeds"
    axes.axvline(finding.suggestion, color=COLOURS[2], label=label)


def _loss_limits(losses: np.ndarray, smoothed: np.ndarray) -> tuple[float, float] | None:
    """All losses but those of an explosion."""
    finite = losses[np.isfinite(losses)]
    if not finite.size:
        return None
    low, first = finite.min(), losses[:, 0].max()
    high = np.nanmax([first, *smoothed[~np.isnan(smoothed)]])
    height = high - low or 1.0
    return low - 0.05 * height, high + 0.5 * height


def _title(finding: Finding) -> str:
    settings = finding.settings
    size = f" of {settings['batch_size']} examples" if "batch_size" in settings else ""
    seeds = f"{settings['seeds']} seed{'s' if settings['seeds'] > 1 else ''}"
    return f"{finding.subject}, {settings['steps']} steps{size}, {seeds}"


def _rate(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2g}"
