"""The tables, pictures and records of the evidence pages: ten rules on four tasks, all tuned.

`python tests/evidence.py --write` trains nothing. It writes tables and pictures from the records
that stand in the docs, `docs/_static/evidence.csv.gz`.

`uv run --extra tasks python tests/evidence.py` trains everything anew, in about an hour on two
cores, and then writes records, tables and pictures. What is finished stays in the folder
`evidence`, so that an interrupted run goes on where it was; `--output` names another folder.
"""

import argparse
import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before jax is imported

import evidence_records as records
import first_picture
import numpy as np

import lion_jax
from lion_jax import lab
from lion_jax.lab.choosing import choose_task
from lion_jax.lab.provenance import provenance
from lion_jax.lab.rules.catalogue import RULES
from lion_jax.lab.statistics import difference, form_of, half_interval, in_words
from lion_jax.lab.sweeping import drawing
from lion_jax.lab.sweeping.cells import Cell, Place, Tuned, along
from lion_jax.lab.trainer import Trainer

DOCS = Path(__file__).parents[1] / "docs"
STATIC = DOCS / "_static"
RECORDS = STATIC / "evidence.csv.gz"
MADE = STATIC / "evidence.json"
"""When and where the records were made, and how long it took."""
PAGES = {
    "evidence.md": ("ranks",),
    "evidence-tables.md": ("tables", "lengths"),
    "evidence-tuning.md": ("decay", "from_adamw"),
}
"""The tables that each page has between markers."""
BUDGET = {"trials": 5, "studies": 5, "seeds": 10, "against": "adamw"}
FAMILY = "lion,cautious_lion,mars_lion,signum,tiger,lookahead_lion,lion_polar,adamw,adan,sgd"
SMALL = {"rules": FAMILY, "steps": 200, "sizes": (1, 2)}
SWEEPS = {
    "main": [
        {**SMALL, "tasks": "phonemes", "batch_sizes": (16, 64)},  # 128 would take twice as long
        {**SMALL, "tasks": "digits,diamonds,mnist", "batch_sizes": (16, 128)},
    ],
    "lengths": [
        {
            "tasks": "digits,diamonds,mnist",
            "rules": "lion,signum,lion_polar,adamw,sgd",
            "steps": (50, 200, 800),
            "batch_sizes": 64,
        }
    ],
    "decay": [
        {
            "tasks": "digits,diamonds,mnist",
            "rules": "lion,lion(weight_decay=0.0),lion(weight_decay=0.1),lion(weight_decay=1.0)",
            "steps": 200,
            "batch_sizes": (16, 128),
            "against": "lion",
        }
    ],
}
"""The sweeps by name, each in pieces that go into one folder."""
AGAINST = {name: pieces[0].get("against", BUDGET["against"]) for name, pieces in SWEEPS.items()}


# Tables.


def table_of_task(sweep: lab.Sweep, task: str) -> str:
    """Each rule's difference to the baseline in each cell of a task."""
    cells = [cell for cell in sweep.cells if cell.place.task == task]
    said = {"size": "size {}", "batch_size": "batch {}", "steps": "{} steps"}
    varied = [axis for axis in said if len(along(cells, axis)) > 1]
    columns = [
        ", ".join(said[axis].format(getattr(cell.place, axis)) for axis in varied) for cell in cells
    ]
    direction = "more is better" if cells[0].is_up else "less is better"
    lines = [
        f"`{task}`: test {cells[0].metric}, {direction}.",
        "",
        f"| Rule | {' | '.join(columns)} |",
        f"|---|{'---|' * len(columns)}",
    ]
    for rule in sweep.rules:
        row = [
            cell_text(cell, result, sweep.against) for cell in cells for result in of(cell, rule)
        ]
        lines.append(f"| {rule} | {' | '.join(row)} |")
    return "\n".join(lines)


def of(cell: Cell, rule: str) -> list[Tuned]:
    """The rule's result in a cell."""
    return [result for result in cell.results if result.rule == rule]


def cell_text(cell: Cell, result: Tuned, against: str | None) -> str:
    """The baseline's mean and standard error, or the difference to it; bold if told apart."""
    base = cell.baseline(against)
    form = form_of(cell.test(base))
    if result is base:
        return in_words(cell.test(result), cell.standard_error(result), form)
    gap = cell.difference(result, against)
    text = in_words(gap.mean, gap.half, form, sign="+")
    return text if gap.could_be_chance else f"**{text}**"


