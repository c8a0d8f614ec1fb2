"""Parameters and gradients for tests, and the loops that run over them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    """A dataclass among the parameters."""

    kernel: Any
    bias: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Matrix:
    """A node that takes nothing but a matrix."""

    w: Any

    def __post_init__(self):
        """Refuses all else, None and scalars included."""
        assert len(self.w.shape) == 2


def tree(dtype: Any = jnp.float32, seed: int = 0) -> dict[str, Any]:
    """A tree with a dataclass, a tuple, None, and leaves of rank 0 to 3, one of them of size 0."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape), dtype)

    return {
        "layer": Layer(normal(4, 3), normal(3)),
        "tuple": (normal(2, 2, 2), None, normal()),
        "zero_size": normal(0, 3),
        "zeros": jnp.zeros(2, dtype),
        "empty": {},
    }


def small(dtype: Any = jnp.float32, seed: int = 0) -> dict[str, Any]:
    """A matrix and a vector: for what is the same in any tree, in half the time to compile."""
    layer = tree(dtype, seed)["layer"]
    return {"kernel": layer.kernel, "bias": layer.bias}


def run(tx, params, gradients, jit=True):
    """Parameters after one update per gradient, and the state."""

    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step) if jit else step
    state = tx.init(params)
    for gradient in gradients:
        params, state = step(params, state, gradient)
    return params, state


def assert_close(actual, expected, rtol=1e-6, atol=1e-7):
    """Two trees agree in structure, and in their leaves up to rounding; NaN never agrees."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, a), e in zip(
        jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(
            np.asarray(a, np.float64),
            np.asarray(e, np.float64),
            rtol=rtol,
            atol=atol,
            equal_nan=False,
            err_msg=jax.tree_util.keystr(path),
        )


def specs(tree):
    """Shape, dtype and weakness of each leaf."""
    return jax.tree.map(lambda x: (x.shape, x.dtype, getattr(x, "weak_type", False)), tree)
