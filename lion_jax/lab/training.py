"""Training every trial and seed of one rule at once, as one compiled program."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lion_jax.lab import memory
from lion_jax.lab.rules.rule import REPLICAS, Rule
from lion_jax.lab.tasks.batches import batches
from lion_jax.lab.tasks.task import Task
from lion_jax.precision.audit import audit_dead_steps

SCHEDULES: dict[str, Callable[[int], optax.Schedule]] = {
    "cosine": lambda steps: optax.warmup_cosine_decay_schedule(
        init_value=0.0, peak_value=1.0, warmup_steps=steps // 20, decay_steps=steps
    ),
    "constant": lambda steps: optax.constant_schedule(1.0),
}
MOST_STEPS = 2**31 - 1
CURVE_POINTS = 100
"""At most so many points of a run's training loss are kept, each a mean over the steps since."""


class Outcome(NamedTuple):
    """The outcome of each run, in arrays of shape (trials, seeds).

    Attributes:
      train_loss: the loss on the whole training split at the end, or on a stream's first batch.
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


class Run(NamedTuple):
    """A run between two steps.

    Attributes:
      params: the parameters.
      state: what the task carries beside them.
      optimizer: the optimizer's state; one for each replica, if there are several.
    """

    params: Any
    state: Any
    optimizer: Any


class Seeds(NamedTuple):
    """The keys of a seed: for initial parameters, the order of the examples, noise in the loss."""

    init: jax.Array
    order: jax.Array
    noise: jax.Array


def seeded(seeds: jax.Array) -> Seeds:
    """The keys of some seeds, the same for every rule, so that runs can be compared by seed."""

    def one(seed):
        key = jax.random.key(seed)
        init, order = jax.random.split(key)
        return Seeds(init, order, jax.random.fold_in(key, 2))

    return jax.vmap(one)(seeds)


def begin(task: Task, rule: Rule, tx: Any, params: Any, state: Any) -> Run:
    """A run before its first step."""
    optimizer = tx.init(params)
    if rule.replicas > 1:
        optimizer = jax.tree.map(lambda s: jnp.stack([s] * rule.replicas), optimizer)
    return Run(params, state, optimizer)


def step(
    task: Task, rule: Rule, tx: Any, run: Run, batch: Any, key: jax.Array
) -> tuple[Run, jax.Array]:
    """One step of a run, and the loss of its batch before it."""

    def update(params, state, optimizer, batch):
        def loss(params):
            return task.step(params, state, batch, key)

        (value, after), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        extra = {"value": value, "grad": gradients, "value_fn": lambda p: loss(p)[0]}
        return value, after, *tx.update(gradients, optimizer, params, **extra)

    params, state, optimizer = run
    if rule.replicas == 1:
        value, state, updates, optimizer = update(params, state, optimizer, batch)
    else:
        shares = jax.tree.map(lambda x: x.reshape(rule.replicas, -1, *x.shape[1:]), batch)
        on_all = jax.vmap(update, (None, None, 0, 0), axis_name=REPLICAS)
        values, _, updates, optimizer = on_all(params, state, optimizer, shares)
        value, updates = values.mean(), jax.tree.map(lambda u: u[0], updates)
    return Run(optax.apply_updates(params, updates), state, optimizer), value


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
    """Trains `rule` on `task` with every trial and seed, side by side as far as memory allows.

    A seed decides the initial parameters and the order of the examples, the same for every rule
    and trial. `on_step` hears now and then how many steps are done.
    """
    values = {name: tried.astype(np.float32) for name, tried in trials.items()}
    count = len(values["learning_rate"])
    started = time.perf_counter()
    shape = SCHEDULES[schedule](steps)
    done, runs = 0, 1

    def on_step_of_piece(t: int) -> None:
        on_step((done * steps + t) // runs)

    pieces = _pieces(count, seeds, batch_size)
    compiled, at_once, seeds_at_once = None, 0, 0
    for at_once, seeds_at_once, examples_at_once in pieces:
        some = {name: tried[:at_once] for name, tried in values.items()}
        program = _program(task, rule, shape, steps, batch_size, examples_at_once, on_step_of_piece)
        compiled = jax.jit(program).lower(some, np.arange(seeds_at_once)).compile()
        if memory.fits(compiled):
            break
    compile_seconds = time.perf_counter() - started

    started = time.perf_counter()
    parts, chunks_of_seeds = [], _chunks(seeds, seeds_at_once)
    runs = len(_chunks(count, at_once)) * len(chunks_of_seeds)
    for rows in _chunks(count, at_once):
        some, across = {name: tried[rows] for name, tried in values.items()}, []
        for numbers in chunks_of_seeds:
            across.append(run_interruptibly(compiled, some, numbers))
            done += 1
        parts.append(jax.tree.map(lambda *x: np.concatenate(x, 1)[:, :seeds], *across))
    outcome = jax.tree.map(lambda *x: np.concatenate(x)[:count], *parts)
    return Outcome(**outcome), Timing(compile_seconds, time.perf_counter() - started)


def _chunks(count: int, size: int) -> list[np.ndarray]:
    """Numbers below `count` in chunks of one size; the last repeats some to be as large."""
    return [np.minimum(first + np.arange(size), count - 1) for first in range(0, count, size)]


def run_interruptibly(compiled: Any, *arguments: Any) -> Any:
    """The results of a compiled program, on the host.

    They run in a thread, since the main thread hears Ctrl-C only between two lines of Python.
    """
    arguments = jax.device_put(arguments)  # here, where a context of x64 is known
    pool = ThreadPoolExecutor(max_workers=1)
    results = pool.submit(lambda: jax.device_get(compiled(*arguments))).result()
    pool.shutdown()
    return results


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
    on_step: Callable[[int], None],
) -> Callable[[dict[str, jax.Array], jax.Array], dict[str, Any]]:
    """A program from trials and seeds to outcomes: a vmap over both, a scan over steps."""
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

        return _mean(loss, batch if task.is_stream else task.train, examples_at_once)

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
    start_all = jax.vmap(jax.vmap(start, (None, 0, 0)), (0, None, None))
    advance_all = jax.vmap(jax.vmap(advance, (0, None, 0, 0, None)), (0, 0, None, None, None))
    finish_seeds = jax.vmap(finish, (0, None, 0, 0))
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


def tell(on_step: Callable[[int], None], done: jax.Array, steps: int) -> None:
    """Tells from within a program how many steps are done: some fifty times, but not at the end."""
    is_due = (done % max(1, steps // 50) == 0) & (done < steps)
    jax.lax.cond(is_due, lambda: jax.debug.callback(lambda t: on_step(int(t)), done), lambda: None)
