"""The result of a benchmark: two tables, sentences, a picture, the records."""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import rich.box
from rich.table import Table

from lion_jax.lab.plots import COLOURS, Picture, tidy
from lion_jax.lab.report import Report
from lion_jax.lab.screen import Tables

_GREY = "#999999"


class CompileSeconds(NamedTuple):
    """Wall seconds before the first step of a program."""

    trace_and_lower: float
    compile: float


class Spread(NamedTuple):
    """A median and what lies around it: the quartiles of steps, the extremes of compilations."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, samples: np.ndarray, percentiles: tuple[int, int, int] = (25, 50, 75)) -> "Spread":
        """The spread of samples, one for each round or compilation."""
        return cls(*(float(x) for x in np.percentile(samples, percentiles)))


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The cost of one contender.

    Attributes:
      rule: the rule.
      package: whose implementation.
      seconds: time of a step, for each round.
      compile_seconds: rows of a :class:`CompileSeconds`; None where nothing is compiled.
      state_bytes: memory that stays between steps beside parameters and gradients.
      scratch_bytes: temporary memory of a step; None if unknown.
      least_bytes: bytes that a step has to read and write; None where that differs between steps.
    """

    rule: str
    package: str
    seconds: np.ndarray
    compile_seconds: np.ndarray | None
    state_bytes: int
    scratch_bytes: int | None
    least_bytes: int | None


@dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
class Benchmark(Report):
    """The measurements of contenders that ran side by side.

    Attributes:
      device: what the steps ran on.
      parameters: number of parameters in the tree.
      leaves: number of its arrays.
      measurements: one for each contender, grouped by rule, optax first in each.
      pass_seconds: of reading and writing as many float32 numbers in place, for each round.
      left_out: contenders that are installed but did not run, and why.
    """

    command: ClassVar[str] = "timing"
    device: str
    parameters: int
    leaves: int
    measurements: tuple[Measurement, ...]
    pass_seconds: np.ndarray
    left_out: dict[str, str]

    def step_ratio(self, m: Measurement) -> Spread:
        """Time of a step over optax's of the same rule in the same round."""
        return Spread.of(m.seconds / self._of_optax(m).seconds)

    def compile_ratio(self, m: Measurement) -> tuple[Spread, ...] | None:
        """Spreads of the times to trace and lower and to compile, over optax's."""
        theirs = self._of_optax(m).compile_seconds
        if m.compile_seconds is None or theirs is None:
            return None
        ratios = (m.compile_seconds / theirs).T
        return tuple(Spread.of(r, (0, 50, 100)) for r in ratios)

    def bandwidth_share(self, m: Measurement) -> Spread | None:
        """Least bytes of a step over its time, as a share of the same for the pass in place."""
        if m.least_bytes is None:
            return None
        pass_rate = 2 * 4 * self.parameters / self.pass_seconds
        return Spread.of(m.least_bytes / m.seconds / pass_rate)

    def _of_optax(self, m: Measurement) -> Measurement:
        return next(o for o in self.measurements if (o.rule, o.package) == (m.rule, "optax"))

    def headline(self) -> str:
        """The fastest of how many."""
        best = min(self.measurements, key=lambda m: np.median(m.seconds))
        return (
            f"{self._tree()}: of {len(self.measurements)} optimizers {best.rule} of {best.package} "
            f"is the fastest, {_ms(best)}"
        )

    def records(self) -> list[dict[str, Any]]:
        """A record for each contender, round and compilation: what took how many seconds."""
        return [
            {"rule": rule, "package": package, "what": what, "round": i, "seconds": float(seconds)}
            for rule, package, what, times in self._times()
            for i, seconds in enumerate(times)
        ]

    def _times(self) -> Iterator[tuple[str, str, str, np.ndarray]]:
        for m in self.measurements:
            yield m.rule, m.package, "step", m.seconds
            compiling = () if m.compile_seconds is None else m.compile_seconds.T
            for what, times in zip(CompileSeconds._fields, compiling, strict=False):
                yield m.rule, m.package, what, times
        yield "a pass in place", "jax", "step", self.pass_seconds

    def summary(self) -> list[dict[str, Any]]:
        """One record for each contender: times, bytes and ratios."""
        return [
            {
                "rule": m.rule,
                "package": m.package,
                "step_seconds": Spread.of(m.seconds)._asdict(),
                "step_ratio": self.step_ratio(m)._asdict(),
                "state_bytes": m.state_bytes,
                "scratch_bytes": m.scratch_bytes,
            }
            for m in self.measurements
        ]

    def table(self) -> Tables:
        """A table of the steps and one of compilation and memory; optax first for each rule."""
        settings = self.settings
        steps = _table(
            f"Steps on {self.device}: {self._tree()}",
            f"Medians of {settings['rounds']} rounds of {settings['steps_per_round']} steps, in "
            "random order. Relative time: divided by optax's in the same round, with quartiles; "
            "below 1 is faster. Bandwidth: the bytes that a step has to move, divided by its "
            "time, as a share of what reading and writing an array in place reaches "
            f"({np.median(self.pass_seconds) * 1e3:.2f} ms for the same number of float32).",
            ["step\nms", "relative\ntime", "share of\nbandwidth"],
        )
        programs = _table(
            "Compilation and memory",
            f"Compilations: {settings['compilations']} of each, times divided by optax's, medians "
            "with extremes. State: bytes that stay between steps, beside parameters and "
            "gradients. Scratch: further bytes that a step needs.",
            [
                "trace+lower\nrelative",
                "compile\nrelative",
                "state\nB/param",
                "scratch\nB/param",
            ],
        )
        for m in self.measurements:
            if m.package == "optax":
                steps.add_section()
                programs.add_section()
            share, compiling = self.bandwidth_share(m), self.compile_ratio(m)
            steps.add_row(
                m.rule,
                m.package,
                f"{np.median(m.seconds) * 1e3:.2f}",
                _ratio(m, self.step_ratio(m)),
                "-" if share is None else f"{share.median:.0%}",
            )
            programs.add_row(
                m.rule,
                m.package,
                *(["-"] * 2 if compiling is None else (_ratio(m, spread) for spread in compiling)),
                f"{m.state_bytes / self.parameters:.2f}",
                "-" if m.scratch_bytes is None else f"{m.scratch_bytes / self.parameters:.2f}",
            )
        return Tables(steps, programs)

    def lines(self) -> list[str]:
        """Sentences on lion_jax beside optax, and on contenders that did not run."""
        lines = [
            f"{m.rule}: lion_jax takes {_ms(m)}, optax {_ms(self._of_optax(m))}: "
            f"{_verdict(self.step_ratio(m))}."
            for m in self.measurements
            if m.package == "lion_jax"
        ]
        return lines + [f"{name} did not run: {why}" for name, why in self.left_out.items()]

    def picture(self) -> Picture:
        """A bar for each contender, in groups by rule: milliseconds of a step, with quartiles."""
        height = 1.2 + 0.3 * len(self.measurements)
        figure = Picture(figsize=(9, height), dpi=150, layout="constrained")
        axes = figure.subplots()
        colours = {"optax": _GREY, "lion_jax": COLOURS[0]}
        rows = np.cumsum([1.6 if m.package == "optax" else 1.0 for m in self.measurements])
        spreads = [Spread.of(1e3 * m.seconds) for m in self.measurements]
        for y, m, spread in zip(rows, self.measurements, spreads, strict=True):
            axes.barh(y, spread.median, color=colours.get(m.package, COLOURS[1]))
            axes.hlines(y, spread.low, spread.high, color="black", linewidth=1.5)
            ratio = f", {_verdict(self.step_ratio(m))}"
            axes.annotate(
                _ms(m) + (ratio if m.package != "optax" else ""),
                (spread.high, y),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        axes.set_yticks(rows, [f"{m.rule}  ({m.package})" for m in self.measurements])
        axes.invert_yaxis()
        axes.set(
            xlim=(0, 1.35 * max(spread.high for spread in spreads)),
            xlabel="milliseconds of a step, median and quartiles",
        )
        axes.set_title(f"{self._tree()}\non {self.device}", fontsize=10)
        tidy(axes)
        axes.grid(visible=False, axis="y")
        axes.set_axisbelow(True)
        return figure

    def _tree(self) -> str:
        dtype = self.settings["dtype"]
        return f"{_human(self.parameters)} {dtype} parameters in {self.leaves} arrays"


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


def _verdict(ratio: Spread) -> str:
    """The ratio to optax's time in words; no difference where its quartiles include 1."""
    if ratio.low <= 1 <= ratio.high:
        return "no clear difference"
    if ratio.median < 1:
        return f"{1 / ratio.median:.3g} times as fast"
    return f"{ratio.median:.3g} times as long"


def _ms(m: Measurement) -> str:
    """The median time of a step."""
    value = float(np.median(m.seconds)) * 1e3
    return f"{value:.3g} ms" if value < 1000 else f"{value:.0f} ms"


def _human(count: int) -> str:
    for unit, value in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= value:
            return f"{count / value:.3g}{unit}"
    return str(count)


REPORT = Benchmark
