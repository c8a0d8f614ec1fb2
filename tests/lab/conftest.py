"""A task for the tests of the lab."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lion_jax.lab.tasks import Split, Task


def clusters(examples, seed):
    """Points around three corners of a triangle."""
    rng = np.random.default_rng(seed)
    y = (np.arange(examples) % 3).astype(np.int32)
    corners = np.array([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]], np.float32)
    noise = rng.standard_normal((examples, 2)).astype(np.float32)
    return Split(corners[y] + 0.5 * noise, y)


@pytest.fixture(scope="session")
def task():
    """A task that compiles in no time."""
    return Task(
        name="triangle",
        description="three clusters and a linear model",
        init=lambda key: {"w": jax.random.normal(key, (2, 3)), "b": jnp.zeros((1, 3))},
        logits=lambda params, x: x @ params["w"] + params["b"],
        train=clusters(120, seed=0),
        validation=clusters(60, seed=1),
        test=clusters(60, seed=2),
    )
