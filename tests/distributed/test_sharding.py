"""Where an optimizer's state lives: with its parameters, or split further among replicas."""

import functools
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from catalogue import CATALOGUE
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding
from theirs import OPTAX, PECULIAR
from trees import assert_close, run

import lion_jax
from lion_jax import groups, precision
from lion_jax.distributed._splitting import split_dimensions
from lion_jax.distributed.sharding import state_sharding, zero_sharding

P = PartitionSpec
KINDS = pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
EXPLICIT_SOON = pytest.mark.parametrize(
    "kind",
    [AxisType.Explicit, pytest.param(AxisType.Auto, marks=pytest.mark.slow)],
    ids=str,
)
LION = lion_jax.lion(1e-2, weight_decay=0.1)
# A pod without one: sharding is decided from names and sizes alone.
POD = AbstractMesh((256,), ("data",))
ON_POD = NamedSharding(POD, P())


def quantized(inner=LION, **options):
    return precision.with_quantized_state(inner, min_size=0, **options)


COMBINED = {
    "metrics": lion_jax.with_metrics(LION, per_parameter=True, sign_flips=True),
    "quantized_lookahead": lion_jax.with_metrics(
        lion_jax.lookahead(quantized()), per_parameter=True
    ),
    "averages": lion_jax.with_parameter_average(
        lion_jax.with_accumulation(optax.adam(0.1), 2), 0.9
    ),
    "groups": optax.chain(groups.scale_by_group({"bias": 0.5}), groups.freeze(LION, "kernel")),
    "partition": optax.partition(
        {"lion": LION, "adam": optax.adam(0.1)},
        {"kernel": "lion", "bias": "adam", "none": None, "scale": "adam"},
    ),
    "masked": optax.masked(
        optax.adam(0.1), lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    ),
    "injected": optax.inject_hyperparams(lion_jax.lion)(1e-2, weight_decay=lambda count: 0.1),
    "adafactor": optax.adafactor(0.1, min_dim_size_to_factor=8, momentum=0.9),
    "multi_steps": optax.MultiSteps(optax.adam(0.1), 2),
    "rngs": optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(0)), optax.adam(0.1)),
    "identity": optax.identity(),
    "lbfgs": optax.lbfgs(),
    "line_search": optax.chain(optax.sgd(1.0), optax.scale_by_zoom_linesearch(3)),
    "sm3": optax.sm3(0.1),
}


def mesh_of(kind, *sizes):
    names = ("data",) if len(sizes) == 1 else ("data", "model")
    return jax.make_mesh(sizes, names, axis_types=(kind,) * len(sizes))


def parameters(dtype=jnp.float32):
    """A tree whose leaves split over 8 devices, but for a scalar."""
    values = np.random.default_rng(0).standard_normal
    return {
        "kernel": jnp.asarray(values((64, 32)), dtype),
        "bias": jnp.asarray(values(8), dtype),
        "scale": jnp.asarray(0.5, dtype),
        "none": None,
    }


def specs_of(shardings):
    return jax.tree.map(lambda sharding: sharding.spec, shardings)


def check_places(tx, params, shardings):
    """`jax.jit(init)` puts the state where it should be, from concrete and abstract parameters."""
    state = jax.jit(tx.init, out_shardings=shardings)(params)
    assert jax.tree.structure(shardings) == jax.tree.structure(state)
    assert all(
        x.sharding == s for x, s in zip(*map(jax.tree.leaves, (state, shardings)), strict=True)
    )
    return state


def check_initializes(tx, kind):
    mesh = mesh_of(kind, 4, 2)
    by_leaf = {"kernel": P(None, "model"), "bias": P("model"), "scale": P(), "none": None}
    by_leaf = jax.tree.map(lambda spec: NamedSharding(mesh, spec), by_leaf)
    params = jax.device_put(parameters(), by_leaf)
    shardings = state_sharding(tx, params, by_leaf)
    state = check_places(tx, params, shardings)
    for leaf in jax.tree.leaves(state):
        assert leaf.shape != (64, 32) or leaf.sharding == by_leaf["kernel"]
    check_places(tx, params, zero_sharding(tx, params, by_leaf, "data", unsplit="ignore"))
    abstract = jax.eval_shape(lambda: parameters())
    assert state_sharding(tx, abstract, by_leaf) == shardings


