"""Training every trial and seed of one rule, as one compiled program or a few."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lion_jax.lab import memory
from lion_jax.lab.rules.rule import Rule
from lion_jax.lab.tasks.batches import batches
from lion_jax.lab.tasks.task import Task
from lion_jax.lab.training import SCHEDULES, begin, run_interruptibly, seeded, step, tell
from lion_jax.precision.audit import audit_dead_steps

PROBE = 2048
"""The number of examples that the training loss at the end is taken over."""
CURVE_POINTS = 100
"""The most points kept of a run's training loss, each a mean over the steps since the last."""


class Outcome(NamedTuple):
    """The outcome of each run, in arrays of shape (trials, seeds).

    Attributes:
      train_loss: the loss at the end on the training split, or its first 2,048 examples if it has
        more; on a stream's first batch.
      validation: each metric on the validation split.
      test: each metric on the test split.
      diverged: whether a batch's loss was ever not finite, the training loss ended above that of
        the untrained model, or it ended no better than a constant guess (within a thousandth)
        after having doubled.
      dead_in_bfloat16_at_peak: share of the trained weights that, stored in bfloat16, a change by
        the peak learning rate would leave as they are.
      dead_in_bfloat16_at_hundredth: the same for a hundredth of the peak.
      curve: losses of batches over the run, of shape (trials, seeds, points).
    """

    train_loss: np.ndarray
    validation: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    diverged: np.ndarray
    dead_in_bfloat16_at_peak: np.ndarray
    dead_in_bfloat16_at_hundredth: np.ndarray
    curve: np.ndarray


class Timing(NamedTuple):
    """Wall seconds of one rule."""

    compile_seconds: float
    run_seconds: float


class _Listener:
    """The listener of a compiled program, which keeps it; so it must not keep the trainer.

    Else neither would ever be freed, as Python does not see what a program keeps.
    """

    def __init__(self):
        self.on_step: Callable[[int], None] | None = None

    def __call__(self, step: int) -> None:
        if self.on_step is not None:
            self.on_step(step)


