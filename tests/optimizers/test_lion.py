"""Lion and DecoupledLionW: the recorded originals, an independent loop, properties of signs."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
import recordings
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import assert_close, run, tree

import lion_jax


@recordings.replays("lionpytorch", slow=[np.float32])
def test_lion_replays_lion_pytorch(name, dtype):
    kwargs = recordings.CASES[name]["kwargs"]
    b1, b2 = kwargs.get("betas", (0.9, 0.99))
    weight_decay = kwargs.get("weight_decay", 0.0)
    if kwargs.get("decoupled_weight_decay"):  # the original divides by the first learning rate
        weight_decay /= recordings.CASES[name]["lr"][0]
    recordings.assert_replays(
        name,
        lambda: lion_jax.lion(recordings.schedule(name), b1, b2, weight_decay=weight_decay),
        dtype,
    )


@recordings.replays("foundry", "zeta", "lionpytorch_decoupled", slow=[np.float32])
def test_decoupled_lion_replays_its_originals(name, dtype):
    kwargs = recordings.CASES[name]["kwargs"]
    b1, b2 = kwargs.get("betas", (0.9, 0.99))
    recordings.assert_replays(
        name,
        lambda: lion_jax.decoupled_lion(
            recordings.schedule(name),
            b1,
            b2,
            weight_decay=kwargs["weight_decay"],
            initial_learning_rate=recordings.CASES[name]["lr"][0],
        ),
        dtype,
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize(("b1", "b2"), [(0.9, 0.99), (0.5, 0.25), (0.0, 0.9), (0.9, 0.0)])
def test_lion_equals_the_loop(b1, b2, weight_decay):
    rng = np.random.default_rng(0)
    p, gradients = rng.standard_normal(50), rng.standard_normal((20, 50))
    rates = np.linspace(0.1, 0.0, 20)
    tx = lion_jax.lion(lambda t: jnp.asarray(rates)[t], b1, b2, weight_decay=weight_decay)
    params, _ = run(tx, jnp.asarray(p), jnp.asarray(gradients))
    expected = oracles.lion(p, gradients, rates, b1, b2, weight_decay)[-1]
    np.testing.assert_allclose(params, expected, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_decoupled_lion_equals_the_loop():
    rng = np.random.default_rng(0)
    p, gradients = rng.standard_normal(50), rng.standard_normal((20, 50))
    rates = np.concatenate([np.linspace(0.0, 0.1, 5), np.linspace(0.1, 0.0, 15)])
    tx = lion_jax.decoupled_lion(
        lambda t: jnp.asarray(rates)[t], weight_decay=0.02, initial_learning_rate=0.1
    )
    params, _ = run(tx, jnp.asarray(p), jnp.asarray(gradients))
    expected = oracles.decoupled_lion(p, gradients, rates, 0.1, weight_decay=0.02)[-1]
    np.testing.assert_allclose(params, expected, rtol=1e-12)


@pytest.mark.parametrize("weight_decay", [0.0, 1e-3])
@pytest.mark.parametrize("mask", [None, lambda p: jax.tree.map(lambda x: x.ndim > 1, p)])
def test_lion_drops_in_for_optax(weight_decay, mask):
    """Same arguments in the same order, same numbers in float32."""
    schedule = optax.cosine_decay_schedule(1e-2, 10)
    gradients = [tree(seed=seed) for seed in range(1, 8)]
    arguments = (schedule, 0.9, 0.98, jnp.float32, weight_decay, mask)
    ours, _ = run(lion_jax.lion(*arguments), tree(), gradients)
    theirs, _ = run(optax.lion(*arguments), tree(), gradients)
    assert_close(ours, theirs, rtol=1e-6)


def test_lion_is_its_primitives():
    by_hand = optax.chain(
        lion_jax.scale_by_sign_momentum(0.9, 0.98),
        lion_jax.add_decoupled_weight_decay(0.1),
        optax.scale_by_learning_rate(1e-2),
    )
    gradients = [tree(seed=seed) for seed in range(1, 5)]
    named = lion_jax.lion(1e-2, 0.9, 0.98, weight_decay=0.1)
    expected, _ = run(by_hand, tree(), gradients)
    chex.assert_trees_all_equal(run(named, tree(), gradients)[0], expected)


def test_decoupled_lion_with_constant_rate_shrinks_by_the_decay_itself():
    tx = lion_jax.decoupled_lion(1e-3, weight_decay=0.25)
    params, _ = run(tx, jnp.array([4.0, -8.0]), [jnp.zeros(2)] * 2)
    np.testing.assert_allclose(params, [4.0 * 0.75**2, -8.0 * 0.75**2], rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), exponent=st.integers(-30, 30))
def test_lion_does_not_see_the_scale_of_the_gradients(seed, exponent):
    """Powers of two, so that not one rounding differs."""
    rng = np.random.default_rng(seed)
    gradients = jnp.asarray(rng.standard_normal((4, 16)), jnp.float32)
    params = jnp.asarray(rng.standard_normal(16), jnp.float32)
    tx = lion_jax.lion(1e-2, weight_decay=0.1)
    plain, _ = run(tx, params, gradients, jit=False)
    scaled, _ = run(tx, params, gradients * 2.0**exponent, jit=False)
    np.testing.assert_array_equal(plain, scaled)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_lion_is_odd(seed):
    """Mirrored gradients and parameters take the mirrored path."""
    rng = np.random.default_rng(seed)
    gradients = jnp.asarray(rng.standard_normal((4, 16)), jnp.float32)
    params = jnp.asarray(rng.standard_normal(16), jnp.float32)
    tx = lion_jax.lion(1e-2, weight_decay=0.1)
    np.testing.assert_array_equal(
        run(tx, params, gradients, jit=False)[0], -run(tx, -params, -gradients, jit=False)[0]
    )


def test_every_entry_moves_by_the_learning_rate():
    updates, _ = lion_jax.lion(0.25).update(
        g := jnp.array([1e-30, -1e30, 0.0, 5.0]), lion_jax.lion(0.25).init(g)
    )
    np.testing.assert_array_equal(updates, [-0.25, 0.25, 0.0, -0.25])


def test_parameters_are_optional_without_decay():
    tx = lion_jax.lion(1e-3)
    chex.assert_trees_all_equal(
        tx.update(tree(seed=1), tx.init(tree()))[0],
        tx.update(tree(seed=1), tx.init(tree()), tree())[0],
    )


@pytest.mark.parametrize("factory", [lion_jax.lion, lion_jax.decoupled_lion])
def test_decay_without_parameters_is_refused(factory):
    tx = factory(1e-3, weight_decay=0.1)
    with pytest.raises(ValueError, match="got params=None"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))


@pytest.mark.parametrize("factory", [lion_jax.lion, lion_jax.decoupled_lion])
def test_complex_leaves_are_refused(factory):
    with pytest.raises(TypeError, match=r"complex64 at \['w'\].*split_real_and_imaginary"):
        factory(1e-3).init({"w": jnp.ones(2, jnp.complex64)})


def test_complex_leaves_work_split():
    tx = optax.contrib.split_real_and_imaginary(lion_jax.lion(0.5))
    params = jnp.array([1.0 + 1.0j])
    updates, _ = tx.update(jnp.array([2.0 - 3.0j]), tx.init(params), params)
    np.testing.assert_array_equal(updates, [-0.5 + 0.5j])


def test_a_schedule_needs_an_initial_learning_rate():
    with pytest.raises(ValueError, match=r"^initial_learning_rate must be.*got None.*Try"):
        lion_jax.decoupled_lion(optax.constant_schedule(1e-3))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_an_injected_rate_of_zero_moves_nothing(weight_decay):
    inject = optax.inject_hyperparams(lion_jax.decoupled_lion, static_args=("mu_dtype", "mask"))
    tx = inject(optax.linear_schedule(0.0, 1e-3, 2), weight_decay=weight_decay)
    params, gradients = jnp.ones(3), jnp.array([1.0, -1.0, 0.0])
    for jit in (True, False):
        after, _ = run(tx, params, [gradients], jit=jit)
        np.testing.assert_array_equal(after, params)
        chex.assert_tree_all_finite(run(tx, params, [gradients] * 4, jit=jit)[0])


def test_a_swept_rate_of_zero_moves_nothing():
    def update(rate):
        tx = lion_jax.decoupled_lion(rate, weight_decay=0.1)
        return tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2))[0]

    np.testing.assert_allclose(jax.vmap(update)(jnp.array([0.0, 0.5])), [[0, 0], [-0.6, -0.6]])


def test_a_scheduled_beta_may_round_to_one_in_both_modes():
    tx = lion_jax.lion(1e-2, b2=lambda count: 1 - 1e-3 * 0.5 ** (count + 0.0))
    gradients = [tree(seed=seed) for seed in range(20)]
    assert_close(run(tx, tree(), gradients, jit=False)[0], run(tx, tree(), gradients)[0])


def test_a_number_larger_than_any_float_is_refused():
    with pytest.raises(ValueError, match=r"^learning_rate must be finite and >= 0"):
        lion_jax.lion(10**400)


def test_a_zero_learning_rate_cannot_be_the_initial_one():
    with pytest.raises(ValueError, match=r"^initial_learning_rate must be.*> 0; got 0.0"):
        lion_jax.decoupled_lion(0.0)


@pytest.mark.parametrize("mu_dtype", ["int8", jnp.int32, "nonsense", 3.0, np.ones(3, np.float32)])
def test_bad_moment_dtypes_are_refused(mu_dtype):
    with pytest.raises(TypeError, match=r"^mu_dtype must be None or a floating-point dtype; got"):
        lion_jax.lion(1e-3, mu_dtype=mu_dtype)


@pytest.mark.parametrize("mask", [1j, {"w": "1.0"}, "w"])
def test_bad_masks_are_refused(mask):
    with pytest.raises(TypeError, match=r"^mask must be None, a tree of booleans"):
        lion_jax.lion(1e-3, mask=mask)


@pytest.mark.parametrize(
    ("params_dtype", "mu_dtype", "expected"),
    [
        (jnp.float32, None, jnp.float32),
        (jnp.bfloat16, None, jnp.float32),
        (jnp.float32, jnp.bfloat16, jnp.bfloat16),
        (jnp.float32, "bfloat16", jnp.bfloat16),
    ],
)
def test_the_moment_has_the_dtype_asked_for(params_dtype, mu_dtype, expected):
    state = lion_jax.lion(1e-3, mu_dtype=mu_dtype).init(jnp.ones(2, params_dtype))
    assert optax.tree_utils.tree_get(state, "mu").dtype == expected


@pytest.mark.parametrize("learning_rate", [1e-3, optax.constant_schedule(1e-3)])
def test_one_moment_and_one_counter_are_what_it_keeps(learning_rate):
    state = lion_jax.lion(learning_rate).init(jnp.ones(2))
    assert optax.tree_utils.tree_get(state, "schedule_count") == 0
    assert [x.shape for x in jax.tree.leaves(state.inner_state)] == [(2,)]
