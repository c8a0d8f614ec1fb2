"""The layers of the lab have the weights of flax linen, with which its figures were recorded."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lion_jax.lab.tasks.digits import digits
from lion_jax.lab.tasks.text import text


class Perceptron(nn.Module):
    """One hidden layer."""

    width: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.relu(nn.Dense(self.width)(x)))


class CharacterModel(nn.Module):
    """Embeddings and one hidden layer."""

    width: int

    @nn.compact
    def __call__(self, x):
        embedded = nn.Embed(64, 16)(x)
        hidden = nn.tanh(nn.Dense(self.width)(embedded.reshape(len(x), -1)))
        return nn.Dense(64)(hidden)


TASKS = {"digits": (digits, Perceptron, 64), "text": (text, CharacterModel, 128)}


@pytest.mark.sampled
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(("size", "seed"), [(1, 0), (2, 7)])
def test_weights_are_those_of_flax_linen_to_the_bit_and_gradients_agree(name, size, seed):
    make, module, width = TASKS[name]
    task, model, key = make(size), module(width * size), jax.random.key(seed)
    batch = jax.tree.map(lambda x: x[:32], task.train)

    def loss(params):
        logits = jnp.asarray(model.apply({"params": params}, batch.x))
        return -jnp.mean(jax.nn.log_softmax(logits)[np.arange(32), batch.y])

    def of_task(params):
        return task.loss(params, batch, key)

    params, theirs = task.init(key), model.init(key, batch.x[:1])["params"]
    jax.tree.map(np.testing.assert_array_equal, params, theirs)
    found, expected = (jax.jit(jax.grad(f))(params) for f in (of_task, loss))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, expected
    )
