"""Handwritten digits and a perceptron: half a minute for four rules."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import sklearn.datasets

from lion_jax.lab.tasks.classification import classification
from lion_jax.lab.tasks.stratified import stratified
from lion_jax.lab.tasks.task import Task


class _Perceptron(nn.Module):
    """One hidden layer of rectified units."""

    width: int
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(self.classes)(nn.relu(nn.Dense(self.width)(x)))


def digits(size: int = 1) -> Task:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, and a perceptron of 64 hidden units.

    The digits come with scikit-learn: nothing is downloaded. They are split 60/20/20, always the
    same way and with the classes in proportion.

    Args:
      size: hidden units in units of 64; 1 is 4,810 parameters.
    """
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    x, y = np.asarray(x / 16, np.float32), np.asarray(y, np.int32)
    model = _Perceptron(width=64 * size, classes=10)
    return classification(
        lambda key: model.init(key, x[:1])["params"],
        lambda params, inputs: jnp.asarray(model.apply({"params": params}, inputs)),
        stratified(x, y),
        name="digits",
        description="1,797 handwritten digits of 8x8 pixels (scikit-learn); "
        f"a 64-{model.width}-10 perceptron",
    )
