"""Weights on spheres: recorded runs, a NumPy loop, and what narrow formats keep."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from family import assert_replays, replays

import lion_jax
from lion_jax import groups, precision
from lion_jax.primitives import orthogonalize

LIONH = lion_jax.scale_by_sign_momentum(0.9, 0.99)


def decided_by(inner, rate):
    """The rule on all matrices but one that starts at zero, which the recorded runs let stay."""
    held = groups.select(lambda path, leaf: leaf.ndim > 1 and "zero" not in path)
    return lion_jax.hyperball(inner, rate, held)


@replays("numpy_lionh", "rollfast_hyperball_lion")
def test_lionh(name, dtype):
    assert_replays(name, dtype, lambda rate, _: decided_by(LIONH, rate), skip=("zero",))


@replays("numpy_adamh")
def test_adamh(name, dtype):
    def make(rate, kwargs):
        return decided_by(optax.scale_by_adam(kwargs["b1"], kwargs["b2"]), rate)

    assert_replays(name, dtype, make, skip=("zero",))


@replays("rollfast_hyperball__")
def test_rollfast(name, dtype):
    def make(rate, kwargs):
        return decided_by(optax.scale_by_adam(kwargs["b1"], kwargs["b2"]), rate)

    assert_replays(name, dtype, make, skip=("zero",))


@replays("rollfast_hyperball_decay")
def test_rollfast_decays_within_the_direction(name, dtype):
    def make(rate, kwargs):
        adam = optax.scale_by_adam(kwargs["b1"], kwargs["b2"])
        decay = lion_jax.add_decoupled_weight_decay(
            kwargs["weight_decay"],
            lambda p: jax.tree.map(lambda x: x.ndim > 1, p),
            cautious="sign_bits",
        )
        return decided_by(optax.chain(adam, decay), rate)

    assert_replays(name, dtype, make)


@pytest.mark.slow
@replays("marin_adamh")
def test_marin(name, dtype):
    """Its radius is the current norm, which stays the first; stacked layers have one each."""

    def make(rate, kwargs):
        adam = optax.scale_by_adam(kwargs["b1"], kwargs["b2"])
        return lion_jax.per_layer(lion_jax.hyperball(adam, rate), "^layers$")

    assert_replays(name, dtype, make)


@replays("heavyball")
def test_heavyball_has_no_first_moment(name, dtype):
    def make(rate, kwargs):
        direction = optax.scale_by_adam(0.0, kwargs.get("betas", (0.9, 0.99))[1])
        if kwargs.get("caution"):
            direction = lion_jax.cautious(direction, rescale="sign_bits", is_direction=True)
        decay = lion_jax.add_decoupled_weight_decay(
            kwargs.get("weight_decay", 0.0),
            cautious="sign_bits" if kwargs.get("cautious_weight_decay") else False,
        )
        return decided_by(optax.chain(direction, decay), rate)

    assert_replays(name, dtype, make, skip=("zero",))


RNG = np.random.default_rng(0)
START = RNG.normal(size=(12, 8))
GRADIENTS = RNG.normal(size=(1000, 12, 8))


def after(tx, params, steps=1000):
    def step(carry, gradient):
        params, state = carry
        updates, state = tx.update({"w": gradient.astype(params["w"].dtype)}, state, params)
        return (optax.apply_updates(params, updates), state), None

    gradients = jnp.asarray(GRADIENTS[:steps])
    return jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), gradients)[0])(params)


def norm_of(x):
    return np.linalg.norm(np.asarray(x, np.float64))


@pytest.mark.parametrize(
    "inner",
    [LIONH, optax.scale_by_adam(), optax.chain(optax.trace(0.9), orthogonalize())],
    ids=["lionh", "adamh", "muonh"],
)
def test_norms_hold_for_a_thousand_steps_in_float32(inner):
    params, _ = after(lion_jax.hyperball(inner, 0.02), {"w": jnp.asarray(START, jnp.float32)})
    assert norm_of(params["w"]) == pytest.approx(norm_of(START), rel=1e-6)


def test_norms_hold_in_bfloat16_to_the_rounding_of_its_weights():
    start = jnp.asarray(START, jnp.bfloat16)
    params, state = after(lion_jax.hyperball(LIONH, 0.02), {"w": start})
    assert params["w"].dtype == jnp.bfloat16
    assert state.radius["w"].dtype == jnp.float32
    # Half an ulp of every weight is at most 2**-9 of it, and so of the norm.
    assert norm_of(params["w"]) == pytest.approx(norm_of(start), rel=2**-9)


def test_new_weights_in_bfloat16_are_rounded_once():
    start = jnp.asarray(START, jnp.bfloat16)
    tx = lion_jax.hyperball(LIONH, 0.02)
    gradient = {"w": jnp.asarray(GRADIENTS[0], jnp.bfloat16)}
    updates, _ = tx.update(gradient, tx.init({"w": start}), {"w": start})
    wide = lion_jax.hyperball(LIONH, 0.02)
    params = {"w": start.astype(jnp.float32)}
    exact, _ = wide.update(jax.tree.map(jnp.float32, gradient), wide.init(params), params)
    expected = (params["w"] + exact["w"]).astype(jnp.bfloat16)
    new = optax.apply_updates({"w": start}, updates)["w"]
    np.testing.assert_array_equal(np.float32(new), np.float32(expected))


def test_behind_master_weights_the_master_is_on_the_sphere():
    start = {"w": jnp.asarray(START, jnp.bfloat16)}
    tx = precision.with_master_weights(lion_jax.hyperball(LIONH, 0.02), correction_bits=16)
    params, state = after(tx, start)
    master = precision.master_params(params, state)["w"]
    assert norm_of(master) == pytest.approx(norm_of(start["w"]), rel=1e-5)


def test_a_step_turns_by_the_learning_rate():
    params = {"w": jnp.asarray(START, jnp.float32)}
    across = RNG.normal(size=START.shape)
    across -= np.sum(across * START) / np.sum(START**2) * START
    tx = lion_jax.hyperball(optax.identity(), 0.01)
    updates, _ = tx.update({"w": jnp.asarray(across, jnp.float32)}, tx.init(params), params)
    new = np.asarray(params["w"] + updates["w"], np.float64)
    cosine = np.sum(new * START) / norm_of(new) / norm_of(START)
    assert np.arccos(cosine) == pytest.approx(np.arctan(0.01), rel=1e-3)


def test_a_matrix_of_zeros_is_refused_by_its_path():
    params = {"lora": {"a": jnp.ones((2, 2)), "b": jnp.zeros((2, 2))}, "bias": jnp.zeros(2)}
    with pytest.raises(ValueError, match=r"norm > 0; got 0 at \['lora'\]\['b'\].*Try where="):
        lion_jax.hyperball(LIONH, 0.1).init(params)
    tx = lion_jax.hyperball(LIONH, 0.1, groups.select("lora/a"))
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["lora"]["b"], -0.1)
    np.testing.assert_allclose(updates["bias"], -0.1)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((1.0, 0.1), TypeError, "inner must be an optax.GradientTransformation"),
        ((LIONH, -0.1), ValueError, "learning_rate must be finite and >= 0; got -0.1"),
        ((LIONH, 0.1, 3.0), TypeError, "where must be None, a tree of booleans"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, error, words):
    with pytest.raises(error, match=words):
        lion_jax.hyperball(*arguments)


def test_a_path_that_matches_nothing_is_refused_with_what_is_near():
    tx = lion_jax.hyperball(LIONH, 0.1, groups.select("kernal$"))
    with pytest.raises(ValueError, match="kernel"):
        tx.init({"kernel": jnp.ones((2, 2))})
