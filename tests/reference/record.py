# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "adamp==0.3.0",
#   "lion-pytorch==0.2.5",
#   "llm-foundry==0.22.0",
#   "numpy==2.4.6",
#   "pylocron==0.3.0",
#   "pytorch_optimizer==4.1.0",
#   "torch==2.15.0",
#   "zetascale==2.8.8",
# ]
#
# # One file of each of these two is used, and it needs PyTorch alone.
# [[tool.uv.dependency-metadata]]
# name = "llm-foundry"
# version = "0.22.0"
# requires-dist = []
#
# [[tool.uv.dependency-metadata]]
# name = "zetascale"
# version = "2.8.8"
# requires-dist = []
# ///
"""Record runs of the original optimizers: `uv run tests/reference/record.py`."""

import dataclasses
import importlib.metadata
import importlib.util
import json
import logging
import sys
import types
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent
STEPS = 25
DECAY = 0.93
# Seeds for which nothing hangs on the rounding of float32: `main` checks it.
SEEDS = {
    "normal": 0,
    "edge": 57,
    "tiny": 2,
    "huge": 3,
    "pos": 4,
    "ortho_channel": 5,
    "ortho_layer": 6,
}
# Shape, standard deviation of the start and of the gradients.
LEAVES = {
    "w": ((5, 3), 0.5, 1.0),
    "b": ((3,), 0.4, 0.5),
    "conv": ((2, 2, 2, 3), 1.5, 0.2),
    "scalar": ((), 1.0, 1.0),
    "zero": ((4,), 0.0, 0.6),
    "frozen": ((3,), 0.5, 0.0),
}
# The modules that hold the optimizers, and the distributions they come from.
PEERS = {
    "adamp": "adamp",
    "holocron": "pylocron",
    "lion_pytorch": "lion-pytorch",
    "llmfoundry": "llm-foundry",
    "pytorch_optimizer": "pytorch_optimizer",
    "torch": "torch",
    "wiki": "wiki",
    "zeta": "zetascale",
}


@dataclasses.dataclass(frozen=True)
class Run:
    """An optimizer, how it was called, and the profiles and schedules it was run on."""

    cls: str
    base_lr: float
    kwargs: dict
    runs: tuple[str, ...] = ("normal_decay", "edge_const")
    wrapper: str | None = None
    wrap_kwargs: dict | None = None
    groups: dict | None = None  # what a leaf's own parameter group overrides
    accum: int | None = None
    clip: dict | None = None

    @property
    def peer(self):
        """The distribution that is put on record."""
        return PEERS[(self.wrapper or self.cls).split(".")[0]]


