"""Recorded runs of the Lion family: see tests/reference/README.md."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

FOLDER = Path(__file__).parent / "reference"
CASES = {case["name"]: case for case in json.loads((FOLDER / "family.json").read_text())}
TOLERANCE = {"float64": 1e-9, "float32": 2e-5}
STEPS = 25


def replays(*prefixes):
    """A test case for each recording with one of these prefixes and each dtype it can judge.

    Those of a float64 recording in float32 wait for the run of all tests.
    """
    names = [name for name in CASES if name.startswith(prefixes)]
    assert names, f"no recording named {prefixes}"
    return pytest.mark.parametrize(
        ("name", "dtype"),
        [
            pytest.param(
                name,
                dtype,
                id=f"{name}-{dtype}",
                marks=[] if dtype == CASES[name]["dtype"] else [pytest.mark.slow],
            )
            for name in names
            for dtype in ("float64", "float32")
            if dtype == "float32" or CASES[name]["dtype"] == "float64"
        ],
    )


def recorded(name, part):
    """One part of a recording by leaf: `p0`, `g`, `p`; or its `lr` or `aux/...` as one array."""
    with np.load(FOLDER / "family.npz") as file:
        if f"{name}/{part}" in file:
            return file[f"{name}/{part}"]
        start = f"{name}/{part}/"
        return {k.removeprefix(start): file[k] for k in file.files if k.startswith(start)}


def assert_replays(name, dtype, make, *, names=None, start=None, tolerance=None, skip=()):
    """The rule `make(schedule, kwargs)` retraces a recorded run.

    Args:
      name: of the case.
      dtype: of parameters and gradients.
      make: from the learning rate of each step and the recorded arguments to a transformation.
      names: what the leaves are called here, by their names there.
      start: from the initial state, the parameters and the first rate to another state.
      tolerance: relative and absolute; None is that of the dtype.
      skip: leaves that another rule moves.
    """
    names = {leaf: (names or {}).get(leaf, leaf) for leaf in recorded(name, "p0")}
    tolerance = tolerance or TOLERANCE[dtype]
    gradients, path = recorded(name, "g"), recorded(name, "p")
    with jax.enable_x64(dtype == "float64"):
        params = {names[leaf]: jnp.asarray(p, dtype) for leaf, p in recorded(name, "p0").items()}
        rates = jnp.asarray(recorded(name, "lr"), dtype)
        tx = make(lambda count: rates[count], CASES[name]["kwargs"])
        state = tx.init(params)
        if start is not None:
            state = start(state, params, rates[0])

        @jax.jit
        def step(params, state, gradient):
            updates, state = tx.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        for t in range(STEPS):
            gradient = {names[leaf]: jnp.asarray(g[t], dtype) for leaf, g in gradients.items()}
            params, state = step(params, state, gradient)
            for leaf, expected in path.items():
                if leaf in skip:
                    continue
                actual = params[names[leaf]]
                assert actual.dtype == dtype
                np.testing.assert_allclose(
                    np.asarray(actual, np.float64),
                    np.asarray(expected[t], np.float64),
                    rtol=tolerance,
                    atol=tolerance,
                    equal_nan=False,
                    err_msg=f"{name}: {leaf} after step {t + 1}",
                )
