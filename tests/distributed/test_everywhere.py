"""Any optimizer, on eight devices in any of the ways that JAX has, steps as it does on one."""

import functools

import jax
import numpy as np
import optax
import pytest
from catalogue import CATALOGUE
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import lion_jax
from lion_jax import precision
from lion_jax.distributed.sharding import state_sharding

pytestmark = pytest.mark.usefixtures("optimized")

P = PartitionSpec
AXES = ("x", "y")
ENTRIES = {entry.name: entry for entry in CATALOGUE}
# What reads a norm, or another sum over a leaf, whose terms are added in another order elsewhere.
SUMMING = {
    *("clip_by_global_norm", "clip_by_leaf_norm", "torch_clip_grad_norm"),
    *("keras_lion", "keras_lion_scaled"),
    *("scale_by_trust_ratio", "scale_by_lars_ratio", "lars", "lamb", "ralars"),
    *("holocron_lars", "holocron_lamb", "holocron_ralars"),
    *("project_to_tangent", "adamp", "holocron_adamp"),
    *("scale_by_student_t", "tadam", "holocron_tadam"),
    *("shape_lp_sign", "shape_l2_normalize", "shape_l2_normalize_rows", "scale_by_parameter_rms"),
    *("tiger", "variance_reduced_gradient", "mars_lion", "mars_adamw"),
    *("orthogonalize", "olion", "hyperball", "scale_by_lion_muon", "lion_muon"),
    "per_layer",
    "scout",
}
# What counts the entries of a leaf, or draws random numbers for it: exact when JAX splits it, other
# numbers when the rule sees a part alone.
COUNTING = {
    *("shape_top_k_sign", "shape_by_shape", "signum_scaled", "cautious_lion"),
    *("soft_signum", "scale_free_soft_signum", "stochastic_signum"),
    *("cautious_count", "cautious_sign_bits"),
}
# What asks whether all gradients are finite asks every device, given the axes.
ASKING = {"with_finite_guard", "with_spike_guard", "with_loss_scale_dynamic", "with_metrics"}
# What branches on a CPU, but selects within `shard_map`: where u is stored, p + u is rounded again.
BRANCHING = {
    *("with_finite_guard", "with_spike_guard", "with_loss_scale_dynamic", "with_accumulation"),
    *("keras_lion_scaled", "keras_loss_scale_optimizer"),
}
# With jax 0.12 (0.11 was not tried) XLA:CPU contracts other products and sums where shapes are
# others: an ulp.
CONTRACTS = jax.__version_info__ >= (0, 11)
NO_PARTS = SUMMING | COUNTING | {"keras_loss_scale_optimizer"}  # which has no argument for the axes
# Each shard has whole groups of 8 rows.
quantized = functools.partial(precision.with_quantized_state, min_size=0, group_size=8)
lookahead = functools.partial(lion_jax.lookahead, sync_period=2)
WRAPPED = {
    "plain": lambda tx, axes: tx,
    "metrics": lambda tx, axes: lion_jax.with_metrics(tx, axis_name=axes),
    "lookahead": lambda tx, axes: lookahead(tx),
    "quantized": lambda tx, axes: quantized(tx),
    "all": lambda tx, axes: lion_jax.with_metrics(lookahead(quantized(tx)), axis_name=axes),
}
# By rows, by columns and by both over 4 x 2 devices: one program for the three.
SHAPES = {"rows": (64, 16), "columns": (16, 64), "both": (32, 16)}
SPECS = {"rows": P(AXES), "columns": P(None, AXES), "both": P("x", "y")}
STEPS = 4


def parameters():
    rng = np.random.default_rng(0)
    return {k: np.asarray(rng.standard_normal(s), np.float32) for k, s in SHAPES.items()}


def gradients():
    """For each step and each of 8 devices, in units of 2**-10: their sums and means are exact."""
    rng = np.random.default_rng(1)
    return [
        {
            k: np.asarray(rng.integers(-4096, 4096, (8, *s)) / 1024, np.float32)
            for k, s in SHAPES.items()
        }
        for _ in range(STEPS)
    ]


LOCAL = gradients()
GRADIENTS = [jax.tree.map(lambda g: np.mean(g, 0), local) for local in LOCAL]


def make(name, wrapped, axes=None):
    of_axes = {"axis_name": axes} if axes and name in ASKING else {}
    return WRAPPED[wrapped](ENTRIES[name].make(**of_axes), axes)


@functools.cache
def start(name, wrapped):
    """Parameters and state on the host, to begin with on any device."""
    params = parameters()
    return jax.device_get((params, jax.jit(make(name, wrapped).init)(params)))


def on_one_device(name, wrapped):
    params, state = start(name, wrapped)
    step = jax.jit(step_of(make(name, wrapped)))
    for gradient in GRADIENTS:
        params, state = step(params, state, gradient)
    return params


def step_of(tx):
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return step


def check(name, actual, expected):
    for leaf, a in actual.items():
        if name in SUMMING | BRANCHING or CONTRACTS:
            # 1e-6 of the leaf's largest entry: small ones are differences
            atol = 1e-6 * np.abs(expected[leaf]).max()
            np.testing.assert_allclose(a, expected[leaf], rtol=0, atol=atol)
        else:
            np.testing.assert_array_equal(a, expected[leaf])


