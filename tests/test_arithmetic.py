"""Roots and quotients at 0."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lion_jax._core.arithmetic import inverse, sqrt, sum_of_squares

X = jnp.array([0.0, 1e-30, 0.25, 4.0, jnp.inf])


@pytest.mark.slow
def test_the_root_has_a_derivative_of_0_at_0():
    np.testing.assert_array_equal(sqrt(X), jnp.sqrt(X))
    slopes = jax.vmap(jax.grad(sqrt))(X)
    np.testing.assert_allclose(slopes, [0.0, *jax.vmap(jax.grad(jnp.sqrt))(X[1:])], rtol=1e-6)
    assert jax.grad(jax.grad(sqrt))(0.0) == 0
    np.testing.assert_allclose(jax.grad(jax.grad(sqrt))(4.0), -1 / 32, rtol=1e-6)
    assert np.isnan(jax.grad(sqrt)(-1.0))


def test_the_root_is_one_instruction():
    text = jax.jit(sqrt).lower(jnp.ones(3)).compile().as_text()
    assert text.count(" sqrt(") == 1
    assert " select(" not in text


@pytest.mark.slow
def test_the_root_is_differentiated_in_every_map():
    mesh = jax.make_mesh((8,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = functools.partial(jax.shard_map, mesh=mesh, in_specs=jax.P("i"), out_specs=jax.P("i"))
    x = jnp.arange(8.0)
    expected = jax.vmap(jax.grad(sqrt))(x)
    np.testing.assert_allclose(jax.pmap(jax.grad(sqrt))(x), expected)
    by_shard = jax.jit(sharded(lambda part: jax.vmap(jax.grad(sqrt))(part)))(x)
    np.testing.assert_allclose(by_shard, expected)
    np.testing.assert_allclose(jax.grad(lambda x: jnp.sum(sharded(sqrt)(x)))(x), expected)


@pytest.mark.slow
def test_the_sum_of_squares_has_a_second_derivative_at_0():
    np.testing.assert_array_equal(jax.hessian(sum_of_squares)(jnp.zeros(2)), 2 * np.eye(2))
    assert sum_of_squares(jnp.array([3.0 + 4.0j])) == 25
    assert sum_of_squares(jnp.ones((2, 3)), (1,), keepdims=True).shape == (2, 1)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32, jnp.int32])
def test_an_inverse_never_passes_through_infinity(dtype):
    with jax.debug_infs(True):
        result = inverse(jnp.array([0, 4], dtype), 7.0)
    np.testing.assert_array_equal(result, [7.0, 0.25])
    assert result.dtype == jnp.float32
