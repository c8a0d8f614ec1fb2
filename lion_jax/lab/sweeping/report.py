"""The report of a sweep: the differences in each cell, with intervals."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import rich.box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lion_jax.lab.plots import Picture
from lion_jax.lab.report import Report
from lion_jax.lab.screen import Tables
from lion_jax.lab.statistics import (
    comparisons_among,
    corrected_for,
    counted,
    form_of,
    in_words,
)
from lion_jax.lab.sweeping import drawing
from lion_jax.lab.sweeping.cells import Cell, Tuned, along, best_of_each_study

AXES = {"size": "sizes", "batch_size": "batch-sizes", "steps": "steps"}
"""The axes beside the tasks, with the names of their pictures."""


@dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
class Sweep(Report):
    """The results of :func:`lion_jax.lab.sweep`.

    Attributes:
      cells: one for each task, size, batch size and number of steps.
      against: the rule that the others are compared to; None where that is each cell's best.
    """

    command: ClassVar[str] = "sweeping"
    picture_names: ClassVar[tuple[str, ...]] = (
        "picture",
        *AXES.values(),
        "learning-rates",
        "curves",
    )
    cells: tuple[Cell, ...] = ()
    against: str | None = None

    @property
    def rules(self) -> list[str]:
        """The names of the rules, the best mean rank first."""
        names = dict.fromkeys(result.rule for cell in self.cells for result in cell.results)
        ranks = self.mean_ranks()
        return sorted(names, key=lambda name: ranks.get(name, math.inf))

    def mean_ranks(self) -> dict[str, float]:
        """The mean of each rule's ranks at the end of training, over the cells with all rules."""
        names = {result.rule for cell in self.cells for result in cell.results}
        whole = [cell for cell in self.cells if len(cell.results) == len(names)]
        ranks = {name: [] for name in names if whole}
        for cell in whole:
            for result in cell.results:
                ranks[result.rule].append(cell.rank(result))
        return {name: float(np.mean(of)) for name, of in ranks.items()}

    def headline(self) -> str:
        """The number of cells, and the rule with the best mean rank."""
        best = self.rules[0]
        rank = self.mean_ranks().get(best)
        said = "" if rank is None else f": {best} has the best mean rank, {rank:.1f}"
        return f"{len(self.cells)} cells, {len(self.rules)} rules{said}"

    def records(self) -> list[dict[str, Any]]:
        """One record for each run: those of the studies, and those on fresh seeds."""
        return [
            record
            for cell in self.cells
            for result in cell.results
            for record in self._runs(cell, result)
        ]

    def _runs(self, cell: Cell, result: Tuned) -> Iterator[dict[str, Any]]:
        place = {**dataclasses.asdict(cell.place), "rule": result.rule}
        first, studies = self.settings["first_seed"], self.settings["studies"]
        candidates = best_of_each_study(result.trials, result.tuning, cell.metric, cell.is_up)
        best = {name: np.array([value]) for name, value in cell.chosen(result).items()}
        stages = [
            ("tuning", result.tuning, result.trials, first),
            ("selection", result.selection, candidates, first),
            ("final", result.final, best, first + studies),
        ]
        for stage, outcome, tried, first_seed in stages:
            for at in np.ndindex(outcome.diverged.shape):
                run = {"stage": stage, "trial": at[0], "seed": first_seed + at[1]}
                values = {n: float(x[at if x.ndim == 2 else at[0]]) for n, x in tried.items()}
                yield {**place, **run, **values, **_figures(outcome, at)}

    def summary(self) -> list[dict[str, Any]]:
        """One record for each rule in each cell: what the tables show."""
        return [self._summary(cell, result) for cell in self.cells for result in cell.ranked]

    def _summary(self, cell: Cell, result: Tuned) -> dict[str, Any]:
        gap, relative = cell.difference(result, self.against), cell.relative(result, self.against)
        return {
            **dataclasses.asdict(cell.place),
            "rule": result.rule,
            "description": result.described["description"],
            **{f"best_{name}": value for name, value in cell.chosen(result).items()},
            "edges": cell.edges(result),
            "widened": result.widened,
            "metric": cell.metric,
            "test": cell.test(result),
            "standard_error": cell.standard_error(result),
            "median_of_studies": cell.median_of_studies(result),
            "rank": cell.rank(result),
            "compared_to": cell.baseline(self.against).rule,
            "difference": gap.mean,
            "difference_low": gap.low,
            "difference_high": gap.high,
            "relative_error": relative.mean,
            "relative_error_low": relative.low,
            "relative_error_high": relative.high,
            "diverged_trials": int(result.tuning.diverged.sum()),
            "trials": result.tuning.diverged.size,
            "compile_seconds": result.timing.compile_seconds,
            "run_seconds": result.timing.run_seconds,
        }

    def table(self) -> RenderableType:
        """A table for each cell, the best rule first, and the mean ranks over all of them."""
        return Tables(*(self._cell_table(cell) for cell in self.cells), *self._rank_table())

    def _cell_table(self, cell: Cell) -> Table:
        settings, base = self.settings, cell.baseline(self.against)
        last = cell is self.cells[-1]
        caption = (
            f"Best: of {counted(settings['studies'], 'study')} of "
            f"{counted(settings['trials'], 'trial')}; * is the smallest or largest value tried. "
            f"Test {cell.metric}: mean ± standard error over "
            f"{counted(settings['seeds'], 'fresh seed')}. Minus: mean difference, paired by seed, "
            "± half its 95% interval, which has the luck of tuning in it"
            f"{corrected_for(self._comparisons(cell))}. Median: over studies, of the test "
            f"{cell.metric} of each one's best trial."
        )
        columns = Table(
            title=Text(str(cell.place)),
            caption=caption if last else None,
            caption_justify="left",
            box=rich.box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        columns.add_column("rule", no_wrap=True)
        tuned = dict.fromkeys(name for result in cell.results for name in result.trials)
        short = {"learning_rate": "lr"}
        headers = [f"best\n{short.get(name, name)}" for name in tuned]
        headers += [f"test\n{cell.metric}", f"minus\n{base.rule}", "median", "diverged"]
        for header in headers:
            columns.add_column(Text(header), justify="right", no_wrap=True)
        for result in cell.ranked:
            values, at_edge = cell.chosen(result), cell.edges(result)
            gap, form = cell.difference(result, self.against), form_of(cell.test(base))
            columns.add_row(
                Text(result.rule),
                *(
                    f"{values[name]:.2g}" + "*" * (name in at_edge) if name in values else "-"
                    for name in tuned
                ),
                in_words(cell.test(result), cell.standard_error(result), form),
                "-" if result is base else in_words(gap.mean, gap.half, form, sign="+"),
                f"{cell.median_of_studies(result):{form}}",
                f"{result.tuning.diverged.sum()}/{result.tuning.diverged.size}",
            )
        return columns

    def _rank_table(self) -> Iterator[Table]:
        ranks = self.mean_ranks()
        if len(self.cells) < 2 or not ranks:
            return
        columns = Table(
            title=Text("Mean rank at the end of training"),
            box=rich.box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        columns.add_column("rule", no_wrap=True)
        columns.add_column("mean rank", justify="right")
        for name in self.rules:
            columns.add_row(Text(name), f"{ranks[name]:.1f}" if name in ranks else "-")
        yield columns

    def _comparisons(self, cell: Cell) -> int:
        return comparisons_among(len(cell.results), self.against is not None)

    def lines(self) -> list[str]:
        """A sentence for each cell on the rules told apart, and one on the edges of the ranges."""
        return [*(self._verdict(cell) for cell in self.cells), *self._edges()]

    def _verdict(self, cell: Cell) -> str:
        base = cell.baseline(self.against)
        form = form_of(cell.test(base))
        if not math.isfinite(cell.test(base)):
            return f"{cell.place}: {base.rule} has no finite test {cell.metric}."
        ahead, behind, level = [], [], []
        for result in cell.ranked:
            if result is base:
                continue
            gap = cell.difference(result, self.against)
            if math.isnan(gap.mean) or gap.could_be_chance:
                level.append(result.rule)
            else:
                told_apart = ahead if (gap.mean > 0) == cell.is_up else behind
                words = in_words(gap.mean, gap.half, form, sign="+")
                told_apart.append(f"{result.rule} ({words})")
        said = [
            f"{what}: {', '.join(who)}"
            for what, who in (("ahead", ahead), ("behind", behind), ("could be chance", level))
            if who
        ]
        return f"{cell.place}: {base.rule} has {cell.test(base):{form}}; {'; '.join(said)}."

    def _edges(self) -> list[str]:
        found = [
            f"{result.rule} ({cell.place}: {', '.join(cell.edges(result))})"
            for cell in self.cells
            for result in cell.results
            if cell.edges(result)
        ]
        if not found:
            return []
        shown = "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")
        how = "" if self.settings["extend"] else "; --extend widens the range"
        return [f"* The best value is the smallest or largest tried for {shown}{how}."]

    def picture(self) -> Picture:
        """Each rule's error in each cell, relative to the baseline's."""
        return drawing.draw_cells(self.cells, self.rules, self.against, self.mean_ranks())

    def pictures(self) -> dict[str, Picture]:
        """The pictures by name: one of all cells, one for each axis, of rates, and of curves."""
        axes = [axis for axis in AXES if len(along(self.cells, axis)) > 1]
        found = {"picture": self.picture()}
        for axis in axes:
            found[AXES[axis]] = drawing.draw_axis(self.cells, axis, self.rules)
        if axes:
            found["learning-rates"] = drawing.draw_drift(self.cells, axes, self.rules)
        return found | {"curves": drawing.draw_curves(self.cells, self.rules)}


def _figures(outcome: Any, at: tuple[int, ...]) -> dict[str, Any]:
    """The figures of a run."""
    return {
        "train_loss": outcome.train_loss[at].item(),
        **{f"validation_{name}": x[at].item() for name, x in outcome.validation.items()},
        **{f"test_{name}": x[at].item() for name, x in outcome.test.items()},
        "diverged": outcome.diverged[at].item(),
    }


REPORT = Sweep
