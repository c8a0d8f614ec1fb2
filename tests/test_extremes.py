"""The whole catalogue where formulas are at their edges: zeros, full counts, strict modes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from catalogue import CATALOGUE
from trees import assert_close

import lion_jax
from lion_jax import compat

# An eps of 0 beside a second moment of 0 is 0 / 0 in the originals too; the others are beyond 0.
NOT_FINITE_AT_0 = {"eps", "dof", "loss_scale", "loss_scale_factor"}
FULL = 2**31 - 1
PARAMS = {"w": jnp.array([[1.0, 2.0], [3.0, -1.0]]), "bias": jnp.zeros(2)}
GRADIENT = {"w": jnp.array([[1.0, -2.0], [0.5, 0.25]]), "bias": jnp.zeros(2)}
MORE = {
    "torch_rmsprop_centered": functools.partial(compat.torch.rmsprop, 1e-2, centered=True),
    "holocron_adabelief_plain": functools.partial(compat.holocron.adabelief, 1e-2),
    "keras_lion_global": functools.partial(compat.keras.lion, 1e-2, global_clipnorm=0.5),
    "lion_formula_without_eps": functools.partial(compat.wiki.lion_formula, 1e-2, eps=0.0),
}


def cases(*, without=()):
    """A test case per entry of the catalogue, under its name; slow as the entry is."""
    named = [
        *((entry.name, entry.make, entry.slow) for entry in CATALOGUE),
        *((name, make, False) for name, make in MORE.items()),
    ]
    return [
        pytest.param(make, marks=[pytest.mark.slow] if slow else [], id=name)
        for name, make, slow in named
        if name not in without
    ]


def tuned(tx, steps=3):
    """A function: the loss after a few steps of the optimizer, by the parameters before them."""

    def loss(params):
        return jnp.sum(params["w"] ** 2) + jnp.sum(params["bias"] ** 2)

    def after(params):
        state = tx.init(params)
        for _ in range(steps):
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            params = optax.apply_updates(params, updates)
        return loss(params)

    return after


def assert_finite(tree):
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        assert np.isfinite(np.asarray(x, np.float64)).all(), jax.tree_util.keystr(path)


@pytest.mark.sampled
@pytest.mark.parametrize("make", cases())
def test_a_gradient_through_steps_is_finite_where_a_gradient_is_0(make):
    assert_finite(jax.jit(jax.grad(tuned(make())))(PARAMS))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adan", "lamb", "adamp", "tadam"])
def test_forward_and_second_derivatives_through_steps_are_finite(name):
    after = tuned(getattr(lion_jax, name)(1e-2, eps=1e-3), steps=2)
    backward, forward = jax.jit(jax.grad(after))(PARAMS), jax.jit(jax.jacfwd(after))(PARAMS)
    assert_close(forward, backward, rtol=1e-4, atol=1e-4)
    assert_finite(jax.jit(jax.hessian(after))(PARAMS))


def test_the_derivative_of_a_step_at_a_gradient_of_0_is_that_of_the_equation():
    """u(g) is about g / eps there, on either side."""

    def first_step(g):
        tx = compat.torch.adam(1.0, eps=1e-2)
        return tx.update(g, tx.init(jnp.zeros(())), jnp.zeros(()))[0]

    at_zero = jax.grad(first_step)(jnp.zeros(()))
    np.testing.assert_allclose(at_zero, first_step(jnp.array(1e-8)) / 1e-8, rtol=1e-5)


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("entry", "name"),
    [
        pytest.param(entry, name, marks=[pytest.mark.slow] if entry.slow else [])
        for entry in CATALOGUE
        for name in entry.scalars
        if name not in NOT_FINITE_AT_0
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_traced_number_may_be_0_where_a_gradient_is_0(entry, name):
    @jax.jit
    def updates(value):
        tx = entry.make(**{name: value})
        state = tx.init(PARAMS)
        for _ in range(2):
            updates, state = tx.update(GRADIENT, state, PARAMS)
        return updates

    assert_finite(updates(jnp.float32(entry.least.get(name, 0.0))))


# Each count draws anew; says how much of a window is filled; or which of two steps is due.
COUNTS_MEAN_MORE = {
    *("stochastic_signum", "with_spike_guard"),
    *("scale_by_lion_muon", "scale_by_alternating_rate", "lion_muon"),
}


@pytest.mark.sampled
@pytest.mark.parametrize("make", cases(without=COUNTS_MEAN_MORE))
def test_full_counts_start_nothing_anew(make):
    """The largest counts that a state holds leave the updates of ones that are merely large."""
    tx = make()
    gradient = jax.tree.map(jnp.ones_like, PARAMS)
    update = jax.jit(tx.update)
    _, state = update(gradient, tx.init(PARAMS), PARAMS)

    def at(count):
        return jax.tree.map(
            lambda x: jnp.full_like(x, count) if x.dtype == jnp.int32 and x.shape == () else x,
            state,
        )

    full, large = at(FULL - 1), at(10**6)
    for _ in range(4):
        updates, full = update(gradient, full, PARAMS)
        expected, large = update(gradient, large, PARAMS)
        assert_close(updates, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.sampled
@pytest.mark.parametrize("make", cases())
def test_nothing_passes_through_infinity_or_nan(make):
    tx = make()
    with jax.debug_infs(True), jax.debug_nans(True):
        state = tx.init(PARAMS)
        for gradient in (GRADIENT, jax.tree.map(jnp.zeros_like, PARAMS)):
            _, state = tx.update(gradient, state, PARAMS)


ZEROS = [
    ("lion", {"weight_decay": 0.0, "b1": 0.0, "b2": 0.0}),
    ("decoupled_lion", {"weight_decay": 0.0}),
    ("adan", {"b1": 0.0, "b2": 0.0, "b3": 0.0}),
    ("adamp", {"b1": 0.0, "b2": 0.0, "nesterov": True}),
    ("ralars", {"b1": 0.0, "b2": 0.0}),
    ("ralars", {"b2": 0.6}),  # rho at infinity is 4, the border of the adaptive steps
    ("ademamix", {"b1": 0.0, "b2": 0.0, "b3": 0.0, "alpha": 0.0}),
]


@pytest.mark.sampled
@pytest.mark.parametrize(("name", "zeros"), ZEROS, ids=lambda value: str(value))
def test_numbers_of_0_pass_through_no_infinity(name, zeros):
    tx = getattr(lion_jax, name)(1e-2, **zeros)
    with jax.debug_infs(True), jax.debug_nans(True):
        state = tx.init(PARAMS)
        for _ in range(2):
            updates, state = tx.update(GRADIENT, state, PARAMS)
    assert_finite(updates)


@pytest.mark.sampled
@pytest.mark.parametrize("make", cases())
def test_runs_under_strict_promotion(make):
    tx, like = make(), jax.eval_shape(lambda: PARAMS)
    for dtype in (jnp.float32, jnp.bfloat16):
        params = jax.tree.map(lambda x, dtype=dtype: x.update(dtype=dtype), like)
        with jax.numpy_dtype_promotion("strict"):
            jax.eval_shape(tx.update, params, jax.eval_shape(tx.init, params), params)


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, marks=[pytest.mark.slow] if entry.slow else [], id=entry.name)
        for entry in CATALOGUE
    ],
)
def test_runs_under_strict_promotion_with_arrays_for_numbers(entry):
    with jax.numpy_dtype_promotion("strict"):
        tx = entry.make(**{name: jnp.float32(value) for name, value in entry.scalars.items()})
        state = jax.eval_shape(tx.init, PARAMS)
        jax.eval_shape(tx.update, GRADIENT, state, PARAMS)


@pytest.mark.parametrize("name", ["lion", "adan", "lars"])
def test_runs_eagerly_under_strict_promotion(name):
    tx = getattr(lion_jax, name)(1e-2)
    with jax.numpy_dtype_promotion("strict"):
        updates, _ = tx.update(GRADIENT, tx.init(PARAMS), PARAMS)
    expected, _ = tx.update(GRADIENT, tx.init(PARAMS), PARAMS)
    assert_close(updates, expected)
