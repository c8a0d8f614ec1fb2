"""Parameter groups: what patterns match, what they refuse, and the steps that follow from them."""

import dataclasses
import re

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import recordings
from flax import nnx
from trees import Layer, assert_close, run, specs, tree
from versions import needs

import lion_jax
from lion_jax import groups

PARAMS = {
    "embed": {"table": jnp.ones((5, 2))},
    "layers": [{"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, 3.0)} for _ in range(2)],
    "norm": {"scale": jnp.full(2, 4.0)},
}
GRADIENTS = [jax.tree.map(lambda p, s=s: jnp.sin(p + s), PARAMS) for s in range(4)]
PATHS = [
    "embed/table",
    "layers/0/bias",
    "layers/0/kernel",
    "layers/1/bias",
    "layers/1/kernel",
    "norm/scale",
]


def by_path(mask, params=PARAMS):
    """The values of a tree like the parameters, by path."""
    return dict(zip(groups.paths(params), jax.tree.leaves(mask(params)), strict=True))


def chosen(mask, params=PARAMS):
    return [path for path, is_chosen in by_path(mask, params).items() if is_chosen]


# What a pattern matches.


def test_paths_are_keys_joined_by_slashes():
    assert groups.paths(PARAMS) == PATHS
    assert groups.paths(tree()) == [
        "layer/kernel",
        "layer/bias",
        "tuple/0",
        "tuple/2",
        "zero_size",
        "zeros",
    ]
    assert groups.paths(jnp.ones(2)) == [""]
    assert groups.paths({}) == groups.paths(None) == []


def test_a_value_beside_others_keeps_its_name():
    """Only what flax nnx puts below a variable is left out."""

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Attention:
        query: jax.Array
        value: jax.Array

    assert groups.paths({"a": Attention(jnp.ones(2), jnp.ones(2))}) == ["a/query", "a/value"]


def test_select_is_true_where_any_pattern_matches():
    mask = groups.select("^embed", r"layers/\d/kernel$")
    assert chosen(mask) == ["embed/table", "layers/0/kernel", "layers/1/kernel"]
    assert jax.tree.structure(mask(PARAMS)) == jax.tree.structure(PARAMS)


def test_exclude_is_false_where_any_pattern_matches():
    assert chosen(groups.exclude("bias", "norm/")) == [
        "embed/table",
        "layers/0/kernel",
        "layers/1/kernel",
    ]


def test_a_predicate_sees_path_and_shape_of_abstract_leaves():
    mask = groups.select(lambda path, leaf: leaf.ndim == 2 and "layers" in path)
    abstract = jax.eval_shape(lambda: PARAMS)
    assert chosen(mask, abstract) == ["layers/0/kernel", "layers/1/kernel"]


def test_the_first_match_wins():
    labels = groups.labels({"layers/0": "first", "bias": "bias"}, default="rest")
    assert by_path(labels) == dict(
        zip(PATHS, ["rest", "first", "first", "bias", "rest", "rest"], strict=True)
    )
    numbers = groups.multipliers({lambda path, leaf: leaf.ndim < 2: 0.0, "layers": 2.0})
    assert list(by_path(numbers).values()) == [1.0, 0.0, 2.0, 0.0, 2.0, 0.0]


def test_the_usual_mask_knows_stacked_layers_and_heads():
    """Where the rank does not tell, the name does."""
    decaying = {
        "mlp/kernel": (2, 2),
        "wte": (5, 2),
        "lora/b": (2, 2),
        "normal_head/kernel": (2, 2),
        "AdaLayerNorm_0/Dense_0/kernel": (2, 2),
        "LayerNormGRU_0/kernel": (2, 2),
    }
    spared = {
        "kernel": (2,),
        "temperature": (),
        "attention/query/bias": (2, 4),
        "blocks/q_bias": (3, 4),
        "blocks/layer_scale": (3, 4),
        "embed/scale": (3, 4),
        "ls1/gamma": (3, 4),
        "ln_1/g": (3, 4),
        "ln_f/b": (3, 4),
        "LayerNorm_0/weight": (3, 4),
        "attn_norm": (3, 4),
        "norm1/w": (3, 4),
        "BatchNormalization_2/w": (3, 4),
    }
    params = {path: jnp.ones(shape) for path, shape in (decaying | spared).items()}
    assert set(chosen(groups.exclude_biases_and_norms, params)) == set(decaying)


# What is refused.


def test_a_pattern_that_matches_nothing_lists_near_misses():
    message = (
        r"^pattern must be found .* 6 leaves; got 'kernal\$', which is in none\. "
        r"Near misses: 'kernel'.*Try .*groups\.paths\(params\)"
    )
    with pytest.raises(ValueError, match=message):
        groups.select("kernal$")(PARAMS)
    with pytest.raises(ValueError, match=r"Near misses: 'layers/0/kernel', 'layers/1/kernel'"):
        groups.select("^layer/0/kernel$")(PARAMS)


def test_near_misses_are_five_at_most():
    params = {f"kernel{i}": jnp.ones(2) for i in range(9)}
    with pytest.raises(ValueError, match="Near misses") as caught:
        groups.select("kernl|Kernle")(params)
    assert len(re.findall(r"'kernel\d'", str(caught.value))) == 5


def test_without_near_misses_it_shows_the_first_paths():
    with pytest.raises(ValueError, match=r"the first paths: 'embed/table', 'layers/0/bias'"):
        groups.select("xyzzy")(PARAMS)


@pytest.mark.parametrize(
    "make",
    [
        lambda pattern: lion_jax.lion(0.1, weight_decay=0.1, mask=groups.exclude(pattern)),
        lambda pattern: groups.scale_by_group({pattern: 0.5}),
        lambda pattern: groups.freeze(optax.sgd(0.1), pattern),
        lambda pattern: optax.partition({1: optax.sgd(0.1)}, groups.labels({pattern: 1}, 1)),
    ],
)
def test_a_misspelling_is_refused_at_init(make):
    with pytest.raises(ValueError, match=r"^pattern must be found"):
        make("baias").init(PARAMS)


def test_a_predicate_may_match_nothing():
    assert chosen(groups.select(lambda path, leaf: False)) == []


@pytest.mark.parametrize("pattern", ["(", "*bias", "layers[0"])
def test_an_invalid_regular_expression_is_refused_with_the_reason(pattern):
    with pytest.raises(ValueError, match=r"position \d.*re\.escape") as caught:
        groups.labels({pattern: 1}, 0)
    assert repr(pattern) in str(caught.value)
    assert repr(re.escape(pattern)) in str(caught.value)


@pytest.mark.parametrize("pattern", [["bias"], 3, None, ("a", "b"), b"bias"])
def test_what_is_no_pattern_is_refused(pattern):
    message = r"^pattern must be a regular expression or a function .*got .* of type \w+.*Try"
    for make in (groups.select, groups.exclude, lambda p: groups.freeze(optax.sgd(0.1), p)):
        with pytest.raises(TypeError, match=message):
            make(pattern)


def test_a_key_that_is_no_pattern_is_refused():
    for make in (groups.multipliers, groups.scale_by_group, lambda m: groups.labels(m, 0)):
        with pytest.raises(TypeError, match=r"^pattern must be .*got 3 of type int"):
            make({3: 1.0})
        with pytest.raises(TypeError, match=r"^by_pattern must be a mapping.*got \['bias'\].*Try"):
            make(["bias"])


@pytest.mark.parametrize("make", [groups.multipliers, groups.scale_by_group])
@pytest.mark.parametrize(
    ("number", "error"),
    [
        (-1.0, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        (np.ones(2), ValueError),
        ("0.5", TypeError),
        (None, TypeError),
        (False, TypeError),
    ],
)
def test_a_multiplier_that_is_none_is_refused_by_its_pattern(make, number, error):
    with pytest.raises(error, match=r"^by_pattern\['bias'\] must be .*got "):
        make({"bias": number})
    with pytest.raises(error, match=r"^default must be .*got "):
        make({"bias": 0.0}, default=number)


def test_freeze_refuses_what_is_no_transformation():
    with pytest.raises(TypeError, match=r"^inner must be an optax\.GradientTransformation"):
        groups.freeze(optax.sgd, "bias")


@pytest.mark.parametrize("params", [{}, (), None, [None], optax.MaskedNode()])
def test_no_leaves_match_nothing_and_are_not_refused(params):
    for mask in (groups.select("bias"), groups.multipliers({"bias": 0.0})):
        assert jax.tree.structure(mask(params)) == jax.tree.structure(params)


@pytest.mark.slow
def test_leaves_hidden_by_a_mask_are_not_missed():
    """Within optax.masked and optax.partition others have the leaves that a pattern is for."""
    inner = lion_jax.lion(0.1, weight_decay=0.1, mask=groups.exclude("bias", "norm/scale"))
    tx = optax.partition(
        {"lion": inner, "sgd": optax.sgd(0.1)},
        groups.labels({"layers/.*kernel|embed": "lion"}, "sgd"),
    )
    expected = optax.partition(
        {"lion": lion_jax.lion(0.1, weight_decay=0.1), "sgd": optax.sgd(0.1)},
        groups.labels({"layers/.*kernel|embed": "lion"}, "sgd"),
    )
    assert_close(run(tx, PARAMS, GRADIENTS)[0], run(expected, PARAMS, GRADIENTS)[0])


def test_a_leaf_that_is_none_is_not_missed():
    params = {"kernel": jnp.ones(2), "bias": None}
    assert groups.exclude("bias")(params) == {"kernel": True, "bias": None}
    assert groups.paths(params) == ["kernel"]


# The steps that follow.


def lion_loop(params, gradients, lr, wd, b1=0.9, b2=0.99):
    """Lion in float64, with a learning rate and a decay for each leaf."""
    params = {path: np.asarray(p, np.float64) for path, p in params.items()}
    moments = {path: np.zeros_like(p) for path, p in params.items()}
    for gradient in gradients:
        for path, g in gradient.items():
            g, m, p = np.asarray(g, np.float64), moments[path], params[path]
            params[path] = p - lr[path] * (np.sign(b1 * m + (1 - b1) * g) + wd[path] * p)
            moments[path] = b2 * m + (1 - b2) * g
    return params


def flat(params):
    return dict(zip(groups.paths(params), jax.tree.leaves(params), strict=True))


def test_groups_of_learning_rate_and_weight_decay_equal_a_loop():
    tx = optax.chain(
        lion_jax.lion(
            0.1, weight_decay=0.5, mask=groups.multipliers({"bias|norm": 0.0, "embed": 0.25})
        ),
        groups.scale_by_group({"layers/0": 0.5, "norm": 2.0}),
    )
    lr = {p: 0.05 if "layers/0" in p else 0.2 if "norm" in p else 0.1 for p in PATHS}
    wd = {p: 0.0 if re.search("bias|norm", p) else 0.125 if "embed" in p else 0.5 for p in PATHS}
    expected = lion_loop(flat(PARAMS), [flat(g) for g in GRADIENTS], lr, wd)
    actual = flat(run(tx, PARAMS, GRADIENTS)[0])
    for path in PATHS:
        np.testing.assert_allclose(actual[path], expected[path], rtol=1e-5, err_msg=path)


@pytest.mark.sampled
@recordings.replays("torch_adamw_groups")
def test_replays_the_parameter_groups_of_torch(name, dtype):
    case = recordings.CASES[name]
    assert case["groups"] == {
        "w": {"lr": 0.1 * case["base_lr"]},
        "b": {"weight_decay": 0.0},
        "scalar": {"weight_decay": 0.0},
    }
    recordings.assert_replays(
        name,
        lambda: optax.chain(
            optax.scale_by_adam(),
            lion_jax.add_decoupled_weight_decay(
                case["kwargs"]["weight_decay"], mask=groups.exclude("^b$", "scalar")
            ),
            optax.scale_by_learning_rate(recordings.schedule(name)),
            groups.scale_by_group({"^w$": 0.1}),
        ),
        dtype,
    )


@pytest.mark.slow
def test_scaling_by_group_equals_partitioning():
    tx = optax.chain(lion_jax.lion(0.1, weight_decay=0.1), groups.scale_by_group({"bias": 0.25}))
    expected = optax.partition(
        {
            "slow": lion_jax.lion(0.025, weight_decay=0.1),
            "rest": lion_jax.lion(0.1, weight_decay=0.1),
        },
        groups.labels({"bias": "slow"}, "rest"),
    )
    assert_close(run(tx, PARAMS, GRADIENTS)[0], run(expected, PARAMS, GRADIENTS)[0])


def test_scaling_by_one_leaves_updates_alone_and_by_zero_stops_them():
    tx = groups.scale_by_group({"bias": 0.0})
    updates, _ = tx.update(PARAMS, tx.init(PARAMS))
    assert updates["embed"]["table"] is PARAMS["embed"]["table"]
    np.testing.assert_array_equal(updates["layers"][0]["bias"], [0.0, 0.0])


@pytest.mark.sampled
def test_multipliers_may_be_traced():
    """A sweep over a group's learning rate and weight decay is one vmap."""

    def step(value):
        tx = optax.chain(
            lion_jax.lion(0.1, weight_decay=0.5, mask=groups.multipliers({"embed": value})),
            groups.scale_by_group({"bias": value}),
        )
        return tx.update(GRADIENTS[0], tx.init(PARAMS), PARAMS)[0]

    swept = jax.jit(jax.vmap(step))(jnp.array([0.0, 0.5]))
    for i, value in enumerate([0.0, 0.5]):
        assert_close(jax.tree.map(lambda x, i=i: x[i], swept), step(value))


def test_a_missing_gradient_moves_nothing():
    tx = optax.chain(
        lion_jax.lion(0.1, weight_decay=0.5, mask=groups.exclude("bias")),
        groups.scale_by_group({"norm": 0.5}),
    )
    gradients = PARAMS | {"norm": {"scale": None}}
    for transformation in (tx, groups.freeze(tx, "embed")):
        updates, _ = transformation.update(gradients, transformation.init(PARAMS), PARAMS)
        assert updates["norm"]["scale"] is None
        assert updates["layers"][1]["kernel"].shape == (2, 2)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "wrap", [lambda tx: tx, lambda tx: lion_jax.lookahead(tx, 2)], ids=["lion", "lookahead"]
)
def test_frozen_leaves_stay_and_have_no_state(wrap):
    inner = wrap(lion_jax.lion(0.1, weight_decay=0.1))
    tx = groups.freeze(inner, "^embed", "norm")
    params, state = run(tx, PARAMS, GRADIENTS)
    np.testing.assert_array_equal(params["embed"]["table"], PARAMS["embed"]["table"])
    np.testing.assert_array_equal(params["norm"]["scale"], PARAMS["norm"]["scale"])
    alone, _ = run(
        inner, {"layers": PARAMS["layers"]}, [{"layers": g["layers"]} for g in GRADIENTS]
    )
    assert_close(params["layers"], alone["layers"])
    shapes = {x.shape for x in jax.tree.leaves(state)}
    assert shapes <= {(2, 2), (2,), ()}
    assert isinstance(optax.tree_utils.tree_get(state, "mu")["embed"]["table"], optax.MaskedNode)


def test_frozen_leaves_get_zeros_of_the_dtype_of_the_parameters():
    tx, params = groups.freeze(lion_jax.lion(0.1), "bias"), {"w": jnp.ones(2), "bias": jnp.ones(2)}
    gradients = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    updates, _ = tx.update(gradients, tx.init(params), params)
    assert specs(updates) == specs(params)
    np.testing.assert_array_equal(updates["bias"], [0.0, 0.0])
    updates, _ = tx.update(gradients, tx.init(params))
    np.testing.assert_array_equal(updates["bias"], [0.0, 0.0])


def test_states_still_map_like_the_parameters():
    """What sharding and checkpointing tools rely on; they call init with a placeholder."""
    for tx in (
        lion_jax.lion(0.1, weight_decay=0.1, mask=groups.exclude("bias")),
        groups.freeze(lion_jax.lion(0.1), "bias"),
        groups.scale_by_group({"bias": 0.5}),
        optax.partition({0: lion_jax.lion(0.1)}, groups.labels({"bias": 0}, 0)),
    ):
        mapped = optax.tree_utils.tree_map_params(
            tx, lambda x: x.astype(jnp.float16), tx.init(PARAMS)
        )
        assert all(x.dtype == jnp.float16 for x in jax.tree.leaves(mapped) if x.ndim)


def test_groups_keep_narrow_dtypes():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    tx = optax.chain(
        lion_jax.lion(0.1, weight_decay=0.5, mask=groups.multipliers({"embed": 0.5})),
        groups.scale_by_group({"bias": 0.5}),
    )
    updates, _ = tx.update(params, tx.init(params), params)
    assert specs(updates) == specs(params)


# Real models.


def decayed_and_scaled(decaying, slow):
    """Lion by two groups: nothing but the named decays, and the named learns at half the rate."""
    return optax.chain(
        lion_jax.lion(0.01, weight_decay=0.5, mask=groups.select(decaying)),
        groups.scale_by_group({slow: 0.5}),
    )


def check_first_step(before, after, gradients, decaying, slow):
    """The first step of Lion with the groups of `decayed_and_scaled`."""
    for path, p, q, g in zip(
        groups.paths(before),
        *map(jax.tree.leaves, (before, after, gradients)),
        strict=True,
    ):
        lr = 0.01 * (0.5 if re.search(slow, path) else 1.0)
        wd = 0.5 if re.search(decaying, path) else 0.0
        np.testing.assert_allclose(q, p - lr * (jnp.sign(g) + wd * p), atol=1e-6, err_msg=path)


@pytest.mark.slow
def test_works_with_flax_linen():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(1)(nn.LayerNorm()(x))

    model, x = Model(), jnp.sin(jnp.arange(6.0)).reshape(2, 3)
    params = jax.jit(model.init)(jax.random.key(0), x)["params"]
    gradients = jax.jit(jax.grad(lambda p: jnp.sum(model.apply({"params": p}, x) ** 2)))(params)
    tx = decayed_and_scaled("kernel$", "LayerNorm")
    after, _ = run(tx, params, [gradients])
    check_first_step(params, after, gradients, "kernel$", "LayerNorm")


def test_attention_of_flax_linen_has_a_value_and_biases_of_rank_two():
    attention, x = nn.MultiHeadDotProductAttention(2), jnp.ones((2, 3, 4))
    params = jax.eval_shape(attention.init, jax.random.key(0), x)["params"]
    assert params["value"]["bias"].ndim == 2
    assert chosen(groups.exclude_biases_and_norms, params) == [
        "key/kernel",
        "out/kernel",
        "query/kernel",
        "value/kernel",
    ]


@needs(nnx, "List")
@pytest.mark.slow
def test_works_with_flax_nnx():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(2)])
            self.norm = nnx.LayerNorm(3, rngs=rngs)

        def __call__(self, x):
            for layer in self.layers:
                x = layer(x)
            return self.norm(x)

    model, x = Model(nnx.Rngs(0)), jnp.sin(jnp.arange(6.0)).reshape(2, 3)
    before = nnx.state(model, nnx.Param)
    before = jax.tree.map(jnp.copy, before)
    assert groups.paths(before) == [
        "layers/0/bias",
        "layers/0/kernel",
        "layers/1/bias",
        "layers/1/kernel",
        "norm/bias",
        "norm/scale",
    ]
    optimizer = nnx.Optimizer(
        model, groups.freeze(decayed_and_scaled("kernel$", "norm"), "layers/0"), wrt=nnx.Param
    )
    gradients = nnx.grad(lambda m: jnp.sum(m(x) ** 3))(model)
    optimizer.update(model, gradients)
    after = nnx.state(model, nnx.Param)
    np.testing.assert_array_equal(
        after["layers"][0]["kernel"][...], before["layers"][0]["kernel"][...]
    )
    moving = groups.select("layers/1|norm")(before)
    keep = [i for i, is_moving in enumerate(jax.tree.leaves(moving)) if is_moving]
    names = groups.paths(before)
    parts = [{names[i]: jax.tree.leaves(t)[i] for i in keep} for t in (before, after, gradients)]
    check_first_step(*parts, "kernel$", "norm")


