"""The report of a benchmark: two tables, a summary, a picture, the records."""

from pathlib import Path

import matplotlib.figure
import numpy as np
import rich.box
from rich.table import Table

from lion_jax.lab import files
from lion_jax.lab.benchmark import STEPS_PER_SAMPLE, Benchmark, Measurement, Spread
from lion_jax.lab.report import COLOURS


def tables(benchmark: Benchmark) -> list[Table]:
    """The steps, and what surrounds them; sections by rule, optax first in each."""
    settings = benchmark.settings
    steps = _table(
        f"Steps on {benchmark.device}: {_human(benchmark.parameters)} {settings['dtype']} "
        f"parameters in {benchmark.leaves} arrays",
        f"Medians of {settings['rounds']} rounds of {STEPS_PER_SAMPLE} steps, in random order, "
        "with quartiles. Ratios are taken within rounds. Bandwidth: the bytes that a step has to "
        "move over its time, as a share of what reading and writing an array in place reaches "
        f"({np.median(benchmark.pass_seconds) * 1e3:.2f} ms for the same number of float32).",
        ["step\nms", "time over\noptax's", "share of\nbandwidth"],
    )
    programs = _table(
        "Compilation and memory",
        f"Compilations: {settings['compilations']} of each, medians with extremes. State: what "
        "stays between steps beside parameters and gradients. Scratch: what a step needs besides.",
        [
            "trace+lower\nover optax's",
            "compile\nover optax's",
            "state\nB/param",
            "scratch\nB/param",
        ],
    )
    last = benchmark.measurements[0].rule
    for m in benchmark.measurements:
        if m.rule != last:
            steps.add_section()
            programs.add_section()
        last, names = m.rule, (m.rule, m.package)
        steps.add_row(
            *names,
            f"{np.median(m.seconds) * 1e3:.2f}",
            _ratio(m, benchmark.step_ratio(m)),
            _percent(benchmark.bandwidth_share(m)),
        )
        compiling = benchmark.compile_ratio(m)
        programs.add_row(
            *names,
            *(["-"] * 2 if compiling is None else (_ratio(m, spread) for spread in compiling)),
            f"{m.state_bytes / benchmark.parameters:.2f}",
            "-" if m.scratch_bytes is None else f"{m.scratch_bytes / benchmark.parameters:.2f}",
        )
    return [steps, programs]


def summary(benchmark: Benchmark) -> list[str]:
    """Sentences on how lion_jax fares against optax, and on who did not run."""
    lines = []
    for m in benchmark.measurements:
        if m.package == "lion_jax":
            spread = benchmark.step_ratio(m)
            unclear = ", no clear difference" if spread.low <= 1 <= spread.high else ""
            lines.append(f"{m.rule}: lion_jax takes {spread.median:.2f} of optax's time{unclear}.")
    lines += [f"{name} did not run: {why}" for name, why in benchmark.left_out.items()]
    return lines


def picture(benchmark: Benchmark) -> matplotlib.figure.Figure:
    """A bar for each contender: the time of its step over optax's, with quartiles."""
    rows = benchmark.measurements[::-1]
    height = 1.2 + 0.3 * len(rows)
    figure = matplotlib.figure.Figure(figsize=(8, height), dpi=150, layout="constrained")
    axes = figure.subplots()
    colours = {"optax": "#999999", "lion_jax": COLOURS[0]}
    spreads = [benchmark.step_ratio(m) for m in rows]
    for y, (m, spread) in enumerate(zip(rows, spreads, strict=True)):
        axes.barh(y, spread.median, color=colours.get(m.package, COLOURS[1]))
        axes.hlines(y, spread.low, spread.high, color="black", linewidth=1.5)
        label = f"{spread.median:.2f}   {np.median(m.seconds) * 1e3:.3g} ms"
        axes.annotate(
            label,
            (max(spread.high, spread.median), y),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.axvline(1, color="black", linewidth=0.8, linestyle=":")
    axes.set(
        yticks=range(len(rows)),
        yticklabels=[f"{m.rule}  ({m.package})" for m in rows],
        xlim=(0, 1.2 * max(spread.high for spread in spreads)),
        xlabel="time of a step over optax's, median and quartiles",
        title=f"{_human(benchmark.parameters)} {benchmark.settings['dtype']} parameters in "
        f"{benchmark.leaves} arrays on {benchmark.device}",
    )
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def save(benchmark: Benchmark, folder: Path, records: str = "csv") -> list[Path]:
    """Writes the picture and the records into `folder`, after both are ready.

    Args:
      benchmark: what to write.
      folder: where to; created if need be. Files of an earlier benchmark are replaced.
      records: ``"csv"``, a row for each time taken; or ``"json"``, with settings, device, versions
        and bytes.

    Returns:
      The paths written.

    Raises:
      OSError: the folder or a file in it cannot be written; nothing was.
    """

    def write_records(path: Path) -> None:
        if records == "csv":
            files.write_csv(benchmark.records(), path)
        else:
            files.write_json(_document(benchmark), path)

    writers = {
        "step.png": lambda path: picture(benchmark).savefig(path),
        f"records.{records}": write_records,
    }
    return files.write(folder, writers)


def _document(benchmark: Benchmark) -> dict:
    bytes_of = [
        {
            "rule": m.rule,
            "package": m.package,
            "state_bytes": m.state_bytes,
            "scratch_bytes": m.scratch_bytes,
            "step_ratio": benchmark.step_ratio(m)._asdict(),
        }
        for m in benchmark.measurements
    ]
    return {
        "settings": benchmark.settings,
        "device": benchmark.device,
        "versions": files.versions(),
        "parameters": benchmark.parameters,
        "leaves": benchmark.leaves,
        "left_out": benchmark.left_out,
        "contenders": bytes_of,
        "records": benchmark.records(),
    }


def _table(title: str, caption: str, columns: list[str]) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=rich.box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in ("rule", "package"):
        table.add_column(name, no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _ratio(m: Measurement, spread: Spread) -> str:
    if m.package == "optax":
        return "1               "
    return f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})"


def _human(count: int) -> str:
    for unit, value in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= value:
            return f"{count / value:.3g}{unit}"
    return str(count)


def _percent(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.median:.0%}"
