"""Training every learning rate and seed of one rule at once, as one compiled program."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats

from lion_jax.lab.rules import REPLICAS, Rule
from lion_jax.lab.tasks import Task
from lion_jax.precision.audit import audit_dead_steps

SCHEDULES: dict[str, Callable[[int], optax.Schedule]] = {
    "cosine": lambda steps: optax.warmup_cosine_decay_schedule(
        init_value=0.0, peak_value=1.0, warmup_steps=steps // 20, decay_steps=steps
    ),
    "constant": lambda steps: optax.constant_schedule(1.0),
}


class Outcome(NamedTuple):
    """The outcome of each run, in arrays of shape (learning rates, seeds).

    Attributes:
      train_loss: mean cross-entropy on the whole training split at the end, in nats.
      validation_accuracy: share of right answers on the validation split.
      test_accuracy: share of right answers on the test split.
      diverged: whether a batch's loss was ever not finite, the training loss ended above that of
        the untrained model, or it ended no better than a constant guess (within a thousandth)
        after having doubled.
      dead_in_bfloat16_at_peak: share of the trained weights that, stored in bfloat16, a change by
        the peak learning rate would leave as they are.
      dead_in_bfloat16_at_hundredth: the same for a hundredth of the peak.
    """

    train_loss: np.ndarray
    validation_accuracy: np.ndarray
    test_accuracy: np.ndarray
    diverged: np.ndarray
    dead_in_bfloat16_at_peak: np.ndarray
    dead_in_bfloat16_at_hundredth: np.ndarray


class Timing(NamedTuple):
    """Wall seconds of one rule."""

    compile_seconds: float
    run_seconds: float


def train(
    task: Task,
    rule: Rule,
    learning_rates: np.ndarray,
    *,
    steps: int,
    seeds: int,
    batch_size: int,
    schedule: str,
    on_step: Callable[[int], None],
) -> tuple[Outcome, Timing]:
    """Trains `rule` on `task` with every learning rate and seed.

    A seed decides the initial parameters and the order of the examples, the same for every rule
    and learning rate, so that runs can be compared seed by seed. `on_step` hears now and then how
    many steps are done.
    """
    shape = SCHEDULES[schedule](steps)
    program = _program(task, rule, shape, steps, seeds, batch_size, on_step)
    peaks = learning_rates.astype(np.float32)
    started = time.perf_counter()
    compiled = jax.jit(program).lower(peaks).compile()
    compile_seconds = time.perf_counter() - started

    started = time.perf_counter()
    outcome = run_interruptibly(compiled, peaks)
    return Outcome(**outcome), Timing(compile_seconds, time.perf_counter() - started)


def run_interruptibly(compiled: Callable[..., Any], *arguments: Any) -> Any:
    """The results of a compiled program, on the host.

    They run in a thread, since the main thread hears Ctrl-C only between two lines of Python.
    """
    pool = ThreadPoolExecutor(max_workers=1)
    results = pool.submit(lambda: jax.device_get(compiled(*arguments))).result()
    pool.shutdown()
    return results


def _program(
    task: Task,
    rule: Rule,
    shape: optax.Schedule,
    steps: int,
    seeds: int,
    batch_size: int,
    on_step: Callable[[int], None],
) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """A program from peak rates to outcomes: a vmap over rates and seeds, a scan over steps."""
    task = task.stored_in(rule.params_dtype)
    guess_loss = scipy.stats.entropy(np.bincount(task.train.y))
    x, y = jnp.asarray(task.train.x), jnp.asarray(task.train.y)

    def transformation(peak):
        return optax.with_extra_args_support(rule.make(lambda count: peak * shape(count), peak))

    def update(params, state, peak, batch):
        loss, gradients = jax.value_and_grad(task.loss)(params, x[batch], y[batch])
        return loss, *transformation(peak).update(gradients, state, params)

    def update_among_replicas(params, states, peak, batch):
        shares = batch.reshape(rule.replicas, -1)
        on_all = jax.vmap(update, (None, 0, None, 0), axis_name=REPLICAS)
        losses, updates, states = on_all(params, states, peak, shares)
        return losses.mean(), jax.tree.map(lambda u: u[0], updates), states

    def start(peak, params):
        state = transformation(peak).init(params)
        if rule.replicas > 1:
            state = jax.tree.map(lambda s: jnp.stack([s] * rule.replicas), state)
        return params, state, jnp.float32(0.0)

    def step(carry, peak, batch):
        params, state, worst_loss = carry
        step_once = update if rule.replicas == 1 else update_among_replicas
        loss, updates, state = step_once(params, state, peak, batch)
        return optax.apply_updates(params, updates), state, jnp.maximum(worst_loss, loss)

    def finish(carry, peak, first_loss):
        params, _, worst_loss = carry
        loss = task.loss(params, x, y)
        exploded = worst_loss > 2 * first_loss
        return {
            "train_loss": loss,
            "validation_accuracy": task.accuracy(params, task.validation),
            "test_accuracy": task.accuracy(params, task.test),
            "diverged": ~jnp.isfinite(worst_loss)
            | ~(loss <= first_loss)
            | (exploded & (loss > 0.999 * guess_loss)),
            "dead_in_bfloat16_at_peak": _dead_in_bfloat16(params, peak),
            "dead_in_bfloat16_at_hundredth": _dead_in_bfloat16(params, peak / 100),
        }

    def program(peaks):
        keys = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)))(jnp.arange(seeds))
        init_keys, order_keys = keys[:, 0], keys[:, 1]
        batches = jax.vmap(lambda key: batch_indices(key, len(y), steps, batch_size))(order_keys)
        params = jax.vmap(task.init)(init_keys)
        first_losses = jax.vmap(lambda p: task.loss(p, x, y))(params)

        def scanned(carry, t):
            tell(on_step, t + 1, steps)
            return step_all(carry, peaks, batches[:, t]), None

        carry = start_all(peaks, params)
        carry, _ = jax.lax.scan(scanned, carry, jnp.arange(steps))
        # Rate by rate: what a model makes of all examples for all runs at once might not fit.
        return jax.lax.map(lambda run: finish_seeds(run[0], run[1], first_losses), (carry, peaks))

    # Axis 0 is the learning rate and axis 1 the seed; None where an argument has no such axis.
    start_all = jax.vmap(jax.vmap(start, (None, 0)), (0, None))
    step_all = jax.vmap(jax.vmap(step, (0, None, 0)), (0, 0, None))
    finish_seeds = jax.vmap(finish, (0, None, 0))
    return program


def _dead_in_bfloat16(params: Any, rate: jax.Array) -> jax.Array:
    """The share, over all leaves, of weights that a step of a learning rate would not move."""
    stored = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    shares = jnp.stack(jax.tree.leaves(audit_dead_steps(stored, rate)))
    return jnp.average(shares, weights=jnp.array([p.size for p in jax.tree.leaves(params)]))


def tell(on_step: Callable[[int], None], done: jax.Array, steps: int) -> None:
    """Tells from within a program how many steps are done: some fifty times, but not at the end."""
    is_due = (done % max(1, steps // 50) == 0) & (done < steps)
    jax.lax.cond(is_due, lambda: jax.debug.callback(lambda t: on_step(int(t)), done), lambda: None)


def batch_indices(key: jax.Array, examples: int, steps: int, batch_size: int) -> jax.Array:
    """Indices of shape (steps, batch size): each epoch is a fresh permutation of the examples."""
    epochs = -(-steps * batch_size // examples)
    orders = jax.vmap(lambda k: jax.random.permutation(k, examples))(jax.random.split(key, epochs))
    return orders.ravel()[: steps * batch_size].reshape(steps, batch_size)
