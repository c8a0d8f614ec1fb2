"""The table and the pictures of docs/evidence.md: ten rules on four tasks, everything tuned.

`uv run --extra tasks python tests/evidence.py` makes them anew in about an hour on two cores. What
is finished stays in the folder `evidence`, so that an interrupted run goes on where it was;
`--output` names another folder, and `--write` writes the page from what is there.
"""

import argparse
import dataclasses
import gzip
import io
import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before jax is imported

import numpy as np

import lion_jax
from lion_jax import lab
from lion_jax.lab import files
from lion_jax.lab.choosing import choose_task
from lion_jax.lab.rules.catalogue import RULES
from lion_jax.lab.statistics import difference, form_of, half_interval, in_words
from lion_jax.lab.sweeping.cells import Cell, Tuned
from lion_jax.lab.trainer import Trainer

PAGE = Path(__file__).parents[1] / "docs" / "evidence.md"
STATIC = PAGE.parent / "_static"
RECORDS = STATIC / "evidence.csv.gz"
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
PICTURES = {
    "main": ("picture", "batch-sizes", "sizes", "learning-rates"),
    "lengths": ("steps",),
    "decay": (),
}


# Tables.


def table_of_task(sweep: lab.Sweep, task: str) -> str:
    """Each rule's difference to the baseline in each cell of a task."""
    cells = [cell for cell in sweep.cells if cell.place.task == task]
    columns = [
        ", ".join(
            [*(["size " + str(p.size)] if p.size else []), f"batch {p.batch_size}"]
            + ([f"{p.steps} steps"] if len({c.place.steps for c in cells}) > 1 else [])
        )
        for p in (cell.place for cell in cells)
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


def cell_text(cell: Cell, result: Tuned, against: str) -> str:
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


def remarks(sweep: lab.Sweep) -> str:
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
    seconds = sum(sum(r.timing) for c in sweep.cells for r in c.results)
    return (
        f"Of {len(pairs)} differences to {against}, {told} are told apart. Intervals over seeds "
        f"alone would have told {by_seeds} apart. {len(edges)} of "
        f"{sum(len(c.results) for c in sweep.cells)} best values are the smallest or largest "
        f"tried. {runs:,} runs took {seconds / 3600:.1f} hours of a core, two at a time."
    )


# from_adamw.


def suggestions(sweep: lab.Sweep) -> Iterator[dict[str, object]]:
    """Lion at what `from_adamw` makes of AdamW's tuned values, on the seeds of the others."""
    settings = sweep.settings
    seeds = settings["first_seed"] + settings["studies"] + np.arange(settings["seeds"])
    for cell in sweep.cells:
        (adamw,), (lion,), place = of(cell, "adamw"), of(cell, "lion"), cell.place
        tuned, own = cell.chosen(lion), cell.chosen(adamw)
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
        tests = outcome.test[cell.metric][0]
        to_tuned, to_adamw = (difference(tests - cell.tests(other)) for other in (lion, adamw))
        form = form_of(cell.test(adamw))
        yield {
            "Cell": str(place).replace(f", {place.steps} steps", ""),
            "Suggested η, λ": f"{values['learning_rate'][0]:.2g}, {values['weight_decay'][0]:.2g}",
            "Tuned η, λ": f"{tuned['learning_rate']:.2g}, {tuned['weight_decay']:.2g}",
            "Tuned over suggested": " and ".join(
                factor(tuned[name] / float(values[name][0])) for name in values
            ),
            "Test metric": in_words(float(tests.mean()), float(half_interval(tests)), form),
            "Minus tuned Lion": in_words(to_tuned.mean, to_tuned.half, form, sign="+"),
            "Minus tuned AdamW": in_words(to_adamw.mean, to_adamw.half, form, sign="+"),
        }


def factor(value: float) -> str:
    """A factor in two digits."""
    return f"×{value:.0f}" if value >= 10 else f"×{value:.2g}"


def markdown(rows: list[dict[str, object]]) -> str:
    """A table of records."""
    head = list(rows[0])
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row.values()))} |" for row in rows)])


