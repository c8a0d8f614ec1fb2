"""The lines of the table of costs: none is forgotten, and those that matter slip back nowhere."""

import importlib.util
import re

import jax
import jax.numpy as jnp
import optax
import pytest
from catalogue import CATALOGUE
from lab.cost.lines import LINES, counted, names

from lion_jax.lab.cost.models import abstract_params
from lion_jax.lab.cost.published import MODELS

FOUR = {f"w{i}": (8192, 4096) for i in range(4)}
GPT2 = MODELS["gpt2"].shapes()
# GPT-2 of two layers: the compilers take up to a minute for all twelve.
TWO_LAYERS = {n: GPT2[n] for n in ("wte", "wpe", "block_0", "block_1", "ln_f")}
EMBEDDING = {"wte": GPT2["wte"]}
WHY_NOT = {
    "the same rule under another's names": ("decoupled_lionw", "lion_formula"),
    "a part of rules that are there": (
        *("interpolate_momentum", "scale_by_", "add_decoupled_weight_decay"),
        *("apply_proximal_weight_decay", "project_to_tangent", "orthogonalize"),
        *("variance_reduced_gradient", "clip_by_global_norm", "clip_grad_", "sign", "tanh"),
    ),
    "the same combinator under another's name": ("loss_scale_optimizer",),
    "compiled in minutes, and for a described GPU with a sort that none would run": ("top_k_sign",),
}
"""Functions of the catalogue that are no line, by how their names begin."""


def test_every_optimizer_and_combinator_of_the_catalogue_is_a_line():
    words = {*re.findall(r"\w+", " ".join(line.step for line in LINES))}
    left_out = tuple(start for starts in WHY_NOT.values() for start in starts)
    missing = [e.name for e in CATALOGUE if not words & {e.name, e.factory.__name__}]
    made = {e.name: e.factory.__name__ for e in CATALOGUE}
    assert [name for name in missing if not made[name].startswith(left_out)] == []


def test_every_line_has_a_title_of_its_own():
    assert len({line.title for line in LINES}) == len(LINES)


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES, ids=lambda line: line.title)
def test_every_line_and_its_counterpart_can_step(line):
    shapes = {"wte": (256, 64), "b": (64,)}
    params = abstract_params(shapes, line.weights)
    for step in filter(None, (line.step, line.optax)):
        tx = optax.with_extra_args_support(eval(step, names()))
        state = jax.eval_shape(tx.init, params)
        updates, after = jax.eval_shape(tx.update, params, state, params)
        assert jax.tree.map(jnp.shape, updates) == shapes
        assert jax.tree.structure(after) == jax.tree.structure(state)


def needs(device):
    """The mark of a test that compiles for a device."""
    package, extra = {"v5e": ("libtpu", "pods"), "h100": ("jax_cuda13_plugin", "gpus")}[device]
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"needs {package}, from the extra {extra}")


F32, BF16 = "float32", "bfloat16"
SMALLEST_ADAMW = "with_master_weights(with_quantized_state(adamw))"
LIMITS = [
    # step, dtype of weights, device, model, and at most: bytes, bytes of the cheapest step, kernels
    # of all leaves, temporary bytes, all but kernels per parameter
    ("lion", F32, "h100", "gpt2", {"bytes": 20.01, "kernels": 160}),
    ("lion_bf16", BF16, "h100", TWO_LAYERS, {"bytes": 10.01}),
    ("lion", BF16, "h100", "gpt2", {"bytes": 14.01}),
    ("adan", F32, "h100", TWO_LAYERS, {"bytes": 44.1}),
    ("lamb", F32, "h100", TWO_LAYERS, {"bytes": 40.02}),
    ("chain(clip, lion)", F32, "h100", "gpt2", {"bytes": 24.01}),
    ("with_metrics(lion)", F32, "h100", TWO_LAYERS, {"bytes": 20.1, "kernels": 93}),
    ("lookahead(lion, 5)", F32, "h100", "gpt2", {"ordinary": 24.1, "bytes": 32.1}),
    ("with_accumulation(lion, 4)", F32, "h100", "gpt2", {"bytes": 28.01}),
    ("with_finite_guard(lion)", F32, "h100", TWO_LAYERS, {"bytes": 24.01}),
    ("chain(lion, round_stochastically)", BF16, "h100", TWO_LAYERS, {"kernels": 40}),
    ("lion_bf16", BF16, "v5e", TWO_LAYERS, {"bytes": 10.05}),
    ("lion_bf16", BF16, "v5e", FOUR, {"bytes": 10.05}),
    ("lion", BF16, "v5e", "gpt2", {"bytes": 14.05}),
    ("lion", BF16, "v5e", FOUR, {"bytes": 14.05}),
    ("with_master_weights(adamw)", BF16, "v5e", FOUR, {"bytes": 24.1}),
    (SMALLEST_ADAMW, BF16, "v5e", FOUR, {"bytes": 15.8, "temporary": 0.05}),
    (SMALLEST_ADAMW, BF16, "v5e", EMBEDDING, {"bytes": 20.3, "temporary": 1.05}),
    ("with_metrics(adamw)", F32, "v5e", TWO_LAYERS, {"bytes": 28.1}),
    ("with_metrics(chain(clip, lion))", F32, "v5e", TWO_LAYERS, {"bytes": 24.1}),
    ("with_finite_guard(lookahead(lion, 5))", F32, "v5e", TWO_LAYERS, {"bytes": 31.2}),
    ("with_accumulation(lookahead(lion, 5), 4)", F32, "v5e", TWO_LAYERS, {"bytes": 36.1}),
    ("mars_lion", F32, "h100", TWO_LAYERS, {"bytes": 36.1}),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "weights", "device", "model", "most"),
    [
        pytest.param(*limit, marks=needs(limit[2]), id=f"{limit[0]} {limit[1]} {limit[2]} {n}")
        for n, limit in enumerate(LIMITS)
    ],
)
def test_no_line_that_matters_slips_back(step, weights, device, model, most):
    cost = counted(step, weights, device, model)
    figures = {
        "bytes": cost.hbm_bytes / cost.held,
        "ordinary": cost.traffic.least.total / cost.held,
        "kernels": cost.kernels,
        "temporary": cost.temporary_bytes / cost.held,
    }
    over = {name: figures[name] for name, limit in most.items() if not figures[name] <= limit}
    assert not over, f"{step} on {device}: at most {most}"