@pytest.mark.sampled
@EXPLICIT_SOON
@pytest.mark.parametrize(
    "entry",
    [pytest.param(e, id=e.name, marks=[pytest.mark.slow] if e.slow else []) for e in CATALOGUE],
)
def test_initializes_every_optimizer_on_a_mesh(entry, kind):
    check_initializes(entry.make(), kind)


@pytest.mark.sampled
@EXPLICIT_SOON
@pytest.mark.parametrize("tx", COMBINED.values(), ids=COMBINED)
def test_initializes_combinations_on_a_mesh(tx, kind):
    check_initializes(tx, kind)


@KINDS
def test_initializes_master_weights_on_a_mesh(kind):
    rows = NamedSharding(mesh_of(kind, 8), P("data"))
    params = jax.device_put({"kernel": jnp.ones((512, 8), jnp.bfloat16)}, rows)
    tx = precision.with_master_weights(quantized())
    state = check_places(tx, params, state_sharding(tx, params, rows))
    assert {x.sharding.spec for x in jax.tree.leaves(state) if x.ndim} == {P("data")}


def test_a_moment_lives_with_its_parameter_and_a_counter_everywhere():
    mesh = mesh_of(AxisType.Auto, 4, 2)
    rows, columns = NamedSharding(mesh, P("data")), NamedSharding(mesh, P(None, "model"))
    params = {"a": jnp.ones((8, 8)), "b": jnp.ones((8, 8))}
    adam, _ = state_sharding(optax.adam(0.1), params, {"a": rows, "b": columns})
    assert adam.mu == adam.nu == {"a": rows, "b": columns}
    assert adam.count == NamedSharding(mesh, P())


def test_exponents_are_split_where_they_divide_and_whole_elsewhere():
    mesh = mesh_of(AxisType.Auto, 4, 2)
    both = NamedSharding(mesh, P("data", "model"))
    params = {"many": jnp.ones((128, 16)), "few": jnp.ones((64, 16))}
    state = state_sharding(quantized(optax.trace(0.9)), params, both).inner_state.trace
    assert specs_of(state.codes) == {"many": P("data", "model"), "few": P("data", "model")}
    assert specs_of(state.exponents) == {"many": P("data", "model"), "few": P(None, "model")}


def test_factored_moments_are_on_every_device():
    rows = NamedSharding(mesh_of(AxisType.Auto, 8), P("data"))
    tx = optax.adafactor(0.1, min_dim_size_to_factor=8, momentum=0.9)
    shardings = jax.tree.leaves(state_sharding(tx, jnp.ones((16, 8)), rows))
    shapes = [x.shape for x in jax.tree.leaves(jax.eval_shape(tx.init, jnp.ones((16, 8))))]
    found = dict(zip(shapes, specs_of(shardings), strict=True))
    assert found[16, 8] == P("data")
    assert found[8,] == found[16,] == found[1,] == found[()] == P()


SPARING_TIME = [
    pytest.param(name, marks=[] if name in PECULIAR else [pytest.mark.slow]) for name in OPTAX
]


@pytest.mark.sampled
@pytest.mark.parametrize("name", SPARING_TIME)
def test_every_optimizer_of_optax_has_shardings_that_fit(name):
    rows = NamedSharding(mesh_of(AxisType.Auto, 8), P("data"))
    tx = OPTAX[name]()
    for params in ({"w": jnp.ones((8, 4)), "b": jnp.ones(8)}, [jnp.ones((16, 8))], jnp.ones(8)):
        state = jax.eval_shape(tx.init, params)
        for shardings in (
            state_sharding(tx, params, rows),
            zero_sharding(tx, params, rows, "data", unsplit="ignore"),
        ):
            assert jax.tree.structure(shardings) == jax.tree.structure(state)
            for leaf, sharding in zip(*map(jax.tree.leaves, (state, shardings)), strict=True):
                sharding.shard_shape(leaf.shape)


