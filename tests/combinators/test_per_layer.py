"""Stacked layers step as a list of separate layers does."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import lion_jax
from lion_jax import compat, distributed, groups, precision, primitives
from lion_jax.primitives import signs

LAYERS = 4
RNG = np.random.default_rng(0)
START = {
    "blocks": {"kernel": RNG.normal(size=(LAYERS, 6, 3)), "bias": RNG.normal(size=(LAYERS, 3))},
    "embed": RNG.normal(size=(5, 3)),
}
START["blocks"]["kernel"] *= 10.0 ** np.arange(-1, 3)[:, None, None]
GRADIENTS = [jax.tree.map(lambda p: RNG.normal(size=p.shape), START) for _ in range(6)]
WHERE = "^blocks/"
# All that looks at a leaf as a whole, and two that do not.
LAYERWISE = {
    "lars": lion_jax.lars(0.1, weight_decay=0.1),
    "lamb": lion_jax.lamb(0.1, weight_decay=0.1),
    "ralars": lion_jax.ralars(0.1, weight_decay=0.1),
    "adamp": lion_jax.adamp(0.1, weight_decay=0.1, delta=1.0),
    "tadam": lion_jax.tadam(0.1, eps=1e-3),
    "tiger": lion_jax.tiger(0.1),
    "cautious_lion": lion_jax.cautious_lion(0.1, weight_decay=0.1),
    "mars_lion": lion_jax.mars_lion(0.1, weight_decay=0.1),
    "clip_by_leaf_norm": primitives.clip_by_leaf_norm(0.5),
    "scale_by_trust_ratio": primitives.scale_by_trust_ratio(),
    "lp_sign": lion_jax.lion_k(0.1, signs.lp_sign(1.5)),
    "l2_normalize": lion_jax.lion_k(0.1, signs.l2_normalize()),
    "top_k_sign": lion_jax.lion_k(0.1, signs.top_k_sign(0.3)),
    "orthogonalize": lion_jax.lion_k(0.1, primitives.orthogonalize()),
    "lion_muon": lion_jax.lion_muon(0.1, weight_decay=0.1),
    "hyperball": lion_jax.hyperball(optax.scale_by_adam(), 0.1),
    "scale_by_lars_ratio": primitives.scale_by_lars_ratio(0.5, 0.1),
    "project_to_tangent": primitives.project_to_tangent(optax.trace(0.5), 1.0),
    "scale_by_student_t": primitives.scale_by_student_t(eps=1e-3),
    "keras_lion": compat.keras.lion(0.1, clipnorm=0.5),
    "holocron_lars": compat.holocron.lars(0.1),
    "holocron_ralars": compat.holocron.ralars(0.1),
    "holocron_tadam": compat.holocron.tadam(0.1, eps=1e-3),
    "holocron_lamb": compat.holocron.lamb(0.1),
    "holocron_adamp": compat.holocron.adamp(0.1),
    "optax_lamb": optax.lamb(0.1),
    "optax_novograd": optax.novograd(0.1),
    "lion": lion_jax.lion(0.1, weight_decay=0.1),
    "adamw": optax.adamw(0.1),
}


def single(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float32), tree)


def apart(tree):
    """The layers as leaves of their own."""
    blocks = [jax.tree.map(lambda x, i=i: x[i], tree["blocks"]) for i in range(LAYERS)]
    return {"blocks": blocks, "embed": tree["embed"]}


def together(tree):
    return {
        "blocks": jax.tree.map(lambda *layers: np.stack(layers), *tree["blocks"]),
        "embed": tree["embed"],
    }


def after(tx, params, gradients):
    @jax.jit
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for gradient in gradients:
        params, state = step(params, state, gradient)
    return params, state


@pytest.mark.sampled
@pytest.mark.parametrize("name", LAYERWISE)
def test_a_stack_equals_a_list_of_layers(name):
    inner = LAYERWISE[name]
    with jax.enable_x64(True):
        expected, _ = after(inner, apart(START), list(map(apart, GRADIENTS)))
        actual, _ = after(lion_jax.per_layer(inner, WHERE), START, GRADIENTS)
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-9, atol=1e-12),
        actual,
        together(expected),
    )


@pytest.mark.slow
def test_the_layerwise_rules_differ_without_it():
    with jax.enable_x64(True):
        expected, _ = after(LAYERWISE["lamb"], apart(START), list(map(apart, GRADIENTS)))
        whole, _ = jax.device_get(after(LAYERWISE["lamb"], START, GRADIENTS))
        layers = together(jax.device_get(expected))
    assert np.abs(whole["blocks"]["kernel"] - layers["blocks"]["kernel"]).max() > 0.1


@pytest.mark.sampled
@pytest.mark.parametrize("layers", ["sharded", "whole"])
@pytest.mark.parametrize(
    "name",
    [
        *("lamb", "orthogonalize", "hyperball", "tadam"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("lars", "ralars", "adamp", "clip_by_leaf_norm", "scale_by_trust_ratio")
        ),
    ],
)
def test_eight_devices_equal_one(name, layers):
    tx = lion_jax.per_layer(LAYERWISE[name], WHERE)
    start = single(START)
    gradients = list(map(single, GRADIENTS))
    expected, _ = after(tx, start, gradients)
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    spec = P("x") if layers == "sharded" else P(None, "y")
    shardings = {
        "blocks": {
            "kernel": NamedSharding(mesh, spec),
            "bias": NamedSharding(mesh, P("x") if layers == "sharded" else P()),
        },
        "embed": NamedSharding(mesh, P()),
    }
    params = jax.device_put(start, shardings)
    state = jax.jit(tx.init, out_shardings=distributed.state_sharding(tx, params, shardings))(
        params
    )

    @jax.jit
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    text = step.lower(params, state, jax.device_put(gradients[0], shardings)).compile().as_text()
    if layers == "sharded":  # every device does its own layers
        for collective in ("all-gather", "all-to-all", "all-reduce", "collective-permute"):
            assert collective not in text
    for gradient in gradients:
        params, state = step(params, state, jax.device_put(gradient, shardings))
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=2e-4, atol=1e-5), params, expected
    )


def test_the_state_has_the_parameters_layout_and_one_count():
    tx = lion_jax.per_layer(lion_jax.hyperball(optax.scale_by_adam(), 0.1), WHERE)
    state = tx.init(single(START))
    adam = state.inner_state
    assert adam.count.shape == ()
    assert adam.mu["blocks"]["kernel"].shape == (LAYERS, 6, 3)
    assert state.radius["blocks"]["kernel"].shape == (LAYERS,)
    assert state.radius["embed"].shape == ()


def test_it_maps_over_several_axes():
    params = {"w": RNG.normal(size=(2, 3, 4, 5))}
    gradient = {"w": RNG.normal(size=(2, 3, 4, 5))}
    inner = lion_jax.lion_k(1.0, signs.l2_normalize(), b1=0.0)
    with jax.enable_x64(True):
        tx = lion_jax.per_layer(inner, {"w": 2})
        updates, _ = tx.update(gradient, tx.init(params), params)
    norms = np.linalg.norm(updates["w"].reshape(2, 3, -1), axis=-1)
    np.testing.assert_allclose(norms, 1.0)


@pytest.mark.slow
def test_a_layer_without_its_gradient_stays():
    params = single(START)
    tx = lion_jax.per_layer(lion_jax.lamb(0.1), WHERE)
    gradient = single(GRADIENTS[0]) | {"embed": None}
    state = tx.init(params)
    updates, new_state = tx.update(gradient, state, params)
    assert updates["embed"] is None
    old, new = (optax.tree_utils.tree_get(s, "mu")["embed"] for s in (state, new_state))
    np.testing.assert_array_equal(old, new)


@pytest.mark.slow
def test_it_goes_around_and_within_other_wrappers():
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.bfloat16), single(START))
    gradient = jax.tree.map(lambda p: jnp.asarray(p, jnp.bfloat16), single(GRADIENTS[0]))
    tx = lion_jax.with_metrics(
        precision.with_master_weights(
            lion_jax.per_layer(
                precision.with_quantized_state(lion_jax.lamb(0.1), min_size=0), WHERE
            )
        ),
        per_parameter=True,
    )
    updates, state = jax.jit(tx.update)(gradient, tx.init(params), params)
    assert all(np.isfinite(x) for x in jax.tree.leaves(lion_jax.read_metrics(state)))
    assert updates["blocks"]["kernel"].shape == (LAYERS, 6, 3)


@pytest.mark.parametrize(
    ("where", "error", "words"),
    [
        ("^blokcs/", ValueError, "blocks/kernel"),
        ({"blocks": 3, "embed": 0}, ValueError, r"at most the axes of a leaf; got 3 .*'blocks'"),
        ({"blocks": 0.5, "embed": 0}, TypeError, "where must be a regular expression.*got 0.5"),
        (None, TypeError, "where must be a regular expression.*got None"),
        (-1, TypeError, "where must be a regular expression.*got -1"),
        (
            groups.labels({"^blocks": "one"}, 0),
            TypeError,
            "where must give integers >= 0; got 'one'",
        ),
    ],
)
def test_a_bad_where_is_refused(where, error, words):
    def make():
        return lion_jax.per_layer(lion_jax.lamb(0.1), where).init(single(START))

    with pytest.raises(error, match=words):
        make()


@pytest.mark.slow
def test_a_guard_within_is_refused_and_goes_around():
    params, gradient = single(START), single(GRADIENTS[0])
    tx = lion_jax.per_layer(lion_jax.with_finite_guard(lion_jax.lamb(0.1)), WHERE)
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"inner must keep only arrays.*around per_layer"):
        tx.update(gradient, state, params)
    tx = lion_jax.with_finite_guard(lion_jax.per_layer(lion_jax.lamb(0.1), WHERE))
    tx.update(gradient, tx.init(params), params)


def test_labels_of_groups_say_how_many():
    tx = lion_jax.per_layer(lion_jax.lamb(0.1), groups.labels({"^blocks/": 1}, 0))
    expected = lion_jax.per_layer(lion_jax.lamb(0.1), WHERE)
    params = single(START)
    gradient = single(GRADIENTS[0])
    jax.tree.map(
        np.testing.assert_array_equal,
        tx.update(gradient, tx.init(params), params)[0],
        expected.update(gradient, expected.init(params), params)[0],
    )
