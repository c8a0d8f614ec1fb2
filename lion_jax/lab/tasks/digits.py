"""Handwritten digits and a perceptron: half a minute for four rules."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import sklearn.datasets
from sklearn.model_selection import train_test_split

from lion_jax.lab.tasks.classification import classification
from lion_jax.lab.tasks.data import Data, Labelled
from lion_jax.lab.tasks.task import Task


class _Perceptron(nn.Module):
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
    model = _Perceptron(width=64, classes=10)
    return classification(
        lambda key: model.init(key, x[:1])["params"],
        lambda params, inputs: jnp.asarray(model.apply({"params": params}, inputs)),
        Data(*(Labelled(x[rows], y[rows]) for rows in (train, validation, test))),
        name="digits",
        description="1,797 handwritten digits of 8x8 pixels (scikit-learn); a 64-64-10 perceptron",
    )
