"""The README's picture: where the Lion family stands against AdamW, from the committed records.

`python tests/evidence.py --write` draws it with the other pictures. Each dot is a cell of the
sweep, that is a task at one size and batch size.
"""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lion_jax import lab

ROWS = {
    "lion_polar": "Lion, matrices\northogonalized",
    "signum": "Signum",
    "mars_lion": "MARS-Lion",
    "cautious_lion": "Cautious Lion",
    "lion": "Lion",
    "lookahead_lion": "Lookahead\naround Lion",
}
TASKS = {
    "digits": ("#4477aa", "o", "digits, a perceptron"),
    "mnist": ("#228833", "s", "MNIST, a convolutional network"),
    "diamonds": ("#aa3377", "D", "prices in a table, a perceptron"),
    "phonemes": ("#cc6600", "^", "spelling to sound, a transformer"),
}


def draw(sweep: lab.Sweep) -> Figure:
    """A dot for each rule and cell: its error relative to that of tuned AdamW."""
    figure = Figure(figsize=(7.2, 4.9), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0, color="0.3", linewidth=1)
    for row, rule in enumerate(ROWS):
        for place, cell in enumerate(sweep.cells):
            (result,) = (found for found in cell.results if found.rule == rule)
            color, marker, _ = TASKS[cell.place.task]
            gap = cell.relative(result, "adamw")
            axes.plot(
                100 * gap.mean,
                row + 0.5 * (place / (len(sweep.cells) - 1) - 0.5),
                marker,
                color=color,
                markersize=7,
                markerfacecolor="none" if gap.could_be_chance else color,
                alpha=0.55 if gap.could_be_chance else 1,
            )
    axes.set_yticks(range(len(ROWS)), list(ROWS.values()))
    axes.set_ylim(len(ROWS) - 0.5, -0.5)
    axes.set_xlim(-40, 60)
    ticks = range(-40, 61, 20)
    axes.set_xticks(ticks, [f"{x:+d}%" if x else "AdamW" for x in ticks])
    axes.set_xlabel("test error relative to AdamW's: better to the left")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    handles = [
        Line2D([], [], linestyle="", color=color, marker=marker, label=label)
        for color, marker, label in TASKS.values()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    axes.set_title(
        "Four small tasks, 200 steps, all rules tuned\n"
        "filled: told apart from AdamW; hollow: could be chance",
        fontsize=11,
    )
    return figure
