"""ZeRO-1 with signs against Lion on whole parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import lion_jax
from lion_jax.distributed import (
    SignGatherState,
    majority_vote,
    sign_gather,
    state_sharding,
    zero_sharding,
)
from lion_jax.precision import with_quantized_state

P = PartitionSpec
LINE = Mesh(np.array(jax.devices()), ("data",))
GRID = Mesh(np.array(jax.devices()).reshape(4, 2), ("x", "y"))
SHAPES = [(96, 16), (16,), (5,), (), (0, 8), (3, 64), (2, 8, 7), (1000,), (48, 4)]


def draw(*shape, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal((*shape, *s)), dtype) for s in SHAPES]


# Powers of two: their products are exact, and no compiler rounds by contracting them with sums.
RATE, DECAY, BETAS = 2.0**-7, 2.0**-3, (0.25, 0.5)


def momentum():
    return lion_jax.scale_by_sign_momentum(*BETAS)


def lion():
    return lion_jax.lion(RATE, *BETAS, weight_decay=DECAY)


def chained(rule):
    return optax.chain(
        rule, lion_jax.add_decoupled_weight_decay(DECAY), optax.scale_by_learning_rate(RATE)
    )


def gathered_lion(axis):
    return chained(sign_gather(momentum(), axis))


def step_of(tx, mesh, axis, shardings, **how):
    """A step on each replica's own gradient; gradients have the replicas as first dimension."""
    specs = jax.tree.map(lambda s: s.spec, shardings)

    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(P(), specs, P(axis)), out_specs=(P(), specs), **how
    )
    def step(params, state, gradients):
        updates, state = tx.update(jax.tree.map(lambda g: g[0], gradients), state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step)


def whole_step(tx, mesh):
    """A step on the mean gradient, of whole parameters on each replica.

    Mapped as the other: else XLA:CPU contracts other products and sums, an ulp of a weight.
    """

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=P(), out_specs=P())
    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step)


def placed(tx, params, mesh, axis):
    shardings = zero_sharding(tx, params, NamedSharding(mesh, P()), axis, unsplit="ignore")
    return shardings, jax.jit(tx.init, out_shardings=shardings)(params)


def equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x, np.float64), np.asarray(y, np.float64))


@pytest.mark.sampled
@pytest.mark.parametrize("dtype", [jnp.float32, pytest.param(jnp.bfloat16, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("mesh", "axis"), [(LINE, "data"), (GRID, ("x", "y"))])
@pytest.mark.parametrize("check", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_it_is_lion_on_the_mean_gradient_bit_for_bit(mesh, axis, check, dtype):
    """Of gradients whose sums are exact in any order: of few bits."""
    alone = chained(momentum())
    if dtype == jnp.float32:  # of narrower leaves `lion` rounds once, a chain at each link
        alone = lion()
    tx, params = gathered_lion(axis), draw(dtype=dtype)
    shardings, state = placed(tx, params, mesh, axis)
    step = step_of(tx, mesh, axis, shardings, check_vma=check)
    expected, lion_state, lion_step = params, alone.init(params), whole_step(alone, mesh)

    for t in range(6):
        gradients = draw(8, dtype=dtype, seed=t + 1)
        gradients = jax.tree.map(lambda g: jnp.round(4096 * g) / 4096, gradients)
        means = jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)
        params, state = step(params, state, gradients)
        expected, lion_state = lion_step(expected, lion_state, means)
    equal(params, expected)
    equal(state[0].inner_state.mu, optax.tree_utils.tree_get(lion_state, "mu"))
    for x in jax.tree.leaves(params):
        assert x.sharding.is_fully_replicated


@pytest.mark.slow
def test_any_gradient_gives_what_lion_makes_of_the_same_sums():
    """Eight replicas on one axis: a reduce-scatter adds up in the order of an all-reduce."""
    tx, alone = gathered_lion("data"), lion()
    params = draw()
    shardings, state = placed(tx, params, LINE, "data")
    step, expected, lion_state = step_of(tx, LINE, "data", shardings), params, alone.init(params)
    lion_step = whole_step(alone, LINE)

    @functools.partial(jax.shard_map, mesh=LINE, in_specs=P("data"), out_specs=P())
    def mean(gradients):
        return jax.tree.map(lambda g: jax.lax.pmean(g[0], "data"), gradients)

    for t in range(3):
        gradients = draw(8, seed=t + 1)
        params, state = step(params, state, gradients)
        expected, lion_state = lion_step(expected, lion_state, jax.jit(mean)(gradients))
    equal(params, expected)


def test_each_replica_keeps_its_part_of_the_momentum():
    shardings, state = placed(gathered_lion("data"), draw(), LINE, "data")
    whole = sum(x.nbytes for x in jax.tree.leaves(state))
    mine = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))
    left_whole = 4 * (5 + 1)  # of shapes (5,) and ()
    assert mine == left_whole + (whole - left_whole) // 8
    assert shardings[0].inner_state.mu[5].spec == P(None, "data")


