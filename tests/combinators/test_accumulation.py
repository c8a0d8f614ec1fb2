"""Accumulation: the inner rule sees the mean of every k gradients, and nothing in between."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trees import assert_close, run, tree

import lion_jax

GRADIENTS = [tree(seed=seed) for seed in range(1, 10)]


def mean(gradients):
    return jax.tree.map(lambda *g: sum(g) / len(g), *gradients)


@pytest.mark.sampled
@pytest.mark.parametrize("inner", [lion_jax.lion(1e-2), optax.adamw(1e-2)], ids=["lion", "adamw"])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_equals_the_inner_rule_on_means(inner, every):
    steps = len(GRADIENTS) // every
    means = [mean(GRADIENTS[i * every : (i + 1) * every]) for i in range(steps)]
    expected, expected_state = run(inner, tree(), means)
    actual, state = run(
        lion_jax.with_accumulation(inner, every), tree(), GRADIENTS[: steps * every]
    )
    assert_close(actual, expected)
    assert_close(state.inner_state, expected_state)


def test_agrees_with_multi_steps():
    inner = optax.adamw(1e-2)
    theirs = optax.MultiSteps(inner, 3).gradient_transformation()
    ours, _ = run(lion_jax.with_accumulation(inner, 3), tree(), GRADIENTS)
    assert_close(ours, run(theirs, tree(), GRADIENTS)[0])


def test_nothing_moves_in_between():
    tx = lion_jax.with_accumulation(lion_jax.lion(1e-2, weight_decay=0.1), 3)
    params, state = tree(), tx.init(tree())
    for gradient in GRADIENTS[:2]:
        updates, new_state = jax.jit(tx.update)(gradient, state, params)
        chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))
        chex.assert_trees_all_equal(new_state.inner_state, state.inner_state)
        state = new_state


def test_schedules_within_count_steps():
    tx = lion_jax.with_accumulation(optax.sgd(lambda count: jnp.asarray([1.0, 10.0])[count]), 2)
    params, _ = run(tx, jnp.zeros(1), [-jnp.ones(1)] * 4)
    np.testing.assert_array_equal(params, [11.0])


def test_the_sum_of_narrow_gradients_is_in_float32():
    """In bfloat16 each of the small ones would vanish beside the first."""
    gradients = [jnp.ones(1, jnp.bfloat16), *[jnp.full(1, 2.0**-9, jnp.bfloat16)] * 3]
    received = optax.trace(decay=0.0, accumulator_dtype=jnp.float32)
    _, state = run(lion_jax.with_accumulation(received, 4), jnp.ones(1, jnp.bfloat16), gradients)
    np.testing.assert_array_equal(state.inner_state.trace, (1 + 3 * 2.0**-9) / 4)
    assert state.gradient_sum.dtype == jnp.float32


@pytest.mark.usefixtures("x64")
def test_float64_stays_float64():
    gradients = [jnp.ones(1), jnp.full(1, 2.0**-40)]
    params, _ = run(lion_jax.with_accumulation(optax.sgd(1.0), 2), jnp.zeros(1), gradients)
    np.testing.assert_array_equal(params, -(1 + 2.0**-40) / 2)


@pytest.mark.slow
def test_runs_in_a_scan():
    tx = lion_jax.with_accumulation(optax.adamw(1e-2), 3)

    def step(carry, gradient):
        params, state = carry
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    stacked = jax.tree.map(lambda *g: jnp.stack(g), *GRADIENTS)
    (params, _), _ = jax.jit(lambda *c: jax.lax.scan(step, c, stacked))(tree(), tx.init(tree()))
    assert_close(params, run(tx, tree(), GRADIENTS)[0])


@pytest.mark.parametrize(
    ("every", "error"), [(0, ValueError), (-3, ValueError), (1.5, TypeError), (None, TypeError)]
)
def test_refuses_an_accumulation_of_no_steps(every, error):
    with pytest.raises(error, match=r"^every must be an integer >= 1 .*; got .*\. Try every=4\."):
        lion_jax.with_accumulation(optax.sgd(0.1), every)


def test_a_gradient_per_example_is_refused():
    """Its sum would be of another shape, and no longer of examples whose norm is bounded."""
    private = optax.contrib.differentially_private_aggregate(1.0, 0.0, jax.random.key(0))
    params = {"w": jnp.zeros(3)}
    tx = lion_jax.with_accumulation(private, 2)
    state = tx.init(params)
    message = r"^gradients must have .*got \(4, 3\) for \(3,\) at \['w'\]\. Try"
    for arguments in ((params,), ()):
        with pytest.raises(ValueError, match=message):
            tx.update({"w": jnp.ones((4, 3))}, state, *arguments)


def test_python_numbers_are_parameters():
    tx, params = lion_jax.with_accumulation(optax.sgd(0.5), 2), {"a": 1.0, "b": 2.0}
    state = tx.init(params)
    for gradients in ({"a": 1.0, "b": -1.0}, {"a": 3.0, "b": 1.0}):
        updates, state = tx.update(gradients, state, params)
    assert jax.tree.map(float, updates) == {"a": -1.0, "b": 0.0}


@pytest.mark.slow
def test_every_may_be_an_array():
    def last(every):
        tx = lion_jax.with_accumulation(optax.sgd(1.0), every)
        state = tx.init(jnp.zeros(2))
        for gradient in (1.0, 2.0, 6.0):
            updates, state = tx.update(jnp.full(2, gradient), state, jnp.zeros(2))
        return updates[0]

    expected = [last(every) for every in (1, 2, 3)]
    assert [float(last(jnp.int32(every))) for every in (1, 2, 3)] == expected
    np.testing.assert_allclose(jax.vmap(last)(jnp.arange(1, 4)), expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("every", [2, np.int64(2), jnp.int32(2)], ids=str)
def test_strict_promotion_changes_nothing(dtype, every):
    tx, gradient = lion_jax.with_accumulation(optax.sgd(1.0), every), jnp.ones(2, dtype)
    with jax.numpy_dtype_promotion("strict"):
        _, state = tx.update(gradient, tx.init(gradient), gradient)
        updates, state = jax.jit(tx.update)(gradient, state, gradient)
    np.testing.assert_array_equal(np.asarray(updates, np.float32), [-1.0, -1.0])


def test_integers_have_no_sum():
    params = {"w": jnp.ones(2), "rows": jnp.array([1, 2])}
    gradients = jax.grad(lambda p: jnp.sum(p["w"] * p["rows"]), allow_int=True)(params)
    tx = lion_jax.with_accumulation(lion_jax.groups.freeze(optax.sgd(0.5), "rows"), 2)
    state = tx.init(params)
    assert state.gradient_sum["rows"] is None
    for _ in range(2):
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(params["rows"], [1, 2])
    np.testing.assert_allclose(params["w"], [0.5, 0.0])
