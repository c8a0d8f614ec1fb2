"""Distributed Lion's votes against NumPy, on all wires and ways to map."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec
from versions import pcast

import lion_jax
from lion_jax.distributed import majority_vote, sign_gather

P = PartitionSpec
SHAPES = [(97, 13), (5,), (), (0, 3), (2, 50, 7)]
WIRES = ["bits", "int8", "float"]
LINE = Mesh(np.array(jax.devices()), ("data",))
GRID = Mesh(np.array(jax.devices()).reshape(4, 2), ("x", "y"))


def updates_of(replicas, seed=0):
    """For each replica small and large updates, zeros, NaN and infinities."""
    rng = np.random.default_rng(seed)
    values = np.array([-1.5, -np.inf, 0.0, 3e-4, 2.0, np.inf, np.nan], np.float32)
    return [rng.choice(values, (replicas, *s)) for s in SHAPES]


def votes(updates, average):
    """What NumPy counts: zeros and NaN abstain."""
    counts = [np.sign(np.where(np.isnan(u), 0, u)).sum(axis=0) for u in updates]
    return [
        c / np.float32(len(u)) if average else np.sign(c)
        for c, u in zip(counts, updates, strict=True)
    ]


def on_mesh(mesh, axis, **how):
    def outcome(tx, updates):
        def update(u):
            return tx.update([x[0] for x in u], tx.init(None))[0]

        mapped = jax.shard_map(update, mesh=mesh, in_specs=P(axis), out_specs=P(), **how)
        return jax.jit(mapped)(updates)

    return outcome


def mapped_by(transform):
    def outcome(tx, updates):
        mapped = transform(lambda u: tx.update(u, tx.init(None))[0], axis_name="data")
        results = jax.jit(mapped)(updates)
        for result in results:
            np.testing.assert_array_equal(result, np.broadcast_to(result[:1], result.shape))
        return [result[0] for result in results]

    return outcome


WAYS = {
    "shard_map": ("data", on_mesh(LINE, "data")),
    "shard_map, unchecked": ("data", on_mesh(LINE, "data", check_vma=False)),
    "two axes": (("x", "y"), on_mesh(GRID, ("x", "y"))),
    "two axes, unchecked": (("x", "y"), on_mesh(GRID, ("x", "y"), check_vma=False)),
    "pmap": ("data", mapped_by(jax.pmap)),
    "vmap": ("data", mapped_by(jax.vmap)),
}


@pytest.mark.sampled
@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    "way",
    ["shard_map", "pmap", *(pytest.param(w, marks=pytest.mark.slow) for w in WAYS if " " in w)],
)
def test_all_wires_agree_with_numpy_on_eight_devices(way, wire, average):
    axis, outcome = WAYS[way]
    updates = updates_of(8)
    result = outcome(majority_vote(axis, wire=wire, average=average), updates)
    for actual, expected in zip(result, votes(updates, average), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "replicas", [*(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 127)), 128]
)
def test_no_number_of_replicas_overflows(replicas):
    unanimous = [np.full((replicas, 7), sign, np.float32) for sign in (-1, 1)]
    mixed = updates_of(replicas)
    for wire, average in itertools.product(WIRES, (False, True)):
        tx = majority_vote("data", wire=wire, average=average)
        result = WAYS["vmap"][1](tx, [*unanimous, *mixed])
        np.testing.assert_array_equal(result[0], np.full(7, -1))
        np.testing.assert_array_equal(result[1], np.ones(7))
        for actual, expected in zip(result[2:], votes(mixed, average), strict=True):
            # XLA multiplies by 1 / n.
            np.testing.assert_allclose(actual, expected, rtol=2e-7 if average else 0, atol=0)


def test_a_tie_is_no_step_but_for_weight_decay():
    tx = optax.chain(
        lion_jax.scale_by_sign_momentum(),
        majority_vote("data"),
        lion_jax.add_decoupled_weight_decay(0.5),
        optax.scale_by_learning_rate(0.1),
    )
    params, gradients = jnp.array([2.0, 2.0]), jnp.array([[1.0, 1.0], [-1.0, 1.0]])

    def step(g):
        return tx.update(g, tx.init(params), params)[0]

    updates = jax.jit(jax.vmap(step, axis_name="data"))(gradients)
    np.testing.assert_allclose(updates, [[-0.1, -0.2]] * 2, rtol=1e-6)


def distributed_lion(params, gradients, lr, wd, b1=0.9, b2=0.99):
    """Algorithm 1 of the paper with majority votes, in float64; gradients: (steps, replicas, n)."""
    x, momenta = np.array(params, np.float64), np.zeros(gradients.shape[1:])
    for gradient in gradients:
        delta = np.sign(b1 * momenta + (1 - b1) * gradient)
        momenta = b2 * momenta + (1 - b2) * gradient
        x = x - lr * (np.sign(delta.sum(axis=0)) + wd * x)
    return x, momenta


@pytest.mark.sampled
@pytest.mark.parametrize("wire", WIRES)
def test_a_run_is_the_papers_algorithm(wire, x64):
    rng = np.random.default_rng(1)
    params, gradients = rng.standard_normal(50), rng.standard_normal((12, 8, 50))
    tx = optax.chain(
        lion_jax.scale_by_sign_momentum(),
        majority_vote("data", wire=wire),
        lion_jax.add_decoupled_weight_decay(0.1),
        optax.scale_by_learning_rate(1e-2),
    )
    states = jax.vmap(tx.init, in_axes=None, axis_size=8)(jnp.asarray(params))

    @functools.partial(
        jax.shard_map, mesh=LINE, in_specs=(P(), P("data"), P("data")), out_specs=(P(), P("data"))
    )
    def step(params, states, gradient):
        state = jax.tree.map(lambda s: s[0], states)
        updates, state = tx.update(gradient[0], state, params)
        return optax.apply_updates(params, updates), jax.tree.map(lambda s: s[None], state)

    x = jnp.asarray(params)
    for gradient in gradients:
        x, states = jax.jit(step)(x, states, gradient)
    expected, momenta = distributed_lion(params, gradients, 1e-2, 0.1)
    np.testing.assert_allclose(x, expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(optax.tree_utils.tree_get(states, "mu"), momenta, atol=1e-14)


@pytest.mark.slow
def test_slices_vote_with_the_mean_gradient_of_their_chips():
    """Full precision within a slice, one vote of each slice: a composition with sign_gather."""
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("slice", "chip"))
    tx = sign_gather(optax.chain(lion_jax.scale_by_sign_momentum(), majority_vote("slice")), "chip")
    rng = np.random.default_rng(2)
    params, gradients = jnp.zeros((16, 6)), rng.standard_normal((5, 4, 2, 16, 6), np.float32)
    states = jax.tree.map(lambda s: jnp.stack([s] * 4), tx.init(params))
    specs = P("slice", "chip")

    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P(), specs, P("slice", "chip")),
        out_specs=(P(), specs),
    )
    def step(params, states, gradient):
        state = jax.tree.map(lambda s: s[0], states)
        updates, state = tx.update(gradient[0, 0], state, params)
        return updates, jax.tree.map(lambda s: s[None], state)

    momenta = np.zeros((4, 16, 6))
    for gradient in gradients:
        updates, states = jax.jit(step)(params, states, gradient)
        means = gradient.astype(np.float64).mean(axis=1)
        expected = np.sign(np.sign(0.9 * momenta + 0.1 * means).sum(axis=0))
        momenta = 0.99 * momenta + 0.01 * means
        np.testing.assert_array_equal(updates, expected)


@pytest.mark.slow
def test_updates_keep_their_dtype_and_empty_trees_stay():
    updates = {"a": jnp.ones((2, 3), jnp.bfloat16), "b": jnp.ones((2, 2), jnp.float16), "c": None}
    for wire in WIRES:
        tx = majority_vote("data", wire=wire)
        mapped = jax.vmap(lambda u, tx=tx: tx.update(u, tx.init(u))[0], axis_name="data")
        out = jax.jit(mapped)(updates)
        assert jax.tree.map(lambda x: x.dtype, out) == jax.tree.map(lambda x: x.dtype, updates)
        nothing = jax.vmap(lambda _, tx=tx: tx.update({}, tx.init({}))[0], axis_name="data")
        assert nothing(jnp.zeros(2)) == {}


def test_averages_of_float64_are_as_precise(x64):
    tx = majority_vote("data", average=True)
    updates = jnp.array([[1.0, -1.0], [1.0, -1.0], [-1.0, -1.0]])
    mapped = jax.vmap(lambda u: tx.update(u, tx.init(u))[0], axis_name="data")
    result = jax.jit(mapped)(updates)
    np.testing.assert_allclose(result[0], [1 / 3, -1], rtol=1e-15)


def test_leaves_of_size_zero_alone_are_nothing_to_vote_on():
    for wire in WIRES:
        tx = majority_vote("data", wire=wire)
        result = on_mesh(LINE, "data")(tx, [jnp.zeros((8, 0, 3))])
        assert [x.shape for x in result] == [(0, 3)]


@pytest.mark.parametrize("make", [majority_vote, lambda axis: sign_gather(optax.identity(), axis)])
def test_one_summed_leaf_among_others_is_refused_by_path(make):
    tx = make("data")

    def update(g):
        gradients = {"own": g[0], "summed": jax.lax.psum(g[0], "data")}
        return tx.update(gradients, tx.init(gradients))[0]

    mapped = jax.shard_map(update, mesh=LINE, in_specs=P("data"), out_specs=P())
    with pytest.raises(ValueError, match=r"got the same on all of them at \['summed'\]"):
        mapped(jnp.ones((8, 16)))


def test_the_gradient_of_an_unused_parameter_is_a_replicas_own():
    tx = majority_vote("data")

    def update(x):
        params = pcast({"used": jnp.ones(4), "unused": jnp.ones(3)}, "data")
        gradients = jax.grad(lambda p: jnp.sum(p["used"] * x))(params)
        return tx.update(gradients, tx.init(params))[0]

    mapped = jax.shard_map(update, mesh=LINE, in_specs=P("data"), out_specs=P())
    result = jax.jit(mapped)(jnp.ones(8))
    np.testing.assert_array_equal(result["used"], jnp.ones(4))
    np.testing.assert_array_equal(result["unused"], jnp.zeros(3))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"axis_name": 3}, TypeError, "axis_name must be the name of a mapped axis.*got 3"),
        ({"axis_name": ("x", 1)}, TypeError, "or a tuple of names"),
        ({"axis_name": ()}, ValueError, "at least one name"),
        ({"axis_name": ("x", "x")}, ValueError, "each once"),
        ({"wire": "bytes"}, ValueError, '"bits" or "int8" or "float"; got \'bytes\''),
        ({"average": 1}, TypeError, "average must be True or False; got 1"),
    ],
)
def test_bad_arguments_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        majority_vote(**{"axis_name": "data", **arguments})


@pytest.mark.parametrize("make", [majority_vote, lambda axis: sign_gather(optax.identity(), axis)])
def test_an_axis_that_does_not_exist_is_named_with_those_that_do(make):
    tx = make("dta")
    with pytest.raises(ValueError, match=r"axis_name .* got 'dta', and here .* are 'data'"):
        on_mesh(LINE, "data")(tx, [jnp.ones((8, 4))])
    with pytest.raises(ValueError, match="got 'dta', and none is known here"):
        tx.update(jnp.ones(4), tx.init(jnp.ones(4)))


@pytest.mark.sampled
@pytest.mark.parametrize("make", [majority_vote, lambda axis: sign_gather(optax.identity(), axis)])
def test_a_gradient_that_was_summed_before_is_refused_with_the_remedy(make):
    tx, params, data = make("data"), jnp.ones(8), jnp.arange(8.0).reshape(8, 1)

    def update(params, x):
        gradient = jax.grad(lambda p: jnp.sum(p * x[0]))(params)
        return tx.update(gradient, tx.init(params), params)[0]

    def own(params, x):
        return update(pcast(params, "data"), x)

    def mapped(f):
        return jax.jit(jax.shard_map(f, mesh=LINE, in_specs=(P(), P("data")), out_specs=P()))

    with pytest.raises(ValueError, match=r"Try to differentiate at jax.lax.pcast\(params, 'data'"):
        mapped(update)(params, data)
    np.testing.assert_array_equal(mapped(own)(params, data), np.ones(8))


@pytest.mark.parametrize("make", [majority_vote, lambda axis: sign_gather(optax.identity(), axis)])
def test_complex_updates_are_refused_by_path(make):
    tx = make("data")
    with pytest.raises(TypeError, match=r"complex64 at \['w'\]"):
        jax.vmap(lambda u: tx.update({"w": u}, tx.init({"w": u}))[0], axis_name="data")(
            jnp.ones((2, 3), jnp.complex64)
        )
