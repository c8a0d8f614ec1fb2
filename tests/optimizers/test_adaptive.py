"""AdaBelief, Adan, AdEMAMix and TAdam: recorded originals, independent loops, and optax."""

import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
import recordings
from trees import assert_close, run, tree

import lion_jax
from lion_jax import primitives
from lion_jax._core.rates import bias

GRADIENTS = [tree(seed=seed) for seed in range(1, 6)]


@recordings.replays("po_adabelief", slow=[np.float32])
def test_adabelief_replays_pytorch_optimizer(name, dtype):
    def make():
        return lion_jax.adabelief(recordings.schedule(name), eps=1e-8, weight_decay=0.05)

    recordings.assert_replays(name, make, dtype)


@recordings.replays("po_adan", slow=[np.float32])
def test_adan_replays_pytorch_optimizer(name, dtype):
    kwargs = recordings.CASES[name]["kwargs"]

    def make():
        return lion_jax.adan(
            recordings.schedule(name),
            weight_decay=kwargs["weight_decay"],
            proximal=not kwargs.get("weight_decouple", False),
        )

    recordings.assert_replays(name, make, dtype)


@recordings.replays("po_ademamix", slow=[np.float32])
def test_ademamix_replays_pytorch_optimizer(name, dtype):
    kwargs = recordings.CASES[name]["kwargs"]

    def make():
        return lion_jax.ademamix(
            recordings.schedule(name),
            weight_decay=kwargs["weight_decay"],
            warmup_steps=int(kwargs["t_alpha_beta3"]) if "t_alpha_beta3" in kwargs else None,
        )

    recordings.assert_replays(name, make, dtype)


@recordings.replays("holocron_tadam", slow=[np.float32])
def test_tadam_replays_holocron(name, dtype):
    kwargs = {k: v for k, v in recordings.CASES[name]["kwargs"].items() if k != "betas"}
    recordings.assert_replays(
        name, lambda: lion_jax.tadam(recordings.schedule(name), **kwargs), dtype
    )


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_warm_up_ends_at_the_full_speeds_exactly():
    """After its T updates the warm-up adds what a rule without one adds."""
    rng = np.random.default_rng(0)
    gradients = jnp.asarray(rng.standard_normal((6, 5)))
    warm = primitives.scale_by_ademamix(0.5, 0.75, 0.9375, 2.0, warmup_steps=3)
    plain = primitives.scale_by_ademamix(0.5, 0.75, 0.9375, 2.0)
    state = warm.init(gradients[0])
    for gradient in gradients[:2]:
        _, state = warm.update(gradient, state)
    for gradient in gradients[2:]:
        expected, _ = plain.update(gradient, state)
        actual, state = warm.update(gradient, state)
        np.testing.assert_array_equal(actual, expected)


def test_adabelief_is_optax_adabelief():
    ours, _ = run(lion_jax.adabelief(0.1, eps=1e-8), tree(), GRADIENTS)
    theirs, _ = run(optax.adabelief(0.1, eps=1e-8, eps_root=1e-8), tree(), GRADIENTS)
    assert_close(ours, theirs)


@pytest.mark.slow
def test_ademamix_is_optax_ademamix():
    ours, _ = run(lion_jax.ademamix(0.1, weight_decay=0.1), tree(), GRADIENTS)
    theirs, _ = run(optax.contrib.ademamix(0.1, weight_decay=0.1), tree(), GRADIENTS)
    assert_close(ours, theirs)


def test_adan_is_not_optax_adan():
    """There 1 - b2 stands where the authors have b2."""
    params, gradients = jnp.zeros(3), [jnp.array([1.0, -2.0, 3.0]) * s for s in (1, -1, 2)]
    ours, _ = run(lion_jax.adan(0.1), params, gradients)
    theirs, _ = run(optax.adan(0.1), params, gradients)
    assert not np.allclose(ours, theirs, rtol=1e-2)


@pytest.mark.usefixtures("x64")
def test_tadam_with_endless_freedom_is_adam():
    gradients = jnp.asarray(np.random.default_rng(0).standard_normal((5, 4)))
    ours, _ = run(lion_jax.tadam(0.1, dof=1e20), jnp.ones(4), gradients)
    theirs, _ = run(optax.adam(0.1), jnp.ones(4), gradients)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("force", [False, True])
def test_rectified_adam_equals_the_loop(force):
    """Over both sides of rho = 4, which these rates reach at the sixth step."""
    gradients = np.random.default_rng(0).standard_normal((9, 4))
    tx = primitives.scale_by_rectified_adam(0.9, 0.95, force_adaptive_momentum=force)
    state = tx.init(jnp.zeros(4))
    for gradient, expected in zip(
        gradients, oracles.rectified_adam(gradients, 0.9, 0.95, 1e-8, force), strict=True
    ):
        updates, state = tx.update(jnp.asarray(gradient), state)
        np.testing.assert_allclose(updates, expected, rtol=1e-10)


@pytest.mark.parametrize("steps", [1, 100_000])
def test_bias_corrections_are_right_in_float32(steps):
    """1 - 0.999 in float32 is off by 1e-5."""
    actual = bias(0.999, jnp.int32(steps))
    np.testing.assert_allclose(actual, 1 - 0.999**steps, rtol=2e-7)


@pytest.mark.parametrize("b1", [0.0, 0.49, 1.0])
def test_tadam_refuses_a_rate_below_a_half(b1):
    with pytest.raises(ValueError, match=rf"^b1 must be in \[0.5, 1\); got {b1}. Try b1=0.9"):
        lion_jax.tadam(0.1, b1)


def test_ademamix_refuses_a_warm_up_of_a_rate_that_is_zero():
    with pytest.raises(ValueError, match=r"^b1 must be in \(0, 1\) with warmup_steps; got 0.0"):
        lion_jax.ademamix(0.1, 0.0, warmup_steps=10)


@pytest.mark.usefixtures("x64")
def test_optax_radam_begins_to_rectify_a_step_later():
    """At rho >= 5, here at rho > 4: at b2 = 0.999 the fifth step is between the two."""
    gradients = jnp.asarray(np.random.default_rng(0).standard_normal((8, 4)))
    ours, theirs = primitives.scale_by_rectified_adam(), optax.scale_by_radam()
    state, their_state, agree = ours.init(gradients[0]), theirs.init(gradients[0]), []
    for gradient in gradients:
        actual, state = ours.update(gradient, state)
        expected, their_state = theirs.update(gradient, their_state)
        agree.append(np.allclose(actual, expected, rtol=1e-6))
    assert agree == [True] * 4 + [False] + [True] * 3


def test_nesterov_adam_is_not_optax_nadam():
    gradient = jnp.ones(2)
    ours, theirs = primitives.scale_by_nesterov_adam(), optax.scale_by_adam(nesterov=True)
    actual, _ = ours.update(gradient, ours.init(gradient))
    expected, _ = theirs.update(gradient, theirs.init(gradient))
    assert not np.allclose(actual, expected, rtol=1e-2)


RULES = ["adabelief", "adan", "ademamix", "tadam", "lamb", "ralars", "lars", "adamp"]


@pytest.mark.sampled
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (2, 3)])
def test_zeros_and_single_entries_give_finite_steps(rule, shape):
    zero, one = jnp.zeros(shape), jnp.ones(shape)
    tx = getattr(lion_jax, rule)(0.1, weight_decay=0.1)
    params, _ = run(tx, zero, [zero, one, zero, 1e4 * one, 1e-12 * one])
    assert np.all(np.isfinite(params))
    assert np.all(params != 0)
