"""One way to map over trees: traced once per shape, whatever the number of leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lion_jax._core.leafwise import map_leaves

SHAPES = [(3,), (2, 3)] * 50


@pytest.fixture
def scale():
    """A new function for each test, which counts how often it runs in Python."""

    def scale(x, *, by):
        scale.traces += 1
        return (x * by,)

    scale.traces = 0
    return scale


def test_a_function_is_traced_once_per_shape(scale):
    jax.jit(lambda tree: map_leaves(scale, (tree,), by=2.0)).lower(
        [jnp.ones(shape) for shape in SHAPES]
    )
    assert scale.traces == 2


def test_leaves_alike_share_calls():
    """200 leaves of either shape: four calls of one and fourteen of fourteen."""

    def negate(x):
        return (-x,)

    def step(tree):
        return map_leaves(negate, (tree,))[0]

    tree = [jnp.full(shape, float(i)) for i, shape in enumerate(SHAPES * 4)]
    assert len(jax.make_jaxpr(step)(tree).jaxpr.eqns) == 2 * (4 + 14)
    for old, new in zip(tree, jax.jit(step)(tree), strict=True):
        np.testing.assert_array_equal(new, -old)


def test_leaves_alike_may_lie_on_devices_of_their_own(scale):
    """Layers that a user has spread over devices by hand, and steps outside jit."""
    tree = [jax.device_put(jnp.ones(3), device) for device in jax.devices()]
    (scaled,) = map_leaves(scale, (tree,), by=2.0)
    assert [x.device for x in scaled] == jax.devices()


def test_eager_steps_do_not_trace_anew(scale):
    tree = [jnp.ones(shape) for shape in SHAPES]
    for _ in range(3):
        (tree,) = map_leaves(scale, (tree,), by=2.0)
    assert scale.traces == 2
    np.testing.assert_array_equal(tree[1], np.full((2, 3), 8.0))


def test_arrays_among_the_hyperparameters_do_not_trace_anew(scale):
    for by in (1.0, 2.0, 3.0):
        ((x,),) = map_leaves(scale, ([jnp.ones(2)],), by=jnp.asarray(by))
        np.testing.assert_array_equal(x, [by, by])
    assert scale.traces == 1


def test_numbers_stay_exact_constants():
    """1 - 0.9 in float32 arithmetic is 0.10000002."""

    def weigh(x, *, b):
        return ((1 - b) * x,)

    (x,) = jax.jit(lambda x: map_leaves(weigh, (x,), b=0.9))(jnp.float32(1.0))
    assert x == np.float32(0.1)


def test_every_kind_of_number_is_the_same_constant(scale):
    for by in (2, 2.0, np.float64(2.0), np.float32(2.0), np.array(2.0)):
        (x,) = map_leaves(scale, (jnp.ones(2),), by=by)
        assert x.dtype == jnp.float32
    assert scale.traces == 1
