"""Sweeps of real runs: each is one made alone, and what is planted is found."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from lab import oracle

from lion_jax import lab
from lion_jax.lab import cli
from lion_jax.lab.rules.catalogue import RULES
from lion_jax.lab.rules.rule import Rule
from lion_jax.lab.sweeping import tuning
from lion_jax.lab.trainer import Trainer

pytestmark = pytest.mark.usefixtures("optimized")

SMALL = {"steps": 4, "trials": 2, "studies": 2, "seeds": 3, "batch_sizes": 20}
ADAMW = RULES["adamw"]
COPIES = [
    dataclasses.replace(ADAMW, name="one"),
    dataclasses.replace(ADAMW, name="other", learning_rates=(1.7e-3, 1.7)),
]
"""The same rule under two names, its trials at other places."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lion", "sgd"])
def test_every_run_is_one_made_alone(task, name):
    """Trials on their study's seed, candidates on all, and the chosen values on fresh seeds."""
    (cell,) = lab.sweep(task, name, **SMALL).cells
    (result,) = cell.results
    rule, measure = RULES[name].wholly_tuned(), task.metrics["accuracy"].function

    def alone(values, seed):
        batches = oracle.batches_of(task, seed, 4, 20)
        rest = {n: v for n, v in values.items() if n != "learning_rate"}
        rate = values["learning_rate"]
        params, _, _ = oracle.run(task, rule, rate, seed, batches, "cosine", **rest)
        return measure(params, task.validation), measure(params, task.test)

    for trial in range(2):
        for study in range(2):
            values = {n: np.float32(tried[trial, study]) for n, tried in result.trials.items()}
            validation, test = alone(values, seed=study)
            assert result.tuning.validation["accuracy"][trial, study] == pytest.approx(validation)
            assert result.tuning.test["accuracy"][trial, study] == pytest.approx(test)
    for study, row in enumerate(result.selection.test["accuracy"]):
        best = result.tuning.validation["accuracy"][:, study].argmax()
        values = {n: np.float32(tried[best, study]) for n, tried in result.trials.items()}
        for seed, found in enumerate(row):
            assert found == pytest.approx(alone(values, seed)[1])
    for i, found in enumerate(cell.tests(result)):
        values = {n: np.float32(v) for n, v in cell.chosen(result).items()}
        assert found == pytest.approx(alone(values, seed=2 + i)[1])


@pytest.mark.slow
def test_extend_widens_a_range_until_the_best_is_within(line):
    """SGD on a line wants rates near 0.3; a range that ends at 0.03 does not hold them."""
    rule = Rule("sgd", optax.sgd, (3e-3, 3e-2), tunable={})
    asked = {"steps": 30, "trials": 16, "studies": 1, "seeds": 2, "batch_sizes": 20}
    (narrow,) = lab.sweep(line, rule, **asked).cells
    (wide,) = lab.sweep(line, rule, extend=True, **asked).cells
    (stuck,), (free,) = narrow.results, wide.results
    assert narrow.edges(stuck) == {"learning_rate": 1}
    assert stuck.widened == 0
    assert free.widened >= 1
    assert not wide.edges(free)
    assert wide.chosen(free)["learning_rate"] > 3e-2
    assert free.tuning.diverged.size == stuck.tuning.diverged.size
    assert wide.test(free) < narrow.test(stuck)


# What is planted is found.


PLANTED = {"steps": 60, "trials": 8, "studies": 5, "seeds": 5, "batch_sizes": 32}
REPETITIONS = 20


def third_as_long(learning_rate, **arguments):
    """AdamW that stands still after a third of its steps: worse, whatever is tuned."""

    def stopped(count):
        return jnp.where(count < PLANTED["steps"] // 3, learning_rate(count), 0.0)

    return optax.adamw(stopped, **arguments)


@pytest.fixture(scope="module")
def planted():
    """AdamW, a copy of it and a worse one, tuned again and again with other luck."""
    worse = dataclasses.replace(ADAMW, name="worse", make=third_as_long)
    found, trainers = [], {}

    def compiled_once(task, rule, **settings):
        return trainers.setdefault(rule.name, Trainer(task, rule, **settings))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tuning, "Trainer", compiled_once)
        for repetition in range(REPETITIONS):
            asked = {**PLANTED, "first_seed": 100 * repetition}
            (cell,) = lab.sweep("digits", [*COPIES, worse], against="one", **asked).cells
            found.append(cell)
    return found


def differences(planted, name):
    """The differences of a rule to AdamW, each as the only one of its table."""
    for cell in planted:
        base, *others = cell.results
        (result,) = (result for result in others if result.rule == name)
        yield dataclasses.replace(cell, results=(base, result)).difference(result, "one")


@pytest.mark.slow
def test_a_planted_equality_is_not_found(planted):
    """A rule and its copy, whose trials are at other places, differ within their interval."""
    found = list(differences(planted, "other"))
    assert any(gap.mean != 0 for gap in found)  # they had other luck
    within = sum(gap.could_be_chance for gap in found)
    print(f"{within} of {REPETITIONS} within the interval")
    assert within >= 18


@pytest.mark.slow
def test_a_planted_difference_is_found(planted):
    told_apart = sum(gap.high < 0 for gap in differences(planted, "worse"))
    print(f"{told_apart} of {REPETITIONS} told apart")
    assert told_apart >= 18


def halved(rule, **changes):
    """The rule with its learning rate halved everywhere."""

    def make(learning_rate, **arguments):
        return rule.make(lambda count: 0.5 * learning_rate(count), **arguments)

    return dataclasses.replace(rule, name="halved", make=make, **changes)


@pytest.mark.slow
def test_a_rule_at_half_its_rate_in_twice_its_range_is_the_rule_itself(task):
    low, high = ADAMW.learning_rates
    twice = halved(ADAMW, learning_rates=(2 * low, 2 * high))
    (cell,) = lab.sweep(task, [ADAMW, twice], **{**SMALL, "steps": 12}).cells
    rule, half = cell.results
    np.testing.assert_array_equal(cell.tests(rule), cell.tests(half))
    np.testing.assert_array_equal(
        rule.tuning.validation["accuracy"], half.tuning.validation["accuracy"]
    )
    assert cell.chosen(half)["learning_rate"] == pytest.approx(
        2 * cell.chosen(rule)["learning_rate"]
    )


@pytest.mark.slow
def test_a_rule_at_half_its_rate_is_told_apart_only_by_a_range_that_ends_too_early(line):
    """SGD on a line wants rates near 0.3: a range that holds half of it, and one that does not."""
    asked = {"steps": 30, "trials": 12, "studies": 1, "seeds": 5, "batch_sizes": 20}
    gaps, flags = [], []
    for high in (10.0, 0.1):
        sgd = Rule("sgd", optax.sgd, (0.01, high), tunable={})
        (cell,) = lab.sweep(line, [sgd, halved(sgd)], against="sgd", **asked).cells
        gaps.append(cell.difference(cell.results[1], "sgd"))
        flags.append(cell.edges(cell.results[1]))
    assert flags == [{}, {"learning_rate": 1}]
    assert gaps[0].could_be_chance
    assert gaps[1].low > 0


@pytest.mark.slow
def test_the_command_line_sweeps(tmp_path, capsys):
    words = ["--rules=sgd,lion", "--trials=1", "--studies=2", "--seeds=2", "--steps=2,4"]
    assert cli.main(["compare", *words, "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "digits, batch 64, 2 steps" in said
    assert "Mean rank at the" in said
    assert (tmp_path / "steps.png").is_file()