NORMAL = ("normal_decay",)
SGD, ADAM, ADAMW = "torch.optim.SGD", "torch.optim.Adam", "torch.optim.AdamW"
RMSPROP, ADAGRAD = "torch.optim.RMSprop", "torch.optim.Adagrad"
LION, ZETA = "lion_pytorch.Lion", "zeta.optim.DecoupledLionW"
LARS, LAMB, RALARS = "holocron.optim.LARS", "holocron.optim.LAMB", "holocron.optim.RaLars"
TADAM, BELIEF = "holocron.optim.TAdam", "holocron.optim.AdaBelief"
HOLOCRON_ADAMP, ADAMP = "holocron.optim.AdamP", "adamp.AdamP"
HOLOCRON_ADAN, ADAN = "holocron.optim.Adan", "pytorch_optimizer.Adan"
HOLOCRON_ADEMAMIX, ADEMAMIX = "holocron.optim.AdEMAMix", "pytorch_optimizer.AdEMAMix"
LOOKAHEAD, SCOUT = "holocron.optim.Lookahead", "holocron.optim.Scout"
RUNS = {
    "torch_sgd": Run(SGD, 0.1, {}, NORMAL),
    "torch_sgd_momentum": Run(SGD, 0.05, {"momentum": 0.9}),
    "torch_sgd_momentum_l2": Run(SGD, 0.05, {"momentum": 0.9, "weight_decay": 0.01}, NORMAL),
    "torch_sgd_dampening": Run(SGD, 0.05, {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.0}),
    "torch_sgd_nesterov": Run(
        SGD, 0.05, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.001}
    ),
    "torch_sgd_clip_grad_norm": Run(SGD, 0.1, {"momentum": 0.9}, clip={"max_norm": 1.0}),
    "torch_adam": Run(ADAM, 0.01, {"betas": (0.9, 0.999), "eps": 1e-8}),
    "torch_adam_l2": Run(ADAM, 0.01, {"weight_decay": 0.01}),
    "torch_adam_clip_grad_value": Run(ADAM, 0.01, {}, NORMAL, clip={"clip_value": 0.5}),
    "torch_adamw": Run(ADAMW, 0.01, {"weight_decay": 0.01, "betas": (0.9, 0.999)}),
    "torch_adamw_f32": Run(ADAMW, 0.01, {"weight_decay": 0.01}),
    "torch_adamw_groups": Run(
        ADAMW,
        0.01,
        {"weight_decay": 0.1},
        NORMAL,
        groups={"w": {"lr": 0.001}, "b": {"weight_decay": 0.0}, "scalar": {"weight_decay": 0.0}},
    ),
    "torch_adamw_accumulate": Run(ADAMW, 0.01, {"weight_decay": 0.1}, NORMAL, accum=4),
    "torch_rmsprop": Run(RMSPROP, 0.01, {"alpha": 0.99, "eps": 1e-8}),
    "torch_rmsprop_momentum": Run(
        RMSPROP, 0.01, {"alpha": 0.99, "momentum": 0.9, "weight_decay": 0.0}
    ),
    "torch_rmsprop_centered": Run(
        RMSPROP, 0.01, {"alpha": 0.99, "momentum": 0.9, "centered": True}
    ),
    "torch_adagrad": Run(ADAGRAD, 0.1, {"lr_decay": 0.0, "weight_decay": 0.0}),
    "torch_adagrad_lr_decay": Run(
        ADAGRAD, 0.1, {"lr_decay": 0.1, "weight_decay": 0.01, "initial_accumulator_value": 0.0}
    ),
    "torch_adadelta": Run(
        "torch.optim.Adadelta", 1.0, {"rho": 0.9, "eps": 1e-6, "weight_decay": 0.0}
    ),
    "lionpytorch": Run(
        LION,
        0.001,
        {"betas": (0.9, 0.99)},
        ("normal_decay", "edge_const", "tiny_const", "huge_const"),
    ),
    "lionpytorch_wd": Run(LION, 0.01, {"weight_decay": 0.1}),
    "lionpytorch_wd_f32": Run(LION, 0.01, {"weight_decay": 0.1}),
    "lionpytorch_decoupled_wd": Run(
        LION, 0.01, {"weight_decay": 0.01, "decoupled_weight_decay": True}, NORMAL
    ),
    "zeta_decoupledlionw": Run(ZETA, 0.01, {"betas": (0.9, 0.99), "weight_decay": 0.01}),
    "zeta_decoupledlionw_nowd": Run(ZETA, 0.001, {"weight_decay": 0.0}, NORMAL),
    "foundry_decoupledlionw": Run(
        "llmfoundry.optim.DecoupledLionW", 0.01, {"weight_decay": 0.02}, NORMAL
    ),
    "wiki_class": Run("wiki.Lion", 0.01, {"betas": (0.9, 0.99), "weight_decay": 0.0}),
    "wiki_class_wd": Run("wiki.Lion", 0.01, {"weight_decay": 0.1}, NORMAL),
    "wiki_formula_literal": Run(
        "wiki.Formula", 0.001, {"betas": (0.9, 0.997), "gamma": 0.1}, ("pos_decay",)
    ),
    "wiki_formula_abs": Run(
        "wiki.Formula", 0.001, {"betas": (0.9, 0.997), "gamma": 0.1, "sqrt_mode": "abs"}, NORMAL
    ),
    "holocron_lars": Run(LARS, 0.01, {"momentum": 0.0, "weight_decay": 0.0}),
    "holocron_lars_momentum": Run(
        LARS, 0.01, {"momentum": 0.9, "dampening": 0.0, "weight_decay": 0.01}
    ),
    "holocron_lars_nesterov": Run(
        LARS, 0.01, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}, NORMAL
    ),
    "holocron_lamb": Run(LAMB, 0.01, {"betas": (0.9, 0.999), "eps": 1e-8}),
    "holocron_lamb_wd_clip": Run(LAMB, 0.01, {"weight_decay": 0.1, "scale_clip": (0.5, 2.0)}),
    "holocron_ralars": Run(RALARS, 0.01, {"betas": (0.9, 0.999), "weight_decay": 0.0}),
    "holocron_ralars_force": Run(
        RALARS,
        0.01,
        {"force_adaptive_momentum": True, "weight_decay": 0.1, "scale_clip": (0.0, 1.0)},
    ),
    "holocron_tadam": Run(TADAM, 0.01, {"betas": (0.9, 0.999)}),
    "holocron_tadam_dof_amsgrad_wd": Run(
        TADAM, 0.01, {"dof": 3.0, "amsgrad": True, "weight_decay": 0.05}
    ),
    "holocron_adabelief": Run(BELIEF, 0.01, {"betas": (0.9, 0.999)}),
    "holocron_adabelief_amsgrad_wd": Run(
        BELIEF, 0.01, {"amsgrad": True, "weight_decay": 0.05, "eps": 1e-8}
    ),
    "holocron_adamp": Run(
        HOLOCRON_ADAMP,
        0.01,
        {"betas": (0.9, 0.999), "delta": 0.1},
        ("normal_decay", "edge_const", "ortho_layer_const", "tiny_const"),
    ),
    "holocron_adamp_amsgrad_wd": Run(
        HOLOCRON_ADAMP, 0.01, {"amsgrad": True, "weight_decay": 0.05}, NORMAL
    ),
    "holocron_adan": Run(HOLOCRON_ADAN, 0.01, {"betas": (0.98, 0.92, 0.99)}),
    "holocron_adan_amsgrad_wd": Run(
        HOLOCRON_ADAN, 0.01, {"amsgrad": True, "weight_decay": 0.05}, NORMAL
    ),
    "holocron_ademamix": Run(
        HOLOCRON_ADEMAMIX, 0.01, {"betas": (0.9, 0.999, 0.9999), "alpha": 5.0}
    ),
    "holocron_ademamix_wd": Run(
        HOLOCRON_ADEMAMIX, 0.01, {"betas": (0.9, 0.999, 0.99), "weight_decay": 0.05}, NORMAL
    ),
    "holocron_lookahead_sgd": Run(
        SGD,
        0.1,
        {"momentum": 0.9},
        wrapper=LOOKAHEAD,
        wrap_kwargs={"sync_rate": 0.5, "sync_period": 6},
    ),
    "holocron_lookahead_adamw": Run(
        ADAMW,
        0.01,
        {"weight_decay": 0.01},
        wrapper=LOOKAHEAD,
        wrap_kwargs={"sync_rate": 0.5, "sync_period": 5},
    ),
    "holocron_scout_sgd": Run(
        SGD,
        0.1,
        {"momentum": 0.0},
        wrapper=SCOUT,
        wrap_kwargs={"sync_rate": 0.1, "sync_period": 6},
    ),
    "holocron_scout_adamw": Run(
        ADAMW,
        0.01,
        {"weight_decay": 0.1},
        wrapper=SCOUT,
        wrap_kwargs={"sync_rate": 0.2, "sync_period": 6},
    ),
    "holocron_scout_degenerate": Run(
        SGD, 0.1, {}, NORMAL, wrapper=SCOUT, wrap_kwargs={"sync_rate": 0.5, "sync_period": 6}
    ),
    "holocron_scout_period1": Run(
        SGD, 0.1, {}, NORMAL, wrapper=SCOUT, wrap_kwargs={"sync_rate": 0.5, "sync_period": 1}
    ),
    "adamp_adamp": Run(
        ADAMP,
        0.01,
        {"betas": (0.9, 0.999), "weight_decay": 0.1},
        ("normal_decay", "edge_const", "ortho_layer_const", "ortho_channel_const"),
    ),
    "adamp_adamp_nesterov": Run(
        ADAMP,
        0.01,
        {"nesterov": True, "delta": 1.0, "wd_ratio": 0.1, "weight_decay": 0.1},
        ("normal_decay", "ortho_channel_const"),
    ),
    "po_adan": Run(
        ADAN, 0.01, {"betas": (0.98, 0.92, 0.99), "weight_decay": 0.02, "foreach": False}
    ),
    "po_adan_decoupled": Run(
        ADAN, 0.01, {"weight_decay": 0.02, "weight_decouple": True, "foreach": False}, NORMAL
    ),
    "po_ademamix": Run(
        ADEMAMIX,
        0.01,
        {
            "betas": (0.9, 0.999, 0.9999),
            "weight_decay": 0.05,
            "weight_decouple": True,
            "alpha": 5.0,
            "foreach": False,
        },
    ),
    "po_ademamix_warmup": Run(
        ADEMAMIX, 0.01, {"weight_decay": 0.0, "t_alpha_beta3": 20.0, "foreach": False}, NORMAL
    ),
    "po_adabelief": Run(
        "pytorch_optimizer.AdaBelief",
        0.01,
        {"eps": 1e-8, "weight_decay": 0.05, "weight_decouple": True, "foreach": False},
    ),
    "po_lars": Run(
        "pytorch_optimizer.LARS",
        0.1,
        {"trust_coefficient": 0.001, "weight_decay": 0.01, "momentum": 0.9, "foreach": False},
        NORMAL,
    ),
}


