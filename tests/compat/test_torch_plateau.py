"""torch's ReduceLROnPlateau: recorded runs, and what every transformation promises."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from torch_schedulers import BASE_LR, CASES, TOLERANCE, recorded
from trees import assert_close, specs, tree

from lion_jax import compat

NUMBERS = {"lr": 0.1, "factor": 0.5, "threshold": 0.01, "min_lr": 0.02, "eps": 1e-6}
STATIC = {"mode": "min", "patience": 1, "threshold_mode": "rel", "cooldown": 1}
LOSSES = [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]

make = functools.partial(compat.torch.reduce_lr_on_plateau, BASE_LR)
by_name = pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case["cls"] == "ReduceLROnPlateau"]
)


def run(tx, params, losses, jit=True):
    """Parameters after a constant gradient per loss, and the state."""

    def step(params, state, loss):
        updates, state = tx.update(params, state, params, value=loss)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step) if jit else step
    state = tx.init(params)
    for loss in losses:
        params, state = step(params, state, loss)
    return params, state


@by_name
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_replays_torch(name, dtype):
    """Update t at the learning rate before its metric; after it, the state at the one that is."""
    run, tolerance = recorded(name), TOLERANCE[np.dtype(dtype)]
    with jax.enable_x64(dtype == np.float64):
        tx = make(**CASES[name]["kwargs"])
        update, state = jax.jit(tx.update), tx.init(jnp.zeros(2))
        for lr, metric, lr_after in zip(run["lr"], run["metric"], run["lr_after"], strict=True):
            updates, state = update(jnp.ones(2), state, value=metric)
            np.testing.assert_allclose(BASE_LR * updates, [lr, lr], rtol=tolerance)
            np.testing.assert_allclose(BASE_LR * state.scale, lr_after, rtol=tolerance)
            assert state.scale.dtype == state.best.dtype == dtype


@pytest.mark.usefixtures("x64")
@by_name
def test_scales_an_optimizer_as_torch_does(name):
    """SGD with momentum by hand, the learning rate outside the buffer, at the recorded rates."""
    case, gradients = recorded(name), np.random.default_rng(0).standard_normal((60, 5))
    p, buffer = np.ones(5), np.zeros(5)
    for lr, g in zip(case["lr"], gradients, strict=True):
        buffer = 0.9 * buffer + g
        p = p - lr * buffer
    tx = optax.chain(compat.torch.sgd(BASE_LR, momentum=0.9), make(**CASES[name]["kwargs"]))
    params = jnp.ones(5)
    state, update = tx.init(params), jax.jit(tx.update)
    for g, metric in zip(gradients, case["metric"], strict=True):
        updates, state = update(jnp.asarray(g), state, params, value=metric)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, p, rtol=1e-9)


@by_name
def test_the_recordings_have_plateaus(name):
    run = recorded(name)
    assert run["lr_after"][-1] < BASE_LR
    assert np.isnan(run["metric"]).any() == name.endswith("nan")


def test_only_nan_is_a_plateau():
    _, state = run(make(patience=2), jnp.ones(1), [math.nan] * 3)
    np.testing.assert_allclose(state.scale, 0.1, rtol=1e-6)
    assert state.best == jnp.inf


def test_a_reduction_of_eps_or_less_is_skipped_and_still_cools():
    tx = make(factor=0.5, patience=0, cooldown=2, eps=0.06)
    _, state = run(tx, jnp.ones(1), [1.0, 1.0])
    assert (state.scale, state.cooldown_counter) == (1.0, 2)


def test_a_learning_rate_at_its_minimum_stays():
    for min_lr, scale in [(0.1, 1.0), (0.3, 1.0), (0.025, 0.25)]:
        _, state = run(make(factor=0.5, patience=0, min_lr=min_lr), jnp.ones(1), [1.0] * 9)
        np.testing.assert_allclose(state.scale, scale, rtol=1e-6)


def test_a_learning_rate_of_zero_stays():
    tx = compat.torch.reduce_lr_on_plateau(0.0, patience=0)
    assert run(tx, jnp.ones(1), [1.0] * 3)[1].scale == 1.0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_keeps_shapes_and_dtypes(dtype):
    with jax.enable_x64(dtype == "float64"):
        tx, params = make(patience=0), tree(dtype)
        state = tx.init(params)
        before = specs(state)
        for loss in (1.0, np.float32(2.0), jnp.bfloat16(3.0), 4):
            updates, state = tx.update(params, state, params, value=loss)
            chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
            assert specs(state) == before
        assert not any(x.weak_type for x in state)


def test_updates_have_the_dtype_of_the_parameters():
    tx, params = make(), tree(jnp.float32)
    updates, _ = tx.update(tree(jnp.bfloat16), tx.init(params), params, value=1.0)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)


@pytest.mark.usefixtures("x64")
def test_a_wide_hyperparameter_widens_nothing():
    tx = compat.torch.reduce_lr_on_plateau(**{k: jnp.float64(v) for k, v in NUMBERS.items()})
    params = tree(jnp.float32)
    updates, _ = tx.update(params, tx.init(params), params, value=jnp.float64(1.0))
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)


def test_jit_equals_eager_and_is_traced_once():
    tx, traces = compat.torch.reduce_lr_on_plateau(**NUMBERS, **STATIC), []

    def update(updates, state, params, **extra_args):
        traces.append(1)
        return tx.update(updates, state, params, **extra_args)

    counted = optax.GradientTransformationExtraArgs(tx.init, update)
    losses = jnp.asarray(LOSSES)
    assert_close(run(counted, tree(), losses), run(tx, tree(), losses, jit=False))
    assert len(traces) == 1


def test_works_injected():
    plain = compat.torch.reduce_lr_on_plateau(**NUMBERS, **STATIC)
    expected, state = run(plain, tree(), LOSSES)
    for static in [(), tuple(STATIC)]:
        injected = optax.inject_hyperparams(compat.torch.reduce_lr_on_plateau, static_args=static)
        params, injected_state = run(injected(**NUMBERS, **STATIC), tree(), LOSSES)
        assert_close(params, expected)
        assert_close(injected_state.inner_state, state)
    assert set(injected_state.hyperparams) == set(NUMBERS)


def test_injected_values_take_effect():
    tx = optax.inject_hyperparams(compat.torch.reduce_lr_on_plateau)(lr=0.1, patience=0)
    _, state = tx.update(jnp.ones(1), tx.init(jnp.ones(1)), jnp.ones(1), value=1.0)
    state.hyperparams["factor"] = jnp.asarray(0.5)
    _, state = jax.jit(tx.update)(jnp.ones(1), state, jnp.ones(1), value=1.0)
    assert state.inner_state.scale == 0.5


def test_a_threshold_injected_in_bfloat16_is_not_lost():
    tx = optax.inject_hyperparams(compat.torch.reduce_lr_on_plateau)(lr=0.1, patience=0)
    params = jnp.ones(1, jnp.bfloat16)
    _, state = run(tx, params, jnp.array([1.0, 0.99995]), jit=False)  # XLA may keep the digits
    assert state.inner_state.scale < 1


def test_a_sweep_vmaps():
    fixed = {k: v for k, v in STATIC.items() if k != "patience"}

    def scale(patience, **numbers):
        tx = compat.torch.reduce_lr_on_plateau(patience=patience, **numbers, **fixed)
        return run(tx, jnp.ones(1), jnp.asarray(LOSSES), jit=False)[1].scale

    sweep = {name: jnp.array([0.5, 1.0]) * value for name, value in NUMBERS.items()}
    sweep["lr"] = jnp.array([0.2, 0.1])
    swept = jax.jit(jax.vmap(lambda n: scale(**n)))(sweep | {"patience": jnp.array([2, 1])})
    each = [
        scale(patience, **{name: values[i] for name, values in sweep.items()})
        for i, patience in enumerate((2, 1))
    ]
    np.testing.assert_allclose(swept, jnp.stack(each), rtol=1e-6)
    assert swept[0] != swept[1]


def test_accumulates_under_multi_steps():
    """It sees the metric of a micro-step that applies, and no other."""
    tx = optax.MultiSteps(make(patience=0), every_k_schedule=2).gradient_transformation()
    losses = jnp.array([9.0, 1.0, 9.0, 1.0, 9.0, 0.5])
    _, state = run(tx, jnp.ones(2), losses)
    _, expected = run(make(patience=0), jnp.ones(2), losses[1::2])
    assert_close(state.inner_opt_state, expected)


@pytest.mark.parametrize("params", [{}, (), {"a": None}, [jnp.ones((0, 4))], jnp.float32(2.0)])
def test_takes_odd_trees(params):
    tx = make()
    updates, _ = tx.update(params, tx.init(params), params, value=1.0)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)


def test_a_missing_gradient_stays_missing():
    params, tx = {"a": jnp.ones(2), "b": jnp.ones(3)}, make()
    updates, _ = tx.update({"a": jnp.ones(2), "b": None}, tx.init(params), params, value=1.0)
    assert updates["b"] is None


def test_initializes_abstractly_and_maps_like_the_parameters():
    tx, abstract = make(), jax.ShapeDtypeStruct((3,), jnp.bfloat16)
    state = tx.init(abstract)
    assert specs(jax.eval_shape(tx.init, abstract)) == specs(state)
    mapped = optax.tree_utils.tree_map_params(tx, lambda x: x.astype(jnp.float16), state)
    assert specs(mapped) == specs(state)


def test_steps_once_an_epoch_outside_the_chain():
    tx = make(factor=0.5, patience=0)
    state = tx.init({})
    for loss in (1.0, 1.0):
        _, state = tx.update({}, state, value=loss)
    assert state.scale == 0.5


def test_other_arguments_pass():
    tx = make()
    updates, _ = tx.update(jnp.ones(2), tx.init(jnp.ones(2)), value=1.0, other="x")
    np.testing.assert_array_equal(updates, [1.0, 1.0])


@pytest.mark.parametrize("jit", [False, True])
def test_a_missing_value_is_named(jit):
    tx = optax.chain(optax.sgd(0.1), make())
    update = jax.jit(tx.update) if jit else tx.update
    with pytest.raises(ValueError, match=r"got value=None\. Try update\(.*, value=loss\)"):
        update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2))


@pytest.mark.parametrize(
    ("error", "value", "message"),
    [
        (TypeError, "0.5", r"value must be a number; got '0\.5' of type str\. Try update\("),
        (TypeError, 1j, r"value must be a number; got 1j of type complex\. Try update\("),
        (ValueError, jnp.ones(3), r"value must be a scalar; got .*\(3,\)\. Try value=loss\.mean"),
    ],
)
def test_a_value_that_is_no_number_is_refused(error, value, message):
    tx = make()
    with pytest.raises(error, match=f"^{message}"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), value=value)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, "0.1", None, True, [0.1]])
@pytest.mark.parametrize("name", NUMBERS)
def test_refuses_bad_numbers(name, value):
    expected = ValueError if isinstance(value, float) else TypeError
    with pytest.raises(expected, match=rf"^{name} must be .*got .*Try {name}="):
        compat.torch.reduce_lr_on_plateau(**NUMBERS | {name: value})


@pytest.mark.parametrize(
    ("error", "kwargs", "message"),
    [
        (ValueError, {"factor": 1.0}, r"factor must be in \[0, 1\); got 1\.0\. Try factor=0\.1"),
        (ValueError, {"patience": -1}, r"patience must be an integer >= 0 .*got -1\. Try"),
        (TypeError, {"patience": 1.5}, r"patience must be an integer .*got 1\.5\. Try"),
        (ValueError, {"cooldown": -1}, r"cooldown must be an integer >= 0 .*got -1\. Try"),
        (ValueError, {"mode": "low"}, r"mode must be \"min\" or \"max\"; got 'low'\. Try"),
        (ValueError, {"mode": None}, r"mode must be \"min\" or \"max\"; got None\. Try"),
        (ValueError, {"threshold_mode": "r"}, r"threshold_mode must be \"rel\" or \"abs\"; got"),
        (TypeError, {"lr": lambda count: 0.1}, r"lr must be a number, .*of type function\. Try"),
        (TypeError, {"min_lr": [0.1, 0.2]}, r"min_lr must be a number, .*of type list\. Try"),
        (ValueError, {"lr": jnp.ones(3)}, r"lr must be a scalar.*\(3,\).*jax\.vmap"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_under_torchs_own_names(error, kwargs, message):
    with pytest.raises(error, match=f"^{message}"):
        compat.torch.reduce_lr_on_plateau(**{"lr": 0.1} | kwargs)
