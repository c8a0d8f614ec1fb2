"""Recorded runs of PyTorch's learning-rate schedulers: see tests/reference/README.md."""

import json

import numpy as np
from recordings import FOLDER

_INDEX = json.loads((FOLDER / "schedules.json").read_text())
BASE_LR = _INDEX["base_lr"]
CASES = {case["name"]: case for case in _INDEX["cases"]}
TOLERANCE = {np.dtype("float64"): 1e-9, np.dtype("float32"): 1e-6}


def recorded(name):
    """The learning rate in force at each step and what else there is of a run, by its name."""
    with np.load(FOLDER / "schedules.npz") as file:
        keys = [key for key in file.files if key.startswith(f"{name}/")]
        return {key.removeprefix(f"{name}/"): file[key] for key in keys}
