"""States read as flax nnx wraps them: as if they were not."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from versions import needs

import lion_jax
from lion_jax import compat, precision
from lion_jax._core.states import is_wrapper, unwrapped

MASTERED = precision.with_master_weights(lion_jax.lion(1e-3))
READERS = {
    "hyperparameters": (lion_jax.lion(1e-2, weight_decay=0.1), lion_jax.hyperparameters),
    "read_metrics": (
        lion_jax.with_metrics(lion_jax.lion(1e-2), per_parameter=True, sign_flips=True),
        lion_jax.read_metrics,
    ),
    "read_metrics_without_signs": (lion_jax.with_metrics(optax.sgd(1e-2)), lion_jax.read_metrics),
    "averaged_params": (
        lion_jax.with_parameter_average(lion_jax.lion(1e-2)),
        lion_jax.averaged_params,
    ),
    "averaged_params_of_keras": (
        compat.keras.lion(1e-2, use_ema=True),
        lion_jax.averaged_params,
    ),
    "slow_params": (lion_jax.lookahead(lion_jax.lion(1e-2)), lion_jax.slow_params),
    "slow_params_of_scout": (lion_jax.scout(lion_jax.lion(1e-2)), lion_jax.slow_params),
    "skipped_steps": (lion_jax.with_finite_guard(lion_jax.lion(1e-2)), lion_jax.skipped_steps),
    "has_given_up": (lion_jax.with_finite_guard(lion_jax.lion(1e-2)), lion_jax.has_given_up),
    "current_loss_scale": (
        lion_jax.with_loss_scale(lion_jax.lion(1e-2), lion_jax.DynamicLossScale(4.0)),
        lion_jax.current_loss_scale,
    ),
}


def trained(tx, dtype=jnp.float32):
    """An nnx model and its optimizer after two steps, the gradients, and the same without nnx."""
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0), param_dtype=dtype)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    gradients = jax.tree.map(jnp.cos, nnx.state(model, nnx.Param))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    state, bare = tx.init(params), nnx.to_pure_dict(gradients)
    for _ in range(2):
        optimizer.update(model, gradients)
        updates, state = tx.update(bare, state, params)
        params = optax.apply_updates(params, updates)
    return model, optimizer, gradients, params, state


def assert_same_leaves(actual, expected):
    """The trees agree but for their nodes, and nothing in them is wrapped."""
    assert not any(map(is_wrapper, jax.tree.leaves(actual, is_leaf=is_wrapper)))
    chex.assert_trees_all_equal(jax.tree.leaves(actual), jax.tree.leaves(expected))


@pytest.mark.sampled
@pytest.mark.parametrize(("tx", "read"), READERS.values(), ids=READERS.keys())
def test_a_reader_sees_through_what_nnx_puts_around(tx, read):
    _, optimizer, _, _, state = trained(tx)
    expected = read(state)
    assert_same_leaves(read(optimizer.opt_state), expected)
    assert_same_leaves(read(nnx.state(optimizer.opt_state)), expected)  # where types are lost
    assert_same_leaves(read(nnx.state(optimizer)), expected)
    assert_same_leaves(read(nnx.to_pure_dict(nnx.state(optimizer))), expected)


@needs(nnx, "as_pure")
@pytest.mark.slow
def test_master_weights_are_read_whichever_side_is_wrapped():
    model, optimizer, _, params, state = trained(MASTERED, jnp.bfloat16)
    expected = precision.master_params(params, state)
    wrapped = nnx.state(model, nnx.Param)
    for p in (params, wrapped, nnx.as_pure(wrapped)):
        for s in (state, optimizer.opt_state, nnx.state(optimizer.opt_state)):
            master = precision.master_params(p, s)
            assert jax.tree.structure(master) == jax.tree.structure(p)
            chex.assert_trees_all_equal(jax.tree.leaves(master), jax.tree.leaves(expected))


def test_master_weights_are_set_whichever_side_is_wrapped():
    model, optimizer, _, params, state = trained(MASTERED, jnp.bfloat16)
    goal = jax.tree.map(lambda p: jnp.sin(p.astype(jnp.float32)), params)
    expected = precision.set_master_params(goal, params, state)
    wrapped = nnx.state(model, nnx.Param)
    for p in (params, wrapped):
        for s in (state, optimizer.opt_state):
            stored, new = precision.set_master_params(goal, p, s)
            assert jax.tree.structure((stored, new)) == jax.tree.structure((p, s))
            chex.assert_trees_all_equal(jax.tree.leaves((stored, new)), jax.tree.leaves(expected))


def test_the_report_of_llm_foundry_reads_nnx_states():
    model, optimizer, gradients, params, state = trained(
        compat.llm_foundry.decoupled_lionw(1e-2, weight_decay=0.1)
    )
    expected = compat.llm_foundry.report_metrics(nnx.to_pure_dict(gradients), params, state)
    reported = compat.llm_foundry.report_metrics(
        gradients, nnx.state(model, nnx.Param), optimizer.opt_state
    )
    chex.assert_trees_all_equal(reported, expected)


def test_functions_among_the_parameters_have_no_master_weights():
    params = {"w": jnp.ones(2, jnp.bfloat16), "activation": jnp.tanh, "none": None}
    state = MASTERED.init(params | {"activation": None})
    master = precision.master_params(params, state)
    assert master["activation"] is jnp.tanh
    assert master["w"].dtype == jnp.float32
    stored, state = precision.set_master_params(master, params, state)
    assert stored["activation"] is jnp.tanh
    chex.assert_trees_all_equal(precision.master_params(stored, state)["w"], master["w"])


def test_only_a_lone_value_is_a_wrapper():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Wrapper:
        value: jax.Array

    state = optax.ScaleByScheduleState(count=jnp.ones(2))
    tree = {"a": Wrapper(jnp.ones(2)), "b": Wrapper(optax.MaskedNode()), "c": state, "value": 1.0}
    bare = {"a": jnp.ones(2), "b": optax.MaskedNode(), "c": state, "value": 1.0}
    chex.assert_trees_all_equal(unwrapped(tree), bare)
    assert jax.tree.structure(unwrapped(tree)) == jax.tree.structure(bare)
