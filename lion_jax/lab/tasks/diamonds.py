"""The prices of diamonds from a table, and a perceptron."""

import csv

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lion_jax.lab.tasks.data import Data, Labelled
from lion_jax.lab.tasks.packaged import packaged
from lion_jax.lab.tasks.task import Metric, Task

_EXAMPLES = (8_000, 2_000, 4_000)
_GRADES = {
    "cut": ("Fair", "Good", "Very Good", "Premium", "Ideal"),
    "color": tuple("JIHGFED"),
    "clarity": ("I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"),
}
"""The grades, from the worst to the best."""
_DIMENSIONS = ("x", "y", "z")
_NUMBERS = ("carat", "depth", "table", *_DIMENSIONS)


class _Perceptron(nn.Module):
    """Two hidden layers of rectified units, and one output."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(2):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(1)(x)[:, 0]


def diamonds(size: int = 1) -> Task:
    """The logarithm of the price of 14,000 diamonds, and a perceptron of two hidden layers.

    The nine inputs are the weight, six measures, and the grades of cut, colour and clarity as
    ranks. Inputs and target are standardized by the training examples, so a constant guess has a
    mean squared error of about 1. Loss and metric are the mean squared error.

    The table, ggplot2's `diamonds`, comes with plotnine: nothing is downloaded. Of its 53,940 rows,
    repeated ones are there once, and 22 with a dimension of 0 or above 20 mm are left out, which
    are mistakes of the table. 8,000 at random are trained on, 2,000 validate and 4,000 test, always
    the same.

    plotnine and ggplot2 are under the MIT licence. The file ``data/diamonds.csv`` of
    plotnine 0.15.9 has the sha256
    9574730b03aba241d899c4a97511c5061b19358fab89510774fb6c24168345c4.

    Args:
      size: units of each hidden layer in units of 64; 1 is 4,865 parameters.

    Raises:
      RequestError: plotnine is missing.

    References:
      Wickham, `ggplot2: Elegant Graphics for Data Analysis
      <https://ggplot2.tidyverse.org/reference/diamonds.html>`_, 2016.
    """
    inputs, prices = _table()
    order = np.random.default_rng(0).permutation(len(prices))[: sum(_EXAMPLES)]
    train = order[: _EXAMPLES[0]]
    x = _standardized(inputs, train)
    y = _standardized(np.log(prices), train)
    parts = np.split(order, np.cumsum(_EXAMPLES)[:-1])
    data = Data(*(Labelled(x[rows], y[rows]) for rows in parts))
    model = _Perceptron(width=64 * size)

    def mse(params, split):
        return jnp.mean((jnp.asarray(model.apply({"params": params}, split[0])) - split[1]) ** 2)

    def loss(params, batch, key):
        del key
        return mse(params, batch)

    return Task(
        lambda key: model.init(key, x[:1])["params"],
        loss,
        *data,
        metrics={"mse": Metric("down", mse)},
        name="diamonds",
        description="the standardized logarithm of the price of 14,000 diamonds from 9 standardized"
        f" columns (plotnine); a {x.shape[1]}-{model.width}-{model.width}-1 perceptron",
        guess_loss=1.0,
    )


def _table() -> tuple[np.ndarray, np.ndarray]:
    """The inputs, one row for each diamond, and the prices in dollars."""
    with packaged("diamonds", "plotnine", "data/diamonds.csv").open(encoding="utf-8") as file:
        rows = {tuple(row.values()): row for row in csv.DictReader(file)}.values()
    inputs = [
        [float(row[name]) for name in _NUMBERS]
        + [grades.index(row[name]) for name, grades in _GRADES.items()]
        for row in rows
    ]
    inputs, prices = np.array(inputs, float), np.array([float(row["price"]) for row in rows])
    sides = inputs[:, -6:-3]
    is_measured = ((sides > 0) & (sides < 20)).all(axis=1)
    return inputs[is_measured], prices[is_measured]


def _standardized(x: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The columns with mean 0 and standard deviation 1 over the training examples."""
    return ((x - x[train].mean(axis=0)) / x[train].std(axis=0)).astype(np.float32)
