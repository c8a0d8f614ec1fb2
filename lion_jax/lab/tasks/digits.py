"""Handwritten digits and a perceptron: half a minute for four rules."""

from typing import Any

import jax
import numpy as np
import sklearn.datasets

from lion_jax.lab.tasks.classification import classification
from lion_jax.lab.tasks.layers import dense, init_dense
from lion_jax.lab.tasks.stratified import stratified
from lion_jax.lab.tasks.task import Task


def digits(size: int = 1) -> Task:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, and a perceptron of 64 hidden units.

    The digits come with scikit-learn: nothing is downloaded. They are split 60/20/20, always the
    same way and with the classes in proportion.

    Args:
      size: hidden units in units of 64; 1 is 4,810 parameters.
    """
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    x, y = np.asarray(x / 16, np.float32), np.asarray(y, np.int32)
    inputs, width, classes = x.shape[1], 64 * size, 10

    def init(key: jax.Array) -> dict[str, Any]:
        return {  # the last layer has the first name, as when flax made them from outside in
            "Dense_0": init_dense(key, "Dense_0", width, classes),
            "Dense_1": init_dense(key, "Dense_1", inputs, width),
        }

    def logits(params: dict[str, Any], x: jax.Array) -> jax.Array:
        return dense(params["Dense_0"], jax.nn.relu(dense(params["Dense_1"], x)))

    return classification(
        init,
        logits,
        stratified(x, y),
        name="digits",
        description="1,797 handwritten digits of 8x8 pixels (scikit-learn); "
        f"a {inputs}-{width}-{classes} perceptron",
    )
