"""Clipping by norms."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trees import assert_close, tree

from lion_jax.primitives import clip_by_global_norm, clip_by_leaf_norm


def clip(updates, max_norm):
    tx = clip_by_global_norm(max_norm)
    return tx.update(updates, tx.init(updates))[0]


@pytest.mark.parametrize("max_norm", [0.1, 1.0, 1e3])
def test_agrees_with_optax(max_norm):
    theirs = optax.clip_by_global_norm(max_norm)
    assert_close(clip(tree(seed=1), max_norm), theirs.update(tree(seed=1), theirs.init(tree()))[0])


def test_reaches_the_norm_exactly_or_stays():
    assert optax.tree.norm(clip(tree(seed=1), 0.25)) == pytest.approx(0.25, rel=1e-6)
    chex.assert_trees_all_equal(clip(tree(seed=1), 1e3), tree(seed=1))


@pytest.mark.parametrize("bad", [jnp.inf, jnp.nan], ids=["inf", "nan"])
def test_what_is_not_finite_does_what_it_does_in_optax(bad):
    updates = {"a": jnp.array([bad, 1.0]), "b": jnp.ones(2)}
    theirs, _ = optax.clip_by_global_norm(1.0).update(updates, optax.EmptyState())
    chex.assert_trees_all_equal(clip(updates, 1.0), theirs)


def test_norms_of_narrow_updates_are_taken_in_float32():
    """The squares of these are beyond the largest float16."""
    np.testing.assert_allclose(clip(jnp.full(4, 1e3, jnp.float16), 1.0), 0.5, rtol=1e-3)


def test_complex_updates_have_a_real_norm():
    np.testing.assert_allclose(clip(jnp.array([3.0 + 4.0j]), 1.0), [0.6 + 0.8j], rtol=1e-6)


def test_gradients_flow_through_the_clipping():
    """Meta-learning differentiates through updates."""

    def clipped_sum(x):
        return jnp.sum(clip({"a": x, "b": 2 * x}, 1.0)["a"])

    def by_optax(x):
        tx = optax.clip_by_global_norm(1.0)
        return jnp.sum(tx.update({"a": x, "b": 2 * x}, optax.EmptyState())[0]["a"])

    x = jnp.array([1.0, -2.0, 4.0])
    np.testing.assert_allclose(jax.grad(clipped_sum)(x), jax.grad(by_optax)(x), rtol=1e-5)


def test_the_sum_over_leaves_is_no_chain_that_a_compiler_could_fuse():
    """What keeps the time to compile in proportion to the number of leaves."""
    updates = [jax.ShapeDtypeStruct((2, k % 5 + 1), jnp.float32) for k in range(100)]
    text = jax.jit(lambda updates: clip(updates, 1.0)).lower(updates).compile().as_text()
    fusions = text.split("\n\n")
    assert max(fusion.count(" add(") for fusion in fusions) <= 1


@pytest.mark.parametrize("rule", [clip_by_leaf_norm, clip_by_global_norm])
def test_a_bound_that_begins_at_0_gives_0(rule):
    gradients = {"dead": jnp.zeros(2), "w": jnp.array([3.0, 4.0])}
    tx = rule(optax.linear_schedule(0.0, 1.0, 10))
    updates, _ = tx.update(gradients, tx.init(gradients))
    assert_close(updates, jax.tree.map(jnp.zeros_like, gradients))
    updates, _ = tx.update({"dead": jnp.zeros(2)}, tx.init(gradients))
    assert_close(updates, {"dead": jnp.zeros(2)})


@pytest.mark.parametrize("rule", [clip_by_leaf_norm, clip_by_global_norm])
def test_gradients_flow_through_the_clipping_of_zeros(rule):
    tx = rule(1.0)
    jacobian = jax.jacobian(lambda g: tx.update(g, tx.init(g))[0])(jnp.zeros(2))
    assert_close(jacobian, jnp.eye(2))