def rates(base_lr, sched):
    """The learning rate of each step."""
    return (base_lr * (DECAY if sched == "decay" else 1.0) ** np.arange(STEPS)).tolist()


def inputs(profile):
    """The parameters at the start and the gradients of each step."""
    rng = np.random.default_rng(SEEDS[profile])
    p0, g = {}, {}
    for leaf, (shape, p_std, g_std) in LEAVES.items():
        p0[leaf] = np.asarray(p_std * rng.standard_normal(shape))
        g[leaf] = g_std * rng.standard_normal((STEPS, *shape))
        g[leaf] = shaped(profile, p0[leaf], g[leaf])
    return p0, g


def shaped(profile, p0, g):
    """The gradients with what makes the profile."""
    if profile == "edge":
        g[[4, 5, 11]] = 0.0
        g[7:9] *= 1e4
        g[13:16] *= 1e-12
    elif profile == "tiny":
        g = g * 1e-12
    elif profile == "huge":
        g = g * 1e4
    elif profile == "pos":
        g = np.abs(g)
    elif profile.startswith("ortho") and p0.ndim:
        # AdamP projects where the gradient is near a right angle to the parameters. Every third
        # gradient stays as it is, so that a run has steps of both kinds.
        rows = p0.shape[0] if profile == "ortho_channel" and p0.ndim > 1 else 1
        tilted = np.arange(STEPS) % 3 != 2
        g[tilted] = orthogonal(g[tilted], p0, rows)
    return g


