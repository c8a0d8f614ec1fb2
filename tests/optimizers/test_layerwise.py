"""LARS, LAMB, RaLars and AdamP: recorded originals, independent loops, and optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
import recordings
from trees import Matrix, run

import lion_jax


def is_matrix(params):
    return jax.tree.map(lambda p: p.ndim > 1, params)


@recordings.replays("po_lars")
def test_lars_replays_pytorch_optimizer(name, dtype):
    """There the learning rate is outside the momentum, and leaves of rank 1 are plain SGD."""

    def make():
        lars = lion_jax.lars(
            1.0, 0.9, 0.01, weight_decay_mask=is_matrix, trust_ratio_mask=is_matrix
        )
        return optax.chain(lars, optax.scale_by_schedule(recordings.schedule(name)))

    recordings.assert_replays(name, make, dtype)


@recordings.replays("adamp_", slow=[np.float32])
def test_adamp_replays_the_authors(name, dtype):
    kwargs = {k: v for k, v in recordings.CASES[name]["kwargs"].items() if k != "betas"}

    def make():
        return lion_jax.adamp(recordings.schedule(name), **kwargs, channel_axis=0)

    recordings.assert_replays(name, make, dtype)


@recordings.replays("holocron_ralars")
def test_ralars_replays_holocron(name, dtype):
    kwargs = {k: v for k, v in recordings.CASES[name]["kwargs"].items() if k != "betas"}
    recordings.assert_replays(
        name, lambda: lion_jax.ralars(recordings.schedule(name), **kwargs), dtype
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("scale_clip", [None, (0.5, 2.0)])
def test_lars_equals_the_loop(nesterov, scale_clip):
    p, gradients, rates = _problem()
    expected = oracles.lars(p, gradients, rates, 0.9, 0.1, 0.02, scale_clip, nesterov)
    tx = lion_jax.lars(
        lambda count: jnp.asarray(rates)[count],
        0.9,
        0.1,
        nesterov=nesterov,
        trust_coefficient=0.02,
        scale_clip=scale_clip,
    )
    _assert_follows(tx, p, gradients, expected)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scale_clip", [None, (0.0, 10.0), (0.5, 2.0)])
def test_lamb_equals_the_loop(scale_clip):
    p, gradients, rates = _problem()
    expected = oracles.lamb(p, gradients, rates, 0.1, scale_clip)
    schedule = lambda count: jnp.asarray(rates)[count]  # noqa: E731
    tx = lion_jax.lamb(schedule, weight_decay=0.1, scale_clip=scale_clip)
    _assert_follows(tx, p, gradients, expected)


def test_lars_without_weight_decay_is_optax_lars():
    p, gradients, _ = _problem()
    ours, _ = run(lion_jax.lars(0.1), jnp.asarray(p), gradients)
    theirs, _ = run(optax.lars(0.1), jnp.asarray(p), gradients)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_lars_with_weight_decay_is_not_optax_lars():
    """There the denominator is the norm of the sum, here the sum of the norms."""
    p, gradients, _ = _problem()
    ours, _ = run(lion_jax.lars(0.1, weight_decay=0.5), jnp.asarray(p), gradients)
    theirs, _ = run(optax.lars(0.1, weight_decay=0.5), jnp.asarray(p), gradients)
    assert not np.allclose(ours, theirs, rtol=1e-4)


def test_lamb_is_optax_lamb_within_its_bounds_only():
    for scale, agrees in ((0.1, True), (100.0, False)):
        p, gradients, _ = _problem()
        ours, _ = run(lion_jax.lamb(0.01, eps=1e-6), jnp.asarray(scale * p), gradients)
        theirs, _ = run(optax.lamb(0.01), jnp.asarray(scale * p), gradients)
        assert np.allclose(ours, theirs, rtol=1e-5) is agrees


def test_lars_leaves_masked_leaves_to_sgd():
    params = {"w": jnp.full((2, 2), 3.0), "b": jnp.full(2, 3.0)}
    gradients = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    tx = lion_jax.lars(
        0.1, 0.0, 0.5, weight_decay_mask=is_matrix, trust_ratio_mask={"w": True, "b": False}
    )
    updates, _ = tx.update(gradients, tx.init(params), params)
    np.testing.assert_allclose(updates["b"], [-0.1, -0.1])
    ratio = 0.001 * 6 / (2 + 0.5 * 6)
    np.testing.assert_allclose(updates["w"], np.full((2, 2), -0.1 * ratio * 2.5), rtol=1e-6)


@pytest.mark.parametrize(
    ("params", "gradient"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)], ids=["p", "g", "both"]
)
def test_a_ratio_with_a_zero_norm_is_exactly_one(params, gradient):
    params, gradient = jnp.full(3, params), jnp.full(3, gradient)
    tx = lion_jax.lars(0.5, 0.0, 0.25)
    updates, _ = tx.update(gradient, tx.init(params), params)
    np.testing.assert_array_equal(updates, -0.5 * (gradient + 0.25 * params))


def test_lars_leaves_zero_weights_to_sgd_whatever_the_bounds():
    tx = lion_jax.lars(1.0, 0.0, scale_clip=(1.0, 10.0))
    updates, _ = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)), jnp.zeros(2))
    np.testing.assert_array_equal(updates, [-3.0, -4.0])


@pytest.mark.parametrize("rule", ["lars", "lamb", "ralars", "adamp"])
def test_derivatives_are_finite_at_zero_weights(rule):
    tx = getattr(lion_jax, rule)(0.1, weight_decay=0.1)

    def after(p):
        return jnp.sum(tx.update(jnp.ones((2, 2)), tx.init(p), p)[0])

    assert np.all(np.isfinite(jax.grad(after)(jnp.zeros((2, 2)))))


@pytest.mark.parametrize("rank", [0, 1])
def test_adamp_leaves_small_ranks_to_adamw(rank):
    params, gradients = jnp.ones((3,) * rank), [jnp.full((3,) * rank, s) for s in (1.0, -2.0)]
    ours, _ = run(lion_jax.adamp(0.1, weight_decay=0.1, delta=10.0), params, gradients)
    theirs, _ = run(optax.adamw(0.1, weight_decay=0.1), params, gradients)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lion_jax.lars(0.1, 0.0, nesterov=True), r"^nesterov must be False without"),
        (
            lambda: lion_jax.lars(0.1, scale_clip=(-1.0, 1.0)),
            r"^scale_clip must be .*\(-1.0, 1.0\)",
        ),
        (lambda: lion_jax.lamb(0.1, scale_clip=(np.zeros(3), 1.0)), r"^scale_clip .* an array"),
        (lambda: lion_jax.lamb(0.1, scale_clip=(2.0, 1.0)), r"^scale_clip must be None or a pair"),
        (
            lambda: lion_jax.adamp(0.1, channel_axis=2).init(jnp.ones((2, 2))),
            r"^channel_axis must be an axis of every leaf.*\(2, 2\)",
        ),
    ],
)
def test_refuses_what_makes_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_adamp_refuses_complex_leaves():
    with pytest.raises(TypeError, match="project_to_tangent needs real leaves"):
        lion_jax.adamp(0.1).init(jnp.ones((2, 2), "complex64"))


def _problem():
    rng = np.random.default_rng(0)
    return rng.standard_normal((4, 3)), rng.standard_normal((6, 4, 3)), 0.1 * 0.9 ** np.arange(6)


def _assert_follows(tx, p, gradients, expected):
    for steps in (1, len(gradients)):
        params, _ = run(tx, jnp.asarray(p), jnp.asarray(gradients[:steps]))
        np.testing.assert_allclose(params, expected[steps - 1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "tx",
    [
        lion_jax.lion(1e-2, weight_decay=0.1),
        lion_jax.lars(1e-2, weight_decay=0.1),
        lion_jax.lamb(1e-2, weight_decay=0.1),
        lion_jax.adan(1e-2, weight_decay=0.1),
        lion_jax.compat.holocron.lars(1e-2, weight_decay=0.1),
    ],
    ids=["lion", "lars", "lamb", "adan", "holocron_lars"],
)
def test_trains_a_module_that_checks_its_arrays(tx):
    params, state = Matrix(jnp.ones((2, 2))), tx.init(Matrix(jnp.ones((2, 2))))
    updates, _ = tx.update(params, state, params)
    assert jnp.all(optax.apply_updates(params, updates).w < 1)