@pytest.mark.slow
def test_under_pmap_init_gives_each_replicas_part():
    tx, alone = gathered_lion("data"), lion()
    params = draw()
    replicated = jax.tree.map(lambda p: jnp.stack([p] * 8), params)
    state = jax.pmap(tx.init, axis_name="data")(replicated)
    assert state[0].inner_state.mu[0].shape == (8, 12, 16)
    gradients = jax.tree.map(lambda g: jnp.round(4096 * g) / 4096, draw(8, seed=1))
    updates, state = jax.pmap(tx.update, axis_name="data")(gradients, state, replicated)
    means = jax.tree.map(lambda g: g.mean(axis=0), gradients)
    expected, _ = jax.jit(alone.update)(means, alone.init(params), params)
    equal(updates, jax.tree.map(lambda u: jnp.stack([u] * 8), expected))


@pytest.mark.slow
def test_only_what_is_within_is_split():
    """Around it each replica steps whole parameters: slow weights and averages stay whole."""
    tx = lion_jax.lookahead(lion_jax.with_parameter_average(gathered_lion("data")), 2)
    params = {"w": jnp.ones((16, 8)), "b": jnp.ones(8)}
    shardings, state = placed(tx, params, LINE, "data")
    split = [
        path
        for path, s in jax.tree_util.tree_leaves_with_path(shardings)
        if not s.is_fully_replicated
    ]
    assert len(split) == 2
    assert all(any(getattr(k, "name", "") == "mu" for k in path) for path in split)
    step = step_of(tx, LINE, "data", shardings)
    gradients = jax.tree.map(lambda p: jnp.ones((8, *p.shape)), params)
    alone = lion_jax.lookahead(lion_jax.with_parameter_average(lion()), 2)
    expected, alone_state = params, alone.init(params)
    for _ in range(3):
        params, state = step(params, state, gradients)
        means = jax.tree.map(jnp.ones_like, expected)
        updates, alone_state = alone.update(means, alone_state, expected)
        expected = optax.apply_updates(expected, updates)
    for x, y in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


@pytest.mark.slow
def test_moments_within_may_be_integers():
    """Integers by the size of the whole, of which a part has less."""
    rule = with_quantized_state(lion_jax.scale_by_sign_momentum(*BETAS), group_size=8)
    tx, params = chained(sign_gather(rule, "data")), {"w": jnp.ones((64, 64))}
    shardings, state = placed(tx, params, LINE, "data")
    step = step_of(tx, LINE, "data", shardings)
    gradients = {"w": jnp.asarray(np.random.default_rng(0).standard_normal((8, 64, 64)), "f")}
    alone, expected = rule.init(params), params
    for _ in range(3):
        new, state = step(params, state, gradients)
        means = {"w": jnp.mean(gradients["w"], axis=0)}
        signs, alone = rule.update(means, alone, expected)
        expected = jax.tree.map(lambda p, u: p - RATE * (u + DECAY * p), expected, signs)
        params = new
    np.testing.assert_allclose(params["w"], expected["w"], rtol=1e-6)
    assert {x.dtype.name for x in jax.tree.leaves(state) if x.ndim} == {"int8"}


def test_a_nan_gives_no_step_and_stays_in_the_momentum():
    tx = sign_gather(lion_jax.scale_by_sign_momentum(), "data")
    gradients = jnp.array([[jnp.nan, 1.0, 1.0, -1.0]] * 2)

    def update(g):
        return tx.update(g, tx.init(g))

    updates, state = jax.jit(jax.vmap(update, axis_name="data"))(gradients)
    np.testing.assert_array_equal(updates, [[0, 1, 1, -1]] * 2)
    assert np.isnan(state.inner_state.mu[0, 0])


def test_a_state_that_is_not_split_is_refused_with_the_remedy():
    tx, params = gathered_lion("data"), {"w": jnp.ones((16, 8))}
    gradients = {"w": jnp.ones((8, 16, 8))}
    whole = state_sharding(tx, params, NamedSharding(LINE, P()))
    with pytest.raises(ValueError, match=r"among the 8 replicas; .* Try zero_sharding"):
        step_of(tx, LINE, "data", whole)(params, tx.init(params), gradients)
    halves = zero_sharding(tx, params, NamedSharding(GRID, P()), "y")
    words = r"one of 8 equal parts; got a leaf of shape \(8, 8\) .* at \['w'\] of shape \(16, 8\)"
    with pytest.raises(ValueError, match=words):
        step_of(gathered_lion(("x", "y")), GRID, ("x", "y"), halves)(
            params, tx.init(params), gradients
        )


@pytest.mark.slow
def test_the_order_of_axes_is_that_of_the_mesh():
    params = draw()
    gradients = draw(8, seed=1)
    outcomes = []
    for axes, placed_by in [(("x", "y"), ("x", "y")), (("x", "y"), ("y", "x")), (("y", "x"), "xy")]:
        tx = gathered_lion(axes)
        shardings, state = placed(tx, params, GRID, tuple(placed_by))
        step = step_of(tx, GRID, ("x", "y"), shardings)
        outcomes.append(step(params, state, gradients))
    equal(outcomes[0], outcomes[1])
    equal(outcomes[0], outcomes[2])


