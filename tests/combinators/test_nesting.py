"""Combinators within combinators: against plain NumPy objects nested the same way."""

import inspect
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import plain
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from trees import assert_close, run, specs, tree

import lion_jax

START = np.array([0.7, -1.3, 0.2, 2.0])
# For each: what wraps a transformation, and what wraps the plain object.
PAIRS = {
    "average": (
        lambda tx: lion_jax.with_parameter_average(tx, 0.75, overwrite_every=3),
        lambda inner: plain.Average(inner, 0.75, 3),
    ),
    "accumulation": (
        lambda tx: lion_jax.with_accumulation(tx, 2),
        lambda inner: plain.Accumulation(inner, 2),
    ),
    "loss_scale": (
        lambda tx: lion_jax.with_loss_scale(tx, lion_jax.DynamicLossScale(2.0, 3)),
        lambda inner: plain.LossScale(inner, 2.0, 3),
    ),
    "guard": (lion_jax.with_finite_guard, plain.Guard),
    "lookahead": (
        lambda tx: lion_jax.lookahead(tx, 2, 0.25),
        lambda inner: plain.Lookahead(inner, START, 2, 0.25),
    ),
    "multi_steps": (
        lambda tx: optax.MultiSteps(tx, 2, accumulator_dtype=float).gradient_transformation(),
        lambda inner: plain.Accumulation(inner, 2),
    ),
}
HAS_DTYPE = "accumulator_dtype" in inspect.signature(optax.MultiSteps).parameters
OURS = [name for name in PAIRS if name != "multi_steps"]
ORDERS = [
    *itertools.permutations(PAIRS, 2),
    ("guard", "loss_scale", "average", "lookahead", "accumulation", "multi_steps"),
    ("loss_scale", "accumulation", "average", "guard", "lookahead"),
    *(pytest.param(order, marks=pytest.mark.slow) for order in itertools.permutations(OURS, 3)),
]


def nested(names):
    """The transformation and the plain object, the last of the names innermost."""
    if "multi_steps" in names and not HAS_DTYPE:
        pytest.skip("the MultiSteps of the installed optax has no accumulator_dtype")
    tx, inner = optax.sgd(0.1, momentum=0.9), plain.Momentum(0.1, 0.9)
    for name in reversed(names):
        wrap, wrap_plain = PAIRS[name]
        tx, inner = wrap(tx), wrap_plain(inner)
    return tx, inner


@pytest.mark.sampled
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("names", ORDERS, ids="-".join)
def test_every_order_equals_the_plain_objects(names):
    """With an infinity and a NaN among the gradients where a guard or a loss scale awaits them."""
    tx, inner = nested(names)
    gradients = np.random.default_rng(0).standard_normal((14, 4))
    # MultiSteps goes on from a mean that is not finite.
    if {"guard", "loss_scale"} & set(names) and names[0] != "multi_steps":
        gradients[4, 1], gradients[9, 3] = np.inf, np.nan
    params, p = jnp.asarray(START), START
    state = tx.init(params)
    before = specs(state)
    update = jax.jit(tx.update)
    for g in gradients:
        updates, state = update(jnp.asarray(g), state, params)
        params, p = optax.apply_updates(params, updates), inner.step(p, g)
        np.testing.assert_allclose(params, p, rtol=1e-12, atol=1e-14)
        assert specs(state) == before
    assert np.all(np.isfinite(p))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)])
def test_a_deep_nest_keeps_shapes_and_dtypes(dtype):
    tx, _ = nested(PAIRS)
    params, state = run(tx, tree(dtype), [tree(dtype, seed=seed) for seed in range(1, 9)])
    assert specs(params) == specs(tree(dtype))
    assert specs(state) == specs(tx.init(tree(dtype)))
    chex.assert_tree_all_finite(params)


@pytest.mark.slow
@pytest.mark.parametrize(
    "axes",
    [
        pytest.param(("data", None), id="rows"),
        pytest.param((None, "data"), id="columns", marks=pytest.mark.slow),
    ],
)
def test_a_deep_nest_keeps_shardings(axes):
    tx, _ = nested(PAIRS)
    params = jnp.sin(jnp.arange(64.0)).reshape(8, 8)
    gradients = [jnp.cos(params * t) for t in range(1, 9)]
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    expected, _ = run(tx, params, gradients)
    actual, state = run(tx, *jax.device_put((params, gradients), sharding))
    assert_close(actual, expected)
    assert all(x.sharding == sharding for x in jax.tree.leaves((actual, state)) if x.ndim == 2)
