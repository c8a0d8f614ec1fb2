"""What the TPU compiler makes of optimizers whose parameters are split over a whole pod."""

import importlib.util

import jax
import jax.numpy as jnp
import optax
import pytest
from catalogue import CATALOGUE

import lion_jax
from lion_jax.lab.cost.run import pod_cost

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="needs libtpu, from the extra pods"
    ),
]

PARAMS = {
    "w": jax.ShapeDtypeStruct((8192, 4096), jnp.float32),
    "b": jax.ShapeDtypeStruct((4096,), jnp.float32),
}
MADE = {entry.name: entry.make for entry in CATALOGUE} | {
    "clipped_lion": lambda: optax.chain(optax.clip_by_global_norm(1.0), lion_jax.lion(1e-3)),
}
ELEMENTWISE = ["lion", "adan", "ademamix", "lookahead", "with_quantized_state", "freeze"]
SUMMING = ["lars", "lamb", "tadam", "clipped_lion", "with_metrics", "with_finite_guard"]
# More was run once: all of the catalogue, on both slices, with the same outcome but for adamp's
# and project_to_tangent's sums for each channel.


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_an_elementwise_rule_needs_no_collective_and_moves_what_one_chip_does(name):
    alone = pod_cost(MADE[name](), PARAMS, sharding="single")
    for topology in ("v5e:16x16", "v5p:8x8x8"):
        cost = pod_cost(MADE[name](), PARAMS, topology, "fsdp")
        assert cost.held * cost.chips == cost.parameters
        assert not cost.exchanges
        assert cost.hbm_bytes / cost.held <= 1.001 * alone.hbm_bytes / alone.held


@pytest.mark.parametrize("name", SUMMING)
def test_norms_are_exchanged_as_scalars(name):
    alone = pod_cost(MADE[name](), PARAMS, sharding="single")
    cost = pod_cost(MADE[name](), PARAMS, "v5e:16x16", "fsdp")
    assert cost.exchanges
    assert cost.sent_bytes < 4096  # of 134 MB
    assert cost.hbm_bytes / cost.held <= 1.001 * alone.hbm_bytes / alone.held