def test_what_is_remembered_of_several_steps_is_split_as_the_parameters():
    rows = NamedSharding(mesh_of(AxisType.Auto, 8), P("data"))
    params = {"a": jnp.ones((8, 4)), "b": jnp.ones(16)}
    for tx in (optax.lbfgs(), optax.lbfgs(linesearch=None)):
        state = specs_of(state_sharding(tx, params, rows)[0])
        assert state.updates == state.params == {"a": P("data"), "b": P("data")}
        memory = {"a": P(None, "data"), "b": P(None, "data")}
        assert state.diff_params_memory == state.diff_updates_memory == memory
        assert state.count == state.weights_memory == P()


@pytest.mark.slow
def test_lbfgs_steps_on_eight_devices_as_on_one():
    rows = NamedSharding(mesh_of(AxisType.Auto, 8), P("data"))
    tx, params = optax.lbfgs(), {"w": jnp.linspace(-1.0, 1.0, 16)}

    def loss(params):
        return jnp.sum(jnp.arange(1.0, 17.0) * jnp.square(params["w"] - 0.5))

    @jax.jit
    def step(params, state):
        value, grad = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=loss)
        return optax.apply_updates(params, updates), state

    expected, state = step(*step(params, tx.init(params)))
    params = jax.device_put(params, rows)
    state = check_places(tx, params, state_sharding(tx, params, rows))
    actual, state = step(*step(params, state))
    assert_close(actual, expected, rtol=1e-4, atol=1e-5)


host_memory = pytest.mark.skipif(
    "pinned_host" not in {memory.kind for memory in jax.devices()[0].addressable_memories()},
    reason="the CPU has no memory pinned_host in this jaxlib",
)


@host_memory
@pytest.mark.parametrize("place", [state_sharding, lambda *a: zero_sharding(*a, "data")])
def test_the_state_of_a_parameter_has_its_memory_kind(place):
    mesh = mesh_of(AxisType.Auto, 8)
    host = NamedSharding(mesh, P("data"), memory_kind="pinned_host")
    params = jnp.ones((256, 8))
    state = check_places(quantized(), params, place(quantized(), params, host))
    assert {(x.ndim, x.sharding.memory_kind) for x in jax.tree.leaves(state)} == {
        (2, "pinned_host"),
        (0, "device"),
    }


@host_memory
def test_a_memory_of_the_host_that_stays_empty_is_refused():
    host = NamedSharding(mesh_of(AxisType.Auto, 8), P("data"), memory_kind="pinned_host")
    with pytest.raises(ValueError, match=r"got \['pinned_host'\], but no leaf of this state"):
        state_sharding(optax.sgd(1.0), jnp.ones((256, 8)), host)


@host_memory
@pytest.mark.slow
def test_a_state_in_host_memory_steps_as_one_on_the_device():
    mesh = mesh_of(AxisType.Auto, 8)
    rows = NamedSharding(mesh, P("data"))
    tx, params = lion_jax.lion(1e-2), jax.device_put(jnp.ones((256, 8)), rows)
    on_device = state_sharding(tx, params, rows)
    on_host = state_sharding(tx, params, rows.with_memory_kind("pinned_host"))

    @functools.partial(jax.jit, out_shardings=(rows, on_host))
    def step(params, state, gradient):
        updates, state = tx.update(gradient, jax.device_put(state, on_device), params)
        return optax.apply_updates(params, updates), state

    gradient = jax.device_put(jnp.linspace(-1, 1, 2048).reshape(256, 8), rows)
    state = jax.device_put(tx.init(params), on_host)
    new, state = step(params, state, gradient)
    moment = optax.tree_utils.tree_get(state, "mu")
    assert moment.sharding.memory_kind == "pinned_host"
    expected, _ = tx.update(gradient, tx.init(params), params)
    assert_close(new, params + expected)


