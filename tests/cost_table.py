"""The table of docs/cost-measured.md: each line counted on a TPU v5e and an H100, without either.

`uv run --extra pods --extra gpus python tests/cost_table.py` makes it anew in half an hour;
`--only lookahead` counts the lines with that word and leaves the others as they are. The file is
written after each line, so that what is interrupted goes on with `--only`.
"""

import argparse
import datetime
import importlib.metadata
import os
import re
import sys
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before jax is imported: it looks for no chip

import jax
from lab.cost.lines import DEVICES, LINES, Line, counted

from lion_jax.lab.cost.figures import PodCost

PAGE = Path(__file__).parents[1] / "docs" / "cost-measured.md"
BEGIN, END = "<!-- made by tests/cost_table.py: begin -->", "<!-- end -->"
HEADER = (
    "| Step | Floor | v5e: bytes | temporary | H100: bytes | kernels | temporary "
    "| optax's own, v5e and H100 |\n|---|---|---|---|---|---|---|---|"
)
Figures = dict[str, PodCost]


def row(line: Line, figures: Figures, own: Figures) -> str:
    """A row of the table; `own` are the figures of optax's own."""
    tpu, gpu = figures["v5e"], figures["h100"]
    cells = [
        line.title,
        f"{tpu.floors.hbm / tpu.held:.2f}",
        through_memory(tpu, line.period),
        f"{tpu.temporary_bytes / tpu.held:.2f}",
        through_memory(gpu, line.period),
        between(gpu.traffic.least.kernels, gpu.kernels, "d"),
        f"{gpu.temporary_bytes / gpu.held:.2f}",
        ", ".join(through_memory(own[device]) for device in DEVICES) if own else "",
    ]
    return f"| {' | '.join(cells)} |"


def through_memory(cost: PodCost, period: int = 0) -> str:
    """Bytes per parameter: the mean over a period, and those of the cheapest and dearest step."""
    least, most = cost.traffic.least.total / cost.held, cost.hbm_bytes / cost.held
    span = between(least, most, ".2f")
    if not period or " " not in span:
        return span
    return f"{(most + (period - 1) * least) / period:.2f} ({span})"


def between(least: float, most: float, form: str) -> str:
    """One figure, or two where they differ."""
    low, high = f"{least:{form}}", f"{most:{form}}"
    return low if low == high else f"{low} to {high}"


def rows_of(page: str) -> dict[str, str]:
    """The rows that the page has, by their first cells."""
    table = page.partition(BEGIN)[2].partition(END)[0]
    return {
        text.split(" | ")[0].removeprefix("| "): text
        for text in table.splitlines()
        if text.startswith("| `")
    }


def with_rows(page: str, rows: dict[str, str]) -> str:
    """The page with these rows in the order of the lines; those of no line are left out."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{PAGE.name} must have the markers {BEGIN} and {END}; got none")
    table = "\n".join([HEADER, *(rows[line.title] for line in LINES if line.title in rows)])
    return f"{before}{begin}\n{table}\n\n{_made_with()}\n{end}{after}"


def _made_with() -> str:
    versions = ["jax", "optax", "libtpu", "jax-cuda13-plugin"]
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in versions)
    return f"Last counted {datetime.datetime.now(datetime.UTC).date()}: {found}."


def count(line: Line) -> tuple[Figures, Figures]:
    """The figures of a line, and of optax's own."""
    figures: tuple[Figures, Figures] = {}, {}
    for into, step in zip(figures, (line.step, line.optax), strict=True):
        for device in DEVICES if step else ():
            start = time.monotonic()
            into[device] = counted(step, line.weights, device)
            took = time.monotonic() - start
            print(f"  {step} on {device}: {through_memory(into[device])}, {took:.0f} s", flush=True)
    return figures


def main() -> int:
    """Counts the lines asked for, writes each into the page, and tells which failed."""
    parser = argparse.ArgumentParser(description=re.sub(r"`", "", __doc__ or ""))
    parser.add_argument("--only", action="append", help="count lines that contain this, as often")
    only = parser.parse_args().only or [""]
    chosen = [line for line in LINES if any(word in line.title for word in only)]
    if not chosen:
        parser.error(f"--only must be part of a line; got {only}. Possible: {_titles()}")
    failed = []
    for number, line in enumerate(chosen, 1):
        print(f"{number} of {len(chosen)}: {line.title}", flush=True)
        try:
            made = row(line, *count(line))
        except Exception as error:  # one that fails must not cost the others
            failed.append(line.title)
            print(f"  failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            continue
        finally:
            jax.clear_caches()
        page = PAGE.read_text()
        PAGE.write_text(with_rows(page, rows_of(page) | {line.title: made}))
    if failed:
        print(f"Failed, and left as they were: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def _titles() -> str:
    return ", ".join(line.title for line in LINES)


if __name__ == "__main__":
    sys.exit(main())
