"""The records of the evidence pages: sweeps as a compressed CSV, a line for each run, and back."""

import csv
import gzip
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lion_jax import lab
from lion_jax.lab.sweeping.cells import Cell, Place, Tuned
from lion_jax.lab.trainer import Outcome, Timing

SUGGESTED = "from_adamw"
"""The stage of Lion's runs at the values that `from_adamw` suggests: no part of a sweep."""
_AXES = ("task", "size", "batch_size", "steps")
_VALUES = ("learning_rate", "weight_decay")
_FIGURES = ("validation", "test")
_COLUMNS = (
    *("sweep", *_AXES, "rule", "stage", "trial", "seed", "metric"),
    *(*_VALUES, *_FIGURES, "diverged"),
)

Row = Mapping[str, Any]


def rows_of(name: str, sweep: lab.Sweep) -> list[dict[str, Any]]:
    """A row for each run of a sweep."""
    metrics = {cell.place.task: cell.metric for cell in sweep.cells}
    return [row_of({**run, "sweep": name}, metrics[run["task"]]) for run in sweep.records()]


def row_of(run: Row, metric: str) -> dict[str, Any]:
    """The row of one run: a record of `Sweep.records`, with the name of its sweep.

    Figures have the nine digits that tell any two numbers of float32 apart, so that trials that
    are level, or nearly, stay so.
    """
    found = {name: run[name] for name in _COLUMNS if name in run}
    found |= {"metric": metric, "diverged": int(run["diverged"])}
    found |= {name: f"{run[name]:.6g}" for name in _VALUES if name in run}
    found |= {name: f"{run[f'{name}_{metric}']:.9g}" for name in _FIGURES}
    return {name: found.get(name, "") for name in _COLUMNS}


def write(rows: Iterable[Row], path: Path) -> None:
    """Writes rows; the same rows give the same bytes."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    compressed = io.BytesIO()
    with gzip.GzipFile(fileobj=compressed, mode="wb", mtime=0) as file:
        file.write(text.getvalue().encode())
    path.write_bytes(compressed.getvalue())


def read(path: Path) -> list[Row]:
    """The rows of a file that :func:`write` wrote."""
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


def grouped(rows: Iterable[Row], *columns: str) -> dict[Any, list[Row]]:
    """The rows by their values in a column, or in several; in the order of their first ones."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in columns)
        groups.setdefault(key if len(columns) > 1 else key[0], []).append(row)
    return groups


def sweeps_of(rows: Iterable[Row], against: Mapping[str, str]) -> dict[str, lab.Sweep]:
    """The sweeps by name, without what is not recorded: curves, times and hashes.

    Args:
      rows: all of them; those of the stage :data:`SUGGESTED` are skipped.
      against: the rule that each sweep's differences are taken to.
    """
    runs = [row for row in rows if row["stage"] != SUGGESTED]
    return {name: _sweep(of, against[name]) for name, of in grouped(runs, "sweep").items()}


def place_of(row: Row) -> Place:
    """The place of a run."""
    size = int(row["size"]) if row["size"] else None
    return Place(row["task"], size, int(row["batch_size"]), int(row["steps"]))


def tests_of(rows: Iterable[Row]) -> np.ndarray:
    """The test figure of each run."""
    return np.array([float(row["test"]) for row in rows])


def _sweep(rows: list[Row], against: str) -> lab.Sweep:
    cells = tuple(_cell(of) for of in grouped(rows, *_AXES).values())
    trials, studies = cells[0].results[0].tuning.diverged.shape
    seeds = cells[0].results[0].final.diverged.shape[1]
    settings = {"first_seed": min(int(row["seed"]) for row in rows), "extend": False}
    settings |= {"trials": trials, "studies": studies, "seeds": seeds}
    return lab.Sweep(cells=cells, against=against, settings=settings)


def _cell(rows: list[Row]) -> Cell:
    metric = rows[0]["metric"]
    task = {"metrics": {metric: "up" if metric == "accuracy" else "down"}}
    return Cell(place_of(rows[0]), task, tuple(_tuned(of) for of in grouped(rows, "rule").values()))


def _tuned(rows: list[Row]) -> Tuned:
    stages = grouped(rows, "stage")
    trials = {name: _array(stages["tuning"], name) for name in _VALUES if stages["tuning"][0][name]}
    return Tuned(
        rule=rows[0]["rule"],
        described={},
        trials=trials,
        tuning=_outcome(stages["tuning"]),
        selection=_outcome(stages["selection"]),
        final=_outcome(stages["final"]),
        timing=Timing(0.0, 0.0),
    )


def _outcome(rows: list[Row]) -> Outcome:
    nothing = np.array([])
    metric = rows[0]["metric"]
    return Outcome(
        train_loss=nothing,
        validation={metric: _array(rows, "validation")},
        test={metric: _array(rows, "test")},
        diverged=_array(rows, "diverged").astype(bool),
        dead_in_bfloat16_at_peak=nothing,
        dead_in_bfloat16_at_hundredth=nothing,
        curve=nothing,
    )


def _array(rows: list[Row], column: str) -> np.ndarray:
    """The values of a column, of shape (trials, seeds)."""
    values = [[float(row[column]) for row in of] for of in grouped(rows, "trial").values()]
    return np.array(values, np.float32 if column in _FIGURES else np.float64)
