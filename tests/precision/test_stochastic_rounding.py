"""Stochastic rounding: on a neighbour always, on the true update on average, the same anywhere."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from trees import run, specs, tree

import lion_jax
from lion_jax.precision import round_stochastically

NARROW = pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=lambda d: d.__name__)
KEY = jax.random.key(0)


def every_value(dtype):
    """All finite numbers that 16 bits hold, ascending, in float64; of 0 only one."""
    with np.errstate(invalid="ignore"):  # signalling NaNs among them
        values = np.arange(2**16, dtype=np.uint16).view(jnp.dtype(dtype)).astype(np.float64)
    return np.unique(values[np.isfinite(values)])


def neighbours(exact, dtype):
    """The largest value at or below, and the smallest at or above each exact sum."""
    grid = every_value(dtype)
    below = grid[np.searchsorted(grid, exact, side="right") - 1]
    return below, grid[np.searchsorted(grid, exact, side="left")]


def step(updates, params, key=KEY):
    """The parameters after one step, and the updates that came."""
    tx = round_stochastically(key)
    rounded, _ = tx.update(updates, tx.init(params), params)
    return optax.apply_updates(params, rounded), rounded


def every_kind_of_pair(dtype):
    """Weights and updates over all sizes: sign changes, cancellation, zeros, ties, subnormals."""
    rng = np.random.default_rng(0)
    low, high = (-7.5, 4) if dtype == jnp.float16 else (-30, 4)

    def sized(*shape):
        return rng.choice([-1, 1], shape) * 10 ** rng.uniform(low, high, shape)

    weights = np.concatenate([sized(400), [0.0, -0.0, 1.0, -2.0, 1e4]])
    weights = np.asarray(weights, jnp.dtype(dtype)).astype(np.float32)[:, None]
    grain = float(jnp.finfo(dtype).eps) / 2
    updates = np.concatenate(
        [
            sized(len(weights), 100),
            weights * sized(len(weights), 100),
            weights * grain * 2.0 ** rng.integers(-12, 4, (len(weights), 50)),  # ties among them
            -weights * (1 + 10 ** rng.uniform(-8, 0, (len(weights), 50))),  # nearly 0 after it
            np.broadcast_to([0.0, -0.0, 1.0, 1e-7, -6e-8], (len(weights), 5)),
        ],
        axis=1,
    )
    return np.broadcast_to(weights, updates.shape), np.clip(updates, -5e4, 5e4).astype(np.float32)


@NARROW
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_lands_on_a_neighbour_of_the_exact_sum(dtype, jit):
    weights, updates = every_kind_of_pair(dtype)
    exact = weights.astype(np.float64) + updates
    below, above = neighbours(exact, dtype)
    take = jax.jit(step) if jit else step
    after, _ = take(jnp.asarray(updates), jnp.asarray(weights, dtype))
    assert after.dtype == dtype
    after = np.asarray(after, np.float64)
    normal = np.abs(exact) >= float(jnp.finfo(jnp.float32).tiny)  # below, XLA has only 0
    assert np.isin(after, every_value(dtype)).all()
    assert ((after == below) | (after == above))[normal].all()
    assert (after == below)[normal & (below < above)].any()
    assert (after == above)[normal & (below < above)].any()


@NARROW
def test_a_sum_that_can_be_stored_is_taken_exactly(dtype):
    rng = np.random.default_rng(0)
    grid = every_value(dtype)
    grid = grid[(np.abs(grid) <= 1e4) & ((np.abs(grid) >= 1e-30) | (grid == 0))]
    weights, targets = (rng.choice(grid, 20_000).astype(np.float32) for _ in range(2))
    updates = targets - weights
    is_exact = weights.astype(np.float64) + updates == targets
    assert is_exact.sum() > 1000
    after, _ = step(jnp.asarray(updates), jnp.asarray(weights, dtype))
    np.testing.assert_array_equal(np.asarray(after, np.float32)[is_exact], targets[is_exact])


@pytest.mark.parametrize(
    ("dtype", "weight", "update"),
    [
        (jnp.bfloat16, 1.0, 1e-3),
        (jnp.bfloat16, 1.0, -1e-3),  # the neighbours of a power of two lie unevenly
        (jnp.bfloat16, -0.02, 1e-5),
        (jnp.bfloat16, -0.02, 1e-9),  # less than float32 weights could take
        (jnp.bfloat16, 3e-3, -0.7002),
        (jnp.bfloat16, 1e-30, 1e-33),
        (jnp.bfloat16, 1e4, -9999.123),
        (jnp.float16, 1.0, 1e-5),
        (jnp.float16, 3e-5, 1e-9),
        (jnp.float16, 0.0, 1e-8),
        (jnp.float16, -6e-8, 5e-8),
        (jnp.float16, 1e4, 2.3),
    ],
)
def test_the_mean_over_draws_is_the_true_update(dtype, weight, update):
    """To five binomial standard errors: a wrong one in 2 million."""
    draws = 2**18
    weights = jnp.full(draws, weight, dtype)
    exact = float(weights[0]) + float(np.float32(update))
    below, above = (float(x) for x in neighbours(exact, dtype))
    assert below < above
    after, _ = step(jnp.full(draws, update, jnp.float32), weights)
    share = (exact - below) / (above - below)
    error = np.sqrt(share * (1 - share) / draws) + 2**-23  # draws are multiples of 2**-23
    assert abs(np.mean(np.asarray(after, np.float64) == above) - share) < 5 * error


@NARROW
def test_what_is_not_finite_or_overflows_comes_out_as_plain_rounding_gives_it(dtype):
    top = float(jnp.finfo(dtype).max)
    gap = top - float(every_value(dtype)[-2])
    updates = jnp.array([jnp.inf, -jnp.inf, jnp.nan, 0.0, 3e38, 0.49 * gap, 0.51 * gap, -gap])
    weights = jnp.array([jnp.inf, -jnp.inf, jnp.nan, 0.0, top, -top], dtype)
    params, updates = (x.ravel() for x in jnp.meshgrid(weights, updates.astype(jnp.float32)))
    plain = optax.apply_updates(params, updates).astype(jnp.float32)
    is_inside = jnp.abs(params + updates) < top
    for key in jax.random.split(KEY, 5):
        after = step(updates, params, key)[0].astype(jnp.float32)
        np.testing.assert_array_equal(after[~is_inside], plain[~is_inside])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64], ids=lambda d: d.__name__)
def test_wide_parameters_keep_their_updates_as_they_are(dtype):
    updates = jnp.arange(3, dtype=jnp.bfloat16)
    assert step({"w": updates}, {"w": jnp.ones(3, dtype)})[1]["w"] is updates


@pytest.mark.usefixtures("x64")
def test_updates_of_any_float_dtype_are_rounded_and_come_out_in_float32():
    params = [jnp.ones(200, jnp.bfloat16)] * 3
    updates = [jnp.full(200, 2e-3, dtype) for dtype in ("float16", "bfloat16", "float64")]
    after, rounded = step(updates, params)
    assert {x.dtype for x in after} == {jnp.dtype("bfloat16")}
    assert {x.dtype for x in rounded} == {jnp.dtype("float32")}
    assert all(len(np.unique(x)) == 2 for x in rounded)
    expected, _ = step([u.astype(jnp.float32) for u in updates], params)
    chex.assert_trees_all_equal(after, expected)


def test_small_steps_add_up_where_plain_rounding_stalls():
    """200 steps of 1e-5 on weights of 0.02: their mean moves by 2e-3, to a few standard errors."""
    start = jax.random.normal(jax.random.key(1), 20_000) * 0.02
    start = start.astype(jnp.bfloat16)
    updates = [jnp.full(start.shape, 1e-5)] * 200
    rounded, _ = run(round_stochastically(KEY), start, updates)
    plain, _ = run(optax.identity(), start, updates)
    moved = np.asarray(rounded, np.float64) - np.asarray(start, np.float64)
    standard_error = moved.std() / np.sqrt(moved.size)
    assert standard_error < 2e-5
    assert abs(moved.mean() - 200 * 1e-5) < 4 * standard_error
    assert np.mean(np.asarray(plain) == np.asarray(start)) > 0.5


def test_a_chain_that_ends_in_it_trains_narrow_weights_like_wide_ones():
    """Lion at a rate that plain bfloat16 weights of about 1 cannot feel."""

    def train(dtype, *links):
        params = jnp.linspace(0.5, 2.0, 1000).astype(dtype)
        tx = optax.chain(lion_jax.lion(1e-3), *links)
        params, _ = run(tx, params, [params] * 100)
        return np.asarray(params, np.float64)

    start = np.linspace(0.5, 2.0, 1000)
    wide = train(jnp.float32)
    rounded = train(jnp.bfloat16, round_stochastically(KEY))
    np.testing.assert_allclose(np.mean(wide - start), -0.1, rtol=1e-3)
    np.testing.assert_allclose(np.mean(rounded - wide), 0, atol=0.005)
    assert np.mean(train(jnp.bfloat16) - start) > -0.05


def draws(key=KEY, steps=1, leaves=1):
    """What the last of some steps adds to each leaf."""
    tx, params = round_stochastically(key), [jnp.ones(200, jnp.bfloat16)] * leaves
    state, updates = tx.init(params), [jnp.full(200, 2e-3)] * leaves
    for _ in range(steps):
        rounded, state = tx.update(updates, state, params)
    return np.asarray(rounded)


def test_draws_are_those_of_key_step_and_leaf():
    np.testing.assert_array_equal(draws(), draws())
    assert (draws() != draws(jax.random.key(1))).any()
    assert (draws() != draws(steps=2)).any()
    first, second = draws(leaves=2)
    assert (first != second).any()


def test_all_keys_are_derived_at_once():
    tx = round_stochastically(jax.random.key(0))
    params = {str(i): jnp.ones(i + 1, jnp.bfloat16) for i in range(20)}
    program = jax.make_jaxpr(tx.update)(params, tx.init(params), params)
    assert str(program).count("random_fold_in") == 2  # the step's, and one for the leaves


def test_a_missing_gradient_changes_no_other_leaf_s_draws():
    params = {"a": jnp.ones(200, jnp.bfloat16), "b": jnp.ones(200, jnp.bfloat16)}
    updates = {"a": jnp.full(200, 2e-3), "b": jnp.full(200, 2e-3)}
    tx = round_stochastically(KEY)
    whole, _ = tx.update(updates, tx.init(params), params)
    part, state = tx.update(updates | {"a": None}, tx.init(params), params)
    assert part["a"] is None
    assert state.rounding_count == 1
    np.testing.assert_array_equal(part["b"], whole["b"])


def test_odd_trees_keep_their_structure():
    params = tree(jnp.bfloat16) | {"masked": optax.MaskedNode()}
    _, rounded = step(params, params)
    assert jax.tree.structure(rounded) == jax.tree.structure(params)
    chex.assert_trees_all_equal_shapes(rounded, params)


def test_it_works_masked_and_partitioned():
    params = {"a": jnp.ones(200, jnp.bfloat16), "count": jnp.int32(3)}
    updates = {"a": jnp.full(200, 2e-3), "count": jnp.int32(1)}
    for tx in (
        optax.masked(round_stochastically(KEY), {"a": True, "count": False}),
        optax.partition(
            {"round": round_stochastically(KEY), "keep": optax.identity()},
            {"a": "round", "count": "keep"},
        ),
    ):
        rounded, _ = tx.update(updates, tx.init(params), params)
        np.testing.assert_array_equal(rounded["a"], draws()[0])
        assert rounded["count"] == 1


def test_its_state_is_one_number():
    tx, params = round_stochastically(KEY), {"w": jnp.ones((2, 3), jnp.bfloat16)}
    state = tx.init(params)
    assert specs(jax.tree.leaves(state)) == [((), jnp.int32, False)]
    _, new_state = tx.update({"w": jnp.ones((2, 3))}, state, params)
    assert specs(new_state) == specs(state)
    assert specs(tx.init(jax.eval_shape(lambda: params))) == specs(state)


@pytest.mark.parametrize("axes", [("data",), (None, "data")], ids=["rows", "columns"])
@pytest.mark.slow
def test_any_sharding_gives_the_same_bits(axes):
    def normal(seed, dtype=jnp.float32):
        return jax.random.normal(jax.random.key(seed), (16, 24), dtype)

    params = [normal(1, jnp.bfloat16), normal(2, jnp.float16)]
    updates = [[normal(seed) * 1e-3, normal(-seed) * 1e-3] for seed in range(3)]
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    tx = round_stochastically(KEY)
    sharded, _ = run(tx, *jax.device_put((params, updates), sharding))
    assert [p.sharding for p in sharded] == [sharding] * 2
    for jit in (True, False):
        alone, _ = run(tx, params, updates, jit=jit)
        chex.assert_trees_all_equal(jax.device_get(sharded), jax.device_get(alone))


@pytest.mark.parametrize("own_key", [False, True], ids=["one_key", "a_key_for_each_device"])
def test_in_shard_map_each_shard_draws_for_its_own_positions(own_key):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    @jax.jit
    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec("data")
    )
    def rounded(params, updates):
        key = jax.random.fold_in(KEY, jax.lax.axis_index("data")) if own_key else KEY
        tx = round_stochastically(key)
        return tx.update(updates, tx.init(params), params)[0]

    params, updates = jnp.ones(8 * 200, jnp.bfloat16), jnp.full(8 * 200, 2e-3)
    shards = np.asarray(rounded(params, updates)).reshape(8, 200)
    keys = [jax.random.fold_in(KEY, i) if own_key else KEY for i in range(8)]
    np.testing.assert_array_equal(shards, [draws(key)[0] for key in keys])
    assert len(np.unique(shards, axis=0)) == (8 if own_key else 1)


@pytest.mark.parametrize("raw", [jax.random.PRNGKey(0), np.array([0, 0], np.uint32)], ids=type)
def test_an_old_key_draws_like_a_typed_one(raw):
    np.testing.assert_array_equal(draws(raw), draws(jax.random.key(0)))


def test_a_traced_key_works_under_jit_and_vmap():
    keys = jax.random.split(KEY, 3)
    expected = [step(jnp.full(200, 2e-3), jnp.ones(200, jnp.bfloat16), key)[1] for key in keys]
    for these in (keys, jax.random.key_data(keys)):
        swept = jax.jit(
            jax.vmap(lambda key: step(jnp.full(200, 2e-3), jnp.ones(200, jnp.bfloat16), key)[1])
        )(these)
        np.testing.assert_array_equal(swept, expected)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (0, "0 of type int"),
        (None, "None of type NoneType"),
        (jnp.uint32(3), r"an array of shape \(\) and dtype uint32"),
        (jnp.zeros(2, jnp.int32), r"an array of shape \(2,\) and dtype int32"),
        (jnp.zeros(4, jnp.uint32), r"an array of shape \(4,\) and dtype uint32"),
        (jax.random.split(jax.random.key(0)), r"an array of shape \(2,\) and dtype key<fry>"),
        (jax.random.split(jax.random.PRNGKey(0)), r"an array of shape \(2, 2\) and dtype uint32"),
    ],
    ids=str,
)
def test_refuses_what_is_not_one_key(key, kind):
    message = rf"^key must be one key of jax\.random; got {kind}\. Try key=jax\.random\.key\(0\)"
    with pytest.raises(TypeError, match=message):
        round_stochastically(key)


def test_refuses_missing_parameters():
    tx = round_stochastically(KEY)
    with pytest.raises(ValueError, match=r"^round_stochastically reads the parameters; got "):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_, jnp.complex64, jnp.float8_e4m3fn])
def test_refuses_parameters_that_it_cannot_round(dtype):
    params = {"layer": {"steps": jnp.ones(2, dtype)}, "w": jnp.ones(2)}
    tx = round_stochastically(KEY)
    message = (
        r"^round_stochastically needs leaves of float16, bfloat16, float32 or float64; got "
        rf"{dtype.dtype} at \['layer'\]\['steps'\]\. Try optax\.masked"
    )
    with pytest.raises(TypeError, match=message):
        tx.update(params, tx.init(params), params)
