# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy==2.4.6", "torch==2.15.0"]
# ///
"""Record PyTorch's learning-rate schedulers: `uv run tests/reference/record_schedules.py`."""

import importlib.metadata
import json
from pathlib import Path

import numpy as np
import torch
from torch.optim import lr_scheduler

FOLDER = Path(__file__).parent
STEPS, BASE_LR = 60, 0.1


def warmup(epoch):
    """The function of the LambdaLR, which the index calls by its name."""
    return (epoch + 1) / 5 if epoch < 5 else 1


# Scheduler, its arguments, and for those that need one the name of a metric.
CASES = {
    "step": ("StepLR", {"step_size": 10, "gamma": 0.5}),
    "multistep": ("MultiStepLR", {"milestones": [15, 30, 45], "gamma": 0.1}),
    "multistep_repeated": ("MultiStepLR", {"milestones": [30, 0, 10, 30], "gamma": 0.3}),
    "exponential": ("ExponentialLR", {"gamma": 0.95}),
    "cosine": ("CosineAnnealingLR", {"T_max": 60, "eta_min": 1e-4}),
    "cosine_past_tmax": ("CosineAnnealingLR", {"T_max": 25, "eta_min": 1e-3}),
    "onecycle": ("OneCycleLR", {"max_lr": 0.1, "total_steps": 60}),
    "onecycle_linear": (
        "OneCycleLR",
        {
            "max_lr": 0.1,
            "epochs": 6,
            "steps_per_epoch": 10,
            "pct_start": 0.25,
            "anneal_strategy": "linear",
            "div_factor": 10.0,
            "final_div_factor": 100.0,
        },
    ),
    "onecycle_three_phase": (
        "OneCycleLR",
        {"max_lr": 0.1, "total_steps": 60, "three_phase": True, "pct_start": 0.3},
    ),
    "onecycle_fractional": (
        "OneCycleLR",
        {"max_lr": 0.1, "total_steps": 61, "three_phase": True, "pct_start": 0.21},
    ),
    "lambda_warmup": ("LambdaLR", {"lr_lambda": warmup}),
    "plateau": ("ReduceLROnPlateau", {"mode": "min", "factor": 0.1, "patience": 10}, "falling"),
    "plateau_cooldown_minlr": (
        "ReduceLROnPlateau",
        {
            "mode": "min",
            "factor": 0.5,
            "patience": 3,
            "cooldown": 4,
            "min_lr": 0.02,
            "threshold": 0.01,
        },
        "falling",
    ),
    "plateau_eps": ("ReduceLROnPlateau", {"factor": 0.5, "patience": 1, "eps": 0.01}, "falling"),
    "plateau_max_abs": (
        "ReduceLROnPlateau",
        {"mode": "max", "factor": 0.3, "patience": 2, "threshold": 0.01, "threshold_mode": "abs"},
        "rising",
    ),
    "plateau_max_rel": (
        "ReduceLROnPlateau",
        {"mode": "max", "factor": 0.5, "patience": 2, "threshold": 0.05, "cooldown": 1},
        "rising",
    ),
    "plateau_min_abs_nan": (
        "ReduceLROnPlateau",
        {"factor": 0.5, "patience": 2, "threshold": 0.01, "threshold_mode": "abs"},
        "nan",
    ),
    "plateau_patience0": (
        "ReduceLROnPlateau",
        {"mode": "min", "factor": 0.9, "patience": 0},
        "falling",
    ),
}


def metrics():
    """What a plateau is found in, by name.

    A loss that falls, stays about 0.5, falls again and stays. Multiples of 2**-10 are exact in
    float32, and no comparison with them hangs on its rounding.
    """
    noise = 0.002 * np.random.default_rng(0).standard_normal(25)
    falling = np.concatenate(
        [np.linspace(1.0, 0.5, 15), 0.5 + noise, np.linspace(0.45, 0.4, 8), np.full(12, 0.41)]
    )
    falling = np.round(falling * 1024) / 1024
    nan = falling.copy()
    nan[[0, 5, 6, 7, 41]] = np.nan
    return {"falling": falling, "rising": 1 - falling, "nan": nan}


def record(cls, kwargs, metric=None):
    """Before each optimizer step lr and momentum; after the scheduler's step lr again."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=BASE_LR)
    scheduler = getattr(lr_scheduler, cls)(optimizer, **kwargs)
    (group,) = optimizer.param_groups
    lr, momentum, lr_after = [], [], []
    for t in range(STEPS):
        lr.append(group["lr"])
        momentum.append(group["momentum"])
        optimizer.step()
        scheduler.step(*([] if metric is None else [metric[t]]))
        lr_after.append(group["lr"])
    recorded = {"lr": lr}
    if cls == "OneCycleLR":
        recorded["momentum"] = momentum
    if metric is not None:
        recorded |= {"metric": metric, "lr_after": lr_after}
    return {key: np.asarray(values, np.float64) for key, values in recorded.items()}


def main():
    """Write the trajectories and their index."""
    index, arrays, by_name = [], {}, metrics()
    for name, (cls, kwargs, *metric) in CASES.items():
        for key, values in record(cls, kwargs, *(by_name[m] for m in metric)).items():
            arrays[f"{name}/{key}"] = values
        described = {k: v.__name__ if callable(v) else v for k, v in kwargs.items()}
        index.append({"name": name, "cls": cls, "kwargs": described})
    np.savez_compressed(FOLDER / "schedules.npz", **arrays)
    lines = ",\n".join(json.dumps(case) for case in index)
    version = importlib.metadata.version("torch").split("+")[0]
    (FOLDER / "schedules.json").write_text(
        f'{{"version": "{version}", "base_lr": {BASE_LR}, "cases": [\n{lines}\n]}}\n'
    )


if __name__ == "__main__":
    main()
