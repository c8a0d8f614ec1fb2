"""Sums over a parameter's entries: each backend's form against the others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lion_jax.metrics import _sums


@pytest.mark.sampled
@pytest.mark.parametrize("form", [_sums._each, _sums._of_rows, _sums._at_once])
@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (64,), (3, 512), (2, 3, 96), (5, 101)])
def test_every_form_sums(form, shape):
    terms = [jax.random.normal(jax.random.key(i), shape) for i in range(3)]
    expected = [np.sum(np.asarray(x, np.float64)) for x in terms]
    np.testing.assert_allclose(jax.jit(form)(*terms), expected, rtol=1e-5, atol=1e-5)


def test_a_cpu_counts_past_the_integers_of_float32():
    ones = jnp.ones((2**15, 1024))
    assert jax.jit(_sums._of_rows)(ones, ones)[0] == ones.size


def test_sums_have_derivatives():
    def loss(x):
        squares, sums = _sums.sums_over(x * x, x)
        return squares * sums

    x = jnp.arange(4.0)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(x), 2 * x * 6 + 14)
    np.testing.assert_allclose(jax.jvp(loss, (x,), (x,))[1], 3 * 84)
