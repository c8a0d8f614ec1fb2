"""A run, said plainly: the order of its examples, and one step after the other."""

import jax
import numpy as np
import optax

from lion_jax.lab import training


class Schedule:
    """A schedule with a peak."""

    def __init__(self, peak, shape):
        self.peak, self.shape = peak, shape

    def __call__(self, count):
        return self.peak * self.shape(count)


def batch_indices(key, examples, steps, batch_size):
    """Indices of shape (steps, batch size): each epoch is a fresh permutation of the examples."""
    epochs = -(-steps * batch_size // examples)
    orders = jax.vmap(lambda k: jax.random.permutation(k, examples))(jax.random.split(key, epochs))
    return np.asarray(orders).ravel()[: steps * batch_size].reshape(steps, batch_size)


def rows_of(seed, examples, steps, batch_size):
    """The rows of a seed's batches."""
    _, order_key = jax.random.split(jax.random.key(seed))
    return batch_indices(order_key, examples, steps, batch_size)


def batches_of(task, seed, steps, batch_size):
    """The batches of a seed."""
    rows = rows_of(seed, task.examples["train"], steps, batch_size)
    return [jax.tree.map(lambda x, batch=batch: x[batch], task.train) for batch in rows]


def run(task, rule, rate, seed, batches, schedule="constant", **tuned):
    """The parameters, the state and the losses of a run, alone and step by step."""
    start, advance = _steps(task, rule, len(batches), schedule)
    key, trial = jax.random.key(seed), {"learning_rate": rate, **tuned}
    noise, losses = jax.random.fold_in(key, 2), []
    place = start(trial, jax.random.split(key)[0])
    for step, batch in enumerate(batches):
        place, loss = advance(trial, place, batch, jax.random.fold_in(noise, step))
        losses.append(float(loss))
    params, state, _ = place
    return params, state, losses


_COMPILED = {}


def _steps(task, rule, steps, schedule):
    """The start of a run, and its steps."""
    shape, asked = training.SCHEDULES[schedule](steps), (id(task), id(rule), steps, schedule)

    def transformation(trial):
        tuned = {name: value for name, value in trial.items() if name != "learning_rate"}
        tx = rule.make(Schedule(trial["learning_rate"], shape), **rule.fixed, **tuned)
        return optax.with_extra_args_support(tx)

    def start(trial, key):
        params, state = task.init(key) if task.has_state else (task.init(key), None)
        return params, state, transformation(trial).init(params)

    def advance(trial, place, batch, key):
        params, state, optimizer = place

        def loss(params):
            if task.has_state:
                return task.loss(params, state, batch, key)
            return task.loss(params, batch, key), None

        (value, state_after), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, optimizer = transformation(trial).update(gradient, optimizer, params, value=value)
        return (optax.apply_updates(params, updates), state_after, optimizer), value

    if asked not in _COMPILED:  # beside what was asked for, whose ids none other has then
        _COMPILED[asked] = jax.jit(start), jax.jit(advance), task, rule
    return _COMPILED[asked][:2]
