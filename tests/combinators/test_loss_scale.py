"""Loss scales: gradients of the loss itself, and a scale that finds its size."""

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trees import assert_close, run, tree

import lion_jax

STEPS = 9
# Multiples of 1/64, which all scales of the run leave exact in float16 too.
GRADIENTS = [
    jax.tree.map(lambda g: jnp.round(64 * g) / 64, tree(seed=seed)) for seed in range(1, STEPS + 1)
]
BAD = [float("nan"), float("inf"), -float("inf")]
INNERS = {
    "lion": lion_jax.lion(lambda count: 0.1 / (count + 1), weight_decay=0.1),
    "adamw": optax.adamw(1e-2),
    "averaged": lion_jax.with_parameter_average(optax.sgd(0.1, 0.9), 0.5, overwrite_every=2),
}
STEP = {}


def step_of(name, dtype):
    """A compiled step of the scaled transformation; one for all examples."""
    if (name, dtype) not in STEP:
        tx = lion_jax.with_loss_scale(INNERS[name], lion_jax.DynamicLossScale(2.0**4, 2))

        @jax.jit
        def step(params, state, gradient, spoil):
            scale = lion_jax.current_loss_scale(state)
            scaled = [(g * scale.astype(dtype)).at[..., :1].add(spoil) for g in gradient]
            updates, state = tx.update(scaled, state, params)
            return optax.apply_updates(params, updates), state

        STEP[name, dtype] = tx, step
    return STEP[name, dtype]


def vectors(gradient, dtype):
    """The leaves of rank 1 or more, which have a place for an infinity."""
    return [x.astype(dtype) for x in jax.tree.leaves(gradient) if x.ndim]


@pytest.mark.sampled
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", INNERS)
@hypothesis.settings(max_examples=8, deadline=None, derandomize=True)
@hypothesis.given(spoils=st.dictionaries(st.integers(0, STEPS - 1), st.sampled_from(BAD)))
def test_survives_infinities_at_any_step(name, dtype, spoils):
    """Bit for bit the run that never saw those batches.

    In float32 also the run without a loss scale, but for the rounding of other fused programs.
    """
    tx, step = step_of(name, dtype)
    gradients = [vectors(g, dtype) for g in GRADIENTS]
    good = [g for t, g in enumerate(gradients) if t not in spoils]
    start = vectors(tree(), dtype)
    params, state = start, tx.init(start)
    for t, gradient in enumerate(gradients):
        params, state = step(params, state, gradient, spoils.get(t, 0.0))
    assert lion_jax.skipped_steps(state) == len(spoils)
    expected, expected_state = start, tx.init(start)
    for gradient in good:
        expected, expected_state = step(expected, expected_state, gradient, 0.0)
    chex.assert_trees_all_equal(params, expected)
    chex.assert_trees_all_equal(state.inner_state, expected_state.inner_state)
    if dtype == "float32":
        assert_close((params, state.inner_state), run(INNERS[name], start, good))


def test_doubles_after_the_interval_and_halves_at_once():
    tx = lion_jax.with_loss_scale(optax.sgd(0.1), lion_jax.DynamicLossScale(8.0, 3))
    good, bad = jnp.ones(1), jnp.full(1, jnp.inf)
    state, scales = tx.init(good), []
    for gradient in (good, good, good, good, bad, good, good, good, bad, bad):
        _, state = jax.jit(tx.update)(gradient, state, good)
        scales.append(float(lion_jax.current_loss_scale(state)))
    assert scales == [8, 8, 16, 16, 8, 8, 8, 16, 8, 4]


def test_a_step_divides_by_the_scale_that_its_loss_was_multiplied_by():
    tx = lion_jax.with_loss_scale(optax.sgd(1.0), lion_jax.DynamicLossScale(4.0, 1))
    updates, state = tx.update(jnp.full(1, 4.0), tx.init(jnp.ones(1)), jnp.ones(1))
    np.testing.assert_array_equal(updates, [-1.0])
    assert lion_jax.current_loss_scale(state) == 8.0


@pytest.mark.parametrize(("initial", "gradient"), [(2.0**-126, jnp.nan), (2.0**126, 1.0)])
def test_the_scale_stays_a_normal_float(initial, gradient):
    tx = lion_jax.with_loss_scale(optax.sgd(0.1), lion_jax.DynamicLossScale(initial, 1))
    _, state = run(tx, jnp.ones(1), [jnp.full(1, gradient)] * 3)
    assert lion_jax.current_loss_scale(state) == initial


