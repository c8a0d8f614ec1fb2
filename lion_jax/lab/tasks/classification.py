"""Tasks of plain functions from inputs to logits."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats

from lion_jax.lab.errors import RequestError
from lion_jax.lab.tasks.data import Data, shown, splits_of
from lion_jax.lab.tasks.task import Metric, Task


def classification(
    init: Callable[[jax.Array], Any],
    logits: Callable[[Any, jax.Array], jax.Array],
    data: Data,
    *,
    name: str = "task",
    description: str = "",
) -> Task:
    """A task of cross-entropy in nats, and accuracy.

    Args:
      init: `key -> params`.
      logits: `(params, x) -> logits` of shape (examples, classes).
      data: splits of inputs and labels, each a pair `(x, y)`, the labels of shape (examples,) and
        an integer dtype.
      name: what tables and pictures call it.
      description: one line on data and model.
    """
    for part in splits_of(data):
        labels = part[1] if isinstance(part, tuple) and len(part) == 2 else np.zeros(())
        if np.ndim(labels) != 1 or not np.issubdtype(np.asarray(labels).dtype, np.integer):
            raise RequestError(
                "each split of a classification must be a pair (x, y), its labels y integers of "
                f"shape (examples,); got {shown(part)}. Try y.argmax(-1).astype(int)"
            )

    def loss(params, batch, key):
        del key
        found = logits(params, batch[0])
        return optax.softmax_cross_entropy_with_integer_labels(found, batch[1]).mean()

    def accuracy(params, split):
        found = logits(params, jnp.asarray(split[0]))
        is_right = jnp.argmax(found, axis=-1) == split[1]
        return jnp.mean(is_right & jnp.isfinite(found).all(axis=-1))  # else the answer is wrong

    return Task(
        init,
        loss,
        *data,
        metrics={"accuracy": Metric("up", accuracy, good_within=0.01)},
        name=name,
        description=description,
        loss_unit="nats",
        guess_loss=float(scipy.stats.entropy(np.bincount(data.train[1]))),
    )
