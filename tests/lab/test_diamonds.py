"""Prices of diamonds: a real table, standardized by what is trained on."""

import hashlib

import jax
import numpy as np
import pytest

from lion_jax import lab
from lion_jax.lab.tasks.diamonds import diamonds
from lion_jax.lab.tasks.packaged import packaged

pytest.importorskip("plotnine", reason="needs plotnine, from the extra tasks")


@pytest.fixture(scope="module")
def task():
    return diamonds()


def splits(task):
    return task.train, task.validation, task.test


def test_the_table_is_the_one_that_the_docstring_names():
    file = packaged("diamonds", "plotnine", "data/diamonds.csv").read_bytes()
    assert hashlib.sha256(file).hexdigest() in diamonds.__doc__


def test_inputs_and_target_are_standardized_by_the_training_examples(task):
    x, y = task.train
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(axis=0), 1, atol=1e-4)
    np.testing.assert_allclose((y.mean(), y.std()), (0, 1), atol=1e-4)
    for other, target in splits(task)[1:]:
        assert 0 < np.abs(other.mean(axis=0)).max() < 0.1
        assert abs(target.std() - 1) < 0.05


def test_rows_are_those_of_the_table(task):
    """A linear fit finds the weight in carats and the price again, of no broken row."""
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(packaged("diamonds", "plotnine", "data/diamonds.csv"))
    table = table.drop_duplicates()
    sides = table[["x", "y", "z"]]
    table = table[((sides > 0) & (sides < 20)).all(axis=1)]
    rows = np.random.default_rng(0).permutation(len(table))[:14_000]
    ranks = {
        "cut": ["Fair", "Good", "Very Good", "Premium", "Ideal"],
        "color": list("JIHGFED"),
        "clarity": ["I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"],
    }
    for name, grades in ranks.items():
        table[name] = table[name].map(grades.index)
    names = ["carat", "depth", "table", "x", "y", "z", "cut", "color", "clarity"]
    raw = table[names].to_numpy(float)[rows]
    prices = np.log(table["price"].to_numpy(float))[rows]
    x = np.concatenate([split.x for split in splits(task)])
    y = np.concatenate([split.y for split in splits(task)])
    for found, expected in zip((*x.T, y), (*raw.T, prices), strict=True):
        assert np.corrcoef(found, expected)[0, 1] > 1 - 1e-6
    assert len(np.unique(np.column_stack([x, y]), axis=0)) > 13_990


@pytest.mark.slow
def test_the_loss_is_the_metric_and_a_constant_guess_has_one(task):
    params = task.init(jax.random.key(0))
    constant = jax.tree.map(np.zeros_like, params)
    measured = task.measure(constant, (), task.test)
    assert list(measured) == ["mse"]
    assert measured["mse"] == pytest.approx(np.mean(task.test.y**2), rel=1e-5)
    assert measured["mse"] == pytest.approx(task.guess_loss, abs=0.05)
    assert task.loss(params, task.test, None) == task.measure(params, (), task.test)["mse"]


@pytest.mark.slow
def test_sizes_are_units_of_both_hidden_layers():
    params = jax.eval_shape(diamonds(size=2).init, jax.random.key(0))
    shapes = [params[f"Dense_{i}"]["kernel"].shape for i in range(3)]
    assert shapes == [(9, 128), (128, 128), (128, 1)]


@pytest.mark.slow
def test_lion_explains_most_of_the_price(task):
    best = lab.compare(task, ["lion"], steps=200, seeds=2, learning_rates=3).best
    assert best.test < 0.05
