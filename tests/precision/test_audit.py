"""Dead steps: counted as the parameters would be stored, read without the docstring's help."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trees import tree

from lion_jax.precision import audit_dead_steps

NARROW = pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=lambda d: d.__name__)


def normal_weights(dtype=jnp.bfloat16, size=50_000):
    return (jax.random.normal(jax.random.key(0), size) * 0.02).astype(dtype)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("learning_rate", [0.0, 1e-9, 1e-6, 1e-5, 3e-5, 1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_a_weight_is_dead_if_storing_undoes_both_steps(dtype, learning_rate):
    params = np.asarray(normal_weights(jnp.float32)).astype(jnp.dtype(dtype))
    wide = np.float64 if dtype == "float64" else np.float32
    p, lr = params.astype(wide), wide(learning_rate)
    is_dead = [(p + lr).astype(params.dtype) == params, (p - lr).astype(params.dtype) == params]
    share = audit_dead_steps(jnp.asarray(params), learning_rate)
    assert (share.shape, share.dtype) == ((), jnp.float32)
    np.testing.assert_allclose(share, np.mean(np.all(is_dead, axis=0)), rtol=1e-6)


def test_the_figures_of_the_docstring():
    """Of weights of standard deviation 0.02."""
    shares = [audit_dead_steps(normal_weights(), rate) for rate in (1e-4, 3e-5, 1e-5)]
    np.testing.assert_allclose(shares, [0.12, 0.70, 0.84], atol=0.01)


def test_what_is_dead_stays_under_a_hundred_steps_and_the_rest_moves():
    """A real run of equal steps, in each direction."""
    params = normal_weights()
    up = down = params
    for _ in range(100):
        up = optax.apply_updates(up, jnp.full(params.shape, 3e-5))
        down = optax.apply_updates(down, jnp.full(params.shape, -3e-5))
    stayed = np.mean((np.asarray(up) == params) & (np.asarray(down) == params))
    np.testing.assert_allclose(audit_dead_steps(params, 3e-5), stayed, rtol=1e-6)


@NARROW
def test_half_the_spacing_decides(dtype):
    """The weights are spaced by two, one and a half of eps; a step of less than half is undone."""
    eps = float(jnp.finfo(dtype).eps)
    weights = jnp.array([3.0, 1.5, -1.5, 0.75], dtype)
    for rate, share in [(0.24, 1.0), (0.26, 0.75), (0.51, 0.25), (1.01, 0.0)]:
        assert audit_dead_steps(weights, rate * eps) == share


@NARROW
def test_a_power_of_two_can_be_left_downwards(dtype):
    """Its lower neighbour is half as far as the upper one."""
    half = float(jnp.finfo(dtype).eps) / 2
    assert audit_dead_steps(jnp.ones(1, dtype), 0.6 * half) == 0.0


def test_what_is_not_finite_is_dead():
    params = jnp.array([jnp.nan, jnp.inf, -jnp.inf, 1.0], jnp.bfloat16)
    assert audit_dead_steps(params, 0.5) == 0.75
    assert audit_dead_steps(params.astype(jnp.float32), 0.5) == 0.75


@NARROW
def test_zero_moves_unless_the_step_itself_is_rounded_away(dtype):
    grain = float(jnp.finfo(dtype).smallest_subnormal)
    zero = jnp.zeros(3, dtype)
    assert audit_dead_steps(zero, 1e-4) == 0.0
    assert audit_dead_steps(zero, 0.4 * grain) == 1.0


def test_each_leaf_has_its_share():
    params = {"small": jnp.full(4, 1e-3, jnp.bfloat16), "large": (jnp.ones(4, jnp.bfloat16), None)}
    shares = audit_dead_steps(params, 1e-4)
    assert shares == {"small": 0.0, "large": (1.0, None)}


def test_odd_trees_keep_their_structure():
    params = tree(jnp.bfloat16) | {"masked": optax.MaskedNode()}
    shares = audit_dead_steps(params, 1e-4)
    assert jax.tree.structure(shares) == jax.tree.structure(params)
    assert shares["zero_size"] == 0.0
    assert all(s.shape == () and s.dtype == jnp.float32 for s in jax.tree.leaves(shares))


def test_it_works_traced_and_takes_a_number_of_a_schedule():
    schedule = optax.linear_schedule(1e-4, 0.0, 10)
    params = normal_weights()
    expected = audit_dead_steps(params, 5e-5)
    np.testing.assert_array_equal(audit_dead_steps(params, schedule(5)), expected)
    np.testing.assert_array_equal(jax.jit(audit_dead_steps)(params, schedule(5)), expected)
    rates = jnp.array([5e-5, 1e-5])
    swept = jax.vmap(lambda rate: audit_dead_steps(params, rate))(rates)
    np.testing.assert_array_equal(swept, [expected, audit_dead_steps(params, 1e-5)])


def test_a_cast_in_the_same_program_counts():
    """XLA may drop a cast to bfloat16 and back; the weights would then never have been stored."""
    wide = normal_weights(jnp.float32)

    def audit(params):
        return audit_dead_steps(params.astype(jnp.bfloat16), 3e-5)

    np.testing.assert_array_equal(jax.jit(audit)(wide), audit(wide))


def test_refuses_a_schedule_and_says_how_to_read_it():
    with pytest.raises(
        TypeError, match=r"^learning_rate must be a number.*Try .*schedule\(count\)"
    ):
        audit_dead_steps(jnp.ones(2), optax.constant_schedule(1e-4))


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_refuses_a_learning_rate_out_of_range(value):
    with pytest.raises(ValueError, match=r"^learning_rate must be finite and >= 0; got .*Try "):
        audit_dead_steps(jnp.ones(2), value)


@pytest.mark.parametrize("value", ["1e-4", None, True])
def test_refuses_what_is_no_number(value):
    with pytest.raises(TypeError, match=r"^learning_rate must be a number.*got .*Try "):
        audit_dead_steps(jnp.ones(2), value)


def test_refuses_an_array_of_learning_rates():
    with pytest.raises(ValueError, match=r"^learning_rate must be a scalar.*\(2,\).*jax\.vmap"):
        audit_dead_steps(jnp.ones(2), jnp.array([1e-4, 1e-5]))


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_, jnp.complex64])
def test_refuses_leaves_that_are_no_weights(dtype):
    message = (
        r"^audit_dead_steps needs leaves of float16, bfloat16, float32 or float64; got "
        rf"{dtype.dtype} at \['layer'\]\['steps'\]\. Try None in its place"
    )
    with pytest.raises(TypeError, match=message):
        audit_dead_steps({"layer": {"steps": jnp.ones(2, dtype)}, "w": jnp.ones(2)}, 1e-4)