@pytest.mark.slow
def test_works_with_equinox():
    model = eqx.nn.MLP(2, 1, 4, 1, use_final_bias=False, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    assert groups.paths(params) == ["layers/0/weight", "layers/0/bias", "layers/1/weight"]
    x = jnp.sin(jnp.arange(6.0)).reshape(3, 2)
    gradients = eqx.filter_grad(lambda p: jnp.sum(jax.vmap(eqx.combine(p, static))(x) ** 2))(params)
    tx = decayed_and_scaled("weight$", "layers/0")
    updates, _ = tx.update(gradients, tx.init(params), params)
    after = eqx.apply_updates(params, updates)
    check_first_step(params, after, gradients, "weight$", "layers/0")
    mask = groups.select("weight$")(params)  # a module of booleans, which can be called as well
    masked, _ = run(lion_jax.lion(0.01, weight_decay=0.5, mask=mask), params, [gradients])
    np.testing.assert_array_equal(masked.layers[1].weight, after.layers[1].weight)
    frozen, _ = run(groups.freeze(tx, "layers/1/bias|layers/0"), params, [gradients])
    np.testing.assert_array_equal(frozen.layers[0].weight, params.layers[0].weight)
    np.testing.assert_array_equal(frozen.layers[1].weight, after.layers[1].weight)


def test_works_with_dataclasses_and_tuples():
    params = {"head": Layer(jnp.ones((2, 2)), jnp.ones(2)), "pair": (jnp.ones(2), None)}
    gradients = jax.tree.map(lambda p: 0.5 * p, params)
    after, _ = run(decayed_and_scaled("kernel|pair", "pair/0"), params, [gradients])
    check_first_step(params, after, gradients, "kernel|pair", "pair/0")


# What is no mask's business, and what a frozen leaf is not.

OUR_FUNCTIONS = {
    "exclude_biases_and_norms": groups.exclude_biases_and_norms,
    "select": groups.select("kernel"),
    "exclude": groups.exclude("bias"),
    "multipliers": groups.multipliers({"bias": 0.0}),
    "labels": groups.labels({"bias": "a"}, default="b"),
    "predicate": groups.select(lambda path, leaf: leaf.ndim > 1),
    "nothing": groups.select(),
}


@pytest.mark.parametrize("mask", OUR_FUNCTIONS.values(), ids=OUR_FUNCTIONS)
@pytest.mark.parametrize(
    "count", [jnp.int32(0), np.int64(3), 7, jax.ShapeDtypeStruct((), jnp.int32)], ids=str
)
def test_a_step_count_is_not_taken_for_parameters(mask, count):
    message = r"^params must be the parameters.*step count.*static_args=\(\"mask\",\)"
    with pytest.raises(TypeError, match=message):
        mask(count)


@pytest.mark.parametrize("parameter", [jnp.float32(1.0), jnp.bfloat16(1.0), 1.0, 1j], ids=str)
def test_parameters_may_be_one_number(parameter):
    assert groups.exclude_biases_and_norms(parameter) is False
    assert groups.multipliers({lambda path, leaf: True: 0.5})(parameter) == 0.5


@pytest.mark.sampled
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    ("factory", "name"),
    [
        (lion_jax.lion, "mask"),
        (lion_jax.adan, "mask"),
        (lion_jax.lars, "weight_decay_mask"),
        (lion_jax.lars, "trust_ratio_mask"),
    ],
)
def test_injection_that_takes_a_mask_for_a_schedule_is_refused(factory, name, jit):
    arguments = {name: groups.exclude_biases_and_norms, "weight_decay": 0.1}
    tx = optax.inject_hyperparams(factory)(1e-2, **arguments)
    with pytest.raises(TypeError, match="static_args"):
        (jax.jit(tx.init) if jit else tx.init)(PARAMS)
    right = optax.inject_hyperparams(factory, static_args=(name,))(1e-2, **arguments)
    plain = factory(1e-2, **arguments)
    assert_close(run(right, PARAMS, GRADIENTS[:1])[0], run(plain, PARAMS, GRADIENTS[:1])[0])