def ranks(sweep: lab.Sweep) -> str:
    """The mean ranks, and the counts of what is told apart."""
    lines = [
        "| Rule | Mean rank | Ahead of AdamW | Behind | Could be chance |",
        "|---|---|---|---|---|",
    ]
    for rule in sweep.rules:
        counts = [0, 0, 0]
        for cell in sweep.cells:
            for result in of(cell, rule):
                gap = cell.difference(result, "adamw")
                is_ahead = (gap.mean > 0) == cell.is_up
                counts[2 if gap.could_be_chance else 0 if is_ahead else 1] += 1
        shown = ["", "", ""] if rule == "adamw" else counts
        lines.append(f"| {rule} | {sweep.mean_ranks()[rule]:.1f} | {' | '.join(map(str, shown))} |")
    return "\n".join(lines)


def remarks(sweep: lab.Sweep, hours: float) -> str:
    """Counts that the tables do not show."""
    against = sweep.against
    pairs = [(c, r) for c in sweep.cells for r in c.results if r.rule != against]
    comparisons = len(sweep.rules) - 1
    by_seeds = told = 0
    for cell, result in pairs:
        gap = cell.tests(result) - cell.tests(cell.baseline(against))
        by_seeds += not difference(gap, comparisons).could_be_chance
        told += not cell.difference(result, against).could_be_chance
    edges = [(c, r) for c in sweep.cells for r in c.results if c.edges(r)]
    runs = sum(
        outcome.diverged.size
        for c in sweep.cells
        for r in c.results
        for outcome in (r.tuning, r.selection, r.final)
    )
    return (
        f"Of {len(pairs)} differences to {against}, {told} are told apart. Intervals over seeds "
        f"alone would have told {by_seeds} apart. {len(edges)} of "
        f"{sum(len(c.results) for c in sweep.cells)} best values are the smallest or largest "
        f"tried. {runs:,} runs took {hours:.1f} hours of a core, two at a time."
    )


# from_adamw.


def suggested_runs(sweep: lab.Sweep) -> Iterator[records.Row]:
    """Runs of Lion at what `from_adamw` makes of AdamW's tuned values, on the same seeds."""
    settings = sweep.settings
    seeds = settings["first_seed"] + settings["studies"] + np.arange(settings["seeds"])
    for cell in sweep.cells:
        (adamw,), place = of(cell, "adamw"), cell.place
        own = cell.chosen(adamw)
        start = lion_jax.from_adamw(own["learning_rate"], own["weight_decay"])
        trainer = Trainer(
            choose_task(place.task, size=place.size),
            RULES["lion"].wholly_tuned(),
            steps=place.steps,
            batch_size=place.batch_size,
            schedule=settings["schedule"],
        )
        values = {n: np.array([start.arguments[n]]) for n in ("learning_rate", "weight_decay")}
        outcome, _ = trainer.run(values, seeds)
        for i, seed in enumerate(seeds):
            run = {"sweep": "main", "rule": "lion", "stage": records.SUGGESTED, "trial": 0}
            run |= {**dataclasses.asdict(place), "seed": seed, "diverged": outcome.diverged[0, i]}
            run |= {name: value[0] for name, value in values.items()}
            run |= {f"validation_{cell.metric}": outcome.validation[cell.metric][0, i]}
            run |= {f"test_{cell.metric}": outcome.test[cell.metric][0, i]}
            yield records.row_of(run, cell.metric)


def suggestions(sweep: lab.Sweep, runs: dict[Place, list[records.Row]]) -> Iterator[dict[str, str]]:
    """A row for each cell: suggested and tuned values of Lion, and what came of the suggestion."""
    for cell in sweep.cells:
        (adamw,), (lion,), rows = of(cell, "adamw"), of(cell, "lion"), runs[cell.place]
        tuned = cell.chosen(lion)
        start = {name: float(rows[0][name]) for name in ("learning_rate", "weight_decay")}
        tests = records.tests_of(rows)
        to_tuned, to_adamw = (difference(tests - cell.tests(other)) for other in (lion, adamw))
        form = form_of(cell.test(adamw))
        yield {
            "Cell": str(cell.place).replace(f", {cell.place.steps} steps", ""),
            "Suggested η, λ": ", ".join(f"{value:.2g}" for value in start.values()),
            "Tuned η, λ": f"{tuned['learning_rate']:.2g}, {tuned['weight_decay']:.2g}",
            "Tuned over suggested": " and ".join(factor(tuned[n] / start[n]) for n in start),
            "Test metric": in_words(float(tests.mean()), float(half_interval(tests)), form),
            "Minus tuned Lion": in_words(to_tuned.mean, to_tuned.half, form, sign="+"),
            "Minus tuned AdamW": in_words(to_adamw.mean, to_adamw.half, form, sign="+"),
        }


def factor(value: float) -> str:
    """A factor in two digits."""
    return f"×{value:.0f}" if value >= 10 else f"×{value:.2g}"


