"""A table, sentences, a picture and records of costs, be they one or several."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Self

import rich.box
from rich.table import Table

from lion_jax.lab.cost.names import SHARDINGS
from lion_jax.lab.plots import COLOURS, Picture, tidy
from lion_jax.lab.report import Report

if TYPE_CHECKING:
    from lion_jax.lab.cost.figures import PodCost

_CAPTION = (
    "Stored, through HBM and temporary: bytes of a chip over the parameters that it holds. Sent: "
    "over the model's parameters. Cheapest: in steps that take every shorter branch. Floor: "
    "parameters, gradients and all state read once, parameters and all state written once, the "
    "best exchange, nothing besides. A link: sent bytes times the links they cross, over a chip's "
    "outgoing links."
)
_COLUMNS = "MB/chip", "stored", "HBM", "cheapest", "temporary", "sent", "on a link"
_FULL = 1.05  # tiles that waste less than that are full


class Costs(Report):
    """The methods that a cost and several of them share."""

    command: ClassVar[str] = "cost"

    def _each(self) -> tuple["PodCost", ...]:
        raise NotImplementedError

    def _without_text(self) -> Self:
        raise NotImplementedError

    def _texts(self) -> dict[str, Any]:
        """Without the programs, which can be megabytes."""
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
        return [cost.record() | {"exchanges": _exchanges(cost)} for cost in self._each()]

    def table(self) -> Table:
        """A row for each rule, with its floors below."""
        costs = self._each()
        first, settings = costs[0], costs[0].settings
        dtypes = " or ".join(dict.fromkeys(cost.settings["dtype"] for cost in costs))
        layout = SHARDINGS[settings["sharding"]]
        whole = Table(
            title=f"{settings['model']}, {first.parameters:,} {dtypes} parameters on "
            f"{settings['topology']}, {settings['sharding']}: {layout}. "
            "In B/param but for MB/chip.",
            title_justify="left",
            caption=_CAPTION,
            caption_justify="left",
            box=rich.box.SIMPLE_HEAD,
            padding=0,  # all columns fit into 80
        )
        whole.add_column("rule", no_wrap=True)
        for column in _COLUMNS:
            whole.add_column(column, justify="right", no_wrap=True)
        for cost in costs:
            figures, floors = _cells(cost)
            whole.add_row(cost.rule, *figures)
            whole.add_row("  floor", *floors, style="dim")
        return whole

    def lines(self) -> list[str]:
        """Sentences on the collectives, the padding, and what could not be split or counted."""
        costs = self._each()
        lines = [f"{cost.rule}: {line}" for cost in costs for line in _collectives(cost)]
        coarse: dict[str, list[str]] = {}
        for cost in costs:
            named = [f"{path} ({parts})" for path, parts in cost.coarse.items()]
            more = f" and {len(named) - 4} more" if len(named) > 4 else ""
            if named:
                coarse.setdefault(", ".join(named[:4]) + more, []).append(cost.rule)
        lines += [
            f"{', '.join(rules)}: split over fewer than {costs[0].chips} chips, which do not "
            f"divide them: {named}."
            for named, rules in coarse.items()
        ]
        lines += [
            f"{cost.rule}: arrays lie in tiles that are not full; with their padding "
            f"{cost.stored_in_tiles / 1e6:.2f} MB stored, "
            f"{cost.traffic.most.in_tiles / cost.held:.2f} B/param through HBM."
            for cost in costs
            if cost.stored_in_tiles > _FULL * cost.stored_bytes
        ]
        return lines + [
            f"{cost.rule}: the loop {loop} runs as often as its data says; it counts once, so the "
            "figures are a least."
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


def _cells(cost: "PodCost") -> tuple[list[str], list[str]]:
    """The cells of a rule's row, and those of its floors."""
    held, size, floors = cost.held, cost.parameters, cost.floors
    least = cost.traffic.least.total / held
    links = cost.links_per_chip
    figures = [
        f"{cost.stored_bytes / 1e6:.2f}",
        f"{cost.stored_bytes / held:.2f}",
        f"{cost.hbm_bytes / held:.2f}",
        f"{least:.2f}",
        f"{cost.temporary_bytes / held:.2f}",
        f"{cost.sent_bytes / size:.3g}",
        f"{cost.link_bytes / size:.3g}",
    ]
    below = [
        f"{floors.stored / 1e6:.2f}",
        f"{floors.stored / held:.2f}",
        f"{floors.hbm / held:.2f}",
        "",
        f"{floors.temporary / held:.2f}",
        f"{floors.sent / size:.3g}",
        f"{floors.sent / size / links:.3g}" if links else "0",
    ]
    return figures, below


def _bars(cost: "PodCost") -> tuple[tuple[float, float], ...]:
    """Figures and floors in bytes per parameter."""
    held, floors = cost.held, cost.floors
    return (
        (cost.stored_bytes / held, floors.stored / held),
        (cost.hbm_bytes / held, floors.hbm / held),
        (cost.sent_bytes / cost.parameters, floors.sent / cost.parameters),
    )


def _collectives(cost: "PodCost") -> Iterator[str]:
    """A line for each kind, type and size of group, those that send most first."""
    alike: dict[Any, list[float]] = {}
    for collective, sent in cost.exchanges:
        key = collective.kind, "/".join(collective.dtypes), sent.group_size
        sums = alike.setdefault(key, [0, 0.0, 0.0])
        for i, value in enumerate((collective.times, sent.nbytes, sent.hop_bytes)):
            sums[i] += value
    for (kind, dtype, group), (times, nbytes, hops) in sorted(
        alike.items(), key=lambda item: -item[1][1]
    ):
        among = "in pairs" if kind == "collective-permute" else f"among {group} chips"
        yield (
            f"{times} {kind} of {dtype} {among}: {_bytes(nbytes)} sent by each chip, "
            f"{hops / nbytes if nbytes else 0:.2f} links crossed."
        )


def _bytes(n: float) -> str:
    for unit, value in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= value:
            return f"{n / value:.3g} {unit}"
    return f"{n:.3g} B"


def _exchanges(cost: "PodCost") -> list[dict[str, Any]]:
    """A record for each collective."""
    return [
        {
            "kind": collective.kind,
            "dtypes": collective.dtypes,
            "shapes": [x.dims for x in collective.operands][:100],
            "operand_bytes": collective.operand_bytes,
            "times": collective.times,
            "group_size": sent.group_size,
            "sent_bytes": sent.nbytes,
            "hop_bytes": sent.hop_bytes,
            "source": collective.source,
        }
        for collective, sent in cost.exchanges
    ]
