"""Recorded runs of the original packages: see tests/reference/README.md."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

FOLDER = Path(__file__).parent / "reference"
CASES = {case["name"]: case for case in json.loads((FOLDER / "index.json").read_text())}
TOLERANCE = {np.dtype("float64"): 1e-9, np.dtype("float32"): 2e-5}


def replays(*prefixes):
    """A test case for each recording with one of these prefixes and each dtype it can judge."""
    cases = [
        pytest.param(name, dtype, id=f"{name}-{np.dtype(dtype).name}")
        for name in CASES
        if name.startswith(prefixes)
        for dtype in ([np.float32] if "_f32" in name else [np.float64, np.float32])
    ]
    assert cases, f"no recording named {prefixes}"
    return pytest.mark.parametrize(("name", "dtype"), cases)


def schedule(name):
    """The recorded learning rates, as a schedule."""
    rates = np.array(CASES[name]["lr"])
    return lambda count: jnp.asarray(rates)[count]


def assert_replays(name, make, dtype):
    """The transformation `make()` retraces a recorded run, within the tolerance of the dtype."""
    with np.load(FOLDER / CASES[name]["file"]) as file:
        arrays = {key: file[key] for key in file.files}
    leaves = [key.removeprefix("p0/") for key in arrays if key.startswith("p0/")]
    with jax.enable_x64(dtype == np.float64):
        params = {leaf: jnp.asarray(arrays[f"p0/{leaf}"], dtype) for leaf in leaves}
        tx = make()
        state = tx.init(params)

        @jax.jit
        def step(params, state, gradient):
            updates, state = tx.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        for t in range(len(CASES[name]["lr"])):
            gradient = {leaf: jnp.asarray(arrays[f"g/{leaf}"][t], dtype) for leaf in leaves}
            params, state = step(params, state, gradient)
            for leaf in leaves:
                expected = arrays[f"p/{leaf}"][t]
                assert params[leaf].dtype == dtype
                np.testing.assert_allclose(
                    np.asarray(params[leaf], np.float64),
                    np.asarray(expected, np.float64),
                    rtol=TOLERANCE[np.dtype(dtype)],
                    atol=TOLERANCE[np.dtype(dtype)],
                    equal_nan=False,
                    err_msg=f"{name}: {leaf} after step {t + 1}",
                )
