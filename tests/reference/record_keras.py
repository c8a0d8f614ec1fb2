# /// script
# requires-python = ">=3.11"
# dependencies = ["jax==0.10.2", "keras==3.15.1", "numpy==2.4.6"]
# ///
"""Record runs of Keras's Lion: `uv run tests/reference/record_keras.py`, after `record.py`."""

import dataclasses
import json
import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
import numpy as np

FOLDER = Path(__file__).parent
STEPS = 25
BASE_LR = 0.01
RATES = {"const": np.ones(STEPS), "decay": 0.93 ** np.arange(STEPS)}


@dataclasses.dataclass(frozen=True)
class Run:
    """How Lion was called, and the profiles and schedules it was run on."""

    kwargs: dict
    runs: tuple[str, ...] = ("normal_decay", "edge_const")
    keras_schedule: dict | None = None  # arguments of an ExponentialDecay in the place of the rate
    loss_scale_optimizer: dict | None = None
    inf_steps: tuple[int, ...] = ()


NORMAL = ("normal_decay",)
EMA = {"use_ema": True, "ema_momentum": 0.9}
RUNS = {
    "keras_lion": Run({"beta_1": 0.9, "beta_2": 0.99}),
    "keras_lion_f32": Run({"beta_1": 0.9, "weight_decay": 0.1}),
    "keras_lion_wd": Run({"weight_decay": 0.1}),
    "keras_lion_clipnorm": Run({"clipnorm": 0.7}),
    "keras_lion_clipvalue": Run({"clipvalue": 0.3}),
    "keras_lion_global_clipnorm": Run({"global_clipnorm": 1.0}),
    "keras_lion_ema": Run(EMA, NORMAL),
    "keras_lion_ema_overwrite": Run(EMA | {"ema_overwrite_frequency": 5}),
    "keras_lion_wd_clip_ema": Run(
        {
            "weight_decay": 0.1,
            "clipnorm": 0.5,
            "use_ema": True,
            "ema_momentum": 0.95,
            "ema_overwrite_frequency": 7,
        }
    ),
    "keras_lion_accum": Run({"gradient_accumulation_steps": 3, "weight_decay": 0.1}),
    "keras_lion_accum_clipnorm": Run({"gradient_accumulation_steps": 2, "clipnorm": 0.5}, NORMAL),
    "keras_lion_accum_schedule": Run(
        {"gradient_accumulation_steps": 3, "weight_decay": 0.1},
        ("normal_const",),
        keras_schedule={"decay_steps": 5, "decay_rate": 0.5},
    ),
    "keras_lion_accum_ema_overwrite": Run(
        EMA | {"gradient_accumulation_steps": 3, "ema_overwrite_frequency": 2}, NORMAL
    ),
    "keras_lion_loss_scale": Run({"loss_scale_factor": 1024.0, "clipvalue": 0.001}, NORMAL),
    "keras_lion_loss_scale_optimizer": Run(
        {"weight_decay": 0.1},
        NORMAL,
        loss_scale_optimizer={"initial_scale": 16.0, "dynamic_growth_steps": 4},
        inf_steps=(6, 13),
    ),
}


def inputs(run, profile):
    """The parameters at the start and the gradients of each step: those of the other peers."""
    with np.load(FOLDER / "inputs.npz") as file:
        start = f"{profile}/p0/"
        leaves = [key.removeprefix(start) for key in file.files if key.startswith(start)]
        leaves.remove("frozen")  # for one run of Scout
        p0 = {leaf: file[start + leaf] for leaf in leaves}
        g = {leaf: file[f"{profile}/g/{leaf}"] for leaf in leaves}
    g["w"][list(run.inf_steps), 0, 0] = np.inf
    return p0, g


def build(run, variables):
    """Lion, and the optimizer that applies gradients: Lion itself or what is around it."""
    rate = BASE_LR
    if run.keras_schedule:
        rate = keras.optimizers.schedules.ExponentialDecay(BASE_LR, **run.keras_schedule)
    lion = optimizer = keras.optimizers.Lion(rate, **run.kwargs)
    if run.loss_scale_optimizer:
        optimizer = keras.optimizers.LossScaleOptimizer(lion, **run.loss_scale_optimizer)
    optimizer.build(variables)
    return lion, optimizer


def record(case, run, p0, g, sched, dtype):
    """Parameters, averages and loss scale after each step, and the finalized parameters."""
    keras.config.set_floatx(dtype)
    variables = [keras.Variable(p.astype(dtype)) for p in p0.values()]
    lion, optimizer = build(run, variables)
    kept = {f"{case}/{leaf}": v for leaf, v in zip(p0, variables, strict=True)}
    if lion.use_ema:
        averages = lion._model_variables_moving_average
        kept |= {f"ema/{case}/{leaf}": v for leaf, v in zip(p0, averages, strict=True)}
    if run.loss_scale_optimizer:
        kept[f"scale/{case}/dynamic_scale"] = optimizer.dynamic_scale
    recorded = {key: [] for key in kept}
    apply = jax.jit(optimizer.stateless_apply)  # as `fit` does
    for t, relative_rate in enumerate(RATES[sched]):
        if not run.keras_schedule:
            optimizer.learning_rate = BASE_LR * relative_rate
        new_params, new_state = apply(
            [v.value for v in optimizer.variables],
            [gradient[t].astype(dtype) for gradient in g.values()],
            [v.value for v in variables],
        )
        for v, value in zip(variables, new_params, strict=True):
            v.assign(value)
        for v, value in zip(optimizer.variables, new_state, strict=True):
            v.assign(value)
        for key, v in kept.items():
            recorded[key].append(v.numpy())
    if lion.use_ema:
        optimizer.finalize_variable_values(variables)
        for leaf, v in zip(p0, variables, strict=True):
            recorded[f"finalized/{case}/{leaf}"] = v.numpy()
    return {key: np.asarray(steps) for key, steps in recorded.items()}


def checked(case, run, p0, g, sched):
    """A case's recording, once nothing in it hangs on the rounding of float32."""
    with jax.enable_x64(False):
        narrow = record(case, run, p0, g, sched, "float32")
    with jax.enable_x64(True):
        wide = record(case, run, p0, g, sched, "float64")
    for key, expected in wide.items():  # four times closer than the tests ask
        assert np.all(np.isfinite(expected)), key
        np.testing.assert_allclose(narrow[key], expected, rtol=5e-6, atol=5e-6, err_msg=key)
    return narrow if "_f32" in case else wide


def entry(case, run, profile, sched):
    """A case's line in the index."""
    optional = ("keras_schedule", "loss_scale_optimizer", "inf_steps")
    return {
        "name": case,
        "peer": "keras",
        "version": keras.__version__,
        "cls": "keras.optimizers.Lion",
        "kwargs": run.kwargs,
        **{key: getattr(run, key) for key in optional if getattr(run, key)},
        "base_lr": BASE_LR,
        "sched": sched,
        "profile": profile,
    }


def main():
    """Write the recordings and their index."""
    index, arrays = [], {}
    for name, run in RUNS.items():
        for suffix in run.runs:
            profile, sched = suffix.rsplit("_", 1)
            case = f"{name}__{suffix}"
            index.append(entry(case, run, profile, sched))
            arrays |= checked(case, run, *inputs(run, profile), sched)
    np.savez_compressed(FOLDER / "keras.npz", **arrays)
    lines = sorted(json.dumps(case) for case in index)  # each begins with its name
    (FOLDER / "keras.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
