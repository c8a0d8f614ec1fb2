"""Decoupled weight decay: where it acts, how strongly, and when it holds back."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trees import run, tree

from lion_jax.primitives import add_decoupled_weight_decay


def apply(tx, updates, params):
    return tx.update(updates, tx.init(params), params)[0]


@pytest.mark.parametrize("mask", [None, {"w": True, "b": False}])
def test_agrees_with_optax(mask):
    params = {"w": jnp.array([1.0, -2.0]), "b": jnp.array([3.0])}
    updates = jax.tree.map(jnp.ones_like, params)
    chex.assert_trees_all_close(
        apply(add_decoupled_weight_decay(0.1, mask), updates, params),
        apply(optax.add_decayed_weights(0.1, mask), updates, params),
    )


def test_a_mask_is_a_function_too():
    params = tree()
    decayed = apply(
        add_decoupled_weight_decay(1.0, lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
        jax.tree.map(jnp.zeros_like, params),
        params,
    )
    np.testing.assert_array_equal(decayed["layer"].kernel, params["layer"].kernel)
    np.testing.assert_array_equal(decayed["layer"].bias, jnp.zeros(3))


def test_cautious_decay_needs_agreeing_signs():
    u = jnp.array([1.0, 1.0, -1.0, -1.0, 0.0, 1.0])
    p = jnp.array([2.0, -2.0, 2.0, -2.0, 2.0, 0.0])
    decayed = apply(add_decoupled_weight_decay(0.5, cautious=True), u, p)
    np.testing.assert_array_equal(decayed, [2.0, 1.0, -1.0, -2.0, 1.0, 1.0])


def test_cautious_decay_of_complex_leaves_is_refused():
    leaf = jnp.ones(2, jnp.complex64)
    with pytest.raises(TypeError, match="cautious weight decay needs real leaves; got complex64"):
        apply(add_decoupled_weight_decay(0.5, cautious=True), leaf, leaf)


def test_a_caution_that_is_no_flag_is_refused():
    with pytest.raises(TypeError, match=r"^cautious must be True or False; got 'no'.*Try"):
        add_decoupled_weight_decay(0.5, cautious="no")


def test_cautious_decay_compares_signs_where_the_product_underflows():
    u, p = jnp.float32(-1e-30), jnp.float32(1e-30)
    assert apply(add_decoupled_weight_decay(0.5, cautious=True), u, p) == u


def test_a_schedule_can_stand_after_the_learning_rate():
    """Decay of its own schedule, independent of the learning rate's."""
    shares = jnp.array([-0.5, -0.25])
    tx = optax.chain(
        optax.scale_by_learning_rate(0.1),
        add_decoupled_weight_decay(1.0, multiplier=lambda count: shares[count]),
    )
    params, _ = run(tx, jnp.array([8.0]), [jnp.array([10.0])] * 2)
    np.testing.assert_allclose(params, [(8.0 * 0.5 - 1.0) * 0.75 - 1.0])


@pytest.mark.parametrize("weight_decay", [0, 0.0, np.float32(0), np.int64(0), np.zeros(())])
def test_no_decay_reads_no_parameters(weight_decay):
    tx = add_decoupled_weight_decay(weight_decay)
    updates, _ = tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    np.testing.assert_array_equal(updates, jnp.ones(2))


def test_no_decay_ignores_infinite_parameters():
    updates = apply(add_decoupled_weight_decay(0.0), jnp.ones(1), jnp.array([jnp.inf]))
    np.testing.assert_array_equal(updates, [1.0])


def test_decay_survives_bfloat16_in_a_chain_of_lion():
    """Sign + 0.1 * 0.02 is 1 in bfloat16: rounding between the links would lose the decay."""
    import lion_jax

    params = jnp.full(4, 0.02, jnp.bfloat16)
    updates = apply(lion_jax.lion(1.0, weight_decay=0.5), jnp.ones(4, jnp.bfloat16), params)
    expected = -(1 + 0.5 * params.astype(jnp.float32))
    np.testing.assert_array_equal(updates, expected.astype(jnp.bfloat16))
    assert jnp.all(updates != -1)
