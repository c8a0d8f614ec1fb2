"""Timing a step of each optimizer on this machine, beside its compilation and memory."""

import contextlib
import gc
import math
import random
import time
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from lion_jax.lab import progress
from lion_jax.lab.choosing import names
from lion_jax.lab.errors import RequestError, check_whole, known
from lion_jax.lab.memory import available_bytes, nbytes
from lion_jax.lab.progress import OnProgress, Tell
from lion_jax.lab.provenance import describe, provenance
from lion_jax.lab.reporting import reporting
from lion_jax.lab.timing.contenders import (
    SYNC_PERIOD,
    Contender,
    Runner,
    contenders,
    in_place_pass,
)
from lion_jax.lab.timing.names import DTYPES, RULES
from lion_jax.lab.timing.report import Benchmark, Measurement

STEPS_PER_SAMPLE = SYNC_PERIOD
"""Steps timed together, so that each sample has one synchronization of lookahead."""
_OURS = ("optax", "lion_jax")


@reporting
def benchmark(
    size: float = 2e7,
    *,
    blocks: int = 12,
    dtype: str = "float32",
    rules: str | Iterable[str] | None = None,
    rounds: int = 20,
    compilations: int = 3,
    on_progress: OnProgress = progress.silent,
) -> Iterator[Benchmark]:
    """Times optimizers of lion_jax, optax and what else is installed, side by side.

    All run in this process on the default device, in rounds: each round times every contender for a
    few steps, in random order, so that whatever else the machine does hits all alike. Ratios are
    taken within rounds. Clears JAX's caches of compiled programs.

    Args:
      size: about how many parameters the tree has.
      blocks: its transformer blocks, of twelve arrays each; more blocks of the same size cost
        compilation rather than memory traffic.
      dtype: of parameters and gradients, ``"float32"`` or ``"bfloat16"``.
      rules: which rules, by name: ``"lion"``, ``"lion_bf16_moment"``, ``"clipped_lion"``,
        ``"lookahead_lion"``, ``"adamw"``; None is all.
      rounds: how many.
      compilations: how often each program is compiled, beyond once for a start.
      on_progress: called with a :class:`~lion_jax.lab.Progress` now and then; None shows bars on a
        terminal and lines in a notebook.

    Returns:
      A :class:`Benchmark`.

    Raises:
      RequestError: a setting out of range, or a size that the device's memory cannot hold; nothing
        has been allocated then.
    """
    rules = names(rules) if isinstance(rules, str) else list(RULES if rules is None else rules)
    settings = {
        "size": size,
        "blocks": blocks,
        "dtype": dtype,
        "rules": rules,
        "rounds": rounds,
        "compilations": compilations,
        "steps_per_round": STEPS_PER_SAMPLE,
    }
    _check(settings)
    params = transformer(size, blocks, dtype)
    entrants = [contender for contender in contenders(dtype) if contender.rule in rules]
    device = jax.devices()[0]
    _check_memory(entrants, params, size, device)
    tell = progress.teller(on_progress, ("starting", "compiling", "stepping"))
    with _without_cache():
        runners, left_out = _start(entrants, params, tell)
        pass_in_place = in_place_pass().start(
            jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, "float32"), params)
        )
        compiling = _time_compilation([r for _, r in runners], compilations, tell)
        seconds, pass_seconds = _time_steps([*(r for _, r in runners), pass_in_place], rounds, tell)
    yield Benchmark(
        provenance=provenance(),
        settings=settings,
        device=describe(device),
        parameters=sum(x.size for x in jax.tree.leaves(params)),
        leaves=len(jax.tree.leaves(params)),
        measurements=tuple(
            Measurement(
                rule=contender.rule,
                package=contender.package,
                seconds=times,
                compile_seconds=compiled,
                state_bytes=runner.state_bytes,
                scratch_bytes=runner.scratch_bytes,
                least_bytes=3 * nbytes(params) + 2 * runner.state_bytes
                if contender.touches_all_state
                else None,
            )
            for (contender, runner), times, compiled in zip(
                runners, seconds, compiling, strict=True
            )
        ),
        pass_seconds=pass_seconds,
        left_out=left_out,
    )


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


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """Keeps programs from a cache on disk, as a hit is no compilation."""
    caching = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", caching)


def _start(
    entrants: list[Contender], params: Any, tell: Tell
) -> tuple[list[tuple[Contender, Runner]], dict[str, str]]:
    """The contenders that are ready to run, and the reasons of those that are not."""
    runners, left_out = [], {}
    for i, contender in enumerate(entrants):
        tell("starting", i, len(entrants))
        try:
            runners.append((contender, contender.start(params)))
        except Exception as error:
            if contender.package in _OURS:
                raise
            reason = str(error).strip().splitlines() or [type(error).__name__]
            left_out[f"{contender.rule} ({contender.package})"] = reason[0][:200]
    tell("starting", len(entrants), len(entrants))
    return runners, left_out


def _time_compilation(
    runners: list[Runner], compilations: int, tell: Tell
) -> list[np.ndarray | None]:
    rows = [[] for _ in runners]
    for i in range(compilations):
        tell("compiling", i, compilations)
        for k in _shuffled(len(runners), seed=i):
            gc.collect()  # what others left behind is not this one's to clear away
            rows[k].append(runners[k].compile())
    tell("compiling", compilations, compilations)
    return [None if None in row else np.array(row) for row in rows]


def _time_steps(
    runners: list[Runner], rounds: int, tell: Tell
) -> tuple[list[np.ndarray], np.ndarray]:
    seconds = np.empty((len(runners), rounds))
    for i in range(-1, rounds):  # the round before the first is a warm-up
        for k in _shuffled(len(runners), seed=i):
            runners[k].wait()
            start = time.perf_counter()
            for _ in range(STEPS_PER_SAMPLE):
                runners[k].step()
            runners[k].wait()
            seconds[k, i] = (time.perf_counter() - start) / STEPS_PER_SAMPLE
        tell("stepping", i + 1, rounds)
    *rows, of_pass = seconds
    return rows, of_pass


def _shuffled(n: int, seed: int) -> list[int]:
    return random.Random(seed).sample(range(n), n)


def _check(settings: dict[str, Any]) -> None:
    for name in ("blocks", "rounds", "compilations"):
        check_whole(name, settings[name], 1)
    smallest = 12 * settings["blocks"]
    if not smallest <= settings["size"] < math.inf:
        raise RequestError(
            f"size must be at least {smallest} parameters for {settings['blocks']} blocks; "
            f"got {settings['size']!r}"
        )
    known("dtype", settings["dtype"], DTYPES)
    for rule in settings["rules"]:
        known("rule", rule, RULES)
    if not settings["rules"]:
        raise RequestError(f"rules must name at least one of {', '.join(RULES)}; got none")


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
