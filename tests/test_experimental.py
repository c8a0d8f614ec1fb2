"""The experimental rules against recorded runs, NumPy loops and their promises."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from family import assert_replays, recorded, replays

import lion_jax
from lion_jax import experimental
from lion_jax.experimental.soft_signum import folded_cauchy_quantile
from lion_jax.primitives import orthogonalize, signs


def steps_of(kwargs):
    """Its arguments of ours, by those of the authors' class."""
    return {
        "sign_steps": kwargs["sign_iters"],
        "transition_steps": kwargs["transition_iters"],
        "max_temperature": kwargs.get("tmax", 20.0),
    }


@pytest.mark.sampled
@replays("softsignum")
def test_soft_signum(name, dtype):
    """The authors iterate for the temperature in float32, so that theirs is off by some 1e-6."""

    def make(schedule, kwargs):
        decay = kwargs.get("weight_decay", 0.0)
        return experimental.soft_signum(schedule, kwargs["momentum"], decay, **steps_of(kwargs))

    assert_replays(name, dtype, make, tolerance=1e-6 if dtype == "float64" else None)


@pytest.mark.sampled
@replays("softsignum")
def test_soft_signum_at_the_recorded_temperatures(name, dtype):
    """Everything but the fit, to the last digit."""
    temperatures = recorded(name, "aux/schedule")

    def make(schedule, kwargs):
        is_soft = kwargs["sign_iters"]
        t = jnp.asarray(temperatures, dtype)
        soft = signs.tanh(lambda count: t[jnp.maximum(count - is_soft, 0)])
        hard = signs.sign()

        def update(updates, state, params=None):
            softened, soft_state = soft.update(updates, state, params)
            signed, _ = hard.update(updates, optax.EmptyState(), params)
            is_hard = state.schedule_count < is_soft
            return jax.tree.map(lambda s, h: jnp.where(is_hard, h, s), softened, signed), soft_state

        return optax.chain(
            optax.trace(kwargs["momentum"]),
            optax.GradientTransformation(soft.init, update),
            lion_jax.add_decoupled_weight_decay(kwargs.get("weight_decay", 0.0)),
            optax.scale_by_learning_rate(schedule),
        )

    assert_replays(name, dtype, make)


@pytest.mark.slow
def test_quantile_inverts_the_distribution():
    median, deviation = 0.3, 0.7
    p = np.linspace(0, 0.99, 34)
    with jax.enable_x64(True):
        q = np.asarray(
            folded_cauchy_quantile(jnp.asarray(p), *map(jnp.asarray, (median, deviation)))
        )
    back = (np.arctan((q - median) / deviation) + np.arctan((q + median) / deviation)) / np.pi
    np.testing.assert_allclose(back, p, atol=1e-12)


def after(tx, size, steps=4):
    """The updates of each step for gradients of some size."""
    rng = np.random.default_rng(0)
    state, updates = tx.init({"w": jnp.zeros((4, 5))}), []
    for _ in range(steps):
        gradient = {"w": jnp.asarray(size * rng.normal(size=(4, 5)), jnp.float32)}
        update, state = tx.update(gradient, state)
        updates.append(np.asarray(update["w"]))
    return np.array(updates)


@pytest.mark.sampled
@pytest.mark.parametrize("size", [1e-8, 1e-4, 1e4])
def test_only_ours_is_free_of_the_gradients_scale(size):
    arguments = {"sign_steps": 1, "transition_steps": 3}
    ours = experimental.scale_free_soft_signum(1.0, **arguments)
    theirs = experimental.soft_signum(1.0, **arguments)
    np.testing.assert_allclose(after(ours, size), after(ours, 1.0), rtol=1e-4)
    assert np.abs(after(theirs, size) - after(theirs, 1.0)).max() > 0.5


@pytest.mark.slow
def test_stochastic_signum_is_right_on_average():
    tx = experimental.stochastic_signum(1.0, jax.random.key(0), b1=0.5)
    params = {"w": jnp.zeros(20000)}
    state = tx.init(params)
    _, state = tx.update({"w": jnp.full(20000, 2.0)}, state)
    updates, _ = tx.update({"w": jnp.full(20000, -1.0)}, state)
    # m = 0.5 * (0.5 * 2) + 0.5 * -1 = 0, and G = 2
    assert abs(updates["w"].mean()) < 0.03
    assert set(np.unique(updates["w"])) <= {-1.0, 1.0}


