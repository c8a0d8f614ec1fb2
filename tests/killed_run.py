"""A training run that resumes from its latest checkpoint, for a test to kill."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lion_jax
from lion_jax import checkpoints

STEPS = 200
TX = lion_jax.with_parameter_average(
    lion_jax.lookahead(lion_jax.lion(1e-2, weight_decay=0.1), sync_period=5), decay=0.9
)


@jax.jit
def train(params, state, t):
    """One step, on the data of step t."""
    inputs, noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), t), (2, 8, 32))
    gradients = jax.grad(lambda p: jnp.mean((jnp.tanh(inputs @ p["w"]) @ p["v"] - noise) ** 2))
    updates, state = TX.update(gradients(params), state, params)
    return optax.apply_updates(params, updates), state


def run(folder, every, result):
    """Trains to the end from wherever it is, and writes the bytes of parameters and state."""
    params = {"w": jnp.ones((32, 64)) / 32, "v": jnp.ones((64, 32)) / 64}
    start, tree = 0, (params, TX.init(params))
    if checkpoints.latest(folder) is not None:
        start, tree = checkpoints.restore(folder, tree)
    for t in range(start, STEPS):
        tree = train(*tree, t)
        if (t + 1) % every == 0:
            checkpoints.save(folder, t + 1, tree)
    Path(result).write_bytes(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(tree)))
