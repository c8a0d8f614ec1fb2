"""Interpolated momentum: its equation, and the sign of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lion_jax
from lion_jax.primitives import interpolate_momentum, scale_by_sign_momentum


@pytest.mark.usefixtures("x64")
def test_interpolates_with_the_old_momentum_and_then_tracks():
    rng = np.random.default_rng(0)
    tx = interpolate_momentum(0.9, 0.99)
    state, m = tx.init(jnp.zeros(20)), np.zeros(20)
    for g in rng.standard_normal((10, 20)):
        updates, state = tx.update(jnp.asarray(g), state)
        np.testing.assert_allclose(updates, 0.9 * m + (1 - 0.9) * g, rtol=1e-13)
        m = 0.99 * m + (1 - 0.99) * g
        np.testing.assert_allclose(state.mu, m, rtol=1e-13)


@pytest.mark.usefixtures("x64")
def test_equal_rates_make_an_exponential_moving_average():
    ours, theirs = interpolate_momentum(0.8, 0.8), optax.ema(0.8, debias=False)
    p = jnp.zeros(5)
    s, t = ours.init(p), theirs.init(p)
    for k in range(5):
        g = jnp.sin(jnp.arange(5.0) + k)
        (u, s), (v, t) = ours.update(g, s), theirs.update(g, t)
        np.testing.assert_allclose(u, v, rtol=1e-13)


def test_signs_of_zero_and_nan():
    tx = scale_by_sign_momentum()
    updates, _ = tx.update(jnp.array([0.0, -0.0, jnp.nan]), tx.init(jnp.zeros(3)))
    np.testing.assert_array_equal(updates, [0.0, 0.0, jnp.nan])


def test_equals_optax_scale_by_lion_bit_for_bit_in_float32():
    ours, theirs = scale_by_sign_momentum(0.9, 0.99), optax.scale_by_lion(0.9, 0.99)
    rng = np.random.default_rng(0)
    p = jnp.zeros(1000)
    s, t = ours.init(p), theirs.init(p)
    for _ in range(10):
        g = jnp.asarray(rng.standard_normal(1000), jnp.float32)
        (u, s), (v, t) = jax.jit(ours.update)(g, s), jax.jit(theirs.update)(g, t)
        np.testing.assert_array_equal(u, v)
        np.testing.assert_array_equal(s.mu, t.mu)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("b1", "b2"), [(0.9, 0.99), (0.95, 0.98), (0.5, 0.5), (0.3, 0.9)])
def test_the_new_momentum_tells_the_direction_too(b1, b2):
    """Constant rates take that form on CPUs, traced ones the form of the paper."""
    g, mu = np.random.default_rng(0).standard_normal((2, 1000))
    state = interpolate_momentum().init(jnp.zeros(1000))._replace(mu=jnp.asarray(mu))
    direction, _ = interpolate_momentum(b1, b2).update(jnp.asarray(g), state)
    np.testing.assert_allclose(direction, b1 * mu + (1 - b1) * g, rtol=1e-12, atol=1e-15)
    traced = interpolate_momentum(jnp.asarray(b1), jnp.asarray(b2))
    np.testing.assert_allclose(direction, traced.update(jnp.asarray(g), state)[0], rtol=1e-12)


@pytest.mark.parametrize(("b1", "b2"), [(0.9, 0.99), (0.95, 0.98)])
def test_signs_can_be_wrong_only_where_rounding_decides(b1, b2):
    """Both terms of the direction cancel here, up to the seventh digit."""
    rng = np.random.default_rng(0)
    mu = rng.standard_normal(10**6).astype(np.float32)
    offset = 1 + rng.uniform(-1e-6, 1e-6, 10**6)
    g = (-b1 / (1 - b1) * mu * offset).astype(np.float32)
    state = scale_by_sign_momentum().init(jnp.zeros(10**6))._replace(mu=jnp.asarray(mu))
    signs, _ = scale_by_sign_momentum(b1, b2).update(jnp.asarray(g), state)
    terms = b1 * mu.astype(np.float64), (1 - b1) * g.astype(np.float64)
    wrong = np.sign(sum(terms)) != np.asarray(signs)
    assert 0 < wrong.sum() < 0.1 * 10**6
    assert np.all(np.abs(sum(terms))[wrong] <= 2 * 2**-23 * np.abs(terms[0][wrong]))


@pytest.mark.parametrize(("b1", "b2"), [(0.9, 0.0), (0.0, 0.0), (0.9, 0.5), (0.0, 0.9)])
def test_rates_that_only_the_old_momentum_can_serve(b1, b2):
    g, mu = np.float32([[1.0, -2.0, 0.5], [-3.0, 4.0, 0.0]])
    state = interpolate_momentum().init(jnp.zeros(3))._replace(mu=jnp.asarray(mu))
    direction, state = interpolate_momentum(b1, b2).update(jnp.asarray(g), state)
    np.testing.assert_allclose(direction, b1 * mu + (1 - b1) * g, rtol=1e-6)
    np.testing.assert_allclose(state.mu, b2 * mu + (1 - b2) * g, rtol=1e-6)


def lowered_step(tx, size=10**5, dtype=jnp.float32):
    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params = jax.ShapeDtypeStruct((size,), dtype)
    return step.trace(params, tx.init(params), params)


def test_a_step_on_a_cpu_overwrites_the_momentum_without_a_copy():
    def scratch(tx):
        return lowered_step(tx).lower().compile().memory_analysis().temp_size_in_bytes

    assert scratch(lion_jax.lion(1e-3, weight_decay=0.1)) < 1000
    assert scratch(optax.lion(1e-3, weight_decay=0.1)) >= 4 * 10**5  # why there are two forms


def test_accelerators_run_the_form_of_the_paper():
    step = lowered_step(lion_jax.lion(1e-3, 0.9, 0.99))
    ratio = "0.90909"  # b1 / b2
    assert ratio in step.lower(lowering_platforms=("cpu",)).as_text()
    for platform in ("tpu", "cuda"):
        assert ratio not in step.lower(lowering_platforms=(platform,)).as_text()


def test_linear_momentum_takes_complex_leaves():
    tx = interpolate_momentum(0.5, 0.5)
    g = jnp.array([2.0 + 4.0j])
    updates, _ = tx.update(g, tx.init(g))
    np.testing.assert_array_equal(updates, [1.0 + 2.0j])


@pytest.mark.parametrize(
    ("parameter", "gradient", "mu_dtype"),
    [("complex64", "complex64", jnp.bfloat16), ("float32", "complex64", None)],
)
def test_an_imaginary_part_is_never_dropped(parameter, gradient, mu_dtype):
    tx = interpolate_momentum(mu_dtype=mu_dtype)
    state = tx.init(jnp.ones(2, parameter))
    with pytest.raises(TypeError, match="must all be complex; got complex64 where"):
        tx.update(jnp.ones(2, gradient), state, jnp.ones(2, parameter))
