"""Orthogonalized matrices: against the exact polar factor, in batches, and spread over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from lion_jax.primitives import orthogonalize

RNG = np.random.default_rng(0)
SHAPES = {
    "tall": (12, 6),
    "wide": (6, 12),
    "square": (8, 8),
    "row": (1, 5),
    "stack": (3, 4, 6),
    "long": (6, 64),
    **{f"layer{i}": (6, 12) for i in range(8)},
}
MATRICES = {name: RNG.normal(size=shape) for name, shape in SHAPES.items()}
CONVERGENT = {"steps": 30, "coefficients": (1.5, -0.5, 0.0)}


def orthogonalized(matrices, **arguments):
    tx = orthogonalize(**arguments)
    return jax.jit(lambda g: tx.update(g, tx.init(g))[0])(matrices)


def polar(matrix):
    u, _, v = np.linalg.svd(matrix, full_matrices=False)
    return u @ v


@pytest.mark.slow
def test_a_convergent_iteration_gives_the_polar_factor():
    with jax.enable_x64(True):
        directions = orthogonalized(MATRICES, **CONVERGENT, eps=0.0)
    for name, matrix in MATRICES.items():
        np.testing.assert_allclose(directions[name], polar(matrix), atol=1e-8, err_msg=name)


def test_muons_iteration_is_its_authors():
    with jax.enable_x64(True):
        directions = orthogonalized(MATRICES)
    for name in ("tall", "wide", "square", "layer3"):
        expected = oracles.newton_schulz(MATRICES[name], 5)
        np.testing.assert_allclose(directions[name], expected, rtol=1e-9, err_msg=name)


def test_singular_values_come_close_to_one():
    values = [np.linalg.svd(orthogonalized({"w": RNG.normal(size=(32, 64))})["w"])[1]]
    assert np.min(values) > 0.6
    assert np.max(values) < 1.3


def test_a_vector_is_divided_by_its_norm_and_zeros_stay():
    updates = {"v": jnp.array([3.0, 4.0]), "s": jnp.array(-2.0), "zero": jnp.zeros((2, 3))}
    directions = orthogonalized(updates, eps=0.0)
    np.testing.assert_allclose(directions["v"], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(directions["s"], -1.0)
    np.testing.assert_array_equal(directions["zero"], 0.0)


@pytest.mark.sampled
@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(
    ("scale", "tall", "wide"),
    [
        (None, 1.0, 1.0),
        ("rows_over_columns", 2**0.5, 1.0),
        ("columns_over_rows", 1.0, 2**0.5),
        ("rms", 0.2 * 12**0.5, 0.2 * 12**0.5),
    ],
)
def test_scales(scale, tall, wide):
    plain, scaled = orthogonalized(MATRICES), orthogonalized(MATRICES, scale=scale)
    np.testing.assert_allclose(scaled["tall"], tall * plain["tall"], rtol=1e-5)
    np.testing.assert_allclose(scaled["wide"], wide * plain["wide"], rtol=1e-5)


def test_spread_over_eight_devices_it_is_the_same_and_a_share_of_the_work():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    single = {k: np.asarray(m, np.float32) for k, m in MATRICES.items()}
    whole = jax.device_put(single, NamedSharding(mesh, P()))
    expected = orthogonalized(single)
    spread = orthogonalized(whole, sharding=NamedSharding(mesh, P("x")))
    for name, direction in spread.items():
        np.testing.assert_allclose(direction, expected[name], atol=1e-5, err_msg=name)

    def flops(**arguments):
        tx = orthogonalize(**arguments)
        layers = jax.device_put(
            {f"{i}": single["layer0"] for i in range(16)}, NamedSharding(mesh, P())
        )
        step = jax.jit(lambda g: tx.update(g, tx.init(g))[0])
        return step.lower(layers).compile().cost_analysis()["flops"]

    assert flops(sharding=NamedSharding(mesh, P("x"))) < flops() / 6


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"steps": 0}, ValueError, "steps must be an integer >= 1"),
        ({"scale": "max"}, ValueError, 'scale must be None or "rows_over_columns" or'),
        (
            {"coefficients": (1.0, 2.0)},
            TypeError,
            r"coefficients must be three numbers \(a, b, c\)",
        ),
        ({"eps": -1.0}, ValueError, "eps must be finite and >= 0"),
        ({"sharding": "data"}, TypeError, "sharding must be None or a jax.sharding.NamedSharding"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, error, words):
    with pytest.raises(error, match=words):
        orthogonalize(**arguments)
