"""The report of a comparison: a table, a verdict, a picture, the records."""

import itertools
import math
from collections.abc import Iterable
from pathlib import Path

import jax
import matplotlib.figure
import numpy as np
import rich.box
from rich.table import Table

from lion_jax.lab import files
from lion_jax.lab.comparison import (
    DEFAULT_RULES,
    GOOD_WITHIN,
    Comparison,
    Result,
    half_interval,
)

# Okabe and Ito's colours, which people with any colour vision can tell apart.
COLOURS = ["#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
_MARKERS = "os^Dv<>P"  # one more than colours, so that no pair of them comes twice


def table(comparison: Comparison) -> Table:
    """The comparison as a table, the best test accuracy first.

    One against a rule says the difference to it, where one against the best says how wide the good
    learning rates are and what it took.
    """
    task = comparison.task
    if comparison.against is None:
        notes = (
            f"Good rates: validation accuracy within {GOOD_WITHIN} of the rule's best. Stored: "
            "weights + state. Seconds include compilation."
        )
    else:
        notes = (
            f"Minus {comparison.against}: the mean difference, paired by seed, ± half its 95% "
            "interval. Stored: weights + state."
        )
    columns = Table(
        title=_title(comparison),
        caption=f"Learning rates chosen on {len(task.validation.y)} validation examples; accuracy "
        f"on {len(task.test.y)} test examples, mean ± standard error over seeds. {notes}",
        caption_justify="left",
        box=rich.box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    columns.add_column("rule", no_wrap=True)
    rows = [_cells(comparison, result) for result in ranked(comparison)]
    for name in rows[0]:
        columns.add_column(name, justify="right", no_wrap=True)
    for result, cells in zip(ranked(comparison), rows, strict=True):
        columns.add_row(result.rule.name, *cells.values())
    return columns


def _cells(comparison: Comparison, result: Result) -> dict[str, str]:
    """The cells of a rule's row in the table, by column."""
    against, band, diverged = comparison.against, result.good_band, result.outcome.diverged
    weights, state = result.weight_bytes_per_parameter, result.state_bytes_per_parameter
    cells = {
        "best\nlr": f"{result.best_learning_rate:.2g}" + ("*" if result.is_best_at_edge else ""),
        "test\naccuracy": accuracy(result),
    }
    if against is None:
        cells["good lr\nband"] = f"{'≥ ' if band.is_open else ''}×{band.factor:.1f}"
    else:
        cells[f"minus\n{against}"] = _difference(comparison, result)
    cells["stored\nB/param"] = f"{weights:g}+{state:.2f}"
    cells["diverged\nruns"] = f"{diverged.sum()}/{diverged.size}"
    if against is None:
        cells["seconds"] = f"{sum(result.timing):.1f}"
    return cells


def _difference(comparison: Comparison, result: Result) -> str:
    """A rule's mean difference to the baseline, with half its 95% interval."""
    if result is comparison.baseline:
        return "-"
    mean, low, high = comparison.difference(result)
    return f"{mean:+.4f} ± " + ("?" if math.isnan(low) else f"{(high - low) / 2:.4f}")


def ranked(comparison: Comparison) -> list[Result]:
    """The results, the best test accuracy first."""
    return sorted(comparison.results, key=lambda result: -result.test_accuracy)


def accuracy(result: Result) -> str:
    """Test accuracy with its standard error."""
    error = result.standard_error
    return f"{result.test_accuracy:.4f} ± " + ("?" if math.isnan(error) else f"{error:.4f}")


def verdict(comparison: Comparison) -> list[str]:
    """Sentences on who is ahead, by how much, and whether that could be chance."""
    baseline = comparison.baseline
    said = "the best test accuracy," if comparison.against is None else "a test accuracy of"
    lines = [f"{baseline.rule.name} has {said} {accuracy(baseline)}."]
    for other in ranked(comparison):
        if other is baseline:
            continue
        gap = baseline.test_accuracies - other.test_accuracies
        is_ahead = gap.mean() < 0
        gap = -gap if is_ahead else gap
        half = float(half_interval(gap))
        place = f"{other.rule.name} is {gap.mean():.4f} {'ahead' if is_ahead else 'behind'}"
        if math.isnan(half):
            lines.append(f"{place}; one seed says nothing about chance.")
            continue
        interval = f"95% interval {gap.mean() - half:+.4f} to {gap.mean() + half:+.4f}"
        chance = "" if gap.mean() - half > 0 else ", which could be chance"
        lines.append(f"{place} ({interval}, paired by seed){chance}.")
    edges = [result.rule.name for result in comparison.results if result.is_best_at_edge]
    if edges:
        lines.append(
            f"* The best learning rate of {', '.join(edges)} is the smallest or largest tried: "
            "a wider range may do better."
        )
    return lines


def dead_steps(comparison: Comparison) -> list[str]:
    """A sentence on the trained weights that steps would not move if they were bfloat16."""
    shares = [
        f"{result.dead_at_peak:.0%} ({result.dead_at_hundredth:.0%}) of {result.rule.name}'s"
        for result in ranked(comparison)
        if result.rule.moves_by_rate
    ]
    if not shares:
        return []
    return [
        "Rounded to the nearest bfloat16, a step of the peak learning rate (of a hundredth of it) "
        f"would not move {', '.join(shares)} trained weights."
    ]


def picture(comparison: Comparison) -> matplotlib.figure.Figure:
    """Test accuracy against learning rate: a line, a 95% interval and the chosen rate per rule."""
    figure = matplotlib.figure.Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.subplots()
    floor = max(0.0, math.floor(10 * min(r.test_accuracy for r in comparison.results) - 1) / 10)
    numbers = numbered(result.rule.name for result in comparison.results)
    for result, number in zip(comparison.results, numbers, strict=True):
        colour, marker = COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)]
        accuracies, rates = result.outcome.test_accuracy, result.learning_rates
        mean = accuracies.mean(axis=1)
        half = np.nan_to_num(half_interval(accuracies))
        axes.fill_between(rates, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
        axes.plot(rates, mean, color=colour, marker=marker, markersize=4, linewidth=1.5)
        axes.plot(
            result.best_learning_rate,
            result.test_accuracy,
            color=colour,
            marker=marker,
            markersize=10,
            markeredgecolor="black",
            label=f"{result.rule.name}  {accuracy(result)}  at {result.best_learning_rate:.2g}",
        )
        diverged = rates[result.outcome.diverged.any(axis=1)]
        if len(diverged):
            floors = np.full(len(diverged), floor)
            axes.plot(diverged, floors, "x", color=colour, markersize=8, clip_on=False, zorder=3)
    if any(result.outcome.diverged.any() for result in comparison.results):
        axes.plot([], [], "x", color="gray", label="a seed or more diverged")
    axes.set(
        xscale="log",
        ylim=(floor, 1.0),
        xlabel="peak learning rate",
        ylabel="test accuracy",
        title=f"{_title(comparison)}: mean and 95% interval",
    )
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        title="large marker: the rate chosen on validation data, with mean ± standard error",
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
        title_fontsize=9,
    )
    return figure


