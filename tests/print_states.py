"""Prints the state of every line of the catalogue: the path, shape and dtype of each leaf.

A redesign that shall not change states prints the same before and after it:

    PYTHONPATH=<checkout>:<checkout>/tests python tests/print_states.py
"""

import jax
import jax.numpy as jnp
from catalogue import CATALOGUE, COMBINATORS

import lion_jax

PARAMS = {
    "matrix": jnp.ones((8, 4), jnp.bfloat16),
    "vector": jnp.ones(4),
    "scalar": jnp.ones(()),
    "absent": None,
    "deeper": (jnp.ones((2, 3, 4), jnp.bfloat16),),
}


def print_states(name, tx):
    """Prints the state at its start and after an update."""
    state = tx.init(PARAMS)
    _, updated = tx.update(PARAMS, state, PARAMS)
    for when, tree in (("start", state), ("after an update", updated)):
        print(f"{name}, {when}: {type(tree).__name__}")
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            print("   ", jax.tree_util.keystr(path), jnp.shape(leaf), jnp.result_type(leaf))


if __name__ == "__main__":
    for entry in CATALOGUE:
        numbers = entry.hyperparameters.items()
        schedules = {name: lambda count, value=value: value for name, value in numbers}
        print_states(entry.name, entry.make())
        print_states(f"{entry.name} scheduled", entry.make(**schedules))
        print_states(f"{entry.name} injected", entry.inject())
    for name, wrap in COMBINATORS.items():
        print_states(f"{name} of lamb", wrap(lion_jax.lamb(1e-2, weight_decay=0.1)))
