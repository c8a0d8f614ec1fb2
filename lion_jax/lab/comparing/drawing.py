"""The picture of a comparison."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from lion_jax.lab.comparing.result import Result, mean_of
from lion_jax.lab.plots import Picture, looks, tidy
from lion_jax.lab.statistics import half_interval


def draw(results: Sequence[Result], title: str, is_up: bool, steps: int, loss: str) -> Picture:
    """The test metric against the learning rate, and the training loss over the steps.

    Args:
      results: one for each rule.
      title: above both panels.
      is_up: whether more of the metric is better.
      steps: of a run.
      loss: the training loss with its unit.
    """
    figure = Picture(figsize=(11, 5), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_rates(left, results, is_up)
    _draw_curves(right, results, steps, loss)
    figure.suptitle(title)
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


def _draw_rates(axes: Axes, results: Sequence[Result], is_up: bool) -> None:
    """A line, a 95% interval and the chosen rate per rule; points where more was tuned."""
    chosen = [result.test for result in results if math.isfinite(result.test)]
    if is_up and all(0 <= value <= 1 for value in chosen):
        floor = max(0.0, math.floor(10 * min(chosen, default=0) - 1) / 10)
        axes.set_ylim(floor, 1.0)
    elif chosen:
        worst, best = (min(chosen), max(chosen)) if is_up else (max(chosen), min(chosen))
        margin = abs(worst - best) or abs(best) or 1.0
        ends = sorted((best + 0.3 * (best - worst), worst + 2 * (worst - best or -margin)))
        axes.set_ylim(*ends)
    floor = axes.get_ylim()[0 if is_up else 1]
    for result, look in zip(results, _looks(results), strict=True):
        tests, rates = result.outcome.test[results[0].metric], result.learning_rates
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
            label=f"{result.rule}  {mean_of(result)}  at {at}",
        )
        diverged = rates[result.outcome.diverged.any(axis=1)]
        if len(diverged):
            floors = np.full(len(diverged), floor)
            axes.plot(diverged, floors, "x", color=colour, markersize=8, clip_on=False, zorder=3)
    if any(result.outcome.diverged.any() for result in results):
        axes.plot([], [], "x", color="gray", label="a seed or more diverged")
    axes.set(
        xscale="log",
        xlabel="peak learning rate",
        ylabel=f"test {results[0].metric}",
        title="mean and 95% interval",
    )
    tidy(axes)


def _draw_curves(axes: Axes, results: Sequence[Result], steps: int, loss: str) -> None:
    """The training loss at the chosen rate, the mean over seeds."""
    for result, look in zip(results, _looks(results), strict=True):
        curve = result.outcome.curve.mean(axis=0)
        at = steps * (np.arange(len(curve)) + 0.5) / len(curve)
        axes.plot(at, curve, **{**look, "marker": ""}, linewidth=1.2)
        if np.all(curve > 0):
            axes.set_yscale("log")
    axes.set(xlabel="step", ylabel=loss, title="at the chosen rate")
    tidy(axes)


def _looks(results: Sequence[Result]) -> list[dict[str, Any]]:
    return list(looks(result.rule for result in results).values())
