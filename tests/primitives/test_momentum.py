"""Interpolated momentum: its equation, and the sign of it."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

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


def test_equal_rates_make_an_exponential_moving_average():
    ours, theirs = interpolate_momentum(0.8, 0.8), optax.ema(0.8, debias=False)
    p = jnp.zeros(5)
    s, t = ours.init(p), theirs.init(p)
    for k in range(5):
        g = jnp.sin(jnp.arange(5.0) + k)
        (u, s), (v, t) = ours.update(g, s), theirs.update(g, t)
        np.testing.assert_allclose(u, v, rtol=1e-6)


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
        (u, s), (v, t) = ours.update(g, s), theirs.update(g, t)
        np.testing.assert_array_equal(u, v)
        np.testing.assert_array_equal(s.mu, t.mu)


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
