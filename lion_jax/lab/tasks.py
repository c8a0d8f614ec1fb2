"""Tasks to compare rules on: real data, a small model, three splits that never mix."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import sklearn.datasets
from sklearn.model_selection import train_test_split


class Split(NamedTuple):
    """Examples and their labels.

    Attributes:
      x: inputs of shape (examples, ...), float32.
      y: labels of shape (examples,), int32.
    """

    x: np.ndarray
    y: np.ndarray


@dataclasses.dataclass(frozen=True)
class Task:
    """A classification task: a model, and data in three splits.

    Attributes:
      name: what the command line calls it.
      description: one line on data and model.
      init: `key -> params`, the model's fresh parameters.
      logits: `(params, x) -> logits` of shape (examples, classes).
      train: the split that is trained on.
      validation: the split that chooses the learning rate.
      test: the split that the reported figure comes from.
    """

    name: str
    description: str
    init: Callable[[jax.Array], Any]
    logits: Callable[[Any, jax.Array], jax.Array]
    train: Split
    validation: Split
    test: Split

    def loss(self, params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        """Mean cross-entropy in nats, of shape ()."""
        logits = self.logits(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def accuracy(self, params: Any, split: Split) -> jax.Array:
        """Share of right answers in [0, 1], of shape (); logits that are not finite are wrong."""
        logits = self.logits(params, jnp.asarray(split.x))
        is_right = jnp.argmax(logits, axis=-1) == split.y
        return jnp.mean(is_right & jnp.isfinite(logits).all(axis=-1))


class _MLP(nn.Module):
    """One hidden layer of rectified units."""

    width: int
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(self.classes)(nn.relu(nn.Dense(self.width)(x)))


def digits() -> Task:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, and a perceptron of 64 hidden units.

    The digits come with scikit-learn: nothing is downloaded. They are split 60/20/20, always the
    same way and with the classes in proportion.
    """
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    x, y = np.asarray(x / 16, np.float32), np.asarray(y, np.int32)
    everything = np.arange(len(y))
    train, rest = train_test_split(everything, test_size=0.4, stratify=y, random_state=0)
    validation, test = train_test_split(rest, test_size=0.5, stratify=y[rest], random_state=0)
    model = _MLP(width=64, classes=10)
    return Task(
        name="digits",
        description="1,797 handwritten digits of 8x8 pixels (scikit-learn); a 64-64-10 perceptron",
        init=lambda key: model.init(key, x[:1])["params"],
        logits=lambda params, inputs: jnp.asarray(model.apply({"params": params}, inputs)),
        train=Split(x[train], y[train]),
        validation=Split(x[validation], y[validation]),
        test=Split(x[test], y[test]),
    )


TASKS: dict[str, Callable[[], Task]] = {"digits": digits}
