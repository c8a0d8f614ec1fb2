"""The batches of a run: epochs of fresh permutations, or the steps of a stream."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lion_jax.lab.errors import RequestError, check_whole
from lion_jax.lab.tasks.task import Task

BATCH_SIZE = 64
"""The default number of examples in a batch."""


class Epochs(NamedTuple):
    """The place of all seeds in their epochs.

    Attributes:
      keys: one for each seed and epoch.
      orders: of the examples in this epoch and the next, of shape (seeds, 2, examples).
      epoch: the number of the epoch, of shape ().
      done: examples seen in it, of shape ().
    """

    keys: jax.Array
    orders: jax.Array
    epoch: jax.Array
    done: jax.Array


class Batches(NamedTuple):
    """The batches of all seeds.

    Attributes:
      start: `order keys, one for each seed -> place`.
      next: `place -> (place, batch)`, with an axis of seeds in front.
      size: examples in a batch.
    """

    start: Callable[[jax.Array], Any]
    next: Callable[[Any], tuple[Any, Any]]
    size: int


def choose_batch_size(task: Task, batch_size: Any) -> int:
    """The size of a task's batches: the one asked for, else 64, or all examples if there are fewer.

    Raises:
      RequestError: a size that cannot be, or one for a stream, whose batches have their own.
    """
    if task.is_stream:
        if batch_size is not None:
            raise RequestError(
                f"batch_size must be left out: {task.name} is a stream, whose batches have a size "
                f"of their own; got {batch_size}"
            )
        return len(jax.tree.leaves(task.batch())[0])
    examples = task.examples["train"]
    if batch_size is None:
        return min(BATCH_SIZE, examples)
    check_whole("batch_size", batch_size, 1, examples, f"the training split of {task.name}")
    return batch_size


def most_seeds(task: Task, steps: int) -> tuple[int, str]:
    """The largest seed, and why: the steps of a stream's last seed are numbers of 32 bits."""
    if not task.is_stream:
        return 2**31 - 1, "the largest of 32 bits"
    return (2**31 - 1) // steps - 1, "since each takes its own steps of the stream"


def batches(task: Task, seeds: jax.Array, steps: int, size: int) -> Batches:
    """The batches of a task, the same for every rule and learning rate.

    Each epoch is a fresh permutation of the examples. Of a stream, each seed has as many steps of
    its own: seed 2 begins where seed 1 ends.
    """
    if task.is_stream:
        return Batches(lambda keys: seeds * steps, _stream(task.train, task.batch()), size)
    data = jax.tree.map(jnp.asarray, task.train)
    examples = task.examples["train"]
    epochs = -(-steps * size // examples)
    shuffle = jax.vmap(lambda key: jax.random.permutation(key, examples))

    def start(order_keys):
        keys = jax.vmap(lambda key: jax.random.split(key, epochs))(order_keys)
        orders = jnp.stack([shuffle(keys[:, 0]), shuffle(keys[:, 1 % epochs])], 1)
        return Epochs(keys, orders, jnp.int32(0), jnp.int32(0))

    def turn(place):
        following = shuffle(place.keys[:, jnp.minimum(place.epoch + 2, epochs - 1)])
        orders = jnp.stack([place.orders[:, 1], following], 1)
        return Epochs(place.keys, orders, place.epoch + 1, place.done - examples)

    def advance(place):
        both = place.orders.reshape(len(place.orders), -1)
        rows = jax.lax.dynamic_slice_in_dim(both, place.done, size, axis=1)
        place = place._replace(done=place.done + size)
        place = jax.lax.cond(place.done >= examples, turn, lambda same: same, place)
        return place, jax.tree.map(lambda x: x[rows], data)

    return Batches(start, advance, size)


def _stream(stream: Callable[[Any], Any], first: Any) -> Callable[[Any], tuple[Any, Any]]:
    """The next batch of each seed; a function that jax cannot trace runs on the host."""
    traced = stream
    try:
        jax.eval_shape(stream, jnp.int32(0))
    except Exception:  # it runs with a number: Task has tried
        shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, first))

        def on_host(step):
            batch = stream(int(step))
            return jax.tree.map(lambda x, shape: np.asarray(x, shape.dtype), batch, shapes)

        def traced(step, /):
            return jax.pure_callback(on_host, shapes, step, vmap_method="sequential")

    return lambda steps: (steps + 1, jax.vmap(traced)(steps))
