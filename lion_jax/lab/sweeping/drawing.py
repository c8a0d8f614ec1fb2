"""The pictures of a sweep: all cells, one axis at a time, chosen learning rates, curves."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.ticker import LogLocator, NullLocator

from lion_jax.lab.plots import Picture, looks, tidy
from lion_jax.lab.statistics import half_interval
from lion_jax.lab.sweeping.cells import Cell, Place, Tuned, along

_LABELS = {"size": "size of the model", "batch_size": "batch size", "steps": "steps"}
_CLIP = 0.5
"""The relative error beyond which the colour grows no darker."""
_COLUMNS = 4


def draw_cells(
    cells: Sequence[Cell], rules: Sequence[str], against: str | None, ranks: dict[str, float]
) -> Picture:
    """A row for each rule, a column for each cell: the error relative to the baseline's.

    Args:
      cells: the columns.
      rules: the rows, from above.
      against: the baseline; None is each cell's best.
      ranks: the mean rank of each rule, if it has one.
    """
    shown = np.full((len(rules), len(cells)), np.nan)
    figure = Picture(
        figsize=(max(2.8 + 0.72 * len(cells), 6.5), 2.6 + 0.36 * len(rules)),
        dpi=150,
        layout="constrained",
    )
    axes = figure.subplots()
    for j, cell in enumerate(cells):
        for result in cell.results:
            i, gap = rules.index(result.rule), cell.relative(result, against)
            shown[i, j] = gap.mean
            if not math.isfinite(gap.mean):
                continue
            is_base = result is cell.baseline(against)
            is_told_apart = not (is_base or gap.could_be_chance)
            said = "base" if is_base else _percent(gap.mean)
            axes.text(
                j,
                i,
                said,
                ha="center",
                va="center",
                fontsize=8,
                fontweight="bold" if is_told_apart else "normal",
                color="white" if abs(gap.mean) > 0.7 * _CLIP else "black",
                alpha=1.0 if is_told_apart or is_base else 0.65,
            )
    norm = TwoSlopeNorm(0.0, -_CLIP, _CLIP)
    image = axes.imshow(np.clip(shown, -_CLIP, _CLIP), cmap="PuOr_r", norm=norm, aspect="auto")
    axes.set_xticks(range(len(cells)), [_lines(cell.place) for cell in cells], fontsize=7)
    names = [f"{rule}  {ranks[rule]:.1f}" if rule in ranks else rule for rule in rules]
    axes.set_yticks(range(len(rules)), names, fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    of = f"{against}'s" if against else "the best rule's"
    axes.set_title(
        f"Test error relative to {of}, everything tuned (less is better)\n"
        "bold: told apart at 95%, corrected in each column; left: mean rank",
        fontsize=10,
    )
    bar = figure.colorbar(image, ax=axes, shrink=0.7, format=lambda x, _: f"{x:+.0%}")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure


def draw_axis(cells: Sequence[Cell], axis: str, rules: Sequence[str]) -> Picture:
    """The test metric along one axis, with 95% intervals; a panel for each other place."""
    panels: dict[Place, list[Cell]] = {}
    for cell in cells:
        panels.setdefault(dataclasses.replace(cell.place, **{axis: 0}), []).append(cell)
    figure, all_axes = _panels(len(panels))
    appearance = looks(rules)
    for axes, (place, among) in zip(all_axes, panels.items(), strict=False):
        for number, rule in enumerate(rules):
            points = [(getattr(c.place, axis), c, r) for c in among for r in _of(c, rule)]
            points.sort(key=lambda point: point[0])
            at = [value * 1.015 ** (number - len(rules) / 2) for value, _, _ in points]
            means = [cell.test(result) for _, cell, result in points]
            halves = [float(half_interval(cell.tests(result))) for _, cell, result in points]
            axes.errorbar(
                at,
                means,
                yerr=np.nan_to_num(halves),
                label=rule,
                markersize=4,
                linewidth=1.2,
                elinewidth=0.7,
                **appearance[rule],
            )
        _label_ticks(axes, along(among, axis))
        _fit(axes, among)
        said = _lines(place, without=axis).replace("\n", ", ")
        axes.set(title=said, xlabel=_LABELS[axis], ylabel=f"test {among[0].metric}")
        tidy(axes)
    title = f"Along the {_LABELS[axis]}: mean of the tuned rules, with the 95% interval over seeds"
    return _with_legend(figure, all_axes[0], title)


def draw_drift(cells: Sequence[Cell], axis_names: Sequence[str], rules: Sequence[str]) -> Picture:
    """The chosen learning rate along each axis, relative to its first value.

    A line is the geometric mean over the other places that have the value; a faint line is one of
    them.
    """
    figure, all_axes = _panels(len(axis_names), columns=len(axis_names))
    appearance = looks(rules)
    for axes, axis in zip(all_axes, axis_names, strict=False):
        for rule in rules:
            drifts = drift(cells, axis, rule)
            if not drifts:
                continue
            nudge = 1.02 ** (rules.index(rule) - len(rules) / 2)  # so that none hides another
            look = appearance[rule]
            for one in drifts:
                at = [nudge * x for x in one]
                axes.plot(at, list(one.values()), color=look["color"], alpha=0.15)
            values = sorted({value for one in drifts for value in one})
            logs = [[math.log(one[value]) for one in drifts if value in one] for value in values]
            mean = [math.exp(np.mean(of)) for of in logs]
            at = [nudge * value for value in values]
            axes.plot(at, mean, label=rule, markersize=5, linewidth=1.5, **look)
        axes.set_yscale("log")
        _label_ticks(axes, along(cells, axis))
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(lambda value, _: f"×{value:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.axhline(1.0, color="gray", linewidth=0.8)
        axes.set(xlabel=_LABELS[axis], ylabel="learning rate, relative")
        tidy(axes)
    title = "Drift of the chosen learning rate (thick: geometric mean over the other cells)"
    return _with_legend(figure, all_axes[0], title)


def drift(cells: Sequence[Cell], axis: str, rule: str) -> list[dict[Any, float]]:
    """The learning rates that a rule chose along an axis, each relative to the first.

    Returns:
      For each place on the other axes that has several values of this one, a rate by value.
    """
    found: dict[Place, dict[Any, float]] = {}
    for cell in cells:
        for result in _of(cell, rule):
            others = dataclasses.replace(cell.place, **{axis: 0})
            rate = cell.chosen(result)["learning_rate"]
            found.setdefault(others, {})[getattr(cell.place, axis)] = rate
    return [
        {value: rates[value] / rates[min(rates)] for value in sorted(rates)}
        for rates in found.values()
        if len(rates) > 1
    ]


def draw_curves(cells: Sequence[Cell], rules: Sequence[str]) -> Picture:
    """The training loss at the chosen values, the mean over seeds; a panel for each cell."""
    figure, all_axes = _panels(len(cells))
    appearance = looks(rules)
    for axes, cell in zip(all_axes, cells, strict=False):
        for rule in rules:
            for result in _of(cell, rule):
                curve = result.final.curve[0].mean(axis=0)
                at = cell.place.steps * (np.arange(len(curve)) + 0.5) / len(curve)
                look = {**appearance[rule], "marker": ""}
                axes.plot(at, curve, label=rule, linewidth=1.1, **look)
        unit = f" ({cell.task['loss_unit']})" if cell.task["loss_unit"] else ""
        said = _lines(cell.place).replace("\n", ", ")
        axes.set(title=said, xlabel="step", ylabel=f"training loss{unit}")
        if axes.get_ylim()[0] > 0:
            axes.set_yscale("log")
        tidy(axes)
    title = "Training loss at the chosen values (ranks count at the end only)"
    return _with_legend(figure, all_axes[0], title)


def _percent(share: float) -> str:
    return f"{round(share, 2) + 0.0:+.0%}" if share < 9.995 else ">+999%"  # never -0%


def _of(cell: Cell, rule: str) -> list[Tuned]:
    return [result for result in cell.results if result.rule == rule]


def _panels(count: int, columns: int = _COLUMNS) -> tuple[Picture, list[Axes]]:
    columns = min(count, columns)
    rows = -(-count // columns)
    figure = Picture(
        figsize=(max(3.6 * columns, 6), 3.0 * rows + 1.2), dpi=120, layout="constrained"
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[count:]:
        axes.set_visible(False)
    return figure, list(grid.flat)


def _with_legend(figure: Picture, axes: Axes, title: str) -> Picture:
    figure.suptitle(title, fontsize=11)
    handles, labels = axes.get_legend_handles_labels()
    columns = min(6, max(1, len(labels)))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )
    return figure


def _label_ticks(axes: Axes, values: Sequence[Any]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(list(values), [str(value) for value in values])
    axes.xaxis.set_minor_locator(NullLocator())


def _fit(axes: Axes, cells: Sequence[Cell]) -> None:
    """Shows the better half of the rules with their intervals, and cuts off what is far behind."""
    is_up = cells[0].is_up
    ends, best = [], []
    for cell in cells:
        better = cell.ranked[: -(-len(cell.results) // 2)]
        for result in better:
            mean, half = cell.test(result), float(half_interval(cell.tests(result)))
            ends += [mean - np.nan_to_num(half), mean + np.nan_to_num(half)]
        best += [cell.test(result) for result in cell.results]
    found = np.array(ends)[np.isfinite(ends)]
    if not len(found):
        return
    low, high = found.min(), found.max()
    worst = min(best) if is_up else max(best)
    reach = (high - low) or 0.1 * abs(high) or 1.0
    low = min(low, max(worst, low - reach)) if is_up else low
    high = high if is_up else max(high, min(worst, high + reach))
    axes.set_ylim(low - 0.05 * reach, high + 0.05 * reach)


def _lines(place: Place, without: str = "") -> str:
    """A place in a few short lines."""
    said = [place.task]
    if place.size is not None and without != "size":
        said.append(f"size {place.size}")
    if without != "batch_size":
        said.append(f"batch {place.batch_size}")
    if without != "steps":
        said.append(f"{place.steps} steps")
    return "\n".join(said)