@pytest.mark.slow
def test_parameters_may_be_split_over_another_axis():
    """Tensor parallel over y, replicas over x: the state is split over both."""
    tx, params = gathered_lion("x"), {"w": jnp.ones((32, 64))}
    by_rows = NamedSharding(GRID, P("y"))
    shardings = zero_sharding(tx, params, by_rows, "x")
    specs = jax.tree.map(lambda s: s.spec, shardings)
    state = jax.jit(tx.init, out_shardings=shardings)(params)
    gradients = jnp.asarray(np.random.default_rng(0).integers(-4, 5, (4, 32, 64)), jnp.float32)

    @functools.partial(
        jax.shard_map, mesh=GRID, in_specs=(P("y"), specs, P("x", "y")), out_specs=(P("y"), specs)
    )
    def step(params, state, gradients):
        updates, state = tx.update({"w": gradients[0]}, state, params)
        return optax.apply_updates(params, updates), state

    new, state = jax.jit(step)(params, state, gradients)
    alone = chained(momentum())
    expected, _ = jax.jit(alone.update)({"w": gradients.mean(axis=0)}, alone.init(params), params)
    np.testing.assert_allclose(new["w"], params["w"] + expected["w"], rtol=1e-6)
    assert state[0].inner_state.mu["w"].addressable_shards[0].data.size == 32 * 64 // 8


@pytest.mark.slow
def test_a_parameter_without_a_gradient_stays():
    tx, params = gathered_lion("data"), {"a": jnp.ones((16, 8)), "b": jnp.ones((8, 8))}
    shardings, state = placed(tx, params, LINE, "data")
    specs = jax.tree.map(lambda s: s.spec, shardings)

    @functools.partial(
        jax.shard_map, mesh=LINE, in_specs=(specs, P("data")), out_specs=(P(), specs)
    )
    def update(state, gradient):
        return tx.update({"a": gradient[0], "b": None}, state, params)

    updates, new = jax.jit(update)(state, jnp.ones((8, 16, 8)))
    np.testing.assert_allclose(updates["a"], -RATE * (1 + DECAY), rtol=1e-6)
    assert updates["b"] is None
    equal(new[0].inner_state.mu["b"], state[0].inner_state.mu["b"])
    alone = sign_gather(lion_jax.scale_by_sign_momentum(), "data")
    with pytest.raises(ValueError, match=r"of parameters without a gradient, reads the param"):
        jax.vmap(lambda g: alone.update({"w": g, "b": None}, alone.init(params)), axis_name="data")(
            jnp.ones((2, 8))
        )


def test_metrics_around_it_are_refused_with_the_remedy():
    tx, params = lion_jax.with_metrics(gathered_lion("data")), {"w": jnp.ones((16, 8))}
    shardings, state = placed(tx, params, LINE, "data")
    with pytest.raises(ValueError, match="Try it within sign_gather"):
        step_of(tx, LINE, "data", shardings)(params, state, {"w": jnp.ones((8, 16, 8))})


def test_explicit_axes_left_to_the_compiler_are_refused():
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    for tx in (sign_gather(lion_jax.scale_by_sign_momentum(), "data"), majority_vote("data")):
        partly = jax.shard_map(
            lambda g, tx=tx: tx.update(g, tx.init(g))[0],
            mesh=mesh,
            in_specs=P("data"),
            out_specs=P(),
            axis_names={"data"},
            check_vma=False,
        )
        gradient = jax.device_put(jnp.ones((16, 8)), NamedSharding(mesh, P("data")))
        with pytest.raises(ValueError, match=r"leaves out 'model'. Try jax.shard_map"):
            jax.jit(partly)(gradient)


def test_what_is_too_small_to_split_is_reported_and_stepped_whole():
    tx, params = gathered_lion("data"), {"w": jnp.ones((16, 8)), "b": jnp.ones(5)}
    with pytest.warns(UserWarning, match=r"\['b'\].*\(5,\)"):
        zero_sharding(tx, params, NamedSharding(LINE, P()), "data")


def test_inner_must_be_a_transformation():
    with pytest.raises(TypeError, match="inner must be an optax"):
        sign_gather(lion_jax.lion, "data")


def test_the_state_has_the_shapes_of_the_rule_alone_from_outside():
    params = draw()
    state = sign_gather(lion_jax.scale_by_sign_momentum(), "data").init(params)
    assert isinstance(state, SignGatherState)
    equal(state.inner_state, lion_jax.scale_by_sign_momentum().init(params))


def test_a_gradient_of_another_shape_is_refused():
    tx = sign_gather(lion_jax.scale_by_sign_momentum(), "replicas")

    def step(g):
        params = {"w": jnp.ones(4)}
        return tx.update({"w": g}, tx.init(params), params)

    with pytest.raises(ValueError, match=r"^gradients must have .*\(4, 1\) for \(4,\) at \['w'\]"):
        jax.vmap(step, axis_name="replicas")(jnp.ones((2, 4, 1)))
