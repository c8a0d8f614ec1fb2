"""Lookahead: the recorded original, an independent loop, and slow weights in the state."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
import recordings
from flax import nnx
from flax.training import train_state
from trees import assert_close, run, tree

import lion_jax


@recordings.replays("holocron_lookahead")
def test_replays_holocron(name, dtype):
    case, schedule = recordings.CASES[name], recordings.schedule(name)
    inner = {"sgd": optax.sgd, "adamw": optax.adamw}[name.split("_")[2]]

    def make():
        return lion_jax.lookahead(
            inner(schedule, **case["kwargs"]),
            sync_period=case["wrap_kwargs"]["sync_period"],
            slow_step_size=case["wrap_kwargs"]["sync_rate"],
        )

    recordings.assert_replays(name, make, dtype)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sync_period", [1, 2, 5])
@pytest.mark.parametrize("slow_step_size", [0.0, 0.3, 1.0])
def test_equals_the_loop(sync_period, slow_step_size):
    rng = np.random.default_rng(0)
    p, gradients, rates = rng.standard_normal(30), rng.standard_normal((11, 30)), np.full(11, 0.1)
    fast, slow = oracles.lookahead_sgd(p, gradients, rates, 0.9, sync_period, slow_step_size)
    tx = lion_jax.lookahead(optax.sgd(0.1, momentum=0.9), sync_period, slow_step_size)
    for steps in range(1, 12):
        params, state = run(tx, jnp.asarray(p), jnp.asarray(gradients[:steps]), jit=False)
        np.testing.assert_allclose(params, fast[steps - 1], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(
            lion_jax.slow_params(state), slow[steps - 1], rtol=1e-12, atol=1e-14
        )


def test_a_full_slow_step_is_the_inner_transformation():
    gradients = [tree(seed=seed) for seed in range(1, 8)]
    inner = lion_jax.lion(1e-2)
    wrapped, _ = run(lion_jax.lookahead(inner, 3, 1.0), tree(), gradients)
    assert_close(wrapped, run(inner, tree(), gradients)[0])


@pytest.mark.slow
def test_agrees_with_optax_where_that_needs_pairs():
    gradients = [tree(seed=seed) for seed in range(1, 8)]
    inner = optax.adam(1e-2)
    ours, state = run(lion_jax.lookahead(inner, 3, 0.5), tree(), gradients)
    pairs = optax.LookaheadParams.init_synced(tree())
    theirs, _ = run(optax.lookahead(inner, 3, 0.5), pairs, gradients)
    assert_close(ours, theirs.fast)
    assert_close(lion_jax.slow_params(state), theirs.slow)


def test_reset_inner_starts_the_momentum_anew():
    tx = lion_jax.lookahead(optax.sgd(0.1, momentum=0.9), 2, 0.5, reset_inner=True)
    params = jnp.ones(3)
    _, state = run(tx, params, [params])
    np.testing.assert_array_equal(optax.tree_utils.tree_get(state, "trace"), params)
    _, state = run(tx, params, [params, params])
    np.testing.assert_array_equal(optax.tree_utils.tree_get(state, "trace"), jnp.zeros(3))


def test_reset_inner_initializes_from_the_synchronized_parameters():
    tx = lion_jax.lookahead(
        lion_jax.lookahead(optax.sgd(1.0), sync_period=5), 2, 0.25, reset_inner=True
    )
    params, state = run(tx, jnp.zeros(3), [-jnp.ones(3)] * 2)
    np.testing.assert_array_equal(params, jnp.full(3, 0.5))
    np.testing.assert_array_equal(lion_jax.slow_params(state.inner_state), params)


@pytest.mark.parametrize("jit", [True, False], ids=["jit", "eager"])
def test_a_synchronization_makes_slow_and_fast_weights_equal(jit):
    tx = lion_jax.lookahead(lion_jax.lion(1e-2, weight_decay=0.1), 2, 0.3)
    gradients = [tree(seed=seed) for seed in range(1, 5)]
    for steps in (2, 4):
        fast, state = run(tx, tree(), gradients[:steps], jit=jit)
        chex.assert_trees_all_equal(fast, lion_jax.slow_params(state))


def test_narrow_parameters_land_on_the_slow_weights_up_to_rounding():
    """The update slow - p is rounded, and so is p + (slow - p): half an ulp of the larger each."""
    rng = np.random.default_rng(0)
    params = jnp.asarray(rng.standard_normal(1000), jnp.bfloat16)
    gradients = jnp.asarray(rng.standard_normal((2, 1000)), jnp.bfloat16)
    tx = lion_jax.lookahead(optax.sgd(0.1), 2, 0.5)
    fast, state = run(tx, params, gradients)
    before, _ = run(tx, params, gradients[:1])
    slow = lion_jax.slow_params(state)
    bound = jnp.finfo(jnp.bfloat16).eps * (jnp.abs(slow) + jnp.abs(before.astype(jnp.float32)))
    assert jnp.all(jnp.abs(fast.astype(jnp.float32) - slow) <= bound)
    assert slow.dtype == jnp.float32


def test_slow_weights_of_narrow_parameters_keep_full_precision():
    """A hundred slow steps that bfloat16, with eight bits, could not take at all."""
    tx = lion_jax.lookahead(optax.sgd(1.0), 1, 0.5)
    params = jnp.ones(3, jnp.bfloat16)
    state = tx.init(params)
    for _ in range(100):
        _, state = jax.jit(tx.update)(jnp.full(3, -1e-3, jnp.bfloat16), state, params)
    expected = 1 + float(jnp.bfloat16(1e-3))  # the slow weights approach the fast ones
    np.testing.assert_allclose(lion_jax.slow_params(state), expected, rtol=1e-6)


def test_a_step_on_a_cpu_needs_no_scratch_memory():
    tx = lion_jax.lookahead(lion_jax.lion(1e-3), 5)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params = jax.ShapeDtypeStruct((10**5,), jnp.float32)
    memory = step.lower(params, tx.init(params), params).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 1000


def test_slow_weights_do_not_alias_the_parameters():
    params = jnp.ones(3)
    state = lion_jax.lookahead(optax.sgd(0.1)).init(params)
    assert state.slow_params.unsafe_buffer_pointer() != params.unsafe_buffer_pointer()


def test_slow_params_are_found_in_a_deep_state():
    tx = optax.MultiSteps(
        optax.chain(optax.clip(1.0), lion_jax.lookahead(optax.adam(1e-3), 2)), 2
    ).gradient_transformation()
    chex.assert_trees_all_equal(lion_jax.slow_params(tx.init(tree())), tree())


def test_slow_params_named_among_the_parameters_do_not_confuse():
    params = {"slow_params": jnp.ones(2)}
    state = lion_jax.lookahead(lion_jax.lion(1e-3)).init(params)
    chex.assert_trees_all_equal(lion_jax.slow_params(state), params)


def test_slow_params_of_a_state_without_them_are_refused():
    with pytest.raises(ValueError, match=r"one lookahead or scout; found 0 in this Hyper"):
        lion_jax.slow_params(lion_jax.lion(1e-3).init(jnp.ones(2)))


def test_slow_params_of_several_are_refused():
    nested = lion_jax.lookahead(lion_jax.lookahead(optax.sgd(0.1)))
    with pytest.raises(ValueError, match=r"one lookahead or scout; found 2 \(.*inner_state"):
        lion_jax.slow_params(nested.init(jnp.ones(2)))


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, ValueError),
        (-3, ValueError),
        (2**40, ValueError),
        (np.float32(6), TypeError),
        (2.5, TypeError),
        (True, TypeError),
        ("6", TypeError),
    ],
)
def test_bad_periods_are_refused(value, error):
    with pytest.raises(
        error, match=r"^sync_period must be an integer >= 1 and < 2\*\*31; got .*Try sync_period=6"
    ):
        lion_jax.lookahead(optax.sgd(0.1), value)


def test_a_reset_that_is_no_flag_is_refused():
    with pytest.raises(TypeError, match=r"^reset_inner must be True or False; got 'no'.*Try"):
        lion_jax.lookahead(optax.sgd(0.1), reset_inner="no")


def test_an_uncalled_factory_as_inner_is_told_so():
    with pytest.raises(TypeError, match=r"did you mean to call it, as in sgd\(1e-3\)\?"):
        lion_jax.lookahead(optax.sgd)


def test_needs_parameters():
    tx = lion_jax.lookahead(optax.sgd(0.1))
    with pytest.raises(ValueError, match="lookahead reads the parameters; got params=None"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))


def test_complex_parameters_are_right():
    tx = lion_jax.lookahead(optax.sgd(1.0), 2, 0.5)
    params, _ = run(tx, jnp.zeros(1, jnp.complex64), [-jnp.array([1.0 + 2.0j])] * 2)
    np.testing.assert_allclose(params, [1.0 + 2.0j])


@pytest.mark.slow
def test_trains_in_an_nnx_optimizer():
    model = nnx.Linear(4, 1, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, lion_jax.lookahead(lion_jax.lion(0.02)), wrt=nnx.Param)
    x = jax.random.normal(jax.random.key(0), (32, 4))
    y = x @ jnp.ones((4, 1))

    def loss(model):
        return jnp.mean((model(x) - y) ** 2)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(loss)(model))

    first = loss(model)
    for _ in range(120):
        step(model, optimizer)
    assert loss(model) < first / 10


@pytest.mark.slow
def test_trains_in_a_flax_train_state():
    model = nn.Dense(1)
    x = jax.random.normal(jax.random.key(0), (32, 4))
    y = x @ jnp.ones((4, 1))
    state = train_state.TrainState.create(
        apply_fn=model.apply,
        params=model.init(jax.random.key(1), x)["params"],
        tx=lion_jax.lookahead(lion_jax.lion(0.02)),
    )

    def loss(params):
        return jnp.mean((model.apply({"params": params}, x) - y) ** 2)

    first = loss(state.params)
    for _ in range(60):
        state = state.apply_gradients(grads=jax.grad(loss)(state.params))
    assert loss(lion_jax.slow_params(state.opt_state)) < first / 10