def numbered(names: Iterable[str]) -> list[int]:
    """A number for the looks of each rule: those compared by default have the same everywhere."""
    others = itertools.count(len(DEFAULT_RULES))
    return [DEFAULT_RULES.index(n) if n in DEFAULT_RULES else next(others) for n in names]


def _title(comparison: Comparison) -> str:
    settings = comparison.settings
    seeds = f"{settings['seeds']} seed{'s' if settings['seeds'] > 1 else ''}"
    return (
        f"{comparison.task.name}, {settings['steps']} steps of {settings['batch_size']} examples, "
        f"{settings['schedule']} schedule, {seeds}"
    )


def save(comparison: Comparison, folder: Path, records: str = "csv") -> list[Path]:
    """Writes the picture and the records into `folder`, after both are ready.

    Args:
      comparison: what to write.
      folder: where to; created if need be. Files of an earlier comparison are replaced.
      records: ``"csv"``, one row for each run; or ``"json"``, with summary, settings and versions.

    Returns:
      The paths written.

    Raises:
      OSError: the folder or a file in it cannot be written; nothing was.
    """

    def write_records(path: Path) -> None:
        rows = comparison.records()
        if records == "csv":
            files.write_csv(rows, path)
        else:
            document = {
                "task": comparison.task.name,
                "settings": comparison.settings,
                "versions": files.versions(),
                "device": jax.devices()[0].device_kind,
                "summary": comparison.summary(),
                "records": rows,
            }
            files.write_json(document, path)

    writers = {
        "accuracy.png": lambda path: picture(comparison).savefig(path),
        f"records.{records}": write_records,
    }
    return files.write(folder, writers)