@pytest.mark.parametrize("factory", [lion_jax.lion, lion_jax.lars], ids=["lion", "lars"])
@pytest.mark.parametrize("array", [jnp.bool_(False), jnp.int32(1)], ids=str)
def test_one_array_is_no_mask(factory, array):
    name = "mask" if factory is lion_jax.lion else "weight_decay_mask"
    with pytest.raises(TypeError, match=rf"^{name} must be a tree.*static_args=\(\"{name}\",\)"):
        factory(1e-2, weight_decay=0.1, **{name: array})


def test_a_predicate_is_not_asked_about_what_is_no_array():
    params = {"w": jnp.ones((2, 2)), "activation": jax.nn.relu}
    mask = groups.select(lambda path, leaf: leaf.ndim > 1)
    assert mask(params) == {"w": True, "activation": False}
    assert groups.exclude_biases_and_norms(params)["w"]


def quadratic(params, centre=0.5):
    return sum(jnp.sum(jnp.square(p - centre)) for p in jax.tree.leaves(params))


LINE_SEARCHES = {
    "lbfgs": optax.lbfgs(),
    "zoom": optax.chain(optax.sgd(1.0), optax.scale_by_zoom_linesearch(5)),
    "backtracking": optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(5, store_grad=True)
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("tx", LINE_SEARCHES.values(), ids=LINE_SEARCHES)
def test_a_line_search_steps_what_is_not_frozen(tx):
    """As it steps those parameters alone, of a loss in which the frozen ones are constants."""
    params = {"a": jnp.array([2.0, -1.0]), "b": jnp.array([3.0])}

    def loss(params, scale):
        return scale * quadratic(params) + jnp.sum(params["a"]) * jnp.sum(params["b"])

    def loss_of_rest(rest, scale):
        return loss({**rest, "b": params["b"]}, scale)

    def train(tx, loss, p):
        state = tx.init(p)
        for _ in range(3):
            value, grad = jax.value_and_grad(loss)(p, 2.0)
            updates, state = tx.update(
                grad, state, p, value=value, grad=grad, value_fn=loss, scale=2.0
            )
            p = optax.apply_updates(p, updates)
        return p

    expected = train(tx, loss_of_rest, {"a": params["a"]})
    actual = train(groups.freeze(tx, "^b"), loss, params)
    assert_close(actual, {**expected, "b": params["b"]})


@pytest.mark.slow
def test_what_a_value_function_is_given_besides_is_not_hidden_from_it():
    """Even where it is a tree like the parameters, as a batch may be."""
    params = {"a": jnp.array([2.0]), "b": jnp.array([3.0])}
    batch = {"a": jnp.array([1.0]), "b": jnp.array([-1.0])}

    def loss(params, batch):
        return quadratic(jax.tree.map(jnp.subtract, params, batch))

    tx = groups.freeze(LINE_SEARCHES["backtracking"], "^b")
    value, grad = jax.value_and_grad(loss)(params, batch)
    updates, _ = tx.update(
        grad, tx.init(params), params, value=value, grad=grad, value_fn=loss, batch=batch
    )
    assert updates["a"] < 0
    assert updates["b"] == 0


@pytest.mark.parametrize(
    "around", [lambda tx: tx, lion_jax.with_finite_guard], ids=["alone", "guarded"]
)
def test_frozen_integers_stay_and_have_no_state(around):
    params = {"w": jnp.ones(2), "rows": jnp.array([1, 2])}

    def loss(params):
        return jnp.sum(params["w"] * params["rows"])

    gradients = jax.grad(loss, allow_int=True)(params)  # float0 for the integers
    tx = around(groups.freeze(optax.sgd(0.5, momentum=0.5), "rows"))
    updates, state = tx.update(gradients, tx.init(params), params)
    assert updates["rows"].dtype == jnp.int32
    new = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(new["rows"], params["rows"])
    np.testing.assert_allclose(new["w"], [0.5, 0.0])
    assert specs(state) == specs(tx.init(params))