def test_takes_a_prefix_of_the_tree():
    mesh = mesh_of(AxisType.Auto, 8)
    rows, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    params = {"a": [jnp.ones(8), None, {"b": jnp.ones((8, 2))}], "c": jnp.ones(3)}
    trace = state_sharding(optax.trace(0.9), params, {"a": rows, "c": whole}).trace
    assert trace == {"a": [rows, None, {"b": rows}], "c": whole}


@pytest.mark.parametrize("params", [{}, (), None, [None], {"a": {}, "b": None}], ids=str)
def test_takes_trees_without_leaves(params):
    whole = NamedSharding(mesh_of(AxisType.Auto, 8), P())
    for shardings in (
        state_sharding(optax.adam(0.1), params, whole),
        zero_sharding(optax.adam(0.1), params, whole, "data", unsplit="raise"),
    ):
        assert jax.tree.leaves(shardings) == [whole]  # the counter's
        check_places(optax.adam(0.1), params, shardings)
    assert state_sharding(optax.identity(), params, params) == optax.EmptyState()


def test_refuses_a_tree_without_a_sharding_for_counters():
    with pytest.raises(ValueError, match=r"^param_sharding must hold a sharding.*got \{\}.*Try"):
        state_sharding(optax.adam(0.1), {}, {})


@pytest.mark.parametrize(
    ("shape", "spec", "message"),
    [
        (
            (10, 16),
            P("data"),
            r"dimension 0 of extent 10 over the 8 devices of mesh axis 'data' for the parameter at "
            r"\['w'\] of shape \(10, 16\)\. Try dimension 1, which they divide, or padding it to",
        ),
        ((3,), P("data"), r"dimension 0 of extent 3 .*Try PartitionSpec\(\), or padding it to 8"),
        ((), P("data"), r"no more entries than .*P.*'data'.*at \['w'\] of shape \(\)\. Try"),
    ],
)
def test_refuses_a_sharding_that_does_not_fit(shape, spec, message):
    sharding = NamedSharding(mesh_of(AxisType.Auto, 8), spec)
    with pytest.raises(ValueError, match=rf"^param_sharding must .*{message}"):
        state_sharding(LION, {"w": jnp.ones(shape)}, sharding)


def test_names_all_axes_of_a_sharding_that_does_not_fit():
    sharding = NamedSharding(mesh_of(AxisType.Auto, 4, 2), P(("data", "model")))
    with pytest.raises(ValueError, match=r"the 8 devices of mesh axes 'data', 'model' for .*root"):
        zero_sharding(LION, jnp.ones(4), sharding, "data")


@pytest.mark.parametrize("sharding", [SingleDeviceSharding(jax.devices()[0]), P("data"), "data"])
def test_refuses_a_sharding_without_a_mesh(sharding):
    with pytest.raises(TypeError, match=r"^param_sharding must hold .*NamedSharding; got .*Try"):
        state_sharding(LION, {"w": jnp.ones(8)}, sharding)


def test_refuses_a_tree_of_another_structure():
    with pytest.raises(ValueError, match=r"^param_sharding must be .*'b'.*'a'.*Try jax\.tree\.map"):
        state_sharding(LION, {"a": jnp.ones(8)}, {"b": ON_POD})


@pytest.mark.parametrize("place", [state_sharding, lambda *a: zero_sharding(*a, "data")])
def test_refuses_what_is_no_transformation(place):
    with pytest.raises(TypeError, match=r"^optimizer must be an optax\.GradientTransformation"):
        place(optax.sgd, {"w": jnp.ones(8)}, ON_POD)


@pytest.mark.parametrize("axis", ["batch", ("data", "batch"), ("data", "data"), (), None, 0])
def test_refuses_an_axis_that_the_mesh_does_not_have(axis):
    whole = NamedSharding(mesh_of(AxisType.Auto, 4, 2), P())
    with pytest.raises(ValueError, match=r"^axis_name must be .*'data', 'model'; got .*Try"):
        zero_sharding(LION, {"w": jnp.ones((8, 8))}, whole, axis)


