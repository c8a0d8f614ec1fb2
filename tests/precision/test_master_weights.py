"""Master weights from 16-bit parameters and a correction."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trees import run, specs, tree

import lion_jax
from lion_jax.precision import master_params, set_master_params, with_master_weights

GOLDEN = (math.sqrt(5) - 1) / 2
NARROW = [jnp.bfloat16, jnp.float16]
every_dtype = pytest.mark.parametrize("dtype", NARROW, ids=lambda dtype: dtype.__name__)
every_width = pytest.mark.parametrize("bits", [8, 16])


def walk(tx, params, gradients):
    """Parameters and master weights after each step."""
    state, step = tx.init(params), jax.jit(tx.update)
    history = []
    for gradient in gradients:
        updates, state = step(gradient, state, params)
        params = optax.apply_updates(params, updates)
        history.append((params, master_params(params, state)))
    return history


def grain_by_hand(stored, dtype, bits):
    """In float64."""
    info = jnp.finfo(dtype)
    exponent = np.floor(np.log2(np.maximum(np.abs(stored), float(info.smallest_normal))))
    return 2.0 ** (exponent - info.nmant - 1) / 2 ** (bits - 1)


@every_dtype
@every_width
def test_equals_the_equation(dtype, bits):
    rng = np.random.default_rng(0)
    params = jnp.asarray(rng.standard_normal(500) * 10 ** rng.uniform(-3, 1, 500), dtype)
    gradients = [1e-3 * rng.standard_normal(500).astype(np.float32) for _ in range(6)]
    tx = with_master_weights(optax.sgd(1.0), correction_bits=bits)
    actual = walk(tx, params, [jnp.asarray(g) for g in gradients])
    master = np.asarray(params, np.float64)
    for t, (gradient, (stored, joined)) in enumerate(zip(gradients, actual, strict=True), start=1):
        goal = master.astype(np.float32) - gradient
        expected = np.asarray(jnp.asarray(goal).astype(dtype), np.float64)
        grain = grain_by_hand(expected, dtype, bits)
        share, below = np.modf((goal - expected) / grain + 2.0**20)
        grains = below - 2.0**20 + (share >= 1 - t * GOLDEN % 1)
        most = 2 ** (bits - 1) - 1
        master = expected + grain * np.clip(grains, -most, most)
        np.testing.assert_array_equal(np.asarray(stored, np.float64), expected)
        close = np.abs(np.asarray(joined, np.float64) - master) <= 1.001 * grain
        assert close.all()  # float32 and float64 may disagree on which side of the threshold
        assert np.mean(np.asarray(joined, np.float64) == master) > 0.9
        master = np.asarray(joined, np.float64)


@every_width
def test_two_hundred_small_steps_stay_with_float32_where_bfloat16_stalls(bits):
    params = (0.02 * jax.random.normal(jax.random.key(0), (512, 64))).astype(jnp.bfloat16)
    gradients = [jnp.ones(params.shape)] * 200
    tx = with_master_weights(optax.sgd(1e-5), correction_bits=bits)
    stored, master = walk(tx, params, gradients)[-1]
    wide = params.astype(jnp.float32)
    plain = params
    for _ in range(200):
        wide = wide - jnp.float32(1e-5)
        plain = (plain.astype(jnp.float32) - jnp.float32(1e-5)).astype(jnp.bfloat16)
    assert jnp.abs(master - wide).max() < 5e-6
    chex.assert_trees_all_equal(master.astype(jnp.bfloat16), stored)
    assert jnp.mean(plain == params) > 0.8


@every_dtype
@every_width
def test_parameters_are_always_the_rounded_master_weights(dtype, bits):
    """Steps of all sizes, across zero, powers of two and cancellations; jit as users run it."""
    rng = np.random.default_rng(1)
    low, high = (-30, 20) if dtype == jnp.bfloat16 else (-24, 3)
    sizes = 2.0 ** rng.uniform(low, high, (40, 4000))
    gradients = [jnp.asarray(rng.choice([-1.0, 1.0], 4000) * s, jnp.float32) for s in sizes]
    params = jnp.asarray(2.0 ** rng.integers(-8, 3, 4000), dtype)
    for stored, master in walk(
        with_master_weights(optax.sgd(1.0), correction_bits=bits), params, gradients
    ):
        chex.assert_tree_all_finite(stored)
        chex.assert_trees_all_equal(jax.jit(lambda w: w.astype(dtype))(master), stored)


@pytest.mark.slow
def test_sixteen_bits_are_float32():
    params = jax.random.normal(jax.random.key(0), (1000,)).astype(jnp.bfloat16)
    gradients = list(jax.random.normal(jax.random.key(1), (50, 1000)))
    tx = with_master_weights(optax.sgd(1e-2), correction_bits=16)
    _, master = walk(tx, params, gradients)[-1]
    wide, _ = run(optax.sgd(1e-2), params.astype(jnp.float32), gradients)
    np.testing.assert_allclose(master, wide, rtol=1e-6, atol=1e-6)


def test_inner_sees_full_precision():
    seen = []

    def update(updates, state, params=None):
        seen.append((updates, params))
        return updates, state

    inner = optax.GradientTransformation(lambda params: params, update)
    params = jnp.full(3, 0.3, jnp.bfloat16)
    tx = with_master_weights(inner)
    state = tx.init(params)
    assert state.inner_state.dtype == jnp.float32
    updates, state = tx.update(jnp.full(3, 1e-4, jnp.bfloat16), state, params)
    params = optax.apply_updates(params, updates)
    tx.update(jnp.zeros(3, jnp.bfloat16), state, params)
    assert all(x.dtype == jnp.float32 for pair in seen for x in pair)
    np.testing.assert_allclose(seen[1][1], jnp.float32(jnp.bfloat16(0.3)) + 1e-4, rtol=3e-6)


@pytest.mark.slow
@every_width
@every_dtype
def test_a_float32_checkpoint_goes_in_and_comes_out(dtype, bits):
    master = {"a": jax.random.normal(jax.random.key(0), (64, 3)), "b": jnp.zeros(2)}
    params = jax.tree.map(lambda w: jnp.zeros_like(w, dtype), master)
    tx = optax.chain(
        optax.clip(1.0), with_master_weights(lion_jax.lion(1e-3), correction_bits=bits)
    )
    _, state = tx.update(master, tx.init(params), params)
    stored, loaded = set_master_params(master, params, state)
    chex.assert_trees_all_equal(stored, jax.tree.map(lambda w: w.astype(dtype), master))
    back = master_params(stored, loaded)
    grain = grain_by_hand(np.asarray(stored["a"], np.float64), dtype, bits)
    assert np.all(np.abs(back["a"] - master["a"]) <= grain)
    chex.assert_trees_all_equal(
        optax.tree_utils.tree_get(loaded, "mu"), optax.tree_utils.tree_get(state, "mu")
    )
    assert specs(loaded) == specs(state)


@pytest.mark.slow
@every_dtype
def test_shapes_and_dtypes_stay(dtype):
    tx = with_master_weights(lion_jax.lion(1e-2, weight_decay=0.1))
    params = tree(dtype)
    state = tx.init(params)
    updates, after = jax.jit(tx.update)(tree(dtype, seed=1), state, params)
    assert specs(after) == specs(state)
    assert all(u.dtype == jnp.float32 for u in jax.tree.leaves(updates))
    chex.assert_trees_all_equal_shapes_and_dtypes(optax.apply_updates(params, updates), params)
    abstract = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
    assert specs(tx.init(abstract)) == specs(state)


def test_a_missing_gradient_moves_nothing():
    params = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(3, jnp.bfloat16)}
    tx = with_master_weights(lion_jax.lion(1e-4))
    state = tx.init(params)
    updates, state = tx.update({"a": jnp.ones(2), "b": jnp.ones(3)}, state, params)
    params = optax.apply_updates(params, updates)
    before = master_params(params, state)
    updates, state = tx.update({"a": jnp.ones(2), "b": None}, state, params)
    assert updates["b"] is None
    params["a"] = optax.apply_updates(params["a"], updates["a"])
    after = master_params(params, state)
    chex.assert_trees_all_equal(after["b"], before["b"])
    assert (after["a"] < before["a"]).all()


@pytest.mark.slow
def test_a_skipped_step_changes_nothing():
    tx = lion_jax.with_finite_guard(with_master_weights(lion_jax.lion(1e-4)))
    params = jnp.full(4, 0.3, jnp.bfloat16)
    good, bad = jnp.ones(4, jnp.bfloat16), jnp.full(4, jnp.nan, jnp.bfloat16)
    with_bad, state = run(tx, params, [good, bad, good])
    without, expected = run(tx, params, [good, good])
    chex.assert_trees_all_equal(with_bad, without)
    chex.assert_trees_all_equal(state.inner_state, expected.inner_state)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_bad_gradient_spoils_its_own_weight_alone(bad):
    params = jnp.ones(4, jnp.bfloat16)
    tx = with_master_weights(optax.sgd(1e-3))
    stored, master = walk(tx, params, [jnp.ones(4).at[1].set(bad), jnp.ones(4)])[-1]
    expected = np.array([True, False, True, True])
    np.testing.assert_array_equal(np.isfinite(np.asarray(stored, np.float32)), expected)
    np.testing.assert_array_equal(np.isfinite(master), expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.int32], ids=lambda dtype: dtype.__name__)
def test_parameters_of_other_widths_are_refused(dtype):
    params = {"narrow": jnp.ones(2, jnp.bfloat16), "other": jnp.ones(2, dtype)}
    tx = with_master_weights(lion_jax.lion(1e-3))
    with pytest.raises(
        TypeError, match=rf"bfloat16 or float16.*got {dtype.__name__} at \['other'\].*Try"
    ):
        tx.init(params)
    state = tx.init(jax.tree.map(lambda p: p.astype(jnp.bfloat16), params))
    with pytest.raises(TypeError, match=rf"got {dtype.__name__} at .*Try"):
        tx.update(params, state, params)


@pytest.mark.parametrize("bits", [12, 8.0, True, "8"])
def test_widths_that_do_not_exist_are_refused(bits):
    with pytest.raises(ValueError, match=rf"^correction_bits must be 8 or 16; got {bits!r}. Try"):
        with_master_weights(lion_jax.lion(1e-3), correction_bits=bits)


def test_what_is_missing_or_does_not_fit_is_named():
    params = {"a": jnp.ones(2, jnp.bfloat16)}
    tx = with_master_weights(lion_jax.lion(1e-3))
    state = tx.init(params)
    with pytest.raises(ValueError, match="with_master_weights"):
        tx.update(params, state)
    with pytest.raises(ValueError, match=r"one with_master_weights; found 0"):
        master_params(params, lion_jax.lion(1e-3).init(params))
    with pytest.raises(ValueError, match=r"^master must have .*\(3,\) for \(2,\) at \['a'\]. Try"):
        set_master_params({"a": jnp.ones(3)}, params, state)
    with pytest.raises(ValueError, match=r"^params must .*no leaf for \(2,\) at \['a'\]. Try"):
        master_params({"b": params["a"]}, state)
    with pytest.raises(ValueError, match=r"^params must .*\(3,\) for \(2,\) at \['a'\]. Try"):
        master_params({"a": jnp.ones(3)}, state)
    with pytest.raises(TypeError, match=r"got float32 at \['a'\]. Try"):
        master_params({"a": jnp.ones(2)}, state)
    with pytest.raises(TypeError, match=r"got float32 at \['a'\]. Try"):
        set_master_params(params, {"a": jnp.ones(2)}, state)
    with pytest.raises(TypeError, match=r"^inner must be an optax\.GradientTransformation"):
        with_master_weights(optax.sgd)


def test_parameters_that_stay_wide_can_be_partitioned_off():
    params = {"kernel": jnp.ones(2, jnp.bfloat16), "scale": jnp.full(3, 1 / 3)}
    tx = optax.partition(
        {"narrow": with_master_weights(optax.sgd(1e-3)), "wide": optax.sgd(1e-3)},
        {"kernel": "narrow", "scale": "wide"},
    )
    params, state = run(tx, params, [jax.tree.map(jnp.ones_like, params)] * 3)
    master = master_params(params, state)
    chex.assert_trees_all_equal(master["scale"], params["scale"])
    np.testing.assert_allclose(master["kernel"], 0.997, rtol=1e-5)
    stored, loaded = set_master_params(master, params, state)
    chex.assert_trees_all_equal((stored, master_params(stored, loaded)), (params, master))


def movement(tx, weights, gradients, steps, read=lambda params, state: params):
    """How far equal gradients move weights, in float64."""

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    train = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps)[0])
    after = read(*train((weights, tx.init(weights))))
    return np.asarray(after, np.float64) - np.asarray(weights, np.float64)


def check_movement(dtype, bits, rate, decay, sign, steps=10_000, most=0.03):
    """Master weights move like float32 wherever a step is a tenth of a grain or more."""
    weights = jnp.array([0.02, 0.1, 0.5, 1.0, 1.5, 2.0, 4.0, -0.3, -1.0], dtype)
    gradients = jnp.full(weights.shape, sign, jnp.float32)
    tx = lion_jax.lion(rate, weight_decay=decay)
    expected = movement(tx, weights.astype(jnp.float32), gradients, steps)
    master = with_master_weights(tx, correction_bits=bits)
    actual = movement(master, weights, gradients, steps, master_params)
    start = np.asarray(weights, np.float64)
    step = rate * abs(sign * np.sign(start) + decay * np.abs(start))
    counts = step >= 0.1 * grain_by_hand(start, dtype, bits)
    np.testing.assert_allclose(actual[counts], expected[counts], rtol=most, atol=0)
    return counts.any()


@pytest.mark.sampled
@every_dtype
@pytest.mark.parametrize(("rate", "decay", "sign"), [(1e-5, 0.0, 1), (1e-4, 0.1, 0)])
def test_ten_thousand_steps_of_part_of_a_grain_move_as_far_as_float32(dtype, rate, decay, sign):
    """The second are rows without a gradient, which decay alone moves."""
    assert check_movement(dtype, 8, rate, decay, sign)


@every_dtype
@every_width
@pytest.mark.parametrize("rate", [1e-7, 1e-6, 1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize(("decay", "sign"), [(0.0, 1), (0.0, -1), (0.1, 1), (0.1, 0)])
@pytest.mark.slow
def test_any_rate_moves_as_far_as_float32(dtype, bits, rate, decay, sign):
    check_movement(dtype, bits, rate, decay, sign)


@every_dtype
@every_width
def test_every_last_correction_is_of_a_number_that_rounds_to_the_stored_one(dtype, bits):
    values = np.arange(2**16, dtype=np.uint16).view(jnp.dtype(dtype))
    with np.errstate(invalid="ignore"):
        wide = np.abs(values.astype(np.float64))
    values = jnp.asarray(values[(wide > 2.0**-99) & (wide < float(jnp.finfo(dtype).max))])
    state = with_master_weights(optax.sgd(1.0), correction_bits=bits).init(values)
    # Grains of 16 bits of float16 are an eighth of float32's own, and the last are not reached.
    most = 2 ** (bits - 1) - (8 if (dtype, bits) == (jnp.float16, 16) else 1)
    is_power = np.frexp(np.abs(np.asarray(values, np.float64)))[0] == 0.5
    for c in (-most, most - 1, 1 - most, most):
        corrected = state._replace(correction=jnp.full(values.shape, c, f"int{bits}"))
        master = master_params(values, corrected)
        outwards = np.sign(c) == np.sign(np.asarray(values, np.float64))
        alone = ~is_power | outwards  # inwards of a power of two half as many are its own
        np.testing.assert_array_equal(
            np.asarray(master.astype(dtype), np.float32)[alone],
            np.asarray(values, np.float32)[alone],
        )


@every_dtype
@every_width
def test_weights_of_either_sign_move_alike_across_a_power_of_two(dtype, bits):
    """Down through 1 and up through 1, of steps of a third of a grain."""
    grain = float(grain_by_hand(1.0, dtype, bits))
    rate, steps = max(grain / 3, 2.0**-23), 3000
    for sign in (1, -1):
        weights = jnp.array([1.0, -1.0], dtype)
        tx = with_master_weights(optax.sgd(rate), correction_bits=bits)
        moved = movement(tx, weights, jnp.array([sign, -sign]) * 1.0, steps, master_params)
        wide = weights.astype(jnp.float32)
        expected = movement(optax.sgd(rate), wide, jnp.array([sign, -sign]) * 1.0, steps)
        np.testing.assert_allclose(moved, expected, rtol=0.01)
        np.testing.assert_allclose(moved[0], -moved[1], rtol=0.01)


@every_dtype
def test_a_step_of_nothing_leaves_every_weight_where_it_is(dtype):
    rng = np.random.default_rng(2)
    params = jnp.asarray(rng.standard_normal(20_000), dtype)
    correction = jnp.asarray(rng.integers(-127, 128, 20_000), jnp.int8)
    tx = with_master_weights(optax.sgd(1.0))
    state = tx.init(params)._replace(correction=correction)
    before = master_params(params, state)
    inside = np.asarray(before.astype(dtype) == params)  # not beyond the border of a power of two
    assert inside.mean() > 0.9
    for _ in range(20):
        updates, state = jax.jit(tx.update)(jnp.zeros(20_000), state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_array_equal(
            np.asarray(master_params(params, state))[inside], np.asarray(before)[inside]
        )


def test_full_counts_go_on_walking():
    params = jnp.ones(3, jnp.bfloat16)
    tx = with_master_weights(optax.sgd(1e-6))
    state = tx.init(params)._replace(correction_count=jnp.int32(2**31 - 1))
    moved = movement(
        optax.GradientTransformation(lambda _: state, tx.update),
        params,
        jnp.ones(3),
        2000,
        master_params,
    )
    np.testing.assert_allclose(moved, -2e-3, rtol=0.03)


@pytest.mark.slow
def test_derivatives_go_straight_through():
    def trained(tx, dtype):
        def loss(p):
            state = tx.init(p)
            for _ in range(3):
                updates, state = tx.update(p, state, p)
                p = optax.apply_updates(p, updates)
            return jnp.sum(p.astype(jnp.float32) ** 2)

        return jax.grad(loss)(jnp.array([1.0, 0.0, -2.0], dtype)).astype(jnp.float32)

    expected = trained(optax.sgd(0.1), jnp.float32)
    actual = trained(with_master_weights(optax.sgd(0.1)), jnp.bfloat16)
    np.testing.assert_allclose(actual, expected, rtol=0.02)


@pytest.mark.slow
def test_promotion_may_be_strict():
    params = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(2, jnp.float16)}
    tx = with_master_weights(optax.sgd(jnp.float32(0.1)))
    with jax.numpy_dtype_promotion("strict"):
        for update in (jax.jit(tx.update), tx.update):
            _, state = update(params, tx.init(params), params)
            chex.assert_tree_all_finite(master_params(params, state))


def test_complex_gradients_are_refused_by_path():
    params = {"w": jnp.ones(1, jnp.bfloat16)}
    tx = with_master_weights(optax.sgd(0.1))
    with pytest.raises(TypeError, match=r"complex64 at \['w'\]. Try"):
        tx.update({"w": jnp.ones(1, jnp.complex64)}, tx.init(params), params)


def test_only_what_was_initialized_is_looked_at():
    """A model holds functions and keys, and at `update` more than the state knows."""
    model = {"w": jnp.ones(2, jnp.bfloat16), "f": jnp.tanh, "key": jax.random.key(0)}
    gradients = {"w": jnp.ones(2, jnp.bfloat16), "f": None, "key": None}
    tx = with_master_weights(optax.sgd(1e-4, momentum=0.9))
    for state in (tx.init(model), tx.init(model | {"f": None, "key": None})):
        updates, after = tx.update(gradients, state, model)
        assert updates["f"] is None
        master = master_params({**model, "w": model["w"] + updates["w"].astype("bfloat16")}, after)
        np.testing.assert_allclose(master["w"], 1 - 1e-4, atol=3e-5)
        assert master["f"] is jnp.tanh
