"""Rules whose replicas share a batch: what they train, and where they are refused."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from lion_jax import lab
from lion_jax.lab import RequestError, cli
from lion_jax.lab.rules.catalogue import AMONG_REPLICAS, RULES
from lion_jax.lab.rules.rule import REPLICAS


def averaging(rule, replicas):
    """The rule on the mean gradient of replicas: the same rule, by another way."""

    def mean(updates, params=None):
        return jax.tree.map(lambda u: jax.lax.pmean(u, REPLICAS), updates)

    def make(learning_rate, **fixed):
        return optax.chain(optax.stateless(mean), rule.make(learning_rate, **fixed))

    return dataclasses.replace(rule, name="averaged", make=make, replicas=replicas)


@pytest.mark.slow
def test_replicas_that_average_gradients_train_as_one():
    rule = RULES["sgd"]
    result = lab.compare(
        rules=[rule, averaging(rule, 8)], learning_rates=2, steps=20, seeds=2, batch_size=16
    )
    alone, shared = (r.outcome for r in result.results)
    np.testing.assert_allclose(shared.train_loss, alone.train_loss, rtol=1e-3)


@pytest.mark.slow
def test_a_vote_of_replicas_trains():
    result = lab.compare(rules=["lion_vote_8"], learning_rates=2, steps=60, seeds=1, batch_size=32)
    assert result.results[0].test > 0.7


def test_replicas_must_divide_the_batch():
    with pytest.raises(RequestError, match=r"batch_size must be a multiple of 32, .* got 48"):
        lab.compare(rules=["lion_vote_32"], batch_size=48)


@pytest.mark.parametrize("name", AMONG_REPLICAS)
def test_only_compare_takes_rules_of_replicas(name):
    rule = AMONG_REPLICAS[name]
    with pytest.raises(RequestError, match=f"only `compare` .*; got {name}"):
        lab.watch(rules=[rule], learning_rate=1e-3, steps=2)
    with pytest.raises(RequestError, match=f"only `compare` .*; got {name}"):
        lab.find("digits", rule)


@pytest.mark.slow
def test_they_are_listed_with_what_they_do(capsys):
    assert cli.main(["list"]) == 0
    printed = capsys.readouterr().out
    for name in AMONG_REPLICAS:
        assert name in printed


def test_the_steps_of_replicas_are_told_apart(task):
    params = jax.eval_shape(lambda: task.start(jax.random.key(0))[0])
    programs = {rule.program(params) for rule in AMONG_REPLICAS.values()}
    assert len(programs) == len(AMONG_REPLICAS)
