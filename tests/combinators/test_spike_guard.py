"""The spike guard against recorded series of loss and gradient norm."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import lion_jax

FILE = Path(__file__).parents[1] / "reference" / "guards.npz"
SERIES = {"guard_w128_k6": (128, 6.0), "guard_w16_k3": (16, 3.0), "guard_w16_k6": (16, 6.0)}
VARIANTS = {"finite": "numpy_finite", "accepted": "numpy_accepted", "all": "numpy_olmo_maxtext"}


def skips(name, keep):
    """Tells which steps of the series are skipped, and gives the statistics before each."""
    window, factor = SERIES[name]
    with np.load(FILE) as file:
        losses, norms = file[f"{name}/loss"], file[f"{name}/grad_norm"]
    tx = lion_jax.with_spike_guard(lion_jax.lion(1.0), window, factor, keep=keep)
    params = jnp.zeros(1)

    def step(state, values):
        loss, norm = values
        before = lion_jax.spike_statistics(state)
        _, new_state = tx.update(norm[None], state, params, value=loss)
        is_skipped = lion_jax.skipped_steps(new_state) > lion_jax.skipped_steps(state)
        return new_state, (is_skipped, before)

    pairs = (jnp.asarray(losses), jnp.asarray(norms))
    return jax.device_get(jax.lax.scan(step, tx.init(params), pairs)[1])


@pytest.mark.parametrize("keep", VARIANTS)
@pytest.mark.parametrize("name", SERIES)
def test_skips_the_steps_of_the_recorded_series(name, keep):
    with np.load(FILE) as file:
        expected = file[f"{name}/skip/{VARIANTS[keep]}"]
    with jax.enable_x64(True):
        skipped, _ = skips(name, keep)
    np.testing.assert_array_equal(np.flatnonzero(skipped), np.flatnonzero(expected))


@pytest.mark.parametrize("name", SERIES)
def test_statistics_are_those_of_the_recorded_limits(name):
    window, factor = SERIES[name]
    with np.load(FILE) as file:
        limits = file[f"{name}/limit/numpy_finite"]
    with jax.enable_x64(True):
        _, past = skips(name, "finite")
    ours = np.stack(
        [
            past.loss_mean + factor * past.loss_deviation,
            past.norm_mean + factor * past.norm_deviation,
        ],
        axis=1,
    )
    known = np.isfinite(limits).all(axis=1) & np.isfinite(ours).all(axis=1)
    assert known.sum() > len(known) - window
    np.testing.assert_allclose(ours[known], limits[known], rtol=1e-9)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_nan_costs_one_step_and_moves_nothing(bad, where):
    tx = lion_jax.with_spike_guard(lion_jax.lion(0.25), window=8)
    params = jnp.ones(2)
    state = tx.init(params)
    for t in range(12):
        spoils = t == 6
        loss = bad if spoils and where == "loss" else 1.0 + 0.01 * t
        gradient = jnp.array([bad if spoils and where == "gradient" else 1.0, 1.0])
        updates, new_state = tx.update(gradient, state, params, value=loss)
        if spoils:
            np.testing.assert_array_equal(updates, 0)
            old, new = state.inner_state, new_state.inner_state
            assert all(map(np.array_equal, jax.tree.leaves(old), jax.tree.leaves(new)))
        state = new_state
    assert lion_jax.skipped_steps(state) == 1
    assert np.isfinite(lion_jax.spike_statistics(state)).all()


@pytest.mark.slow
def test_it_works_on_shards_by_the_norm_of_the_whole():
    """Each of eight devices has an eighth of the gradient; one part alone spikes."""
    axis = lion_jax.with_spike_guard(lion_jax.lion(0.25), window=8, axis_name="x")
    plain = lion_jax.with_spike_guard(lion_jax.lion(0.25), window=8)
    params = jnp.zeros(8)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    state, whole = axis.init(params), plain.init(params)
    of_state = jax.tree.map(lambda x: P("x") if x.shape == (8,) else P(), whole)
    of_state = of_state._replace(losses=P(), norms=P())
    specs = {"in_specs": (P("x"), of_state, P("x"), P()), "out_specs": (P("x"), of_state)}

    @jax.jit
    @jax.shard_map(mesh=mesh, **specs)
    def step(gradient, state, params, loss):
        return axis.update(gradient, state, params, value=loss)

    for t in range(8):
        gradient = jnp.ones(8).at[3].set(1e3 if t == 6 else 1.0 + 0.1 * t)
        updates, state = step(gradient, state, params, jnp.float32(1 + 0.01 * t))
        expected, whole = plain.update(gradient, whole, params, value=jnp.float32(1 + 0.01 * t))
        np.testing.assert_array_equal(updates, expected)
    assert lion_jax.skipped_steps(state) == lion_jax.skipped_steps(whole) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"window": 1}, ValueError, "window must be an integer >= 2 .*; got 1"),
        ({"window": 1.5}, TypeError, "window must be an integer"),
        ({"factor": 0.0}, ValueError, "factor must be finite and > 0; got 0.0"),
        ({"keep": "some"}, ValueError, 'keep must be "finite" or "accepted" or "all"'),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, error, words):
    with pytest.raises(error, match=words):
        lion_jax.with_spike_guard(lion_jax.lion(1.0), **arguments)


def test_a_missing_loss_is_refused():
    tx = lion_jax.with_spike_guard(lion_jax.lion(1.0))
    with pytest.raises(ValueError, match=r"with_spike_guard reads a metric; got value=None"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)), jnp.ones(1))


def test_the_loss_reaches_the_inner_transformation():
    seen = []

    def update(updates, state, params=None, *, value, **extra_args):
        seen.append(value)
        return updates, state

    inner = optax.GradientTransformationExtraArgs(optax.identity().init, update)
    tx = lion_jax.with_spike_guard(inner)
    tx.update(jnp.ones(1), tx.init(jnp.ones(1)), jnp.ones(1), value=2.5)
    assert seen == [2.5]
