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
    for index in ("index.json", "keras.json")
    for case in json.loads((FOLDER / index).read_text())
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
    """The recorded learning rate of each update taken, the last one's of those that accumulate."""
    case = CASES[name]
    accum = case.get("accum", 1)
    rates = np.delete(case["lr"], case.get("inf_steps", []))[accum - 1 :: accum]
    return lambda count: jnp.asarray(rates)[count]


def trajectory(name, part=""):
    """What was recorded after each step, by leaf: the parameters, or another part of the run."""
    start = f"{part}/{name}/" if part else f"{name}/"
    with np.load(FOLDER / f"{CASES[name]['peer']}.npz") as file:
        keys = [key for key in file.files if key.startswith(start)]
        return {key.removeprefix(start): file[key] for key in keys}


def inputs(name):
    """The parameters at the start and the gradients of each step, by leaf."""
    recorded, profile = trajectory(name), CASES[name]["profile"]
    with np.load(FOLDER / "inputs.npz") as file:
        params = {k: file[f"{profile}/p0/{k}"].reshape(p[0].shape) for k, p in recorded.items()}
        gradients = {k: file[f"{profile}/g/{k}"].reshape(p.shape) for k, p in recorded.items()}
    for t in CASES[name].get("inf_steps", ()):
        gradients["w"][t, 0, 0] = np.inf
    return params, gradients


def assert_replays(name, make, dtype, **read):
    """The transformation `make()` retraces a recorded run, within the tolerance of the dtype.

    So does what each function of `read` reads in its state: that part of the recording.
    """
    start, gradients = inputs(name)
    recorded, tolerance = trajectory(name), TOLERANCE[np.dtype(dtype)]
    parts = {part: trajectory(name, part) for part in read}
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
            assert all(p.dtype == dtype for p in params.values())
            _assert_close(params, recorded, t, tolerance, name)
            for part, of_state in read.items():
                _assert_close(of_state(state), parts[part], t, tolerance, f"{part} of {name}")


def _assert_close(actual, recorded, t, tolerance, name):
    for leaf, expected in recorded.items():
        np.testing.assert_allclose(
            np.asarray(actual[leaf], np.float64),
            np.asarray(expected[t], np.float64),
            rtol=tolerance,
            atol=tolerance,
            equal_nan=False,
            err_msg=f"{name}: {leaf} after step {t + 1}",
        )
