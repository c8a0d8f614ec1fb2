"""What keeps weights of its own beside what rounds the parameters: one order, and errors for it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lion_jax
from lion_jax import compat
from lion_jax.precision import master_params, round_stochastically, with_master_weights

KEEPERS = {
    "lookahead": lambda tx: lion_jax.lookahead(tx, 5),
    "scout": lambda tx: lion_jax.scout(tx, 5),
    "with_parameter_average": lambda tx: lion_jax.with_parameter_average(tx, 0.9, 5),
    "holocron_lookahead": lambda tx: compat.holocron.lookahead(tx),
    "holocron_scout": lambda tx: compat.holocron.scout(tx),
}
every_keeper = pytest.mark.parametrize("name", KEEPERS)


def rounded_at_random(tx):
    return optax.chain(tx, round_stochastically(jax.random.key(0)))


def moved(tx, params, steps=500, read=lambda params, state: params):
    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jnp.ones_like(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    train = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps)[0])
    return np.asarray(read(*train((params, tx.init(params))))) - np.asarray(params, np.float32)


@every_keeper
def test_within_master_weights_it_moves_like_float32(name):
    params, tx = jnp.array([1.0, 1.5, 0.3], jnp.bfloat16), KEEPERS[name](optax.sgd(1e-4))
    expected = moved(tx, params.astype(jnp.float32))
    actual = moved(with_master_weights(tx, correction_bits=16), params, read=master_params)
    np.testing.assert_allclose(actual, expected, rtol=0.01)


@pytest.mark.parametrize("name", ["lookahead", "scout"])
def test_before_random_rounding_it_moves_like_float32_on_average(name):
    params, tx = jnp.ones(20_000, jnp.bfloat16), KEEPERS[name](optax.sgd(1e-4))
    expected = moved(tx, jnp.ones(1)).mean()
    np.testing.assert_allclose(moved(rounded_at_random(tx), params).mean(), expected, rtol=0.03)


@every_keeper
@pytest.mark.parametrize("around", [lambda tx: tx, lion_jax.with_finite_guard], ids=["", "guard"])
def test_around_what_rounds_it_is_refused(name, around):
    params, tx = jnp.ones(2, jnp.bfloat16), lion_jax.lion(1e-4)
    name_in_text = name.removeprefix("holocron_")
    within = rf"Try with_master_weights\({name_in_text}\("
    with pytest.raises(ValueError, match=rf"^{name_in_text} must not wrap .*{within}"):
        KEEPERS[name](around(with_master_weights(tx))).init(params)
    with pytest.raises(ValueError, match=rf"^{name_in_text} must .*round_stochastically.*Try "):
        KEEPERS[name](around(rounded_at_random(tx))).init(params)


def test_an_average_alone_is_refused_around_master_weights_but_not_around_random_rounding():
    params, tx = jnp.ones(2, jnp.bfloat16), lion_jax.lion(1e-4)
    with pytest.raises(ValueError, match="must not wrap with_master_weights"):
        lion_jax.with_parameter_average(with_master_weights(tx)).init(params)
    lion_jax.with_parameter_average(rounded_at_random(tx)).init(params)


def test_the_part_of_a_partition_is_found():
    tx = optax.partition(
        {"narrow": with_master_weights(optax.sgd(0.1)), "wide": optax.sgd(0.1)},
        {"a": "narrow", "b": "wide"},
    )
    with pytest.raises(ValueError, match="must not wrap with_master_weights"):
        lion_jax.lookahead(tx).init({"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2)})
