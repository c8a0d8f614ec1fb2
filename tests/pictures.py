"""The pictures of docs/many-chips.md and docs/precision.md, from tables of the measured pages.

`python tests/pictures.py` draws both anew; `python tests/pictures.py --png DIR` draws them as PNG
files of 400 and 800 pixels into a folder instead, to look at. Needs matplotlib: the extra `lab`.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

DOCS = Path(__file__).parents[1] / "docs"
WIDTH = 5.0  # inches; a browser shows them as 480 CSS pixels
INK, PALE, STEP = "#222222", "#eeeeee", "#ffc857"
GRADIENTS, WEIGHTS, SIGNS = "#0072b2", "#7a4fa3", "#c8442a"
LION, ADAMW = "#0072b2", "#b0b0b0"


def table(page: str) -> dict[str, list[str]]:
    """The cells of the table behind the marker, by the first of each row."""
    text = (DOCS / page).read_text().partition("<!-- tests/pictures.py reads this table -->")[2]
    lines = text.strip().split("\n\n")[0].replace("`", "").replace("*", "").splitlines()
    rows = (line.strip("| ").split(" | ") for line in lines if "---" not in line)
    return {first: rest for first, *rest in rows}


def exchanges() -> Figure:
    """Who sends what to whom, in four layouts: arrows are as thick as what they carry."""
    rows = table("chips-measured.md")
    sent = {name.partition(":")[0]: cells[0] for name, cells in rows.items()}
    floors = {
        name.partition(":")[0]: float(cells[2]) for name, cells in rows.items() if name[0] in "dz"
    }
    reduce, gather = sent["sign_gather"].split(" + ")
    votes, outcomes = sent["vote"].split(" + ")
    half = {name: floor / 2 for name, floor in floors.items()}
    panels: list[tuple[str, str, int, tuple[str, float, str], tuple[str, float, str]]] = [
        (
            "Average the gradients",
            "whole moment on each chip",
            2,
            ("gradients", half["data"], GRADIENTS),
            ("means", half["data"], GRADIENTS),
        ),
        (
            "zero_sharding (ZeRO-1)",
            "1/256 of the moment on each chip",
            1,
            ("gradients", half["zero"], GRADIENTS),
            ("weights", half["zero"], WEIGHTS),
        ),
        (
            "sign_gather",
            "1/256 of the moment on each chip",
            1,
            ("gradients", float(reduce), GRADIENTS),
            ("signs", float(gather), SIGNS),
        ),
        (
            "majority_vote",
            "whole moment on each chip, its own",
            0,
            ("votes", float(votes), SIGNS),
            ("outcomes", float(outcomes), SIGNS),
        ),
    ]
    figure = Figure(figsize=(WIDTH, 7.4), facecolor="white")
    grid = figure.subplots(len(panels), 1)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.995, bottom=0.065, hspace=0.04)
    for axes, panel in zip(grid, panels, strict=True):
        _exchange(axes, *panel)
    corner = (0.03, 0.037)
    style = "round,pad=0.003"
    key = FancyBboxPatch(corner, 0.05, 0.016, boxstyle=style, facecolor=STEP, edgecolor=INK, lw=0.8)
    figure.add_artist(key)
    notes = {
        (0.1, 0.045): "the rule steps here.  Part k: what chip k sums or counts.",
        (0.025, 0.016): "B: bytes that a chip sends per parameter.  "
        f"* {sent['zero']} in all on TPUs.",
    }
    for place, note in notes.items():
        figure.text(*place, note, va="center", fontsize=9.5, color=INK)
    return figure


def _exchange(
    axes: Axes,
    title: str,
    keeps: str,
    steps_at: int,
    out: tuple[str, float, str],
    back: tuple[str, float, str],
) -> None:
    """One panel: all chips, those that reduce or count a part each, and all chips again."""
    axes.set(xlim=(0, 100), ylim=(-3, 42))
    axes.axis("off")
    axes.text(1, 38, title, fontsize=11.5, weight="bold", color=INK, va="center")
    axes.text(99, 38, keeps, fontsize=9.5, color=INK, va="center", ha="right")
    chips = ["chip 1", "chip 2", "chip 256"]
    parts = ["part 1", "part 2", "part 256"]
    heights = [23.5, 13.5, 1.0]
    for column, (x, names) in enumerate([(1, chips), (41, parts), (81, chips)]):
        for y, name in zip(heights, names, strict=True):
            face = STEP if column == steps_at else PALE
            box = FancyBboxPatch(
                (x, y - 2.6),
                18,
                5.2,
                boxstyle="round,pad=0,rounding_size=1.2",
                facecolor=face,
                lw=0.8,
            )
            axes.add_patch(box)
            axes.text(x + 9, y - 0.1, name, fontsize=9.5, ha="center", va="center", color=INK)
        axes.text(x + 9, 7.3, "⋮", fontsize=10, ha="center", va="center", color=INK)
    for x, (what, size, colour) in ((19.5, out), (59.5, back)):
        star = "*" if what == "weights" else ""
        label = f"{what} {size:.1f} B{star}"
        axes.text(
            x + 10.5, 30, label, fontsize=9.5, ha="center", va="center", color=colour, weight="bold"
        )
        for start in heights:
            for end in heights:
                axes.annotate(
                    "",
                    xy=(x + 21.2, end),
                    xytext=(x, start),
                    arrowprops={
                        "arrowstyle": "-|>,head_length=0.35,head_width=0.16",
                        "color": colour,
                        "lw": max(0.5, 0.55 * size),
                        "alpha": 0.75,
                        "shrinkA": 0,
                        "shrinkB": 0,
                    },
                )


BARS = {
    "float32": ("Lion, float32", "AdamW, float32"),
    "quantized state": ("Lion, int8 state, float32 weights", "AdamW, int8 state, float32 weights"),
    "master weights": (
        "Lion, float32 moment, master weights",
        "AdamW, float32 moments, master weights",
    ),
    "stochastic rounding": (
        "Lion, float32 moment, stochastic rounding",
        "AdamW, bfloat16 moments, stochastic rounding",
    ),
    "master weights,\nquantized state": (
        "Lion, int8 state, master weights",
        "AdamW, int8 state, master weights",
    ),
}


def stored_and_moved() -> Figure:
    """Bytes per parameter, stored and moved by a step, for two rules under each wrapper."""
    rows = table("precision-measured.md")
    figure = Figure(figsize=(WIDTH, 6.2), facecolor="white", layout="constrained")
    titles = ["Stored: bytes per parameter", "Moved by a step: bytes per parameter"]
    for column, (axes, title) in enumerate(zip(figure.subplots(2, 1), titles, strict=True)):
        for rule, (name, colour) in enumerate([("Lion", LION), ("AdamW", ADAMW)]):
            cells = [rows[pair[rule]][column] for pair in BARS.values()]
            places = [group + 0.4 * (rule - 0.5) for group in range(len(BARS))]
            bars = axes.barh(
                places, [float(cell) for cell in cells], height=0.38, color=colour, label=name
            )
            axes.bar_label(bars, cells, padding=3, fontsize=10, color=INK)
        axes.set_title(title, loc="left", fontsize=11.5, weight="bold", color=INK)
        axes.set_yticks(range(len(BARS)), list(BARS), fontsize=10, color=INK)
        axes.invert_yaxis()
        axes.set_xticks([])
        axes.margins(x=0.15)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.tick_params(length=0)
    axes.legend(loc="lower right", fontsize=10, frameon=False)
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {"exchanges": exchanges, "bytes": stored_and_moved}


def main() -> None:
    """Draws the pictures into the documentation, or as PNG files into a folder."""
    parser = argparse.ArgumentParser(description=re.sub("`", "", __doc__ or ""))
    parser.add_argument("--png", type=Path, metavar="DIR", help="draw PNG files into this folder")
    folder = parser.parse_args().png
    # The same file from every run, and letters as outlines: the reader may lack the font.
    mpl.rcParams.update({"svg.hashsalt": "lion_jax", "svg.fonttype": "path"})
    for name, draw in PICTURES.items():
        if folder is None:
            path = DOCS / "_static" / f"{name}.svg"
            draw().savefig(path, metadata={"Date": None})
            print(path)
            continue
        folder.mkdir(parents=True, exist_ok=True)
        for width in (400, 800):
            draw().savefig(folder / f"{name}-{width}.png", dpi=width / WIDTH)


if __name__ == "__main__":
    main()