@pytest.mark.parametrize("unsplit", ["error", True, None])
def test_refuses_another_word_for_unsplit(unsplit):
    with pytest.raises(ValueError, match=r'^unsplit must be "warn" or "raise" or "ignore"; got'):
        zero_sharding(LION, {"w": jnp.ones(8)}, ON_POD, "data", unsplit=unsplit)


@pytest.mark.sampled
@KINDS
def test_each_device_keeps_its_share_of_the_moments(kind):
    whole = NamedSharding(mesh_of(kind, 8), P())
    params = jax.device_put({"kernel": jnp.ones((512, 16)), "bias": jnp.ones(16)}, whole)
    tx = optax.chain(optax.clip_by_global_norm(1.0), quantized(optax.adam(0.1), group_size=2))
    state = check_places(tx, params, zero_sharding(tx, params, whole, "data", unsplit="raise"))
    for leaf in jax.tree.leaves(state):
        share = leaf.addressable_shards[0].data.size / leaf.size
        assert share == (1 / 8 if leaf.ndim else 1)


def test_splits_a_parameter_that_another_axis_splits_already():
    mesh = mesh_of(AxisType.Auto, 4, 2)
    columns = NamedSharding(mesh, P(None, "model"))
    params = {"w": jnp.ones((64, 256)), "narrow": jnp.ones((3, 256))}
    trace = zero_sharding(optax.trace(0.9), params, columns, "data").trace
    assert specs_of(trace) == {"w": P("data", "model"), "narrow": P(None, ("model", "data"))}


def test_splits_along_several_axes():
    mesh = mesh_of(AxisType.Auto, 4, 2)
    params, axes = {"w": jnp.ones((64, 8)), "v": jnp.ones((64, 8))}, ("data", "model")
    shardings = {"w": NamedSharding(mesh, P()), "v": NamedSharding(mesh, P(None, "model"))}
    trace = zero_sharding(optax.trace(0.9), params, shardings, axes).trace
    assert specs_of(trace) == {"w": P(("data", "model")), "v": P("data", "model")}


def test_leaves_the_moments_of_parameters_split_along_the_axis():
    rows = NamedSharding(mesh_of(AxisType.Auto, 8), P(None, "data"))
    params = {"w": jnp.ones((64, 8))}
    assert zero_sharding(LION, params, rows, "data") == state_sharding(LION, params, rows)


