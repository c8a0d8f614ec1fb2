"""Keras's Lion: recorded runs, and what its base class and its loss scaling do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import recordings
from trees import assert_close, run, tree

import lion_jax
from lion_jax.compat import keras

GRADIENTS = [tree(seed=seed) for seed in range(1, 8)]


def learning_rate(name):
    """The recorded rates by call, or the schedule in their place."""
    case = recordings.CASES[name]
    if "keras_schedule" not in case:
        return recordings.schedule(name)
    steps, rate = case["keras_schedule"]["decay_steps"], case["keras_schedule"]["decay_rate"]
    return lambda count: case["base_lr"] * rate ** (jnp.asarray(count, float) / steps)


def parts(case):
    """What to read in the state, by part of the recording."""
    if case["kwargs"].get("use_ema"):
        return {"ema": lion_jax.averaged_params}
    if "loss_scale_optimizer" in case:
        return {"scale": lambda state: {"dynamic_scale": lion_jax.current_loss_scale(state)}}
    return {}


@recordings.replays("keras_lion", slow=(np.float32,))
def test_lion_replays_keras(name, dtype):
    case = recordings.CASES[name]

    def make():
        tx = keras.lion(learning_rate(name), **case["kwargs"])
        if "loss_scale_optimizer" in case:
            tx = keras.loss_scale_optimizer(tx, **case["loss_scale_optimizer"])
        return tx

    recordings.assert_replays(name, make, dtype, **parts(case))


@pytest.mark.parametrize(
    "name", [name for name, case in recordings.CASES.items() if case["kwargs"].get("use_ema")]
)
def test_finalized_values_are_the_last_average(name):
    average = recordings.trajectory(name, "ema")
    finalized = recordings.trajectory(name, "finalized")
    assert finalized
    for leaf, p in finalized.items():
        np.testing.assert_array_equal(p, average[leaf][-1])


def test_a_schedule_is_read_at_the_count_of_calls():
    tx = keras.lion(lambda count: count + 1.0, gradient_accumulation_steps=3)
    params, state = jnp.zeros(()), tx.init(jnp.zeros(()))
    moves = []
    for _ in range(7):
        updates, state = tx.update(jnp.ones(()), state, params)
        moves.append(float(updates))
    assert moves == [0, 0, -3, 0, 0, -6, 0]


def test_a_count_of_calls_beyond_int32_reads_the_schedule_at_the_largest():
    tx = keras.lion(lambda count: count * 1.0, gradient_accumulation_steps=3)
    state = optax.tree_utils.tree_set(tx.init(jnp.zeros(())), schedule_count=jnp.int32(2**30))
    for _ in range(3):
        updates, state = tx.update(jnp.ones(()), state, jnp.zeros(()))
    assert updates == -(2.0**31)


def test_a_skipped_call_leaves_the_count_of_a_schedule():
    tx = keras.loss_scale_optimizer(
        keras.lion(lambda count: count + 1.0, gradient_accumulation_steps=3), 4.0
    )
    params, state = jnp.zeros(()), tx.init(jnp.zeros(()))
    moves = []
    for gradient in (1, np.inf, 1, 1, 1, 1, np.nan, 1, 1):
        updates, state = tx.update(jnp.float32(gradient), state, params)
        moves.append(float(updates))
    assert moves == [0, 0, 0, -3, 0, 0, 0, -6, 0]
    assert lion_jax.current_loss_scale(state) == 1.0


def test_the_average_and_its_overwrites_stand_still_while_a_call_is_skipped():
    """Figures of Keras 3.15, with a schedule whose rates are 1, 2, 3 and so on."""
    tx = keras.loss_scale_optimizer(
        keras.lion(
            lambda count: count + 1.0,
            gradient_accumulation_steps=2,
            use_ema=True,
            ema_momentum=0.5,
            ema_overwrite_frequency=2,
        ),
        initial_scale=4.0,
    )
    params = jnp.float32(100.0)
    state = tx.init(params)
    seen = []
    for gradient in (np.inf, 1, 1, np.inf, 1, 1, 1, 1, 1):
        updates, state = tx.update(jnp.float32(gradient), state, params)
        params = optax.apply_updates(params, updates)
        seen.append((float(params), float(lion_jax.averaged_params(state))))
    assert [p for p, _ in seen] == [100, 100, 98, 98, 98, 96, 96, 90, 91.5]
    assert [average for _, average in seen] == [100, 100, 98, 98, 98, 96, 96, 93, 91.5]


@pytest.mark.slow
def test_without_accumulation_the_average_is_the_core_one():
    average = functools.partial(lion_jax.with_parameter_average, decay=0.5, overwrite_every=3)
    expected = run(average(lion_jax.lion(1e-2, weight_decay=0.1)), tree(), GRADIENTS)
    tx = keras.lion(
        1e-2, weight_decay=0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3
    )
    actual = run(tx, tree(), GRADIENTS)
    assert_close(actual[0], expected[0])
    assert_close(lion_jax.averaged_params(actual[1]), lion_jax.averaged_params(expected[1]))


def test_an_average_that_never_forgets_keeps_the_first_parameters():
    tx = keras.lion(1.0, use_ema=True, ema_momentum=1.0)
    _, state = run(tx, jnp.zeros(2), [jnp.ones(2)] * 3)
    np.testing.assert_array_equal(lion_jax.averaged_params(state), [-1.0, -1.0])


def test_the_loss_scale_factor_is_the_current_loss_scale():
    """Gradients are divided by it before they are clipped."""
    tx = keras.lion(1.0, clipvalue=1.0, loss_scale_factor=4.0)
    expected = run(keras.lion(1.0, clipvalue=1.0), jnp.zeros(2), [jnp.array([0.75, -1.0])])
    params, state = run(tx, jnp.zeros(2), [jnp.array([3.0, -8.0])])
    assert lion_jax.current_loss_scale(state) == 4.0
    np.testing.assert_array_equal(params, expected[0])
    assert_close(optax.tree_utils.tree_get(state, "mu"), jnp.array([0.0075, -0.01]))


@pytest.mark.parametrize("name", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_clipping_at_0_is_off(name):
    expected, _ = run(keras.lion(1e-2), tree(), GRADIENTS)
    assert_close(run(keras.lion(1e-2, **{name: 0}), tree(), GRADIENTS)[0], expected)


@pytest.mark.parametrize("spoiled", [np.inf, np.nan])
def test_a_global_norm_that_is_not_finite_makes_all_gradients_nan(spoiled):
    tx = keras.lion(1e-2, global_clipnorm=1.0)
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    gradients = {"a": jnp.array([1.0, spoiled]), "b": jnp.ones(3)}
    updates, _ = tx.update(gradients, tx.init(params), params)
    assert all(np.all(np.isnan(u)) for u in jax.tree.leaves(updates))


def test_a_gradient_of_zeros_is_not_clipped_to_nan():
    for name in ("clipnorm", "global_clipnorm"):
        params, _ = run(keras.lion(1e-2, **{name: 1.0}), jnp.ones(2), [jnp.zeros(2)])
        np.testing.assert_array_equal(params, [1.0, 1.0])


@pytest.mark.sampled
@pytest.mark.parametrize("name", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_limits_of_clipping_may_be_traced(name):
    def moment(limit):
        _, state = run(keras.lion(**{name: limit}), jnp.ones(2), [jnp.array([3.0, 4.0])], jit=False)
        return optax.tree_utils.tree_get(state, "mu")

    limits = jnp.array([0.5, 2.0])
    for limit, traced in zip(limits, jax.vmap(moment)(limits), strict=True):
        assert_close(traced, moment(float(limit)))


@pytest.mark.parametrize("name", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_a_traced_limit_of_0_gives_gradients_of_0(name):
    """The number 0 clips nothing; an array may be one of a sweep or of a warm-up from 0."""
    gradients = {"dead": jnp.zeros(2), "w": jnp.array([3.0, 4.0])}
    params = jax.tree.map(jnp.ones_like, gradients)
    for gradient in (gradients, jax.tree.map(jnp.zeros_like, gradients)):
        _, state = run(keras.lion(**{name: jnp.float32(0)}), params, [gradient])
        moment = optax.tree_utils.tree_get(state, "mu")
        assert_close(moment, jax.tree.map(jnp.zeros_like, gradients))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"learning_rate": -1.0}, r"learning_rate must be finite and >= 0; got -1.0"),
        ({"beta_1": 0}, r"beta_1 must be in \(0, 1\); got 0. Try beta_1=0.9"),
        ({"beta_2": 1.0}, r"beta_2 must be in \[0, 1\); got 1.0"),
        ({"weight_decay": -0.1}, r"weight_decay must be finite and >= 0; got -0.1"),
        ({"clipnorm": -1.0}, r"clipnorm must be finite and >= 0; got -1.0. Try clipnorm=1.0"),
        ({"clipvalue": np.inf}, r"clipvalue must be finite and >= 0; got inf"),
        ({"global_clipnorm": np.nan}, r"global_clipnorm must be finite and >= 0; got nan"),
        (
            {"clipnorm": 0, "clipvalue": 1.0},
            r"at most one of clipnorm, clipvalue, global_clipnorm may be given, 0 included; "
            r"got clipnorm=0, clipvalue=1.0. Try clipvalue=None",
        ),
        ({"ema_momentum": 1.1}, r"ema_momentum must be in \[0, 1\]; got 1.1"),
        ({"ema_overwrite_frequency": 0}, r"ema_overwrite_frequency must be an integer >= 1.*got 0"),
        ({"loss_scale_factor": 0.0}, r"loss_scale_factor must be in \[2\*\*-126.*got 0.0"),
        (
            {"gradient_accumulation_steps": 0},
            r"gradient_accumulation_steps must be an integer >= 2.*got 0",
        ),
        (
            {"gradient_accumulation_steps": 1},
            r"gradient_accumulation_steps must be an integer >= 2.*got 1. Try",
        ),
    ],
)
def test_bad_arguments_are_refused_under_kerass_names(kwargs, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        keras.lion(**kwargs)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"beta_1": None},
        {"clipnorm": True},
        {"use_ema": 1},
        {"ema_momentum": None},
        {"ema_overwrite_frequency": 2.0},
        {"loss_scale_factor": "dynamic"},
        {"gradient_accumulation_steps": True},
        {"gradient_accumulation_steps": jnp.int32(4)},  # it decides what is compiled
    ],
)
def test_arguments_of_another_type_are_refused(kwargs):
    with pytest.raises(TypeError, match=rf"^{next(iter(kwargs))} must be .*; got .*Try"):
        keras.lion(**kwargs)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"initial_scale": 0.0}, ValueError, r"initial_scale must be in \[2\*\*-126.*got 0.0"),
        ({"dynamic_growth_steps": 0}, ValueError, r"dynamic_growth_steps must be an integer >= 1"),
        ({"initial_scale": "big"}, TypeError, r"initial_scale must be a number"),
        ({"inner": 1e-3}, TypeError, r"inner must be an optax.GradientTransformation"),
    ],
)
def test_loss_scale_optimizer_refuses_bad_arguments(kwargs, error, message):
    with pytest.raises(error, match=f"^{message}"):
        keras.loss_scale_optimizer(**{"inner": keras.lion(), **kwargs})


def test_the_average_needs_the_parameters():
    tx = keras.lion(use_ema=True)
    with pytest.raises(ValueError, match=r"averaging reads the parameters; got params=None"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
