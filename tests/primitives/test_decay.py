"""Decoupled weight decay: where it acts, how strongly, and when it holds back."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trees import run, tree

from lion_jax.primitives import (
    add_decoupled_weight_decay,
    apply_proximal_weight_decay,
    scale_by_lars_ratio,
)


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


@pytest.mark.parametrize("value", ["no", ">=", 1, None])
def test_an_unknown_caution_is_refused(value):
    allowed = r'^cautious must be True or False or ">" or "sign_bits"; got .*Try'
    with pytest.raises(ValueError, match=allowed):
        add_decoupled_weight_decay(0.5, cautious=value)


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


SHARES = {"a": 0.5, "b": 0, "c": True, "d": False, "e": 2, "f": np.float32(0.25)}


@pytest.mark.parametrize(
    "decay",
    [
        add_decoupled_weight_decay,
        lambda wd, mask=None: add_decoupled_weight_decay(wd, mask, cautious=True),
        lambda wd, mask=None: apply_proximal_weight_decay(0.5, wd, mask),
        lambda wd, mask=True: scale_by_lars_ratio(0.1, wd, weight_decay_mask=mask),
    ],
    ids=["plain", "cautious", "proximal", "lars"],
)
def test_a_mask_of_numbers_shares_the_decay_out(decay):
    params = {name: jnp.array([2.0, -3.0]) for name in SHARES}
    updates = jax.tree.map(jnp.ones_like, params)
    shared = jax.jit(lambda u, p: apply(decay(0.4, SHARES), u, p))(updates, params)
    for name, share in SHARES.items():
        alone = apply(decay(0.4 * float(share)), updates[name], params[name])
        np.testing.assert_allclose(shared[name], alone, rtol=1e-6, err_msg=name)


def test_a_mask_of_numbers_may_be_a_prefix_or_a_function():
    params = {"a": [jnp.ones(2), jnp.ones(3)], "b": jnp.ones(1)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    expected = {"a": [jnp.full(2, 0.25), jnp.full(3, 0.25)], "b": jnp.full(1, 0.5)}
    for mask in ({"a": 0.5, "b": 1}, lambda p: {"a": [0.5, 0.5], "b": 1.0}):
        chex.assert_trees_all_equal(
            apply(add_decoupled_weight_decay(0.5, mask), zeros, params), expected
        )


@pytest.mark.parametrize("share", [0, 0.0, False])
@pytest.mark.parametrize(
    "decay", [add_decoupled_weight_decay, lambda wd, m: apply_proximal_weight_decay(0.5, wd, m)]
)
def test_a_leaf_without_a_share_is_not_read(decay, share):
    tx, tree = decay(0.5, {"a": share, "b": 1.0}), {"a": jnp.ones(2), "b": jnp.ones(3)}
    jaxpr = jax.make_jaxpr(lambda u, p: tx.update(u, optax.EmptyState(), p)[0])(tree, tree).jaxpr
    updates_a, _, params_a, params_b = jaxpr.invars
    read = [v for eqn in jaxpr.eqns for v in eqn.invars]
    assert params_a not in read
    assert params_b in read
    assert jaxpr.outvars[0] is updates_a


def test_leaves_of_a_shape_share_their_calls_whatever_their_shares():
    params = {str(i): jnp.ones(3) for i in range(16)}
    tx = add_decoupled_weight_decay(0.5, {str(i): (i + 1) / 16 for i in range(16)})
    jaxpr = jax.make_jaxpr(lambda u, p: tx.update(u, optax.EmptyState(), p)[0])(params, params)
    calls = [eqn for eqn in jaxpr.jaxpr.eqns if "jaxpr" in eqn.params]
    assert len(calls) == 4
    assert len({id(eqn.params["jaxpr"]) for eqn in calls}) == 1


def test_shares_may_be_traced():
    decayed = jax.jit(
        lambda share: apply(
            add_decoupled_weight_decay(0.5, {"a": share}), {"a": jnp.ones(2)}, {"a": jnp.ones(2)}
        )
    )
    for share in (0.0, 0.5):
        np.testing.assert_array_equal(decayed(share)["a"], [1 + 0.5 * share] * 2)


@pytest.mark.usefixtures("x64")
def test_shares_widen_nothing():
    params = jnp.ones(2, jnp.float32)
    assert apply(add_decoupled_weight_decay(0.5, 0.3), params, params).dtype == jnp.float32
    params = params.astype(jnp.float64)
    decayed = apply(add_decoupled_weight_decay(0.5, 0.3), params, params)
    np.testing.assert_allclose(decayed, 1.15, rtol=1e-15)


def test_a_mask_does_not_hinder_what_maps_states():
    tx = optax.chain(add_decoupled_weight_decay(0.5, {"a": 0.5}), optax.trace(0.9))
    state = tx.init({"a": jnp.ones(2)})
    mapped = optax.tree_utils.tree_map_params(tx, lambda x: x.astype(jnp.float16), state)
    assert jax.tree.leaves(mapped)[0].dtype == jnp.float16


@pytest.mark.parametrize(
    ("share", "error"),
    [
        (-1.0, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        (np.ones(2), ValueError),
        (jnp.ones(2), ValueError),
        ("0.5", TypeError),
        (1j, TypeError),
    ],
)
def test_a_share_that_is_none_is_refused(share, error):
    message = r"^(weight_decay_)?mask must be .* numbers >= 0 .*got the leaf .*Try"
    params = {"a": jnp.ones(2)}
    for make in (add_decoupled_weight_decay, lambda wd, m: apply_proximal_weight_decay(1, wd, m)):
        with pytest.raises(error, match=message):
            make(0.1, {"a": share})
        with pytest.raises(error, match=message):
            make(0.1, lambda params: {"a": share}).init(params)
    with pytest.raises(error, match=message):
        scale_by_lars_ratio(weight_decay_mask={"a": share})


def test_a_mask_that_does_not_fit_is_refused_at_init():
    with pytest.raises(ValueError, match=r"[Kk]ey"):
        add_decoupled_weight_decay(0.1, {"a": True}).init({"b": jnp.ones(2)})