# Writing.


def small_records(sweeps: dict[str, lab.Sweep]) -> bytes:
    """A compressed CSV of every run, its figures to six digits."""
    rows = []
    for sweep in sweeps.values():
        metrics = {cell.place.task: cell.metric for cell in sweep.cells}
        for record in sweep.records():
            name = metrics[record["task"]]
            kept = [*dataclasses.asdict(sweep.cells[0].place), "rule", "stage", "trial", "seed"]
            figures = {
                "learning_rate": record["learning_rate"],
                "weight_decay": record.get("weight_decay", math.nan),
                "validation": record[f"validation_{name}"],
                "test": record[f"test_{name}"],
            }
            rows.append(
                {n: record[n] for n in kept}
                | {"metric": name}
                | {n: f"{value:.6g}" for n, value in figures.items()}
                | {"diverged": int(record["diverged"])}
            )
    scratch = STATIC / "evidence.csv"
    files.write_csv(rows, scratch)
    text = scratch.read_bytes()
    scratch.unlink()
    compressed = io.BytesIO()
    with gzip.GzipFile(fileobj=compressed, mode="wb", mtime=0) as file:
        file.write(text)
    return compressed.getvalue()


def replaced(page: str, name: str, text: str) -> str:
    """The page with the text between the markers of a name."""
    begin, end = f"<!-- tests/evidence.py, {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{PAGE.name} must have the markers {begin} and {end}; got none")
    return f"{before}{begin}\n{text}\n{end}{after}"


def write(sweeps: dict[str, lab.Sweep], suggested: str) -> None:
    """Writes tables, pictures and records into the docs."""
    main = sweeps["main"]
    tasks = dict.fromkeys(cell.place.task for cell in main.cells)
    origin = main.provenance
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    made = f"Made {origin['date']} on {origin['device']} with {versions}."
    texts = {
        "ranks": f"{ranks(main)}\n\n{remarks(main)} {made}",
        "tables": "\n\n".join(table_of_task(main, task) for task in tasks),
        "from_adamw": suggested,
    }
    for name in ("lengths", "decay"):
        sweep = sweeps[name]
        of_sweep = dict.fromkeys(cell.place.task for cell in sweep.cells)
        tables = "\n\n".join(table_of_task(sweep, task) for task in of_sweep)
        texts[name] = f"{tables}\n\n{remarks(sweep)}"
    page = PAGE.read_text()
    for name, text in texts.items():
        page = replaced(page, name, text)
    PAGE.write_text(page)
    for name, sweep in sweeps.items():
        drawn = sweep.pictures()
        for picture in PICTURES[name]:
            drawn[picture].savefig(STATIC / f"evidence-{picture}.png")
    RECORDS.write_bytes(small_records(sweeps))


def main() -> int:
    """Runs what is missing, and writes the page."""
    parser = argparse.ArgumentParser(description=re.sub(r"`", "", __doc__ or ""))
    parser.add_argument("--output", type=Path, default=Path("evidence"), metavar="DIR")
    parser.add_argument("--only", choices=SWEEPS, help="one of the sweeps")
    parser.add_argument("--write", action="store_true", help="run nothing, write what is there")
    options = parser.parse_args()
    names = [options.only] if options.only else list(SWEEPS)
    for name in names if not options.write else []:
        for piece in SWEEPS[name]:
            lab.sweep(
                **{**BUDGET, **piece},
                folder=options.output / name,
                resume=True,
                on_progress=lab_progress,
            )
    if not options.only:
        sweeps = {name: lab.load(options.output / name) for name in SWEEPS}
        kept = options.output / "from_adamw.md"
        if not kept.exists():
            kept.write_text(markdown(list(suggestions(sweeps["main"]))))
        write(sweeps, kept.read_text())
    return 0


def lab_progress(progress: lab.Progress) -> None:
    """A line at the start and at the end of each stage."""
    if progress.done in (0, progress.total):
        print(f"{progress.place} of {progress.stages}: {progress.stage}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