def test_an_axis_of_one_device_splits_nothing():
    mesh = jax.make_mesh((1, 8), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    whole = NamedSharding(mesh, P())
    params = {"w": jnp.ones((5, 7))}
    assert zero_sharding(LION, params, whole, "data") == state_sharding(LION, params, whole)


def test_warns_of_state_that_cannot_be_split():
    shapes = {"kernel": (512, 512), "embedding": (50257, 10), "bias": (10,), "scale": ()}
    params = {k: jax.ShapeDtypeStruct(shape, jnp.float32) for k, shape in shapes.items()}
    with pytest.warns(UserWarning, match="^zero_sharding cannot split") as caught:
        zero_sharding(LION, params, ON_POD, "data")
    (warning,) = caught
    assert warning.filename == __file__
    total = 4 * (50257 * 10 + 10)
    assert str(warning.message).splitlines() == [
        "zero_sharding cannot split the state of 2 of 4 parameters along mesh axis 'data': "
        f"{total} bytes stay whole on every device, {total / (total + 4 * 512**2 + 4):.2%} of the "
        "state:",
        "  ['embedding'] of shape (50257, 10): 2010280 bytes; no dimension is a multiple of 256. "
        "Try an axis of 29 or padding dimension 0 to 50432.",
        "  ['bias'] of shape (10,): 40 bytes; no dimension is a multiple of 256. "
        "Try an axis of 10 or padding dimension 0 to 256.",
        'unsplit="ignore" silences this.',
    ]


def test_raises_or_ignores_what_cannot_be_split():
    params = {"bias": jnp.ones(10)}
    with pytest.raises(ValueError, match=r"^zero_sharding cannot split the state of 1 of 1"):
        zero_sharding(LION, params, ON_POD, "data", unsplit="raise")
    ignored = zero_sharding(LION, params, ON_POD, "data", unsplit="ignore")
    assert ignored == state_sharding(LION, params, ON_POD)


def test_says_why_and_what_would_help():
    whole = NamedSharding(mesh_of(AxisType.Auto, 8), P())
    rows = NamedSharding(mesh_of(AxisType.Auto, 8), P("data"))
    narrow = jnp.ones((64, 12))
    for tx, params, sharding, message in [
        (quantized(), narrow, whole, r"8 parts would end within the groups .*\(2, 12\)\. Try an"),
        (quantized(), narrow, rows, r"state of shape \(2, 12\) is not a multiple of its parts"),
        (optax.adafactor(0.1, min_dim_size_to_factor=8), jnp.ones((16, 8)), whole, "has other dim"),
        (LION, jnp.ones((3, 5)), whole, r"multiple of 8\. Try an axis of 5 or .*dimension 1 to 8"),
    ]:
        with pytest.raises(ValueError, match=message):
            zero_sharding(tx, params, sharding, "data", unsplit="raise")


def test_what_is_said_to_help_helps():
    rng = np.random.default_rng(0)
    for _ in range(20):
        shape = tuple(int(n) for n in rng.integers(2, 100, rng.integers(1, 4)))
        shards = int(rng.integers(2, 40))
        mesh = AbstractMesh((shards,), ("data",))
        params = jax.ShapeDtypeStruct(shape, jnp.float32)
        whole = NamedSharding(mesh, P())
        if any(n % shards == 0 for n in shape):
            zero_sharding(LION, params, whole, "data", unsplit="raise")
            continue
        with pytest.raises(ValueError, match="Try") as caught:
            zero_sharding(LION, params, whole, "data", unsplit="raise")
        best = max(n for n in range(1, shards) if any(extent % n == 0 for extent in shape))
        assert (f"an axis of {best} " in str(caught.value)) == (best > 1)


def test_lists_the_largest_and_counts_the_rest():
    params = {f"{n:02}": jax.ShapeDtypeStruct((n,), jnp.float32) for n in range(2, 16)}
    with pytest.raises(ValueError, match=r"14 of 14 .*\n.*\['15'\].*\n.*\['14'\]") as caught:
        zero_sharding(optax.trace(0.9), params, ON_POD, "data", unsplit="raise")
    assert "  and 4 smaller ones" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 12


def test_counters_and_scalars_are_not_reported():
    tx = lion_jax.with_metrics(optax.adam(0.1), per_parameter=True)
    params = {"w": jnp.ones((256, 8)), "scale": jnp.ones(()), "one": jnp.ones(1)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zero_sharding(tx, params, ON_POD, "data")


@pytest.mark.parametrize(
    ("shape", "shards", "expected"),
    [
        ((64, 32), 8, 0),
        ((32, 1024), 8, 1),  # 4 rows would be half a tile
        ((12, 8), 8, 1),
        ((12, 8), 4, 0),  # neither keeps whole tiles
        ((3, 64, 256), 8, 1),
        ((1024,), 8, 0),
        ((8,), 8, 0),
        ((10,), 8, None),
        ((), 8, None),
        ((0, 8), 8, None),
        ((50257, 768), 8, 1),
    ],
)
def test_splits_the_first_dimension_that_keeps_whole_tiles(shape, shards, expected):
    assert split_dimensions(LION, {"w": jnp.zeros(shape)}, shards) == {"w": expected}


def test_splits_a_dimension_that_is_not_split_rather_than_one_that_is():
    params = {"a": jnp.ones((256, 2048)), "b": jnp.ones((256, 2048)), "c": None}
    taken = {"a": (2, 1), "b": (1, 2), "c": None}
    assert split_dimensions(LION, params, 8, taken) == {"a": 1, "b": 0, "c": None}
    assert split_dimensions(LION, {"a": jnp.ones((16, 3))}, 8, {"a": (4, 1)}) == {"a": None}


@pytest.mark.sampled
@pytest.mark.parametrize("group_size", [1, 3, 8, 24, 32])
def test_cuts_codes_between_groups_only(group_size):
    """By brute force: a dimension can be cut if each part's groups are groups of the whole."""
    tx = quantized(optax.trace(0.9), group_size=group_size)
    for rows in (8, 20, 24, 40, 48, 64, 96):
        for shards in (2, 4, 5):
            whole = [i // group_size for i in range(rows)]
            part = rows // shards
            is_whole = rows % shards == 0 and all(
                i // group_size != (i - 1) // group_size for i in range(part, rows, part)
            )
            exponents = math.ceil(rows / group_size)
            assert len(set(whole)) == exponents
            expected = 0 if is_whole and exponents % shards == 0 else None
            assert split_dimensions(tx, jnp.ones((rows, 7)), shards) == expected


@pytest.mark.sampled
@pytest.mark.parametrize("rule", ["lion", "adam"])
def test_split_codes_step_without_a_message(rule):
    inner = {"lion": LION, "adam": optax.adam(1e-2)}[rule]
    tx, mesh = quantized(inner), mesh_of(AxisType.Auto, 8)
    whole = NamedSharding(mesh, P())
    params = jax.ShapeDtypeStruct((512, 64), jnp.float32, sharding=whole)
    state = jax.tree.map(
        lambda x, sharding: x.update(sharding=sharding),
        jax.eval_shape(tx.init, params),
        zero_sharding(tx, params, whole, "data"),
    )
    text = jax.jit(tx.update).lower(params, state, params).compile().as_text()
    for collective in ("all-reduce", "all-gather", "collective-permute", "all-to-all"):
        assert collective not in text


@pytest.mark.slow
@KINDS
def test_zero_gives_the_parameters_of_one_device(kind):
    whole = NamedSharding(mesh_of(kind, 8), P())
    tx = lion_jax.with_metrics(lion_jax.lookahead(optax.chain(LION, optax.trace(0.5)), 2))
    params = {"kernel": parameters()["kernel"], "bias": parameters()["bias"]}
    gradients = [jax.tree.map(lambda p, s=s: jnp.sin(p * s), params) for s in range(1, 5)]
    expected, _ = run(tx, params, gradients)
    params, gradients = jax.device_put((params, gradients), whole)
    shardings = zero_sharding(tx, params, whole, "data")
    state = jax.jit(tx.init, out_shardings=shardings)(params)

    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, out_shardings=(whole, shardings), donate_argnums=(0, 1))
    for gradient in gradients:
        params, state = step(params, state, gradient)
        assert jax.tree.map(lambda x: x.sharding, state) == shardings
    assert_close(params, expected)


@pytest.mark.sampled
@pytest.mark.parametrize("name", ["lion", "adan", "lars", "with_metrics"])
def test_gradients_that_lie_elsewhere_leave_the_state_where_it_is(name):
    """On an Auto mesh the compiler would take the state to them, unless told where to stay."""
    mesh = mesh_of(AxisType.Auto, 8)
    rows, columns = NamedSharding(mesh, P("data")), NamedSharding(mesh, P(None, "data"))
    tx = next(entry for entry in CATALOGUE if entry.name == name).make()
    params = {"w": jax.device_put(jnp.ones((16, 16)), rows)}
    gradient = {"w": jax.device_put(jnp.ones((16, 16)), columns)}
    sharding = state_sharding(tx, params, rows)
    state = jax.jit(tx.init, out_shardings=sharding)(params)
    update = jax.jit(tx.update, out_shardings=(rows, sharding))
    for _ in range(2):
        updates, state = update(gradient, state, params)
    assert updates["w"].sharding == rows
    moments = [x for x in jax.tree.leaves(state) if x.ndim == 2]
    assert moments
    assert all(x.sharding == rows for x in moments)
