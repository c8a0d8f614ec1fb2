"""Rules in fewer bytes: what is stored, and what computes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lion_jax import lab
from lion_jax.lab.comparing import run as comparing
from lion_jax.lab.rules.catalogue import IN_FEWER_BYTES, IN_FLOAT32, RULES
from lion_jax.lab.rules.rule import Rule
from lion_jax.lab.tasks.digits import digits

STORED = {  # bytes per parameter: weights and state
    "lion_bf16": (2, 4),
    "lion_stochastic": (2, 4),
    "lion_master": (2, 5),
    "lion_int8": (4, 1.04),
    "lion_small": (2, 2.04),
    "lion_int4": (4, 0.54),
    "adamw_bf16": (2, 4),  # optax's moments take the parameters' dtype
    "adamw_stochastic": (2, 4),
    "adamw_master": (2, 9),
    "adamw_int8": (4, 2.07),
    "adamw_small": (2, 3.07),
    "adamw_int4": (4, 1.07),
}


@pytest.mark.slow
def test_every_format_says_what_it_stores():
    assert set(IN_FEWER_BYTES) == set(STORED)
    task = digits()
    for name, expected in STORED.items():
        stored = comparing._stored_bytes(task, RULES[name])
        found = stored["weight_bytes_per_parameter"], stored["state_bytes_per_parameter"]
        np.testing.assert_allclose(found, expected, atol=0.01, err_msg=name)
    for rule in IN_FLOAT32.values():
        assert comparing._stored_bytes(task, rule)["weight_bytes_per_parameter"] == 4


def test_a_format_keeps_what_its_rule_fixes():
    for name, rule in IN_FEWER_BYTES.items():
        plain = RULES[name.partition("_")[0]]
        assert rule.learning_rates == plain.learning_rates
        assert rule.moves_by_rate == plain.moves_by_rate
        assert plain.name in rule.description


@pytest.mark.slow
def test_parameters_are_stored_narrow_and_computed_with_wide(task):
    narrow = task.stored_in(jnp.bfloat16)
    params = narrow.init(jax.random.key(0))
    batch, key = (task.train.x[:5], task.train.y[:5]), jax.random.key(1)
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    gradients = jax.grad(narrow.loss)(params, batch, key)
    assert {g.dtype for g in jax.tree.leaves(gradients)} == {jnp.dtype("bfloat16")}
    widened = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    np.testing.assert_array_equal(narrow.loss(params, batch, key), task.loss(widened, batch, key))
    for name, metric in task.metrics.items():
        np.testing.assert_array_equal(
            narrow.metrics[name].function(params, task.test), metric.function(widened, task.test)
        )
    assert task.stored_in(None) is task


@pytest.mark.parametrize(
    "use",
    [
        lambda rule, task: lab.compare(task, [rule], steps=2, seeds=1, batch_size=9),
        lambda rule, task: lab.watch(task, [rule], learning_rate=0.1, steps=2, batch_size=9),
        lambda rule, task: lab.find(task, rule, steps=40, seeds=1, batch_size=9),
    ],
    ids=["compare", "watch", "find"],
)
@pytest.mark.slow
def test_every_command_stores_parameters_as_the_rule_says(use, task):
    seen = []

    def note(updates, state, params=None):
        seen.append({x.dtype for x in jax.tree.leaves((updates, params))})
        return updates, state

    def make(learning_rate):
        return optax.chain(
            optax.sgd(learning_rate), optax.GradientTransformation(lambda p: (), note)
        )

    use(
        Rule("noted", make, (1e-3, 1.0), params_dtype=jnp.bfloat16),
        task,
    )
    assert seen
    assert all(dtypes == {jnp.dtype("bfloat16")} for dtypes in seen)
