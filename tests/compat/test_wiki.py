"""The two rules of the page on Lion: recorded transcriptions, and what the page works out."""

import chex
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import recordings
from trees import assert_close, run, specs, tree

from lion_jax import compat

GRADIENTS = [tree(seed=seed) for seed in range(1, 5)]


@recordings.replays("wiki_class")
def test_lion_replays_the_class(name, dtype):
    kwargs = recordings.CASES[name]["kwargs"]
    recordings.assert_replays(
        name, lambda: compat.wiki.lion(recordings.schedule(name), **kwargs), dtype
    )


@recordings.replays("wiki_formula")
def test_lion_formula_replays_the_formula(name, dtype):
    kwargs = {"sqrt_mode": "literal", **recordings.CASES[name]["kwargs"]}
    recordings.assert_replays(
        name, lambda: compat.wiki.lion_formula(recordings.schedule(name), **kwargs), dtype
    )


def test_the_literal_root_is_not_a_number_for_negative_gradients():
    tx = compat.wiki.lion_formula(1e-3, sqrt_mode="literal")
    updates, _ = tx.update(jnp.array([50.0, -10.0]), tx.init(jnp.zeros(2)))
    np.testing.assert_allclose(updates, [-0.0012244, np.nan], rtol=1e-4)


@pytest.mark.parametrize("sqrt_mode", ["abs", "literal"])
def test_a_zero_gradient_steps_zero_whatever_the_momentum(sqrt_mode):
    tx = compat.wiki.lion_formula(1e-3, sqrt_mode=sqrt_mode)
    _, state = tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))
    updates, state = tx.update(jnp.array([0.0]), state)
    assert updates[0] == 0
    assert optax.tree_utils.tree_get(state, "mu")[0] > 0


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("factory", "kwargs", "static"),
    [
        (compat.wiki.lion, {"lr": 1e-3, "weight_decay": 0.1}, ("betas",)),
        (compat.wiki.lion_formula, {"lr": 1e-3}, ("betas", "sqrt_mode")),
    ],
)
def test_injected_equals_given(factory, kwargs, static):
    injected = optax.inject_hyperparams(factory, static_args=static)(**kwargs)
    actual, state = run(injected, tree(), GRADIENTS)
    assert_close(actual, run(factory(**kwargs), tree(), GRADIENTS)[0])
    chex.assert_tree_all_finite(actual)
    assert specs(state) == specs(injected.init(tree()))


@pytest.mark.parametrize("factory", [compat.wiki.lion, compat.wiki.lion_formula])
def test_complex_leaves_are_refused(factory):
    with pytest.raises(TypeError, match=r"complex64 at.*split_real_and_imaginary"):
        factory(1e-3).init({"w": jnp.ones(2, jnp.complex64)})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"gamma": -1.0}, r"gamma must be finite and >= 0; got -1.0. Try gamma=0.1"),
        ({"betas": (0.9, 1.0)}, r"betas\[1\] must be in \[0, 1\); got 1.0"),
        ({"sqrt_mode": "square"}, r"sqrt_mode must be .abs. or .literal.; got 'square'"),
    ],
)
def test_bad_arguments_are_refused_under_their_own_names(kwargs, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        compat.wiki.lion_formula(1e-3, **kwargs)
