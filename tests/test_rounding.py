"""Rounding to a narrow dtype without a cast that a compiler could drop."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from lion_jax._core.dtypes import round_to

NARROW = [
    *("float16", "bfloat16", "float4_e2m1fn", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
]


def decisive(dtype):
    """All its numbers, the middles between them, what is beyond, and the float32 next to each."""
    bits = 8 * dtype.itemsize
    codes = np.arange(2 ** min(bits, 4 if "float4" in dtype.name else 16), dtype=f"uint{bits}")
    values = codes.view(dtype).astype(np.float32)
    finite = np.sort(values[np.isfinite(values)])
    beyond = finite[-1] * np.array([1.01, 1.05, 1.2, 2, 16], np.float32)
    special = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-30, -1e-30], np.float32)
    middles = finite[1:] / 2 + finite[:-1] / 2
    x = np.concatenate([values, middles, beyond, -beyond, special])
    up, down = (np.nextafter(x, np.float32(to)) for to in (np.inf, -np.inf))
    return np.concatenate([x, up, down])


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("name", NARROW)
def test_rounds_as_a_cast_there_and_back_does(name):
    dtype = jnp.dtype(getattr(ml_dtypes, name, name))
    x = decisive(dtype)
    expected = x.astype(dtype).astype(np.float32)  # XLA's older casts err on CPUs
    rounded = jax.jit(round_to, static_argnums=1)(jnp.asarray(x), dtype)
    np.testing.assert_array_equal(rounded, expected)
    is_number = ~np.isnan(expected)  # a NaN has no sign to keep
    np.testing.assert_array_equal(np.signbit(rounded)[is_number], np.signbit(expected)[is_number])


@pytest.mark.sampled
@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name", [name for name in NARROW if "float8_e" in name and "e8m0" not in name]
)
def test_rounds_float64_as_a_cast_does(name):
    dtype = jnp.dtype(getattr(ml_dtypes, name))
    x = decisive(dtype).astype(np.float64)
    expected = x.astype(dtype).astype(np.float64)
    np.testing.assert_array_equal(round_to(jnp.asarray(x), dtype), expected)
