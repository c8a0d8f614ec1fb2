"""Tasks for the tests of the lab, which compile in no time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lion_jax import lab
from lion_jax.lab.comparing import run as comparing
from lion_jax.lab.tasks.data import Labelled
from lion_jax.lab.trainer import Outcome, Timing


def clusters(examples, seed):
    """Points around three corners of a triangle."""
    rng = np.random.default_rng(seed)
    y = (np.arange(examples) % 3).astype(np.int32)
    corners = np.array([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]], np.float32)
    noise = rng.standard_normal((examples, 2)).astype(np.float32)
    return Labelled(corners[y] + 0.5 * noise, y)


@pytest.fixture(scope="session")
def task():
    """Three clusters and a linear model."""
    return lab.classification(
        lambda key: {"w": jax.random.normal(key, (2, 3)), "b": jnp.zeros((1, 3))},
        lambda params, x: x @ params["w"] + params["b"],
        lab.Data(clusters(120, seed=0), clusters(60, seed=1), clusters(60, seed=2)),
        name="triangle",
        description="three clusters and a linear model",
    )


@pytest.fixture(scope="session")
def line():
    """Regression without labels: the fewer the loss, the better."""
    x = np.random.default_rng(0).standard_normal((100, 3)).astype(np.float32)
    y = x @ np.array([1.0, -2.0, 3.0], np.float32)

    def loss(w, batch, key):
        del key
        return jnp.mean((batch["x"] @ w - batch["y"]) ** 2)

    data = lab.split({"x": x, "y": y})
    return lab.Task(lambda key: jax.random.normal(key, (3,)), loss, *data, name="line")


@pytest.fixture(scope="session")
def with_state():
    """A line fitted to inputs less their running mean, which the task carries as its state."""
    x = np.random.default_rng(0).standard_normal((100, 3)).astype(np.float32) + 1

    def loss(w, mean, batch, key):
        del key
        x, y = batch
        mean = 0.9 * mean + 0.1 * x.mean(0)
        return jnp.mean(((x - mean[None]) @ w - y) ** 2), mean

    def init(key):
        return jax.random.normal(key, (3,)), jnp.zeros(3)

    data = lab.split((x, x @ np.array([1.0, -2.0, 3.0], np.float32)))
    return lab.Task(init, loss, *data, name="with state", has_state=True)


@pytest.fixture
def instant(monkeypatch):
    """Lets comparisons make up their runs, always alike; the names of the rules that were run."""
    ran = []

    def train(task, rule, trials, *, steps, seeds, on_step, **settings):
        del settings
        ran.append(rule.name)
        on_step(steps // 2)
        shape = len(trials["learning_rate"]), seeds
        figures = np.random.default_rng([*rule.name.encode(), seeds]).random((5, *shape))
        loss, validation, test, *dead = figures.astype(np.float32)
        splits = [dict.fromkeys(task.metrics, x) for x in (validation, test)]
        curve = np.ones((*shape, min(steps, 100)), np.float32)
        return Outcome(loss, *splits, loss > 2, *dead, curve), Timing(1.0, 2.0)

    monkeypatch.setattr(comparing, "train", train)
    return ran