def folded_quantile(p, median, deviation):
    """By bisection."""
    low, high = 0.0, 1e9
    for _ in range(200):
        q = (low + high) / 2
        share = np.arctan((q - median) / deviation) + np.arctan((q + median) / deviation)
        low, high = (low, q) if share / np.pi > p else (q, high)
    return q


@pytest.mark.sampled
@pytest.mark.parametrize("limit", [20.0, None])
def test_soft_signum_is_its_papers(limit):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(5, 3)), 0.1 * rng.normal(size=(25, 5, 3))
    steps = {"sign_steps": 5, "transition_steps": 15}
    with jax.enable_x64(True):
        if limit is None:
            tx = experimental.scale_free_soft_signum(0.01, 0.8, 0.1, **steps)
        else:
            tx = experimental.soft_signum(0.01, 0.8, 0.1, **steps, max_temperature=limit)
        params = jnp.asarray(start)
        state = tx.init(params)
        p, m = start, np.zeros_like(start)
        for t, g in enumerate(gradients):
            updates, state = tx.update(jnp.asarray(g), state, params)
            params = params + updates
            m = 0.8 * m + g
            if t == 5:
                median = np.sort(m, axis=None)[7]
                deviation = np.sort(np.abs(m - median), axis=None)[7]
            u = np.sign(m)
            if t >= 5:
                q = folded_quantile(min(t - 5, 14) / 15, median, deviation)
                temperature = np.arctanh(1 - 1e-4) / q if t > 5 else np.inf
                if limit is not None:
                    temperature = np.clip(temperature, 1, limit)
                u = np.tanh(temperature * m)
            p = p - 0.01 * (u + 0.1 * p)
            np.testing.assert_allclose(params, p, rtol=1e-9, err_msg=f"step {t}")


@pytest.mark.slow
def test_stochastic_signum_is_its_papers():
    """With the same random numbers."""
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(5, 3)), rng.normal(size=(25, 5, 3))
    with jax.enable_x64(True):
        key = jax.random.key(3)
        tx = experimental.stochastic_signum(0.01, key, 0.8, 0.1)
        params = jnp.asarray(start)
        state = tx.init(params)
        p, m, largest = start, np.zeros_like(start), np.zeros_like(start)
        for t, g in enumerate(gradients):
            updates, state = tx.update(jnp.asarray(g), state, params)
            params = params + updates
            of_leaf = jax.random.fold_in(jax.random.fold_in(key, t), 0)
            noise = np.asarray(jax.random.uniform(of_leaf, g.shape, minval=-1, maxval=1))
            m, largest = 0.8 * m + 0.2 * g, np.maximum(largest, np.abs(g))
            p = p - 0.01 * (np.sign(m + largest * noise) + 0.1 * p)
            np.testing.assert_allclose(params, p, rtol=1e-9)


def test_olion_is_its_papers():
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(5, 3)), rng.normal(size=(25, 5, 3))
    with jax.enable_x64(True):
        tx = experimental.olion(0.01, weight_decay=0.1)
        params = jnp.asarray(start)
        state = tx.init(params)
        p, m = start, np.zeros_like(start)
        for g in gradients:
            updates, state = tx.update(jnp.asarray(g), state, params)
            params = params + updates
            x = (0.9 * m + 0.1 * g).T
            x = x / (np.linalg.norm(x) + 1e-7)
            for _ in range(5):
                a = x @ x.T
                x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
            s = np.sign(x.T)
            p = p - 0.01 * (0.2 * math.sqrt(15) * s / np.linalg.norm(s) + 0.1 * p)
            m = 0.99 * m + 0.01 * g
            np.testing.assert_allclose(params, p, rtol=1e-9)


@pytest.mark.sampled
@replays("muon_keller__")
def test_lion_k_of_the_polar_factor_is_kellers_muon(name, dtype):
    """b1 = b^2 and b2 = b; its leaf of four axes is scaled by two others than it flattens."""

    def make(schedule, kwargs):
        b, decay = kwargs["momentum"], kwargs["weight_decay"]
        shape = orthogonalize(scale="rows_over_columns")
        return lion_jax.lion_k(schedule, shape, b**2, b, weight_decay=decay)

    assert_replays(name, dtype, make, skip=("conv4",))
