"""A training run: its seeds, its schedule, its steps; and running a compiled one."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax.lab.rules.rule import REPLICAS, Rule
from lion_jax.lab.tasks.task import Task

SCHEDULES: dict[str, Callable[[int], optax.Schedule]] = {
    "cosine": lambda steps: optax.warmup_cosine_decay_schedule(
        init_value=0.0, peak_value=1.0, warmup_steps=steps // 20, decay_steps=steps
    ),
    "constant": lambda steps: optax.constant_schedule(1.0),
}
MOST_STEPS = 2**31 - 1


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


def run_interruptibly(compiled: Any, *arguments: Any) -> Any:
    """The results of a compiled program, on the host.

    They run in a thread, since the main thread hears Ctrl-C only between two lines of Python.
    """
    arguments = jax.device_put(arguments)  # here, where a context of x64 is known
    pool = ThreadPoolExecutor(max_workers=1)
    results = pool.submit(lambda: jax.device_get(compiled(*arguments))).result()
    pool.shutdown()
    return results


def tell(on_step: Callable[[int], None], done: jax.Array, steps: int) -> None:
    """Tells from within a program how many steps are done: some fifty times, but not at the end."""
    is_due = (done % max(1, steps // 50) == 0) & (done < steps)
    jax.lax.cond(is_due, lambda: jax.debug.callback(lambda t: on_step(int(t)), done), lambda: None)
