"""The average of the parameters: against a plain loop, and what it does to the parameters."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import plain
import pytest
from trees import assert_close, run, tree

import lion_jax

GRADIENTS = [tree(seed=seed) for seed in range(1, 8)]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("every", [1, 3, 100])
def test_equals_the_plain_object(decay, every):
    rng = np.random.default_rng(0)
    p, gradients = rng.standard_normal(30), rng.standard_normal((8, 30))
    tx = lion_jax.with_parameter_average(optax.sgd(0.1, momentum=0.9), decay, every)
    inner = plain.Average(plain.Momentum(0.1, 0.9), decay, every)
    params, state = jnp.asarray(p), tx.init(jnp.asarray(p))
    np.testing.assert_array_equal(lion_jax.averaged_params(state), p)
    for g in gradients:
        updates, state = tx.update(jnp.asarray(g), state, params)
        params, p = optax.apply_updates(params, updates), inner.step(p, g)
        np.testing.assert_allclose(params, p, rtol=1e-12, atol=1e-14)
        average = lion_jax.averaged_params(state)
        np.testing.assert_allclose(average, inner.average, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_without_an_overwrite_the_updates_are_the_inner_ones():
    inner = lion_jax.lion(1e-2)
    averaged, _ = run(lion_jax.with_parameter_average(inner, 0.9), tree(), GRADIENTS)
    chex.assert_trees_all_equal(averaged, run(inner, tree(), GRADIENTS)[0])


@pytest.mark.sampled
@pytest.mark.parametrize("jit", [True, False], ids=["jit", "eager"])
def test_an_overwrite_makes_parameters_and_average_equal(jit):
    tx = lion_jax.with_parameter_average(lion_jax.lion(1e-2), 0.7, overwrite_every=2)
    for steps in (2, 4):
        params, state = run(tx, tree(), GRADIENTS[:steps], jit=jit)
        chex.assert_trees_all_equal(params, lion_jax.averaged_params(state))


def test_the_average_of_narrow_parameters_is_of_what_is_stored():
    """bfloat16 stays at 1 through steps of 1e-3, and so does its average in float32."""
    tx = lion_jax.with_parameter_average(optax.sgd(1.0), 0.5)
    params, state = run(tx, jnp.ones(3, jnp.bfloat16), [jnp.full(3, 1e-3, jnp.bfloat16)] * 4)
    np.testing.assert_array_equal(params, jnp.ones(3, jnp.bfloat16))
    np.testing.assert_array_equal(lion_jax.averaged_params(state), jnp.ones(3, jnp.float32))
    assert lion_jax.averaged_params(state).dtype == jnp.float32


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("jit", [True, False], ids=["jit", "eager"])
def test_small_narrow_parameters_keep_their_average(dtype, jit):
    """Among them what is subnormal in float16."""
    values = np.random.default_rng(0).standard_normal(1000) * np.logspace(-8, 4, 1000)
    params = jnp.asarray(values, dtype)
    tx = lion_jax.with_parameter_average(optax.set_to_zero(), 0.9, overwrite_every=1)
    after, state = run(tx, params, [params], jit=jit)
    np.testing.assert_array_equal(after, params)
    np.testing.assert_array_equal(lion_jax.averaged_params(state), params)


def test_integers_are_kept_rather_than_averaged():
    params = {"w": jnp.ones(2), "n": jnp.int32(7)}
    gradients = [{"w": jnp.ones(2), "n": jnp.int32(-1)}] * 3
    after, state = run(lion_jax.with_parameter_average(optax.sgd(1), 0.5, 2), params, gradients)
    np.testing.assert_array_equal(lion_jax.averaged_params(state)["n"], after["n"])
    assert after["n"] == 10


def test_the_decay_may_be_scheduled():
    """With 1 - 1/t it is the plain mean of the parameters."""
    tx = lion_jax.with_parameter_average(optax.sgd(1.0), lambda count: 1 - 1 / (count + 1.0))
    _, state = run(tx, jnp.zeros(1), [-jnp.ones(1)] * 4)
    np.testing.assert_allclose(lion_jax.averaged_params(state), [2.5], rtol=1e-6)


def test_is_found_at_any_depth():
    tx = lion_jax.with_finite_guard(
        optax.chain(optax.clip(1.0), lion_jax.with_parameter_average(lion_jax.lion(0.5), 0.5))
    )
    _, state = run(tx, jnp.ones(2), [jnp.ones(2)] * 2)
    assert_close(lion_jax.averaged_params(state), jnp.full(2, 0.25))


@pytest.mark.parametrize(
    ("tx", "count"),
    [
        (lion_jax.lion(1e-3), 0),
        (optax.chain(*[lion_jax.with_parameter_average(lion_jax.lion(1e-3))] * 2), 2),
    ],
    ids=["none", "two"],
)
def test_reading_refuses_a_state_without_one_or_with_several(tx, count):
    with pytest.raises(ValueError, match=rf"one with_parameter_average; found {count} "):
        lion_jax.averaged_params(tx.init(jnp.ones(2)))


@pytest.mark.parametrize("decay", [1.0, -0.1, 2, float("nan")])
def test_refuses_a_decay_out_of_range(decay):
    with pytest.raises(ValueError, match=r"^decay must be in \[0, 1\); got .*Try decay=0\.99\."):
        lion_jax.with_parameter_average(optax.sgd(0.1), decay)


@pytest.mark.parametrize(
    ("every", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)]
)
def test_refuses_an_overwrite_out_of_range(every, error):
    with pytest.raises(error, match=r"^overwrite_every must be an integer >= 1 .*; got"):
        lion_jax.with_parameter_average(optax.sgd(0.1), overwrite_every=every)


def test_refuses_an_update_without_parameters():
    tx = lion_jax.with_parameter_average(optax.sgd(0.1))
    with pytest.raises(ValueError, match="averaging reads the parameters"):
        jax.jit(tx.update)(jnp.ones(2), tx.init(jnp.ones(2)))
