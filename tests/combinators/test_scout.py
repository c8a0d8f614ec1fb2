"""Scout: the recorded original where it is defined, an independent loop, a state of fixed size."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
import recordings
from trees import run

import lion_jax


@recordings.replays("holocron_scout_sgd", "holocron_scout_adamw", slow=[np.float32])
def test_replays_holocron(name, dtype):
    case, schedule = recordings.CASES[name], recordings.schedule(name)
    inner = optax.adamw if "adamw" in name else optax.sgd

    def make():
        rule = inner(schedule, **case["kwargs"])
        return lion_jax.scout(
            rule, case["wrap_kwargs"]["sync_period"], case["wrap_kwargs"]["sync_rate"]
        )

    recordings.assert_replays(name, make, dtype)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sync_period", [2, 3, 5])
@pytest.mark.parametrize("least", [0.0, 0.4, 1.0])
def test_equals_the_loop(sync_period, least):
    """An entry stands still, another moves evenly: 0 / 0 counts as 0."""
    rng = np.random.default_rng(0)
    p, gradients = rng.standard_normal(8), rng.standard_normal((11, 8))
    gradients[:, 0], gradients[:, 1] = 0, 0.5
    expected = oracles.scout_sgd(p, gradients, 0.25, sync_period, least)
    tx = lion_jax.scout(optax.sgd(0.25), sync_period, least)
    for steps in (sync_period - 1, sync_period, 11):
        params, _ = run(tx, jnp.asarray(p), jnp.asarray(gradients[:steps]))
        np.testing.assert_allclose(params, expected[steps - 1], rtol=1e-12, atol=1e-14)


def test_the_state_does_not_grow_with_the_period():
    def size(sync_period):
        state = lion_jax.scout(optax.sgd(0.1), sync_period).init(jnp.ones(100))
        return sum(x.size for x in jax.tree.leaves(state))

    assert size(2) == size(1000) == 5 * 100 + 1


def test_weights_equal_slow_weights_after_a_synchronization():
    tx = lion_jax.scout(lion_jax.lion(0.1), 3)
    params, state = run(tx, jnp.arange(4.0), [jnp.sin(jnp.arange(4.0) + s) for s in range(6)])
    np.testing.assert_array_equal(params, lion_jax.slow_params(state))


def test_refuses_a_period_of_one():
    with pytest.raises(ValueError, match=r"^sync_period must be an integer >= 2 .*got 1"):
        lion_jax.scout(optax.sgd(0.1), sync_period=1)


def test_a_missing_gradient_is_a_step_of_zero():
    """Also at the first step of a period, where the statistics begin anew."""
    rng = np.random.default_rng(0)

    def run_with(missing):
        tx = lion_jax.scout(optax.sgd(1.0), 3, 0.0)
        params = {"a": jnp.zeros(()), "b": jnp.zeros(())}
        state = tx.init(params)
        for t, (x, y) in enumerate(rows):
            gradient = {"a": missing if t == 3 else jnp.float32(x), "b": jnp.float32(y)}
            updates, state = tx.update(gradient, state, params)
            params = {k: params[k] if u is None else params[k] + u for k, u in updates.items()}
        return params

    rows = rng.standard_normal((6, 2))
    actual, expected = run_with(None), run_with(jnp.zeros(()))
    for leaf in expected:
        np.testing.assert_allclose(actual[leaf], expected[leaf], rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_float32_parameters_work_under_x64():
    params, _ = run(
        lion_jax.scout(optax.sgd(0.5), 2), jnp.ones(2, "float32"), [jnp.ones(2, "float32")] * 3
    )
    assert params.dtype == jnp.float32