@pytest.mark.parametrize("scale", [2.0**126, 2.0**-126])
def test_the_limits_divide_exactly(scale):
    tx = lion_jax.with_loss_scale(optax.identity(), scale)
    updates, _ = jax.jit(tx.update)(jnp.array([scale, scale * 2]), tx.init(jnp.ones(2)))
    np.testing.assert_array_equal(updates, [1.0, 2.0])


def test_a_scale_of_the_users_survives_the_donation_of_the_state():
    scale = jnp.float32(4.0)
    for given in (scale, lion_jax.DynamicLossScale(scale, 2)):
        tx = lion_jax.with_loss_scale(optax.sgd(0.1), given)
        jax.jit(tx.update, donate_argnums=1)(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2))
    assert scale == 4.0


@pytest.mark.parametrize("scale", [1024.0, lion_jax.DynamicLossScale(1024.0)], ids=type)
def test_small_gradients_survive_float16(scale):
    """2**-30 is 0 in float16, and 2**-20 is not."""
    received = optax.trace(decay=0.0, accumulator_dtype=jnp.float32)
    tx = lion_jax.with_loss_scale(received, scale)
    _, state = run(tx, jnp.ones(1, jnp.float16), [jnp.full(1, 2.0**-20, jnp.float16)])
    np.testing.assert_array_equal(state.inner_state.trace, [2.0**-30])


def test_a_static_scale_skips_nothing():
    tx = lion_jax.with_loss_scale(optax.sgd(1.0), 4.0)
    params, _ = run(tx, jnp.zeros(2), [jnp.array([4.0, jnp.inf])])
    np.testing.assert_array_equal(params, [-1.0, -jnp.inf])


def test_an_injected_scale_is_in_force_from_the_next_loss_on():
    tx = optax.inject_hyperparams(lion_jax.with_loss_scale, static_args="inner")(
        optax.sgd(1.0), 4.0
    )
    state = tx.init(jnp.ones(1))
    state.hyperparams["loss_scale"] = jnp.float32(8.0)
    updates, state = tx.update(jnp.full(1, 4.0), state, jnp.ones(1))
    np.testing.assert_array_equal(updates, [-1.0])
    assert lion_jax.current_loss_scale(state.inner_state) == 8.0


@pytest.mark.parametrize("count", [0, 2])
def test_reading_refuses_a_state_without_one_or_with_several(count):
    state = [lion_jax.with_loss_scale(optax.identity(), 2.0).init(jnp.ones(2))] * count
    with pytest.raises(ValueError, match=rf"one with_loss_scale; found {count} "):
        lion_jax.current_loss_scale(state)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1e39])
def test_refuses_a_scale_out_of_range(scale):
    allowed = r"must be in \[2\*\*-126, 2\*\*126\]; got .*32768"
    with pytest.raises(ValueError, match=rf"^loss_scale {allowed}"):
        lion_jax.with_loss_scale(optax.sgd(0.1), scale)
    with pytest.raises(ValueError, match=rf"^initial {allowed}"):
        lion_jax.DynamicLossScale(scale)


@pytest.mark.parametrize("scale", [None, "dynamic", True, lion_jax.DynamicLossScale])
def test_refuses_what_is_no_scale(scale):
    with pytest.raises(TypeError, match=r"^loss_scale must be a number or a DynamicLossScale"):
        lion_jax.with_loss_scale(optax.sgd(0.1), scale)


@pytest.mark.parametrize(("interval", "error"), [(0, ValueError), (1.5, TypeError)])
def test_refuses_an_interval_of_no_steps(interval, error):
    with pytest.raises(error, match=r"^growth_interval must be an integer >= 1 .*; got"):
        lion_jax.DynamicLossScale(1.0, interval)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("scale", [4.0, lion_jax.DynamicLossScale(4.0, jnp.int32(2))], ids=str)
def test_strict_promotion_changes_nothing(dtype, scale):
    tx, gradient = lion_jax.with_loss_scale(optax.sgd(1.0), scale), jnp.ones(2, dtype)
    with jax.numpy_dtype_promotion("strict"):
        updates, state = tx.update(gradient, tx.init(gradient), gradient)
        _, state = jax.jit(tx.update)(gradient, state, gradient)
    np.testing.assert_array_equal(np.asarray(updates, np.float32), [-0.25, -0.25])


def test_a_full_count_of_finite_steps_doubles_the_scale():
    tx = lion_jax.with_loss_scale(optax.sgd(1.0), lion_jax.DynamicLossScale(4.0, 2**31 - 1))
    params = jnp.ones(1)
    state = tx.init(params)._replace(finite_steps=jnp.int32(2**31 - 1))
    _, state = tx.update(params, state, params)
    assert lion_jax.current_loss_scale(state) == 8.0
    assert state.finite_steps == 0
