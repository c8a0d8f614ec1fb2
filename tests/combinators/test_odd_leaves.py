"""Combinators that keep trees of their own: odd leaves, odd nodes, odd modes, eager steps."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trees import Matrix

import lion_jax
from lion_jax import compat
from lion_jax.precision import round_stochastically, with_master_weights

KEEPERS = {
    "lookahead": lambda tx, x=0.5: lion_jax.lookahead(tx, 2, x),
    "lookahead_reset": lambda tx, x=0.5: lion_jax.lookahead(tx, 2, x, reset_inner=True),
    "scout": lambda tx, x=0.5: lion_jax.scout(tx, 2, x),
    "average": lambda tx, x=0.5: lion_jax.with_parameter_average(tx, x),
    "average_overwriting": lambda tx, x=0.5: lion_jax.with_parameter_average(tx, x, 2),
}
every_keeper = pytest.mark.parametrize("name", KEEPERS)
SGD = optax.sgd(0.1)


def walk(tx, params, steps=4):
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(params, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@every_keeper
def test_nodes_that_check_their_arrays_are_trained(name):
    params = Matrix(jnp.ones((2, 2)))
    after, _ = walk(KEEPERS[name](SGD), params)
    assert (after.w < params.w).all()


def test_master_weights_train_nodes_that_check_their_arrays():
    params = Matrix(jnp.ones((2, 2), jnp.bfloat16))
    assert (walk(with_master_weights(SGD), params)[0].w < params.w).all()


@every_keeper
def test_python_floats_are_trained_like_arrays(name):
    floats, _ = walk(KEEPERS[name](SGD), {"a": 1.0, "b": -2.0})
    arrays, _ = walk(KEEPERS[name](SGD), {"a": jnp.array(1.0), "b": jnp.array(-2.0)})
    assert {k: float(v) for k, v in floats.items()} == {k: float(v) for k, v in arrays.items()}


@pytest.mark.sampled
@every_keeper
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_promotion_may_be_strict(name, dtype):
    params = {"w": jnp.ones((2, 2), dtype)}
    with jax.numpy_dtype_promotion("strict"):
        for x in (0.5, jnp.float32(0.5)):
            tx = KEEPERS[name](SGD, x)
            for update in (jax.jit(tx.update), tx.update):
                state = tx.init(params)
                for _ in range(3):
                    _, state = update(params, state, params)


@every_keeper
def test_a_complex_update_of_a_real_parameter_is_refused_by_path(name):
    params = {"w": jnp.ones(1)}
    tx = KEEPERS[name](SGD)
    with pytest.raises(TypeError, match=r"complex64 where float32 .*\['w'\]\. Try "):
        tx.update({"w": jnp.array([1.0 + 5.0j])}, tx.init(params), params)


@pytest.mark.slow
@every_keeper
def test_derivatives_are_finite_where_nothing_moves(name):
    def trained(p):
        after, _ = walk(KEEPERS[name](SGD), p, 3)
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(after))

    gradients = jax.grad(trained)({"w": jnp.array([1.0, 2.0]), "bias": jnp.zeros(2)})
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
    assert (gradients["w"] > 0).all()


@pytest.mark.slow
def test_random_rounding_has_the_derivatives_of_what_it_rounds():
    tx = optax.chain(SGD, round_stochastically(jax.random.key(0)))
    params = jnp.linspace(1, 2, 50).astype(jnp.bfloat16)
    gradients = jax.grad(lambda p: jnp.sum(walk(tx, p, 3)[0].astype(jnp.float32)))(params)
    np.testing.assert_allclose(gradients.astype(jnp.float32), 0.9**3, rtol=0.02)


@pytest.mark.slow
@every_keeper
def test_a_whole_model_may_come_where_its_arrays_were_initialized(name):
    model = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    arrays = eqx.filter(model, eqx.is_inexact_array)
    gradients = jax.tree.map(jnp.ones_like, arrays)
    tx, expected = KEEPERS[name](SGD), KEEPERS[name](SGD)
    state, like = tx.init(arrays), expected.init(arrays)
    for _ in range(2):
        updates, state = tx.update(gradients, state, model)
        filtered, like = expected.update(gradients, like, arrays)
    assert eqx.tree_equal(eqx.filter(updates, eqx.is_array), filtered)
    assert jax.tree.structure(state) == jax.tree.structure(like)


@every_keeper
def test_leaves_without_numbers_to_move_are_left_alone(name):
    params = {
        "w": jnp.ones(2),
        "n": jnp.arange(3),
        "on": jnp.array(True),
        "key": jax.random.key(0),
        "f": jnp.tanh,
    }
    none = dict.fromkeys(["n", "on", "key", "f"])
    still = optax.GradientTransformation(
        lambda _: optax.EmptyState(), lambda u, s, p: ({**none, "w": -0.1 * u["w"]}, s)
    )
    tx = KEEPERS[name](still)
    state = tx.init(params)
    zeros = {"n": np.zeros(3, jax.dtypes.float0), "on": None, "key": None, "f": None}
    for gradients in (none | {"w": jnp.ones(2)}, zeros | {"w": jnp.ones(2)}):
        updates, state = tx.update(gradients, state, params)
        assert (updates["w"] < 0).all()
    kept = state.average if "average" in name else state.slow_params
    assert kept["f"] is None
    assert (kept["n"] == params["n"]).all()
    assert kept["key"] == params["key"]


@every_keeper
def test_eager_steps_compile_nothing_anew(name):
    params, compiled = {"w": jnp.ones((3, 5))}, []
    walk(KEEPERS[name](SGD), params)

    def listen(event, _, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        walk(KEEPERS[name](SGD), params)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not compiled


@pytest.mark.sampled
@pytest.mark.parametrize("period", [1, 2, 3, 7])
@pytest.mark.parametrize("calls", [1, 4])
def test_a_full_count_keeps_its_place_in_the_period(period, calls):
    """Beyond 2**31 - 1 calls an overwriting average goes on as it would with a wider count."""
    tx = (
        lion_jax.with_parameter_average(SGD, 0.5, period)
        if calls == 1
        else compat.keras.lion(
            0.1, use_ema=True, ema_overwrite_frequency=period, gradient_accumulation_steps=calls
        )
    )
    late, early = 2**31 - 2, (2**31 - 2) % (period * calls) + period * calls
    states = []
    for count in (late, early):
        params, state = jnp.ones(2), tx.init(jnp.ones(2))
        state = state._replace(averaged_calls=jnp.int32(count))
        history = []
        for _ in range(2 * period * calls + 3):
            updates, state = tx.update(jnp.ones(2), state, params)
            params = optax.apply_updates(params, updates)
            history.append(np.asarray(params))
        states.append(history)
    np.testing.assert_array_equal(*states)


def test_full_counts_of_random_rounding_draw_anew():
    params = jnp.ones(200, jnp.bfloat16)
    tx = round_stochastically(jax.random.key(0))
    state = tx.init(params)._replace(rounding_count=jnp.int32(2**31 - 1))
    updates = [None] * 3
    for i in range(3):
        updates[i], state = tx.update(jnp.full(200, 2e-3), state, params)
    assert (updates[1] != updates[0]).any()
    assert (updates[2] != updates[1]).any()