def _overall(on_step: Callable[[int], None], before: int, runs: int, step: int) -> None:
    """A listener to one of several runs that counts its steps as part of all of them."""
    on_step((before + step) // runs)


class Trainer:
    """A trainer of a rule on a task, for any trials and seeds, which share a compiled program."""

    def __init__(
        self,
        task: Task,
        rule: Rule,
        *,
        steps: int,
        batch_size: int,
        schedule: str,
        at_once: tuple[int, int] | None = None,
    ):
        """A trainer, which has compiled nothing yet.

        Args:
          task: what is trained on.
          rule: how.
          steps: of a run.
          batch_size: examples in a batch.
          schedule: a name from :data:`~lion_jax.lab.training.SCHEDULES`.
          at_once: the most trials and seeds side by side; None is all, as far as memory
            allows.
        """
        self._task, self._rule, self._steps, self._at_once = task, rule, steps, at_once
        self._batch_size, self._schedule = batch_size, schedule
        self._compiled: dict[tuple[int, int, bool], tuple[Any, int, int]] = {}
        self._listener = _Listener()

    def run(
        self,
        trials: Mapping[str, np.ndarray],
        seeds: np.ndarray,
        on_step: Callable[[int], None] = lambda t: None,
    ) -> tuple[Outcome, Timing]:
        """Trains with every trial and seed.

        A seed decides the initial parameters and the order of the examples, the same for every
        rule and trial.

        Args:
          trials: by argument, values of shape (trials,), the same for all seeds; or of shape
            (trials, seeds), where each seed has values of its own.
          seeds: their numbers, of shape (seeds,).
          on_step: hears now and then how many steps are done, out of a run's.
        """
        values = {name: np.asarray(tried, np.float32) for name, tried in trials.items()}
        count, is_own = len(values["learning_rate"]), values["learning_rate"].ndim == 2
        started = time.perf_counter()
        compiled, at_once, seeds_at_once = self._program(count, len(seeds), is_own)
        compile_seconds = time.perf_counter() - started

        started = time.perf_counter()
        rows, columns = _chunks(count, at_once), _chunks(len(seeds), seeds_at_once)
        runs, parts = len(rows) * len(columns), []
        for i, row in enumerate(rows):
            across = []
            for j, column in enumerate(columns):
                done = i * len(columns) + j
                self._listener.on_step = partial(_overall, on_step, done * self._steps, runs)
                at = np.ix_(row, column) if is_own else row
                some = {name: tried[at] for name, tried in values.items()}
                across.append(run_interruptibly(compiled, some, np.asarray(seeds)[column]))
            parts.append(jax.tree.map(lambda *x: np.concatenate(x, 1)[:, : len(seeds)], *across))
        self._listener.on_step = None
        outcome = jax.tree.map(lambda *x: np.concatenate(x)[:count], *parts)
        return Outcome(**outcome), Timing(compile_seconds, time.perf_counter() - started)

    def _program(self, count: int, seeds: int, is_own: bool) -> tuple[Any, int, int]:
        """A compiled program, with how many trials and seeds it takes at once."""
        most_trials, most_seeds = self._at_once or (count, seeds)
        asked = min(count, most_trials), min(seeds, most_seeds), is_own
        if asked not in self._compiled:
            self._compiled[asked] = self._compile(*asked)
        return self._compiled[asked]

    def _compile(self, count: int, seeds: int, is_own: bool) -> tuple[Any, int, int]:
        compiled, at_once, seeds_at_once = None, 0, 0
        names = ["learning_rate", *self._rule.tuned]
        for at_once, seeds_at_once, examples_at_once in _pieces(count, seeds, self._batch_size):
            shape = (at_once, seeds_at_once) if is_own else (at_once,)
            some = {name: jax.ShapeDtypeStruct(shape, np.float32) for name in names}
            program = _program(
                self._task,
                self._rule,
                SCHEDULES[self._schedule](self._steps),
                self._steps,
                self._batch_size,
                examples_at_once,
                is_own,
                self._listener,
            )
            compiled = jax.jit(program).lower(some, np.arange(seeds_at_once)).compile()
            if memory.fits(compiled):
                break
        return compiled, at_once, seeds_at_once


def train(
    task: Task,
    rule: Rule,
    trials: Mapping[str, np.ndarray],
    *,
    steps: int,
    seeds: int,
    batch_size: int,
    schedule: str,
    on_step: Callable[[int], None],
) -> tuple[Outcome, Timing]:
    """Trains `rule` on `task` with every trial and the first seeds, side by side."""
    trainer = Trainer(task, rule, steps=steps, batch_size=batch_size, schedule=schedule)
    return trainer.run(trials, np.arange(seeds), on_step)


def _chunks(count: int, size: int) -> list[np.ndarray]:
    """Numbers below `count` in chunks of one size; the last repeats some to be as large."""
    return [np.minimum(first + np.arange(size), count - 1) for first in range(0, count, size)]


def _pieces(trials: int, seeds: int, batch_size: int) -> Iterator[tuple[int, int, int | None]]:
    """Trials, seeds and examples to take at once, from all down to a batch of a single run."""
    while True:
        yield trials, seeds, None
        if trials > 1:
            trials = -(-trials // 2)
        elif seeds > 1:
            seeds = -(-seeds // 2)
        else:
            break
    yield 1, 1, batch_size


def _program(
    task: Task,
    rule: Rule,
    shape: optax.Schedule,
    steps: int,
    batch_size: int,
    examples_at_once: int | None,
    is_own: bool,
    on_step: Callable[[int], None],
) -> Callable[[dict[str, jax.Array], jax.Array], dict[str, Any]]:
    """A program from trials and seeds to outcomes: a vmap over both, a scan over steps.

    The trials are of shape (trials, seeds) if each seed has its own, else (trials,).
    """
    task = task.stored_in(rule.params_dtype)
    width = -(-steps // CURVE_POINTS)
    points = -(-steps // width)
    widths = np.minimum(width, steps - width * np.arange(points))

    def transformation(trial):
        peak = trial["learning_rate"]
        return rule.transformation(peak, shape, **{name: trial[name] for name in rule.tuned})

    def start(trial, params, state):
        run = begin(task, rule, transformation(trial), params, state)
        return run, jnp.float32(0.0), jnp.zeros(points)

    def advance(carry, trial, batch, key, point):
        run, worst_loss, curve = carry
        run, loss = step(task, rule, transformation(trial), run, batch, key)
        loss = loss.astype(jnp.float32)
        return run, jnp.maximum(worst_loss, loss), curve.at[point].add(loss)

    def finish(carry, trial, first_loss, probe):
        (params, state, _), worst_loss, curve = carry
        loss = probe_loss(params, state, probe)
        exploded = worst_loss > 2 * first_loss
        peak = trial["learning_rate"]

        def measured(split):
            found = _mean(lambda x: task.measure(params, state, x), split, examples_at_once)
            return jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), found)

        return {
            "train_loss": loss,
            "validation": measured(task.validation),
            "test": measured(task.test),
            "diverged": ~jnp.isfinite(worst_loss)
            | ~(loss <= first_loss)
            | (exploded & (loss > 0.999 * task.guess_loss)),
            "dead_in_bfloat16_at_peak": _dead_in_bfloat16(params, peak),
            "dead_in_bfloat16_at_hundredth": _dead_in_bfloat16(params, peak / 100),
            "curve": curve / widths,
        }

    def probe_loss(params, state, batch):
        def loss(x):
            return task.step(params, state, x, jax.random.key(0))[0]

        split = batch if task.is_stream else jax.tree.map(lambda x: x[:PROBE], task.train)
        return _mean(loss, split, examples_at_once)

    def program(trials, seeds):
        keys = seeded(seeds)
        feed = batches(task, seeds, steps, batch_size)
        params, state = jax.vmap(task.start)(keys.init)
        place = feed.start(keys.order)
        probe = feed.next(place)[1] if task.is_stream else None
        first_losses = jax.vmap(probe_loss)(params, state, probe)

        def scanned(carry, t):
            run, place = carry
            tell(on_step, t + 1, steps)
            place, batch = feed.next(place)
            noise = jax.vmap(lambda key: jax.random.fold_in(key, t))(keys.noise)
            return (advance_all(run, trials, batch, noise, t // width), place), None

        run = start_all(trials, params, state)
        (run, _), _ = jax.lax.scan(scanned, (run, place), jnp.arange(steps))
        # Trial by trial: what a model makes of all examples for all runs at once might not fit.
        return jax.lax.map(lambda x: finish_seeds(x[0], x[1], first_losses, probe), (run, trials))

    # Axis 0 is the trial and axis 1 the seed; None where an argument has no such axis.
    own = 0 if is_own else None
    start_all = jax.vmap(jax.vmap(start, (own, 0, 0)), (0, None, None))
    advance_all = jax.vmap(jax.vmap(advance, (0, own, 0, 0, None)), (0, 0, None, None, None))
    finish_seeds = jax.vmap(finish, (0, own, 0, 0))
    return program


def _mean(function: Callable[[Any], Any], split: Any, size: int | None) -> Any:
    """A mean over the examples of a split: at once, or over batches of a size."""
    split = jax.tree.map(jnp.asarray, split)
    count = len(jax.tree.leaves(split)[0])
    if size is None or size >= count:
        return function(split)
    whole, rest = divmod(count, size)
    stacked = jax.tree.map(lambda x: x[: whole * size].reshape(whole, size, *x.shape[1:]), split)
    total = jax.tree.map(lambda x: x.sum(0) * size, jax.lax.map(function, stacked))
    if rest:
        last = function(jax.tree.map(lambda x: x[whole * size :], split))
        total = jax.tree.map(lambda a, b: a + b * rest, total, last)
    return jax.tree.map(lambda x: x / count, total)


def _dead_in_bfloat16(params: Any, rate: jax.Array) -> jax.Array:
    """The share, over all leaves, of weights that a step of a learning rate would not move."""
    stored = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    shares = jnp.stack(jax.tree.leaves(audit_dead_steps(stored, rate)))
    return jnp.average(shares, weights=jnp.array([p.size for p in jax.tree.leaves(params)]))
