"""The cost of a step of each optimizer on this machine: time, compilation and memory."""

import dataclasses
import gc
import math
import os
import random
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from lion_jax.lab.contenders import (
    RULES,
    SYNC_PERIOD,
    CompileSeconds,
    Contender,
    Runner,
    contenders,
    in_place_pass,
)
from lion_jax.lab.errors import RequestError
from lion_jax.lab.memory import available_bytes, nbytes

DTYPES = ("float32", "bfloat16")
STEPS_PER_SAMPLE = SYNC_PERIOD
"""Steps timed together, so that each sample has one synchronization of lookahead."""
_OURS = ("optax", "lion_jax")


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
      scratch_bytes: temporary memory of a step; None where nobody says.
      least_bytes: bytes that a step has to read and write; None where that differs between steps.
    """

    rule: str
    package: str
    seconds: np.ndarray
    compile_seconds: np.ndarray | None
    state_bytes: int
    scratch_bytes: int | None
    least_bytes: int | None


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Measurements of contenders that ran side by side.

    Attributes:
      settings: size, blocks, dtype, rounds and compilations.
      device: what the steps ran on.
      parameters: number of parameters in the tree.
      leaves: number of its arrays.
      measurements: one for each contender, grouped by rule.
      pass_seconds: of reading and writing as many float32 numbers in place, for each round.
      left_out: contenders that are installed but did not run, and why.
    """

    settings: dict[str, Any]
    device: str
    parameters: int
    leaves: int
    measurements: list[Measurement]
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

    def records(self) -> list[dict[str, Any]]:
        """A row for each contender and round, then one for each compilation."""
        rows = []
        for m in self.measurements:
            names = {"rule": m.rule, "package": m.package}
            for i, seconds in enumerate(m.seconds):
                rows.append({**names, "what": "step", "round": i, "seconds": float(seconds)})
            for i, row in enumerate([] if m.compile_seconds is None else m.compile_seconds):
                for what, seconds in zip(CompileSeconds._fields, row, strict=True):
                    rows.append({**names, "what": what, "round": i, "seconds": float(seconds)})
        for i, seconds in enumerate(self.pass_seconds):
            names = {"rule": "a pass in place", "package": "jax"}
            rows.append({**names, "what": "step", "round": i, "seconds": float(seconds)})
        return rows

    def _of_optax(self, m: Measurement) -> Measurement:
        return next(o for o in self.measurements if (o.rule, o.package) == (m.rule, "optax"))


def benchmark(
    size: float = 2e7,
    *,
    blocks: int = 12,
    dtype: str = "float32",
    rules: Iterable[str] | None = None,
    rounds: int = 20,
    compilations: int = 3,
    on_progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Benchmark:
    """Times optimizers of lion_jax, optax and what else is installed, side by side.

    All run in this process on the default device, in rounds: each round times every contender for a
    few steps, in random order, so that whatever else the machine does hits all alike. Ratios are
    taken within rounds. Clears JAX's caches of compiled programs.

    Args:
      size: about how many parameters the tree has.
      blocks: its transformer blocks, of twelve arrays each; more blocks of the same size cost
        compilation rather than memory traffic.
      dtype: of parameters and gradients, ``"float32"`` or ``"bfloat16"``.
      rules: which rules, by name; None is all.
      rounds: how many.
      compilations: how often each program is compiled, beyond once for a start.
      on_progress: called with a stage's name, what is done and what is to do.

    Returns:
      A :class:`Benchmark`.

    Raises:
      RequestError: a setting out of range, or a size that the device's memory cannot hold; nothing
        has been allocated then.
    """
    settings = {
        "size": size,
        "blocks": blocks,
        "dtype": dtype,
        "rounds": rounds,
        "compilations": compilations,
    }
    _check(settings)
    params = transformer(size, blocks, dtype)
    entrants = _choose(rules, dtype)
    device = jax.devices()[0]
    _check_memory(entrants, params, size, device)

    caching = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_enable_compilation_cache", False)  # a hit is no compilation
    try:
        return _run(entrants, params, settings, device, on_progress)
    finally:
        jax.config.update("jax_enable_compilation_cache", caching)


def transformer(size: float, blocks: int, dtype: str) -> dict[str, Any]:
    """Abstract parameters of a transformer's blocks, about `size` in all."""
    width = max(1, round(math.sqrt(size / (12 * blocks))))
    shapes = {
        "attention": {"qkv": (width, 3 * width), "out": (width, width)},
        "mlp": {"up": (width, 4 * width), "down": (4 * width, width)},
        "biases": [(3 * width,), (width,), (4 * width,), (width,)],
        "norms": [(width,)] * 4,
    }
    return {
        f"block_{i}": jax.tree.map(
            lambda shape: jax.ShapeDtypeStruct(shape, dtype),
            shapes,
            is_leaf=lambda x: isinstance(x, tuple),
        )
        for i in range(blocks)
    }


def _run(
    entrants: list[Contender],
    params: Any,
    settings: dict[str, Any],
    device: Any,
    on_progress: Callable[[str, int, int], None],
) -> Benchmark:
    left_out, runners = {}, []
    for i, contender in enumerate(entrants):
        on_progress("starting", i, len(entrants))
        try:
            runners.append((contender, contender.start(params)))
        except Exception as error:
            if contender.package in _OURS:
                raise
            reason = str(error).strip().splitlines() or [type(error).__name__]
            left_out[f"{contender.rule} ({contender.package})"] = reason[0][:200]
    on_progress("starting", len(entrants), len(entrants))
    as_float32 = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, "float32"), params)
    pass_in_place = in_place_pass().start(as_float32)
    compile_seconds = _time_compilation(
        [r for _, r in runners], settings["compilations"], on_progress
    )
    seconds, pass_seconds = _time_steps(
        [*(r for _, r in runners), pass_in_place], settings["rounds"], on_progress
    )
    return Benchmark(
        settings=settings,
        device=device.device_kind if device.platform != "cpu" else f"cpu, {os.cpu_count()} cores",
        parameters=sum(x.size for x in jax.tree.leaves(params)),
        leaves=len(jax.tree.leaves(params)),
        measurements=[
            Measurement(
                rule=contender.rule,
                package=contender.package,
                seconds=times,
                compile_seconds=compiling,
                state_bytes=runner.state_bytes,
                scratch_bytes=runner.scratch_bytes,
                least_bytes=3 * nbytes(params) + 2 * runner.state_bytes
                if contender.touches_all_state
                else None,
            )
            for (contender, runner), times, compiling in zip(
                runners, seconds, compile_seconds, strict=True
            )
        ],
        pass_seconds=pass_seconds,
        left_out=left_out,
    )


