"""Recorded runs of the original packages: see tests/reference/README.md."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

FOLDER = Path(__file__).parent / "reference"
STEPS = 25
RATES = {"const": np.ones(STEPS), "decay": 0.93 ** np.arange(STEPS)}
CASES = {
    case["name"]: case | {"lr": (case["base_lr"] * RATES[case["sched"]]).tolist()}
    for case in json.loads((FOLDER / "index.json").read_text())
}
TOLERANCE = {np.dtype("float64"): 1e-9, np.dtype("float32"): 2e-5}


def replays(*prefixes, slow=()):
    """A test case for each recording with one of these prefixes and each dtype it can judge.

    Those in a dtype among `slow` wait for the run of all tests.
    """
    cases = [
        pytest.param(
            name,
            dtype,
            id=f"{name}-{np.dtype(dtype).name}",
            marks=[pytest.mark.slow] if dtype in slow and "_f32" not in name else [],
        )
        for name in CASES
        if name.startswith(prefixes)
        for dtype in ([np.float32] if "_f32" in name else [np.float64, np.float32])
    ]
    assert cases, f"no recording named {prefixes}"
    return pytest.mark.parametrize(("name", "dtype"), cases)


def schedule(name):
    """The recorded learning rate of each update, the last one's of those that accumulate."""
    accum = CASES[name].get("accum", 1)
    rates = np.array(CASES[name]["lr"][accum - 1 :: accum])
    return lambda count: jnp.asarray(rates)[count]


def trajectory(name):
    """The recorded parameters after each step, by leaf."""
    with np.load(FOLDER / f"{CASES[name]['peer']}.npz") as file:
        keys = [key for key in file.files if key.startswith(f"{name}/")]
        return {key.removeprefix(f"{name}/"): file[key] for key in keys}


def inputs(name):
    """The parameters at the start and the gradients of each step, by leaf."""
    recorded, profile = trajectory(name), CASES[name]["profile"]
    with np.load(FOLDER / "inputs.npz") as file:
        params = {k: file[f"{profile}/p0/{k}"].reshape(p[0].shape) for k, p in recorded.items()}
        gradients = {k: file[f"{profile}/g/{k}"].reshape(p.shape) for k, p in recorded.items()}
    return params, gradients


def assert_replays(name, make, dtype):
    """The transformation `make()` retraces a recorded run, within the tolerance of the dtype."""
    start, gradients = inputs(name)
    recorded, tolerance = trajectory(name), TOLERANCE[np.dtype(dtype)]
    with jax.enable_x64(dtype == np.float64):
        params = {leaf: jnp.asarray(p, dtype) for leaf, p in start.items()}
        tx = make()
        state = tx.init(params)

        @jax.jit
        def step(params, state, gradient):
            updates, state = tx.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        for t in range(STEPS):
            gradient = {leaf: jnp.asarray(g[t], dtype) for leaf, g in gradients.items()}
            params, state = step(params, state, gradient)
            for leaf, expected in recorded.items():
                assert params[leaf].dtype == dtype
                np.testing.assert_allclose(
                    np.asarray(params[leaf], np.float64),
                    np.asarray(expected[t], np.float64),
                    rtol=tolerance,
                    atol=tolerance,
                    equal_nan=False,
                    err_msg=f"{name}: {leaf} after step {t + 1}",
                )