def orthogonal(g, p, rows):
    """The part of each gradient at a right angle to `p`, in each of so many rows."""
    g_rows, p_rows = g.reshape(len(g), rows, -1), p.reshape(rows, -1)
    squares = np.sum(p_rows**2, axis=-1, keepdims=True)
    along = np.sum(g_rows * p_rows, axis=-1, keepdims=True) / np.where(squares, squares, 1.0)
    return (g_rows - along * p_rows).reshape(g.shape)


def find(path):
    """The class with this dotted name."""
    module, _, name = path.rpartition(".")
    if module == "llmfoundry.optim":
        # It imports composer's `dist` for its metrics across machines, which no step calls.
        sys.modules["composer"] = types.ModuleType("composer")
        sys.modules["composer.utils"] = types.SimpleNamespace(dist=None)
        return getattr(load_file("llmfoundry", "optim/lion.py"), name)
    if module == "zeta.optim":
        return getattr(load_file("zeta", "optim/decoupled_lion.py"), name)
    return getattr(importlib.import_module(module), name)


def load_file(package, path):
    """One file of an installed package, whose own imports would need much more."""
    folder = Path(importlib.util.find_spec(package).origin).parent
    spec = importlib.util.spec_from_file_location(f"{package}_file", folder / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def torch_trajectory(run, p0, g, lr, dtype):
    """The parameters after each step of a PyTorch optimizer, and the metrics that it reports."""
    params = {leaf: torch.nn.Parameter(torch.tensor(p, dtype=dtype)) for leaf, p in p0.items()}
    overrides = run.groups or {}
    groups = [{"params": [p], **overrides.get(leaf, {})} for leaf, p in params.items()]
    inner = find(run.cls)(groups, lr=run.base_lr, **run.kwargs)
    outer = find(run.wrapper)(inner, **run.wrap_kwargs) if run.wrapper else inner
    relative = [group["lr"] / run.base_lr for group in inner.param_groups]
    trajectory, reports = {leaf: [] for leaf in params}, []
    report = getattr(outer, "report_per_parameter_metrics", None)
    accum = run.accum or 1
    for t, rate in enumerate(lr):
        for group, factor in zip(inner.param_groups, relative, strict=True):
            group["lr"] = rate * factor
        for leaf, p in params.items():
            part = torch.tensor(g[leaf][t], dtype=dtype) / accum
            p.grad = part if p.grad is None else p.grad + part
        if (t + 1) % accum == 0:
            clip_gradients(params.values(), run.clip or {})
            outer.step()
            if report:
                reports.append({})
                for leaf, p in params.items():
                    report(p, leaf, reports[-1])
            inner.zero_grad()
        for leaf, p in params.items():
            trajectory[leaf].append(p.detach().numpy().copy())
    metrics = (
        {name: np.stack([float(step[name]) for step in reports]) for name in reports[0]}
        if reports
        else {}
    )
    return {leaf: np.stack(steps) for leaf, steps in trajectory.items()}, metrics


def clip_gradients(params, clip):
    """PyTorch's own clipping, by the argument that is given."""
    if "max_norm" in clip:
        torch.nn.utils.clip_grad_norm_(params, **clip)
    if "clip_value" in clip:
        torch.nn.utils.clip_grad_value_(params, **clip)


def wiki_lion(p, g, m, t, lr, betas=(0.9, 0.99), weight_decay=0.0):
    """The class on the wiki page: decay in the gradient, and the momentum moves first."""
    g = g + weight_decay * p
    m = betas[0] * m + (1 - betas[0]) * g
    return p - lr * np.sign(betas[1] * m + (1 - betas[1]) * g), m


def wiki_formula(p, g, m, t, lr, betas=(0.9, 0.999), gamma=0.1, eps=1e-8, sqrt_mode="literal"):
    """The formula on the wiki page: its n is odd in the gradient and has no memory."""
    m = betas[0] * m + (1 - betas[0]) * g
    n_hat = (gamma * g + (1 - betas[1]) * np.sign(g)) / (1 - betas[1] ** t)
    root = np.sqrt(np.abs(n_hat) if sqrt_mode == "abs" else n_hat)
    step = lr * m / (1 - betas[0] ** t) / (root + eps)
    return p - np.where(g == 0, 0.0, step), m  # else zero gradients would divide by eps alone


WIKI = {"wiki.Lion": wiki_lion, "wiki.Formula": wiki_formula}


def wiki_trajectory(run, p0, g, lr):
    """The parameters after each step of a rule on the wiki page."""
    trajectory = {}
    for leaf, p in p0.items():
        m, steps = np.zeros_like(p), []
        for t, rate in enumerate(lr):
            p, m = WIKI[run.cls](p, g[leaf][t], m, t + 1, rate, **run.kwargs)
            steps.append(p)
        trajectory[leaf] = np.stack(steps)
    return trajectory


def trajectory(name, run, p0, g, lr):
    """The parameters after each step, and the metrics that a peer reports of it."""
    if run.peer == "wiki":
        return wiki_trajectory(run, p0, g, lr), {}
    narrow, metrics = torch_trajectory(run, p0, g, lr, torch.float32)
    if "_f32" in name:
        return narrow, metrics
    wide, metrics = torch_trajectory(run, p0, g, lr, torch.float64)
    for leaf, p in wide.items():  # four times closer than the tests ask
        np.testing.assert_allclose(narrow[leaf], p, rtol=5e-6, atol=5e-6, err_msg=name)
    return wide, metrics


def leaves_of(name, p0, g):
    """The inputs with the leaves that a case has."""
    if name != "holocron_scout_degenerate":
        p0, g = ({k: x for k, x in tree.items() if k != "frozen"} for tree in (p0, g))
    if name.startswith("holocron_tadam"):  # it crashes on leaves without a dimension
        p0, g = p0 | {"scalar": p0["scalar"][None]}, g | {"scalar": g["scalar"][:, None]}
    return p0, g


def assert_signs_are_safe(g, b1=0.9, b2=0.99):
    """No sign that Lion takes hangs on the rounding of float32."""
    for leaf in g:
        m = np.zeros(g[leaf].shape[1:])
        for gradient in g[leaf]:
            old, new = b1 * m, (1 - b1) * gradient
            size = np.abs(old) + np.abs(new)
            assert np.all(np.abs(old + new) >= 3e-6 * size), leaf
            m = b2 * m + (1 - b2) * gradient


def entry(name, run, profile, sched):
    """A case's line in the index."""
    version = {} if run.peer == "wiki" else {"version": importlib.metadata.version(run.peer)}
    optional = ("wrapper", "wrap_kwargs", "groups", "accum", "clip")
    return {
        "name": f"{name}__{profile}_{sched}",
        "peer": run.peer,
        **version,
        "cls": run.cls,
        "kwargs": run.kwargs,
        **{key: getattr(run, key) for key in optional if getattr(run, key) is not None},
        "base_lr": run.base_lr,
        "sched": sched,
        "profile": profile,
    }


def main():
    """Write the inputs, the trajectories of each peer and the index."""
    logging.disable(logging.WARNING)  # DecoupledLionW warns of a weight decay over 1e-3
    by_profile = {profile: inputs(profile) for profile in SEEDS}
    for profile in ("normal", "edge", "tiny", "huge"):
        assert_signs_are_safe(by_profile[profile][1])
    index, peers = [], {peer: {} for peer in PEERS.values()}
    for name, run in RUNS.items():
        for profile, sched in (suffix.rsplit("_", 1) for suffix in run.runs):
            p0, g = leaves_of(name, *by_profile[profile])
            index.append(entry(name, run, profile, sched))
            case = index[-1]["name"]
            params, metrics = trajectory(name, run, p0, g, rates(run.base_lr, sched))
            recorded = {f"{case}/{leaf}": p for leaf, p in params.items()}
            recorded |= {f"metrics/{case}/{metric}": x for metric, x in metrics.items()}
            for key, values in recorded.items():
                assert np.all(np.isfinite(values)), key
            peers[run.peer] |= recorded
    np.savez_compressed(
        FOLDER / "inputs.npz",
        **{
            f"{profile}/p0/{k}": p for profile, (p0, _) in by_profile.items() for k, p in p0.items()
        },
        **{f"{profile}/g/{k}": x for profile, (_, g) in by_profile.items() for k, x in g.items()},
    )
    for peer, arrays in peers.items():
        np.savez_compressed(FOLDER / f"{peer}.npz", **arrays)
    lines = sorted(json.dumps(case) for case in index)  # each begins with its name
    (FOLDER / "index.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
