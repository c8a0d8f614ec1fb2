"""The report of pod costs: a table, the collectives, a picture, the records."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.figure
import rich.box
from rich.table import Table

from lion_jax.lab import files
from lion_jax.lab.cost.figures import PodCost
from lion_jax.lab.cost.steps import SHARDINGS
from lion_jax.lab.report import COLOURS

PICTURE = "cost.png"
_CAPTION = (
    "Stored, through HBM and temporary: bytes of a chip over the parameters that it holds. Sent: "
    "over the model's parameters. Cheapest: in steps that take every shorter branch. Floor: "
    "parameters, gradients and all state read once, parameters and all state written once, the "
    "best exchange, nothing besides. A link: sent bytes times the links they cross, over a chip's "
    "outgoing links."
)


def table(costs: Sequence[PodCost]) -> Table:
    """A row for each rule, with its floors below."""
    first = costs[0]
    settings = first.settings
    dtypes = " or ".join(dict.fromkeys(cost.settings["dtype"] for cost in costs))
    layout = SHARDINGS[settings["sharding"]]
    whole = Table(
        title=f"{settings['model']}, {first.parameters:,} {dtypes} parameters on "
        f"{settings['topology']}, {settings['sharding']}: {layout}. In B/param but for MB/chip.",
        title_justify="left",
        caption=_CAPTION,
        caption_justify="left",
        box=rich.box.SIMPLE_HEAD,
        padding=0,  # all columns fit into 80
    )
    whole.add_column("rule", no_wrap=True)
    for column in (
        "MB/chip",
        "stored",
        "HBM",
        "cheapest",
        "temporary",
        "sent",
        "on a link",
    ):
        whole.add_column(column, justify="right", no_wrap=True)
    for cost in costs:
        figures, floors = _figures(cost)
        whole.add_row(cost.rule, *figures)
        whole.add_row("  floor", *floors, style="dim")
    return whole


def summary(costs: Sequence[PodCost]) -> list[str]:
    """Sentences on the collectives, the padding, and what could not be split or counted."""
    lines = []
    for cost in costs:
        lines += [f"{cost.rule}: {line}" for line in _collectives(cost)]
    coarse: dict[str, list[str]] = {}
    for cost in costs:
        named = [f"{path} ({parts})" for path, parts in cost.coarse.items()]
        if named:
            coarse.setdefault(f"{', '.join(named[:4])}{_more(named, 4)}", []).append(cost.rule)
    lines += [
        f"{', '.join(rules)}: split over fewer than {costs[0].chips} chips, which do not divide "
        f"them: {named}."
        for named, rules in coarse.items()
    ]
    for cost in costs:
        padding = cost.stored_in_tiles / cost.stored_bytes
        if padding > 1.05:
            in_tiles = cost.traffic.most.in_tiles / cost.held
            lines.append(
                f"{cost.rule}: arrays lie in tiles that are not full; with their padding "
                f"{cost.stored_in_tiles / 1e6:.2f} MB stored, {in_tiles:.2f} B/param through HBM."
            )
    for cost in costs:
        for loop in cost.traffic.unknown_loops:
            lines.append(
                f"{cost.rule}: the loop {loop} runs as often as its data says; it counts once, so "
                "the figures are a least."
            )
    return lines


def picture(costs: Sequence[PodCost]) -> matplotlib.figure.Figure:
    """Bars of what is stored, moved and sent, with their floors as lines."""
    rows = costs[::-1]
    figure = matplotlib.figure.Figure(
        figsize=(10, 1.5 + 0.35 * len(rows)), dpi=150, layout="constrained"
    )
    titles = "stored", "through HBM in a step", "sent in a step"
    for axes, title, values in zip(
        figure.subplots(1, 3, sharey=True), titles, zip(*map(_bars, rows), strict=True), strict=True
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
        most = max(max(pair) for pair in values)
        axes.set(
            title=title,
            xlabel="bytes per parameter; lines: floors",
            xlim=(0, max(1.25 * most, 0.1)),  # some bytes are no bar
            yticks=range(len(rows)),
            yticklabels=[cost.rule for cost in rows],
        )
        axes.spines[["top", "right"]].set_visible(False)
    settings = costs[0].settings
    figure.suptitle(" ".join(settings[k] for k in ("model", "dtype", "topology", "sharding")))
    return figure


def save(costs: Sequence[PodCost], folder: Path, records: str = "csv") -> list[Path]:
    """Writes the picture and the records into `folder`, after both are ready.

    Args:
      costs: what to write.
      folder: where to; created if need be. Files of an earlier run are replaced.
      records: ``"csv"``, a row for each rule; or ``"json"``, with the collectives and versions.

    Returns:
      The paths written.

    Raises:
      OSError: the folder or a file in it cannot be written; nothing was.
    """

    def write_records(path: Path) -> None:
        if records == "csv":
            files.write_csv([cost.record() for cost in costs], path)
        else:
            files.write_json(_document(costs), path)

    writers = {
        PICTURE: lambda path: picture(costs).savefig(path),
        f"records.{records}": write_records,
    }
    return files.write(folder, writers)


def _figures(cost: PodCost) -> tuple[list[str], list[str]]:
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


def _bars(cost: PodCost) -> tuple[tuple[float, float], ...]:
    """Figures and floors in bytes per parameter."""
    held, floors = cost.held, cost.floors
    return (
        (cost.stored_bytes / held, floors.stored / held),
        (cost.hbm_bytes / held, floors.hbm / held),
        (cost.sent_bytes / cost.parameters, floors.sent / cost.parameters),
    )


def _collectives(cost: PodCost) -> list[str]:
    """A line for each kind, type and size of group, those that send most first."""
    alike: dict[Any, list[float]] = {}
    for collective, sent in cost.exchanges:
        key = collective.kind, "/".join(collective.dtypes), sent.group_size
        sums = alike.setdefault(key, [0, 0.0, 0.0])
        for i, value in enumerate((collective.times, sent.nbytes, sent.hop_bytes)):
            sums[i] += value
    lines = []
    for (kind, dtype, group), (times, nbytes, hops) in sorted(
        alike.items(), key=lambda item: -item[1][1]
    ):
        among = "in pairs" if kind == "collective-permute" else f"among {group} chips"
        lines.append(
            f"{times} {kind} of {dtype} {among}: {_bytes(nbytes)} sent by each chip, "
            f"{hops / nbytes if nbytes else 0:.2f} links crossed."
        )
    return lines


def _bytes(n: float) -> str:
    for unit, value in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= value:
            return f"{n / value:.3g} {unit}"
    return f"{n:.3g} B"


def _more(names: Sequence[str], shown: int) -> str:
    return f" and {len(names) - shown} more" if len(names) > shown else ""


def _document(costs: Sequence[PodCost]) -> dict[str, Any]:
    return {
        "settings": costs[0].settings,
        "versions": files.versions(),
        "records": [cost.record() for cost in costs],
        "collectives": [
            {
                "rule": cost.rule,
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
            for cost in costs
            for collective, sent in cost.exchanges
        ],
    }