def _time_compilation(
    runners: list[Runner], compilations: int, on_progress: Callable[[str, int, int], None]
) -> list[np.ndarray | None]:
    rows = [[] for _ in runners]
    for i in range(compilations):
        on_progress("compiling", i, compilations)
        for k in _shuffled(len(runners), seed=i):
            gc.collect()  # what others left behind is not this one's to clear away
            rows[k].append(runners[k].compile())
    on_progress("compiling", compilations, compilations)
    return [None if None in row else np.array(row) for row in rows]


def _time_steps(
    runners: list[Runner], rounds: int, on_progress: Callable[[str, int, int], None]
) -> tuple[list[np.ndarray], np.ndarray]:
    seconds = np.empty((len(runners), rounds))
    for i in range(-1, rounds):  # the round before the first is a warm-up
        on_progress("stepping", max(i, 0), rounds)
        for k in _shuffled(len(runners), seed=i):
            runners[k].wait()
            start = time.perf_counter()
            for _ in range(STEPS_PER_SAMPLE):
                runners[k].step()
            runners[k].wait()
            seconds[k, i] = (time.perf_counter() - start) / STEPS_PER_SAMPLE
    on_progress("stepping", rounds, rounds)
    *rows, last = seconds
    return rows, last


def _shuffled(n: int, seed: int) -> list[int]:
    return random.Random(seed).sample(range(n), n)


def _choose(rules: Iterable[str] | None, dtype: str) -> list[Contender]:
    wanted = list(RULES if rules is None else rules)
    for name in wanted:
        if name not in RULES:
            raise RequestError(f"unknown rule {name!r}. Possible: {', '.join(RULES)}")
    if not wanted:
        raise RequestError(f"rules must name at least one of {', '.join(RULES)}; got none")
    return [contender for contender in contenders(dtype) if contender.rule in wanted]


def _check(settings: dict[str, Any]) -> None:
    for name in ("blocks", "rounds", "compilations"):
        value = settings[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise RequestError(f"{name} must be a whole number of at least 1; got {value!r}")
    smallest = 12 * settings["blocks"]
    if not smallest <= settings["size"] < math.inf:
        raise RequestError(
            f"size must be at least {smallest} parameters for {settings['blocks']} blocks; "
            f"got {settings['size']!r}"
        )
    if settings["dtype"] not in DTYPES:
        raise RequestError(f"unknown dtype {settings['dtype']!r}. Possible: {', '.join(DTYPES)}")


def _check_memory(entrants: list[Contender], params: Any, size: float, device: Any) -> None:
    """Refuses what the device cannot hold, before anything is allocated."""
    available = available_bytes(device)
    if available is None:
        return
    states = [c.state_bytes(params) for c in entrants]
    # Parameters and gradients for each and for the pass, states, and scratch for the largest.
    needed = 2 * (len(entrants) + 1) * nbytes(params) + sum(states)
    needed += 2 * nbytes(params) + max(states)
    if needed > available:
        fits = size * available / needed
        digit = 10 ** math.floor(math.log10(fits))
        raise RequestError(
            f"size {size:.3g} needs about {needed / 1e9:.3g} GB for {len(entrants)} optimizers "
            f"side by side; {device.device_kind} has {available / 1e9:.3g} GB free; "
            f"possible: at most --size {math.floor(fits / digit) * digit:.0e}, or fewer --rules"
        )
