"""The style that all pictures share."""

import io
import itertools
from collections.abc import Iterable
from typing import Any

import matplotlib.figure
from matplotlib.axes import Axes

# Okabe and Ito's colours, which people with any colour vision can tell apart.
COLOURS = ["#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
_MARKERS = "os^Dv<>P"  # one more than colours, so that no pair of them comes twice
_LINES = ("-", "--", ":", "-.")
_FIRST = ("lion", "lookahead_lion", "adamw", "sgd")
"""Rules that have the same looks in every picture."""


class Picture(matplotlib.figure.Figure):
    """A figure that a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        drawn = io.BytesIO()
        self.savefig(drawn, format="png")
        return drawn.getvalue()


def looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A colour, a line and a marker for each rule."""
    others = itertools.count(len(_FIRST))
    numbers = {name: _FIRST.index(name) if name in _FIRST else next(others) for name in names}
    return {
        name: {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": _LINES[number // len(COLOURS) % len(_LINES)],
            "marker": _MARKERS[number % len(_MARKERS)],
        }
        for name, number in numbers.items()
    }


def tidy(axes: Axes) -> None:
    """A faint grid, and no frame above and on the right."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