def markdown(rows: list[dict[str, str]]) -> str:
    """A table of records."""
    head = list(rows[0])
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row.values())} |" for row in rows)])


# Writing.


def replaced(page: str, name: str, text: str) -> str:
    """The page with the text between the markers of a name."""
    begin, end = f"<!-- tests/evidence.py, {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"a page must have the markers {begin} and {end}; got none. See PAGES")
    return f"{before}{begin}\n{text}\n{end}{after}"


def keep_records(folder: Path) -> None:
    """Writes the records of finished sweeps into the docs."""
    rows, made = [], {}
    for name in SWEEPS:
        sweep = lab.load(folder / name)
        rows += records.rows_of(name, sweep)
        if name == "main":
            rows += suggested_runs(sweep)
        seconds = sum(sum(r.timing) for c in sweep.cells for r in c.results)
        origin = {key: sweep.provenance[key] for key in ("date", "device", "versions")}
        made[name] = {**origin, "core_hours": round(seconds / 3600, 1)}
    here = provenance()
    made[records.SUGGESTED] = {key: here[key] for key in ("date", "device", "versions")}
    records.write(rows, RECORDS)
    MADE.write_text(json.dumps(made, indent=1) + "\n")


def texts() -> dict[str, str]:
    """The tables by name, from the records."""
    rows, made = records.read(RECORDS), json.loads(MADE.read_text())
    sweeps = records.sweeps_of(rows, AGAINST)
    suggested: dict[Place, list[records.Row]] = {}
    for row in rows:
        if row["stage"] == records.SUGGESTED:
            suggested.setdefault(records.place_of(row), []).append(row)
    tables = {
        name: "\n\n".join(
            table_of_task(sweep, task)
            for task in dict.fromkeys(cell.place.task for cell in sweep.cells)
        )
        for name, sweep in sweeps.items()
    }
    said = {name: remarks(sweep, made[name]["core_hours"]) for name, sweep in sweeps.items()}
    return {
        "ranks": f"{ranks(sweeps['main'])}\n\n{said['main']} {made_in_words(made['main'])}",
        "tables": tables["main"],
        "lengths": f"{tables['lengths']}\n\n{said['lengths']}",
        "decay": f"{tables['decay']}\n\n{said['decay']}",
        "from_adamw": markdown(list(suggestions(sweeps["main"], suggested)))
        + f"\n\n{made_in_words(made[records.SUGGESTED])}",
    }


def made_in_words(origin: dict[str, Any]) -> str:
    """A sentence on the date, the processor and the versions of some records."""
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    return f"Made {origin['date']} on {origin['device']} with {versions}."


def write_pages(written: dict[str, str]) -> None:
    """Writes the tables between their markers."""
    for name, tables in PAGES.items():
        page = (DOCS / name).read_text()
        for table in tables:
            page = replaced(page, table, written[table])
        (DOCS / name).write_text(page)


def draw() -> None:
    """Draws the pictures of the pages, from the records."""
    sweeps = records.sweeps_of(records.read(RECORDS), AGAINST)
    main, lengths = sweeps["main"], sweeps["lengths"]
    pictures = {
        "first": first_picture.draw(main),
        "picture": main.picture(),
        "batch-sizes": drawing.draw_axis(main.cells, "batch_size", main.rules),
        "sizes": drawing.draw_axis(main.cells, "size", main.rules),
        "learning-rates": drawing.draw_drift(main.cells, ["size", "batch_size"], main.rules),
        "steps": drawing.draw_axis(lengths.cells, "steps", lengths.rules),
    }
    for name, picture in pictures.items():
        picture.savefig(STATIC / f"evidence-{name}.png")


def main() -> int:
    """Runs what is missing, and writes records, tables and pictures."""
    parser = argparse.ArgumentParser(description=re.sub(r"`", "", __doc__ or ""))
    parser.add_argument("--output", type=Path, default=Path("evidence"), metavar="DIR")
    parser.add_argument("--only", choices=SWEEPS, help="train for one sweep, and write nothing")
    parser.add_argument(
        "--write", action="store_true", help="train nothing: write from the records in the docs"
    )
    options = parser.parse_args()
    if not options.write:
        for name in [options.only] if options.only else SWEEPS:
            for piece in SWEEPS[name]:
                lab.sweep(
                    **{**BUDGET, **piece},
                    folder=options.output / name,
                    resume=True,
                    on_progress=lab_progress,
                )
        if options.only:
            return 0
        keep_records(options.output)
    write_pages(texts())
    draw()
    return 0


def lab_progress(progress: lab.Progress) -> None:
    """A line at the start and at the end of each stage."""
    if progress.done in (0, progress.total):
        print(f"{progress.place} of {progress.stages}: {progress.stage}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
