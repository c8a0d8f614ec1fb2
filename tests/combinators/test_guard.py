"""The guard: what is not finite moves nothing and reaches nothing."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from trees import run, tree

import lion_jax

GRADIENTS = [tree(seed=seed) for seed in range(1, 6)]
BAD = [float("nan"), float("inf"), -float("inf")]


def spoiled(gradient, value, leaf):
    """The gradient with this value somewhere in the leaf of this number."""
    leaves, treedef = jax.tree.flatten(gradient)
    leaves[leaf] = leaves[leaf].ravel().at[-1].set(value).reshape(leaves[leaf].shape)
    return treedef.unflatten(leaves)


@pytest.fixture(scope="module")
def trained():
    """A compiled update, and parameters and state after some finite gradients."""
    tx = lion_jax.with_finite_guard(lion_jax.lion(1e-2, weight_decay=0.1))
    return jax.jit(tx.update), *run(tx, tree(), GRADIENTS)


@pytest.mark.parametrize("leaf", [i for i, x in enumerate(jax.tree.leaves(tree())) if x.size])
@pytest.mark.parametrize("value", BAD, ids=str)
def test_a_bad_gradient_leaves_everything_as_it_was(trained, value, leaf):
    update, params, state = trained
    updates, after = update(spoiled(GRADIENTS[0], value, leaf), state, params)
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))
    chex.assert_trees_all_equal(after.inner_state, state.inner_state)
    assert (after.skipped, after.skipped_in_a_row) == (1, 1)


@pytest.mark.sampled
@pytest.mark.parametrize("inner", [lion_jax.lion(1e-2), optax.adamw(1e-2)], ids=["lion", "adamw"])
def test_finite_gradients_pass_unchanged(inner):
    """Bit for bit; a compiled step may round p + u once where u is computed beside it."""
    for jit, assert_alike in ((False, chex.assert_trees_all_equal), (True, assert_last_bit)):
        guarded, state = run(lion_jax.with_finite_guard(inner), tree(), GRADIENTS, jit=jit)
        expected, expected_state = run(inner, tree(), GRADIENTS, jit=jit)
        assert_alike(guarded, expected)
        chex.assert_trees_all_equal(state.inner_state, expected_state)
        assert not state.skipped


def assert_last_bit(actual, expected):
    """Checks that float32 numbers differ in their last bit at most."""
    chex.assert_trees_all_close(actual, expected, rtol=2**-23, atol=0)


def test_very_large_gradients_are_finite():
    tx = lion_jax.with_finite_guard(optax.scale(0.0))
    _, state = run(tx, jnp.ones(4), [jnp.full(4, jnp.finfo(jnp.float32).max)])
    assert not state.skipped


def test_counts_and_gives_up_for_good():
    tx = lion_jax.with_finite_guard(optax.sgd(0.1), max_consecutive=2)
    good, bad = jnp.ones(1), jnp.full(1, jnp.nan)
    params, state = jnp.ones(1), tx.init(jnp.ones(1))
    seen = []
    for gradient in (bad, good, bad, bad, good, bad):
        updates, state = jax.jit(tx.update)(gradient, state, params)
        params = optax.apply_updates(params, updates)
        seen.append((*map(int, state[:2]), bool(state.has_given_up)))
    assert seen == [
        (1, 1, False),
        (1, 0, False),
        (2, 1, False),
        (3, 2, True),
        (3, 0, True),
        (4, 1, True),
    ]
    np.testing.assert_allclose(params, [0.8], rtol=1e-6)  # two good steps, one after the flag


def test_is_read_at_any_depth():
    tx = lion_jax.lookahead(lion_jax.with_finite_guard(optax.sgd(0.1), max_consecutive=2))
    _, state = run(tx, jnp.ones(1), [jnp.full(1, jnp.nan)] * 3)
    assert lion_jax.skipped_steps(state) == 3
    assert lion_jax.has_given_up(state)
    for read in (lion_jax.skipped_steps, lion_jax.has_given_up):
        with pytest.raises(ValueError, match=r"one with_finite_guard.*; found 0 "):
            read(optax.sgd(0.1).init(jnp.ones(1)))


def test_lets_a_dynamic_loss_scale_within_fall():
    scaled = lion_jax.with_loss_scale(optax.sgd(0.1), lion_jax.DynamicLossScale(2.0**24))
    tx = lion_jax.with_finite_guard(scaled)
    params, state = jnp.ones(2, jnp.float16), tx.init(jnp.ones(2, jnp.float16))
    for _ in range(60):
        scale = lion_jax.current_loss_scale(state)
        gradient = ((params.astype(jnp.float32) - 3.0) * scale).astype(jnp.float16)
        updates, state = jax.jit(tx.update)(gradient, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, 3.0, rtol=1e-2)
    assert state.skipped == state.inner_state.skipped == 10  # from 2**24 to 2**14


def test_never_gives_up_unless_asked():
    tx = lion_jax.with_finite_guard(optax.sgd(0.1))
    _, state = run(tx, jnp.ones(1), [jnp.full(1, jnp.nan)] * 9)
    assert int(state.skipped_in_a_row) == 9
    assert not state.has_given_up


@pytest.mark.sampled
@pytest.mark.parametrize("wrap", ["guard", "loss_scale"])
def test_devices_with_parts_of_the_gradient_skip_together(wrap):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    inner = optax.sgd(1.0)
    tx = {
        "guard": lion_jax.with_finite_guard(inner, axis_name="data"),
        "loss_scale": lion_jax.with_loss_scale(
            inner, lion_jax.DynamicLossScale(1.0), axis_name="data"
        ),
    }[wrap]
    gradient = jnp.ones(8).at[3].set(jnp.nan)
    specs = jax.tree.map(lambda _: PartitionSpec(), tx.init(gradient))

    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(PartitionSpec("data"), specs, PartitionSpec("data")),
        out_specs=PartitionSpec("data"),
    )
    def updates(gradient, state, params):
        return tx.update(gradient, state, params)[0]

    np.testing.assert_array_equal(updates(gradient, tx.init(gradient), gradient), np.zeros(8))


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (1.0, TypeError)])
def test_refuses_to_give_up_after_no_steps(value, error):
    with pytest.raises(error, match=r"^max_consecutive must be an integer >= 1 .*; got"):
        lion_jax.with_finite_guard(optax.sgd(0.1), value)


@pytest.mark.parametrize("most", [2, jnp.int32(2)], ids=str)
def test_strict_promotion_and_arrays_change_nothing(most):
    tx, gradient = lion_jax.with_finite_guard(optax.sgd(1.0), most), jnp.array([jnp.inf, 1.0])
    with jax.numpy_dtype_promotion("strict"):
        _, state = tx.update(gradient, tx.init(gradient), gradient)
        _, state = jax.jit(tx.update)(gradient, state, gradient)
    assert lion_jax.has_given_up(state)


def test_counts_stay_at_the_largest():
    largest = jnp.int32(2**31 - 1)
    tx, params = lion_jax.with_finite_guard(optax.sgd(1.0), max_consecutive=2**31 - 1), jnp.ones(1)
    state = tx.init(params)._replace(skipped=largest, skipped_in_a_row=largest - 1)
    for _ in range(2):
        _, state = tx.update(jnp.array([jnp.nan]), state, params)
        assert lion_jax.skipped_steps(state) == state.skipped_in_a_row == largest
        assert lion_jax.has_given_up(state)


def test_guards_a_rule_of_gradients_per_example():
    private = optax.contrib.differentially_private_aggregate(1.0, 0.0, jax.random.key(0))
    tx, params, each = lion_jax.with_finite_guard(private), jnp.zeros(3), jnp.ones((4, 3))
    updates, _ = tx.update(each, tx.init(params), params)
    np.testing.assert_allclose(updates, private.update(each, private.init(params), params)[0])