@functools.cache
def mesh_of(kind):
    return jax.make_mesh((4, 2), AXES, axis_types=(kind, kind))


def on_mesh(kind, specs=SPECS):
    return jax.tree.map(lambda spec: NamedSharding(mesh_of(kind), spec), specs)


def by_jit(name, wrapped, kind=AxisType.Auto):
    """Parameters, gradients and state are split alike, and stay so."""
    tx, shardings = make(name, wrapped), on_mesh(kind)
    params = jax.device_put(parameters(), shardings)
    of_state = state_sharding(tx, params, shardings)
    state = jax.jit(tx.init, out_shardings=of_state)(params)
    step = jax.jit(step_of(tx))
    for gradient in GRADIENTS:
        params, state = step(params, state, jax.device_put(gradient, shardings))
    for leaf, sharding in zip(*map(jax.tree.leaves, (state, of_state)), strict=True):
        assert leaf.ndim < 2 or leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
    return params


def by_shard_map(name, wrapped):
    """Every device has all parameters and the gradients of its part of the batch.

    These are averaged in a program of their own: fused with other operations, a multiplication and
    an addition may round once or twice, on any number of devices.
    """
    on_all = functools.partial(jax.shard_map, mesh=mesh_of(AxisType.Auto), out_specs=P())
    step = jax.jit(on_all(step_of(make(name, wrapped)), in_specs=P()))
    params, state = start(name, wrapped)
    for local in LOCAL:
        params, state = step(params, state, mean_by_psum(local))
    return params


@jax.jit
def mean_by_psum(local):
    mean = functools.partial(jax.tree.map, lambda g: jax.lax.psum(g[0], AXES) / 8)
    return jax.shard_map(mean, mesh=mesh_of(AxisType.Auto), in_specs=P(AXES), out_specs=P())(local)


def by_shard_map_of_parts(name, wrapped):
    """Every device steps its part of the parameters, and knows of no other."""
    tx, shardings = make(name, wrapped, AXES), on_mesh(AxisType.Auto)
    params = jax.device_put(parameters(), shardings)
    of_state = state_sharding(make(name, wrapped), params, shardings)
    state = jax.device_put(start(name, wrapped)[1], of_state)
    specs = (SPECS, jax.tree.map(lambda sharding: sharding.spec, of_state))
    step = jax.jit(
        jax.shard_map(
            step_of(tx),
            mesh=mesh_of(AxisType.Auto),
            in_specs=(*specs, SPECS),
            out_specs=specs,
        )
    )
    for gradient in GRADIENTS:
        params, state = step(params, state, jax.device_put(gradient, shardings))
    return params


def by_pmap(name, wrapped):
    """Every device has a copy of the parameters and the gradients of its part of the batch."""
    step = jax.pmap(step_of(make(name, wrapped)))
    params, state = jax.tree.map(lambda x: np.stack([x] * 8), start(name, wrapped))
    for local in LOCAL:
        params, state = step(params, state, mean_by_pmean(local))
    for copies in map(np.asarray, jax.tree.leaves(params)):
        np.testing.assert_array_equal(copies, copies[:1].repeat(8, 0))
    return jax.tree.map(lambda x: np.asarray(x)[0], params)


@functools.partial(jax.pmap, axis_name="devices")
def mean_by_pmean(local):
    return jax.lax.pmean(local, "devices")


SOON = {("lion", "plain"), ("lars", "plain"), ("lion", "lookahead")}
# Links of another entry's chain: each runs there.
LINKS = {
    *("interpolate_momentum", "scale_by_sign_momentum", "scale_by_sign_momentum_bf16"),
    *("apply_proximal_weight_decay", "scale_by_nesterov_adam", "scale_by_rectified_adam"),
    *("scale_by_student_t", "scale_by_adan", "scale_by_ademamix", "scale_by_trust_ratio"),
    *("scale_by_lars_ratio", "project_to_tangent", "clip_by_leaf_norm"),
    *("variance_reduced_gradient", "scale_by_parameter_rms", "orthogonalize"),
    *("scale_by_lion_muon", "scale_by_alternating_rate"),
    *(name for name in ENTRIES if name.startswith(("shape_", "add_decoupled_weight_decay_"))),
}
CASES = [
    *((name, "plain") for name in ENTRIES if name not in LINKS),
    *(("lion", wrapped) for wrapped in ("metrics", "lookahead", "quantized")),
    *((name, "all") for name in ("lion", "lars", "with_finite_guard")),
]


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("name", "wrapped"),
    [
        pytest.param(*case, id="-".join(case), marks=[] if case in SOON else [pytest.mark.slow])
        for case in CASES
    ],
)
def test_steps_everywhere_as_on_one_device(name, wrapped):
    """Bit for bit where no sum over a leaf is taken."""
    expected = on_one_device(name, wrapped)
    check(name, by_jit(name, wrapped), expected)
    check(name, by_shard_map(name, wrapped), expected)
    if name not in NO_PARTS:
        check(name, by_shard_map_of_parts(name, wrapped), expected)
    if name == "lion":  # of the others, alone, it is a test of the contract's
        check(name, by_pmap(name, wrapped), expected)


def test_what_takes_no_sums_is_most_of_the_catalogue():
    assert ENTRIES.keys() >= NO_PARTS
    assert len(NO_PARTS) < len(ENTRIES) / 2
