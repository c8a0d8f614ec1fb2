"""The table, sentences, picture and records of one cost or of several."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Self

import rich.box
from rich.table import Table

from lion_jax.lab.cost import exchanges
from lion_jax.lab.cost.columns import LAYOUTS, Column
from lion_jax.lab.cost.names import SHARDINGS
from lion_jax.lab.plots import COLOURS, Picture, tidy
from lion_jax.lab.report import Report

if TYPE_CHECKING:
    from lion_jax.lab.cost.figures import PodCost

_FULL = 1.05  # tiles that waste less than that are full


class Costs(Report):
    """The methods that a cost and several of them share."""

    command: ClassVar[str] = "cost"

    def _each(self) -> tuple["PodCost", ...]:
        raise NotImplementedError

    def _without_text(self) -> Self:
        raise NotImplementedError

    def _texts(self) -> dict[str, Any]:
        """The texts of the report without the programs, which can be megabytes."""
        return Report._texts(self._without_text())

    def headline(self) -> str:
        """The bytes per parameter that each rule moves through HBM."""
        moved = ", ".join(f"{c.rule} {c.hbm_bytes / c.held:.2f}" for c in self._each())
        settings = self._each()[0].settings
        where = f"{settings['model']} on {settings['topology']}, {settings['sharding']}"
        return f"{where}: HBM bytes per parameter and step: {moved}"

    def records(self) -> list[dict[str, Any]]:
        """One record for each rule: all figures, in bytes per chip and step and per parameter."""
        return [cost.record() for cost in self._each()]

    def summary(self) -> list[dict[str, Any]]:
        """The records, each with its exchanges."""
        return [cost.record() | {"exchanges": exchanges.records(cost)} for cost in self._each()]

    def table(self) -> Table:
        """A row for each rule, with its floors below."""
        costs = self._each()
        first, settings = costs[0], costs[0].settings
        dtypes = " or ".join(dict.fromkeys(cost.settings["dtype"] for cost in costs))
        sharding = SHARDINGS[settings["sharding"]].replace("chip", first.generation.device)
        columns, caption = LAYOUTS[first.generation.platform]
        whole = Table(
            title=f"{settings['model']}, {first.parameters:,} {dtypes} parameters on "
            f"{settings['topology']}, {settings['sharding']}: {sharding}. "
            f"Bytes per parameter, except {_others(columns)}.",
            title_justify="left",
            caption=caption,
            caption_justify="left",
            box=rich.box.SIMPLE_HEAD,
            padding=0,  # all columns fit into 80
        )
        whole.add_column("rule", no_wrap=True)
        for column in columns:
            whole.add_column(column.title, justify="right", no_wrap=True)
        for cost in costs:
            whole.add_row(cost.rule, *(column.figure(cost) for column in columns))
            whole.add_row("  floor", *(column.floor(cost) for column in columns), style="dim")
        return whole

    def lines(self) -> list[str]:
        """Sentences on the exchanges, copies and padding, and on what could not be split."""
        costs = self._each()
        lines = [
            f"{cost.rule}: {line}"
            for cost in costs
            for tell in (exchanges.sentences, exchanges.times)
            for line in tell(cost)
        ]
        lines += dict.fromkeys(line for cost in costs for line in exchanges.assumptions(cost))
        lines += [
            f"{cost.rule}: {cost.copies} kernels do nothing but copy; they move "
            f"{cost.copied_bytes / cost.held:.2f} of the B/param through HBM."
            for cost in costs
            if cost.copies and costs[0].generation.platform == "gpu"
        ]
        chips = f"{costs[0].chips} {costs[0].generation.device}s"
        coarse: dict[str, list[str]] = {}
        for cost in costs:
            named = [f"{path} ({parts})" for path, parts in cost.coarse.items()]
            more = f" and {len(named) - 4} more" if len(named) > 4 else ""
            if named:
                coarse.setdefault(", ".join(named[:4]) + more, []).append(cost.rule)
        lines += [
            f"{', '.join(rules)}: split over fewer than {chips}, because {costs[0].chips} does not "
            f"divide their dimensions: {named}."
            for named, rules in coarse.items()
        ]
        lines += [
            f"{cost.rule}: with the padding of tiles that are not full, "
            f"{cost.stored_in_tiles / 1e6:.2f} MB stored and "
            f"{cost.traffic.most.in_tiles / cost.held:.2f} B/param through HBM."
            for cost in costs
            if cost.stored_in_tiles > _FULL * cost.stored_bytes
        ]
        return lines + [
            f"{cost.rule}: how often the loop {loop} runs depends on the data. It is counted once, "
            "so the figures are lower bounds."
            for cost in costs
            for loop in cost.traffic.unknown_loops
        ]

    def picture(self) -> Picture:
        """Bars of what is stored, moved and sent, with their floors as lines."""
        rows = self._each()[::-1]
        figure = Picture(figsize=(10, 1.5 + 0.35 * len(rows)), dpi=150, layout="constrained")
        titles = "stored", "through HBM in a step", "sent in a step"
        columns = zip(*(_bars(cost) for cost in rows), strict=True)
        for axes, title, values in zip(
            figure.subplots(1, 3, sharey=True), titles, columns, strict=True
        ):
            for y, (value, floor) in enumerate(values):
                axes.barh(y, value, color=COLOURS[0])
                axes.vlines(floor, y - 0.4, y + 0.4, color="black", linewidth=1.5)
                axes.annotate(
                    f"{value:.3g}",
                    (max(value, floor), y),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                )
            axes.set(
                title=title,
                xlabel="bytes per parameter; lines: floors",
                xlim=(0, max(1.25 * max(max(pair) for pair in values), 0.1)),  # some are no bar
                yticks=range(len(rows)),
                yticklabels=[cost.rule for cost in rows],
            )
            tidy(axes)
            axes.grid(visible=False, axis="y")
            axes.set_axisbelow(True)
        settings = rows[0].settings
        figure.suptitle(" ".join(settings[k] for k in ("model", "dtype", "topology", "sharding")))
        return figure


def _others(columns: Iterable[Column]) -> str:
    """The columns that are not bytes per parameter."""
    return " and ".join(c.title for c in columns if c.title.startswith(("MB", "kernels")))


def _bars(cost: "PodCost") -> tuple[tuple[float, float], ...]:
    """Figures and floors in bytes per parameter."""
    held, floors = cost.held, cost.floors
    return (
        (cost.stored_bytes / held, floors.stored / held),
        (cost.hbm_bytes / held, floors.hbm / held),
        (cost.sent_bytes / cost.parameters, floors.sent / cost.parameters),
    )
