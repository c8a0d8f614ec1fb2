"""The learning-rate finder: a plain loop's numbers, a known answer, and no answer said in words."""

import csv
import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from lab import oracle
from lab.made_up import rendered

import lion_jax
from lion_jax import __main__, lab
from lion_jax.lab import cli, plots
from lion_jax.lab.finding import run as finding_run
from lion_jax.lab.finding.reading import CRITERION, read, smooth
from lion_jax.lab.finding.report import Finding, RangeTest
from lion_jax.lab.rules.catalogue import AMONG_REPLICAS, RULES
from lion_jax.lab.tasks.catalogue import TASKS

STEPS = 60
RATES = np.geomspace(1e-5, 1e0, 200)
SMALL = {"steps": STEPS, "seeds": 2, "batch_size": 40}


@pytest.fixture(scope="module")
def small(task):
    return lab.find(task, "lion", **SMALL)


@pytest.fixture(scope="module")
def several(task):
    return lab.find(task, ["lion", "sgd", BROKEN], **SMALL)


def make_broken(learning_rate):
    """Steps of NaN."""
    return optax.chain(optax.sgd(learning_rate), optax.scale(jnp.nan))


BROKEN = lab.Rule("broken", make_broken, (1e-3, 1e-2))


def quadratic(params, batch, key):
    """Half the squared distance to a point."""
    del key
    return 0.5 * jnp.sum((params - batch) ** 2)


def task_of(points, loss=quadratic, start=1.0):
    """A stream whose steps are the points, and parameters that begin at a number."""
    points = np.asarray(points)[:, None]
    some = points[0]
    return lab.Task(
        lambda key: jnp.full(some.shape, start),
        loss,
        lambda step: jnp.asarray(points)[step],
        some,
        some,
        name="points",
    )


def rule_of(make, low=1e-3, high=1e-1):
    """A rule whose range is tried from `low` to `high`."""
    return lab.Rule("of mine", make, (10 * low, high / 10))


def plain_losses(task, make, rates, seed, batches):
    """The losses of a run whose schedule counts for itself, one step after the other."""
    key = jax.random.key(seed)
    params, noise = task.init(jax.random.split(key)[0]), jax.random.fold_in(key, 2)
    params, state = params if task.has_state else (params, None)
    tx = make(lambda count: jnp.asarray(rates, jnp.float32)[count])

    def loss(params, state, batch, key):
        if task.has_state:
            return task.loss(params, state, batch, key)
        return task.loss(params, batch, key), None

    @jax.jit
    def advance(params, state, optimizer, batch, key):
        (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(params, state, batch, key)
        updates, optimizer = tx.update(gradient, optimizer, params)
        return optax.apply_updates(params, updates), state, optimizer, value

    optimizer, losses = tx.init(params), []
    for step, batch in enumerate(batches):
        key = jax.random.fold_in(noise, step)
        params, state, optimizer, value = advance(params, state, optimizer, batch, key)
        losses.append(float(value))
    return losses


def lion(learning_rate):
    """The rule `lion`."""
    return lion_jax.lion(learning_rate, weight_decay=0.1)


def valley(lowest_at, rates=RATES, noise=0.0, seed=0):
    """A loss that falls from 2 to 1 at a learning rate, and rises as fast beyond it."""
    distance = np.abs(np.log10(rates / lowest_at))
    rng = np.random.default_rng(seed)
    return 2 - np.maximum(0, 1 - distance) + noise * rng.standard_normal(len(rates))


def range_test_of(*losses, rates=RATES):
    """The runs of one rule, with made-up losses."""
    described = lab.Rule("made up", optax.sgd, (1e-4, 1e-1)).described()
    return RangeTest(described, rates, np.array(losses), tuple(read(rates, x) for x in losses))


def finding_of(*losses, missing=(), **by_rule):
    """A finding with made-up losses: of one rule, or of several by name."""
    tests = {rule: range_test_of(*of) for rule, of in by_rule.items()}
    tests = tests or {"made up": range_test_of(*losses)}
    seeds = max(len(test.losses) for test in tests.values())
    return Finding(
        settings={"steps": len(RATES), "seeds": seeds, "batch_size": 8},
        missing=missing,
        task={"name": "nothing", "loss_unit": "nats"},
        tests=tests,
    )


@pytest.mark.parametrize("name", ["sgd", "lion"])
def test_the_run_equals_a_plain_loop(x64, name):
    """Written again for a quadratic, with NumPy alone; only the learning rates are in float32."""
    points = np.random.default_rng(0).standard_normal((STEPS, 3))
    rates = 1e-4 * (1e5 ** (np.arange(STEPS) / (STEPS - 1)))
    rule = rule_of({"sgd": optax.sgd, "lion": lion}[name], 1e-4, 1e1)
    found = lab.find(task_of(points), rule, steps=STEPS, seeds=1).tests["of mine"]

    params, momentum, losses = np.ones(3), np.zeros(3), []
    for rate, point in zip(np.float64(np.float32(rates)), points, strict=True):
        losses.append(0.5 * np.sum((params - point) ** 2))
        gradient = params - point
        if name == "sgd":
            params = params - rate * gradient
        else:
            sign = np.sign(0.9 * momentum + 0.1 * gradient)
            params = params - rate * (sign + 0.1 * params)
            momentum = 0.99 * momentum + 0.01 * gradient
    np.testing.assert_allclose(found.learning_rates, rates, rtol=1e-12)
    np.testing.assert_allclose(found.losses, [losses], rtol=1e-10)


def test_a_task_s_seeds_equal_a_plain_loop_for_each(task, small):
    found, rates = small.tests["lion"], np.geomspace(1e-5, 1e0, STEPS)
    np.testing.assert_allclose(found.learning_rates, rates)
    assert not np.array_equal(*found.losses)
    for seed in range(2):
        batches = oracle.batches_of(task, seed, STEPS, 40)
        losses = plain_losses(task, lion, rates, seed, batches)
        np.testing.assert_allclose(found.losses[seed], losses, rtol=1e-3)


@pytest.mark.slow
def test_a_loss_with_noise_has_the_keys_of_a_plain_loop(line):
    noisy = dataclasses.replace(
        line, loss=lambda w, batch, key: line.loss(w, batch, key) + jax.random.uniform(key)
    )
    found = lab.find(noisy, "sgd", steps=STEPS, seeds=2).tests["sgd"]
    make = RULES["sgd"].make
    for seed in range(2):
        batches = oracle.batches_of(line, seed, STEPS, 60)  # all there are
        losses = plain_losses(
            noisy,
            lambda rate: make(rate, **RULES["sgd"].fixed),
            found.learning_rates,
            seed,
            batches,
        )
        np.testing.assert_allclose(found.losses[seed][:40], losses[:40], rtol=1e-3)


@pytest.mark.sampled
@pytest.mark.parametrize("is_traced", [True, False], ids=["traced", "on the host"])
def test_each_seed_sees_steps_of_its_own_of_a_stream(is_traced):
    """One written with jax, and one that reads an array of NumPy at each step."""
    points = np.random.default_rng(0).standard_normal((2 * STEPS, 4, 3)).astype(np.float32)

    def traced(step):
        return jnp.asarray(points)[step]

    def on_host(step):
        return points[int(step)]

    def loss(params, batch, key):
        del key
        return jnp.mean((params[None] - batch) ** 2)

    stream = traced if is_traced else on_host
    task = lab.Task(lambda key: jax.random.normal(key, (3,)), loss, stream, points[0], points[0])
    found = lab.find(task, rule_of(lion), steps=STEPS, seeds=2)
    assert found.settings["batch_size"] == 4
    runs = found.tests["of mine"]
    for seed in range(2):
        batches = points[seed * STEPS : (seed + 1) * STEPS]
        losses = plain_losses(task, lion, runs.learning_rates, seed, batches)
        np.testing.assert_allclose(runs.losses[seed], losses, rtol=1e-4)


def test_a_stream_s_batches_keep_their_size():
    with pytest.raises(lab.RequestError, match=r"^batch_size must be left out: points is a stream"):
        lab.find(task_of(np.zeros((STEPS, 1))), "sgd", batch_size=2)


@pytest.mark.slow
def test_a_task_s_state_is_carried_from_step_to_step(with_state):
    found = lab.find(with_state, rule_of(lion), **SMALL).tests["of mine"]
    for seed in range(2):
        batches = oracle.batches_of(with_state, seed, STEPS, 40)
        losses = plain_losses(with_state, lion, found.learning_rates, seed, batches)
        np.testing.assert_allclose(found.losses[seed], losses, rtol=1e-4)
    still = dataclasses.replace(
        with_state, loss=lambda *inputs: (with_state.loss(*inputs)[0], inputs[1])
    )
    other = lab.find(still, rule_of(lion), **SMALL).tests["of mine"]
    assert not np.allclose(found.losses[:, 5], other.losses[:, 5])  # the state has a say


@pytest.mark.slow
def test_what_a_rule_tunes_besides_stays_at_the_middle_of_its_range(line):
    tuned = lab.Rule("of mine", optax.sgd, (1e-2, 1e-1), tuned={"momentum": (0.1, 0.9)})
    fixed = lab.Rule("of mine", optax.sgd, (1e-2, 1e-1), fixed={"momentum": 0.3})
    runs = [
        lab.find(line, rule, steps=40, seeds=1).tests["of mine"].losses for rule in (tuned, fixed)
    ]
    np.testing.assert_allclose(*runs, rtol=1e-5)


@pytest.mark.slow
def test_parameters_are_stored_as_the_rule_says(line):
    kept = lab.Rule("of mine", optax.sgd, (1e-3, 1e-2), params_dtype=jnp.bfloat16)
    found = lab.find(line, kept, steps=40, seeds=1).tests["of mine"]
    stored = dataclasses.replace(
        line,
        init=lambda key: line.init(key).astype(jnp.bfloat16),
        loss=lambda w, batch, key: line.loss(w.astype(jnp.float32), batch, key),
    )
    batches = oracle.batches_of(line, 0, 40, 60)
    losses = plain_losses(stored, optax.sgd, found.learning_rates, 0, batches)
    np.testing.assert_allclose(found.losses[0], losses, rtol=1e-3)
    assert found.described["params_dtype"] == "bfloat16"


def test_the_rate_is_the_step_s_whatever_the_optimizer_counts():
    def accumulating(schedule):
        return optax.MultiSteps(optax.sgd(schedule), 4).gradient_transformation()

    points = np.zeros((STEPS, 1), np.float32)
    found = lab.find(task_of(points), rule_of(accumulating, 1e-3, 1.0), steps=STEPS, seeds=1)
    factors = 1 - np.geomspace(1e-3, 1.0, STEPS)[3::4]  # the rates of the steps that apply
    weights = np.cumprod(np.concatenate([[1.0], factors]))[:-1]
    expected = 0.5 * np.repeat(weights, 4) ** 2
    np.testing.assert_allclose(found.tests["of mine"].losses[0], expected, rtol=1e-4)


@pytest.mark.slow
def test_the_test_of_a_rule_is_one_compiled_program(task):
    # The first copy of a shape to the device compiles too.
    jax.tree.map(jnp.asarray, task.train)
    compilations = []

    def listen(name, *args, **kwargs):
        if "backend_compile" in name:
            compilations.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        lab.find(task, ["sgd", "lion"], steps=41, seeds=3, batch_size=20)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(compilations) == 2  # one for each rule


def test_a_run_is_one_scan():
    traced = []

    def loss(params, batch, key):
        traced.append(batch)
        return quadratic(params, batch, key)

    task = task_of(np.zeros((STEPS, 1), np.float32), loss)
    traced.clear()
    lab.find(task, "sgd", steps=STEPS)
    assert 0 < len(traced) < 5  # not once for each step


@pytest.mark.slow
def test_any_tree_of_batches_and_parameters_will_do():
    """With a key for each step, a dictionary of parameters, and bfloat16 among them."""
    x = np.random.default_rng(0).standard_normal((640, 3)).astype(np.float32)
    data = lab.split({"x": x, "y": {"target": x @ np.array([1.0, 2.0, 3.0], np.float32)}})

    def init(key):
        del key
        return {"w": jnp.zeros(3, jnp.bfloat16), "b": np.zeros((), np.float32)}

    def loss(params, batch, key):
        kept = jax.random.bernoulli(key, 0.9, batch["x"].shape) * batch["x"]
        difference = kept @ params["w"] + params["b"] - batch["y"]["target"]
        return jnp.mean(difference**2)

    rule = rule_of(lion_jax.lion, 1e-4, 100.0)
    found = lab.find(lab.Task(init, loss, *data), rule, steps=80, seeds=1)
    assert 0.01 < found.suggestion < 1
    assert found.tests["of mine"].losses.shape == (1, 80)


@pytest.mark.parametrize("lowest_at", [1e-3, 1e-2])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_suggestion_is_where_a_made_up_loss_is_lowest(lowest_at, noise):
    reading = read(RATES, valley(lowest_at, noise=noise))
    assert reading.objection == ""
    np.testing.assert_allclose(np.log10(reading.suggestion), np.log10(lowest_at), atol=0.1)


def test_the_steepest_descent_is_where_a_made_up_loss_falls_fastest():
    place = np.log10(RATES)
    reading = read(RATES, 2 - 1 / (1 + np.exp(-8 * (place + 3))) + 9.0 * (place > -1))
    np.testing.assert_allclose(np.log10(reading.steepest), -3, atol=0.1)


@pytest.mark.parametrize("ending", [np.nan, np.inf, 1e30])
def test_what_comes_after_a_divergence_does_not_count(ending):
    losses = valley(1e-3)
    losses[160:] = ending
    losses[170:] = 0.0  # as of dead units
    reading = read(RATES, losses)
    np.testing.assert_allclose(np.log10(reading.suggestion), -3, atol=0.1)
    assert RATES[140] < reading.diverged_at <= RATES[160]
    assert np.isfinite(reading.smoothed).all()


def test_negative_losses_are_read_like_others():
    shifted = read(RATES, valley(1e-3, noise=0.05) - 2.5)
    np.testing.assert_allclose(np.log10(shifted.suggestion), -3, atol=0.1)


def test_smoothing_is_an_average_over_both_sides():
    losses, window = np.random.default_rng(0).standard_normal(50), 5
    distance = np.abs(np.subtract.outer(np.arange(50), np.arange(50)))
    weights = (1 - 1 / window) ** distance
    expected = (weights @ losses) / weights.sum(axis=1)
    np.testing.assert_allclose(smooth(losses, window), expected)
    np.testing.assert_allclose(smooth(np.full(50, 3.0), window), 3.0)


@pytest.mark.parametrize(
    ("losses", "objection"),
    [
        (np.full(200, 2.0), "nor does it diverge: try larger batches, more steps or a larger high"),
        (np.full(200, np.nan), "not finite after 0 steps"),
        (np.where(np.arange(200) < 5, 2.0, np.nan), "not finite after 5 steps"),
        (2 + 0.3 * np.random.default_rng(0).standard_normal(200), "never falls"),
        (np.linspace(2, 9, 200), "never falls"),
        (np.linspace(2, 1, 200), "still falls at the largest learning rate"),
        (np.where(np.arange(200) < 100, 2.0, 1e9), "more steps or a smaller low"),
    ],
    ids=["flat", "nan", "nan soon", "noise", "rising", "falling", "exploding"],
)
def test_no_suggestion_is_said_in_words(losses, objection):
    finding = finding_of(losses)
    assert finding.suggestion is None
    assert finding.suggestions == {"made up": None}
    assert finding.summary()[0]["suggestion"] is None
    assert "made up none" in repr(finding)
    first, second = finding.lines()
    assert first == "No suggestion: 0 of 1 seeds have one."
    assert objection in second
    assert ": try " in second
    assert rendered(finding.table(), width=80).count(" - ") >= 2
    assert "no suggestion" in finding.picture().axes[0].get_legend_handles_labels()[1]


def test_it_shows_itself_without_its_losses():
    finding = finding_of(valley(1e-2))
    assert repr(finding) == "Finding(nothing: made up 0.0098)"


def test_noise_alone_suggests_nothing():
    rng = np.random.default_rng(0)
    readings = [read(RATES, np.exp(rng.standard_normal(200))) for _ in range(200)]
    assert sum(reading.objection == "" for reading in readings) <= 2


def test_seeds_are_summed_up_by_their_geometric_mean():
    finding = finding_of(valley(1e-3), valley(1e-2), np.full(200, 2.0))
    low, high, none = finding.tests["made up"].suggestions
    assert finding.suggestion == pytest.approx(np.sqrt(low * high))
    assert np.isnan(none)
    lines = finding.lines()
    assert lines[0].startswith("Suggested learning rate: 0.003")
    assert f"over 2 of 3 seeds, which range from {low:.2g} to {high:.2g}." in lines[0]
    assert CRITERION in lines[1]
    assert lines[2].startswith("For 1 of 3 seeds the loss never falls")


def test_a_minority_of_seeds_suggests_nothing():
    assert finding_of(valley(1e-3), np.full(200, 2.0)).suggestion is None


@pytest.mark.slow
def test_a_rule_that_breaks_at_once_suggests_nothing(several):
    broken = several.tests["broken"]
    assert broken.suggestion is None
    assert [r.objection.split(":")[0] for r in broken.readings] == [
        "the loss is not finite after 1 steps"
    ] * 2


def test_each_of_several_rules_has_the_figures_that_it_has_alone(several, small):
    assert list(several.tests) == ["lion", "sgd", "broken"]
    assert several.is_finished
    assert several.missing == ()
    np.testing.assert_array_equal(several.tests["lion"].losses, small.tests["lion"].losses)
    assert several.suggestions["lion"] == small.suggestion
    # Each over its own range.
    np.testing.assert_allclose(several.tests["sgd"].learning_rates[[0, -1]], [3e-4, 3e1])
    np.testing.assert_allclose(several.tests["broken"].learning_rates[[0, -1]], [1e-4, 1e-1])
    assert several.tests["sgd"].described == RULES["sgd"].described()


@pytest.mark.slow
def test_one_range_can_be_asked_for_of_all_rules(task):
    found = lab.find(task, "lion,sgd", low=1e-3, high=0.5, steps=40, seeds=1)
    for test in found.tests.values():
        np.testing.assert_allclose(test.learning_rates, np.geomspace(1e-3, 0.5, 40))


def test_rules_are_named_beside_what_is_said_of_them(several):
    lines = several.lines()
    assert lines[0].startswith("lion: ")
    assert "broken: No suggestion: 0 of 2 seeds have one." in lines
    assert {line.partition(":")[0] for line in lines} == {"lion", "sgd", "broken"}
    text = rendered(several.table(), width=80)
    assert all(rule in text for rule in several.tests)
    assert "…" not in text
    assert repr(several).startswith("Finding(triangle: lion ")
    assert repr(several).endswith(", broken none)")
    assert [row["rule"] for row in several.summary()] == ["lion", "sgd", "broken"]
    axes = several.picture().axes
    assert [panel.get_title() for panel in axes] == ["lion", "sgd", "broken"]
    assert {panel.get_ylabel() for panel in axes} == {"training loss (nats)"}


def test_several_rules_have_no_single_suggestion(several):
    with pytest.raises(lab.RequestError, match=r"^one rule has a suggestion; got lion, sgd, brok"):
        _ = several.suggestion


def test_a_rule_s_range_is_widened_by_a_decade_at_both_ends(small):
    np.testing.assert_allclose(small.tests["lion"].learning_rates[[0, -1]], [1e-5, 1e0])


@pytest.mark.slow
def test_progress_is_told_at_the_start_and_the_end_of_each_rule(task):
    heard = []
    lab.find(task, ["sgd", "lion"], steps=40, seeds=1, on_progress=heard.append)
    assert [(of.stage, of.place, of.stages, of.done, of.total) for of in heard] == [
        ("sgd", 1, 2, 0, 40),
        ("sgd", 1, 2, 40, 40),
        ("lion", 2, 2, 0, 40),
        ("lion", 2, 2, 40, 40),
    ]


def test_records_name_every_step(small, several):
    rows = small.records()
    assert len(rows) == 2 * STEPS
    assert list(rows[0]) == ["rule", "seed", "step", "learning_rate", "loss", "smoothed_loss"]
    assert (rows[STEPS]["rule"], rows[STEPS]["seed"], rows[STEPS]["step"]) == ("lion", 1, 0)
    assert rows[STEPS]["learning_rate"] == pytest.approx(1e-5)
    assert several.records()[: len(rows)] == rows
    assert [row["rule"] for row in several.records()[:: 2 * STEPS]] == ["lion", "sgd", "broken"]


def test_the_picture_marks_the_suggestion_and_the_divergence():
    losses = valley(1e-3, noise=0.02)
    losses[150:] = 1e6
    figure = finding_of(losses, valley(1e-2)).picture()
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "learning rate of the step"
    assert axes.get_ylabel() == "training loss (nats)"
    assert axes.get_ylim()[1] < 4
    lines = {line.get_label(): line for line in axes.lines}
    (suggested,) = [label for label in lines if "suggested" in label]
    assert "over seeds" in suggested
    assert lines[suggested].get_color() == plots.COLOURS[2]
    assert any("diverged" in label for label in lines)


@pytest.mark.sampled
@pytest.mark.parametrize("name", ["nothing lost", "not finite", "unfinished"])
def test_what_is_saved_is_loaded_as_it_was(several, tmp_path, name):
    broken = valley(1e-3, noise=0.02)
    broken[100:150], broken[150:], negative = np.inf, np.nan, valley(1e-3) - 2.5
    found = {
        "nothing lost": several,
        "not finite": finding_of(broken, negative),
        "unfinished": finding_of(sgd=[valley(1e-3)], lion=[broken], missing=("adamw", "lamb")),
    }[name]
    written = found.save(tmp_path / "new")
    assert sorted(path.name for path in written) == ["picture.png", "records.csv", "result.json"]
    again = lab.load(tmp_path / "new")
    assert isinstance(again, lab.Finding)
    np.testing.assert_equal(again.records(), found.records())
    np.testing.assert_equal(again.summary(), found.summary())
    for of in ("provenance", "settings", "missing", "task", "suggestions", "is_finished"):
        assert getattr(again, of) == getattr(found, of), of
    assert again.lines() == found.lines()
    assert repr(again) == repr(found)
    assert rendered(again.table()) == rendered(found.table())
    for rule, test in found.tests.items():
        assert again.tests[rule].losses.dtype == test.losses.dtype
        np.testing.assert_array_equal(again.tests[rule].smoothed, test.smoothed)
        assert [r.objection for r in again.tests[rule].readings] == [
            r.objection for r in test.readings
        ]
    again.save(tmp_path / "again")
    for file in ("result.json", "records.csv"):
        assert (tmp_path / "again" / file).read_text() == (tmp_path / "new" / file).read_text()


@pytest.mark.slow
def test_what_an_interruption_leaves_is_a_finding_that_names_what_is_missing(task, tmp_path):
    reports = lab.find.each(task, ["lion", "sgd"], **SMALL)
    nothing, one = next(reports), next(reports)
    reports.close()
    assert nothing.is_empty
    assert nothing.missing == ("lion", "sgd")
    assert not one.is_empty
    assert one.missing == ("sgd",)
    assert repr(one).endswith(", unfinished: sgd not run)")
    for left, named in (nothing, "unfinished: lion, sgd not run"), (one, "unfinished: sgd not run"):
        folder = tmp_path / "-".join(left.missing)
        written = {path.name for path in left.save(folder)}
        assert written == {"records.csv", "result.json"} | (
            {"picture.png"} if left is one else set()
        )
        assert json.loads((folder / "result.json").read_text())["is_finished"] is False
        again = lab.load(folder)
        assert not again.is_finished
        assert again.missing == left.missing
        assert named in repr(again)
        np.testing.assert_equal(again.records(), left.records())


@pytest.mark.slow
def test_an_interruption_keeps_the_rules_that_are_finished(task, tmp_path, monkeypatch, capsys):
    runs, run_interruptibly = [], finding_run.run_interruptibly

    def interrupt_the_second(*arguments):
        runs.append(arguments)
        if len(runs) == 2:
            raise KeyboardInterrupt
        return run_interruptibly(*arguments)

    def leave(status):
        raise SystemExit(status)

    monkeypatch.setitem(TASKS, "digits", lambda: task)
    monkeypatch.setattr(finding_run, "run_interruptibly", interrupt_the_second)
    monkeypatch.setattr(__main__.os, "_exit", leave)
    run = ["find", "--rules=sgd,lion", "--steps=40", "--seeds=1", f"--output={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["lion-jax", *run])
    with pytest.raises(SystemExit, match="130"):
        __main__.main()
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"lion-jax: interrupted; what was finished is in {tmp_path}, without lion"
    )
    kept = lab.load(tmp_path)
    assert list(kept.tests) == ["sgd"]
    assert kept.missing == ("lion",)


@pytest.mark.sampled
@pytest.mark.parametrize("command", ["find", "find-lr"])
def test_the_command_writes_what_it_says(task, tmp_path, monkeypatch, capsys, command):
    monkeypatch.setitem(TASKS, "digits", lambda: task)
    folder = tmp_path / "new"
    run = [command, "--rules=sgd", "--steps=100", "--seeds=2", "--high=3", f"--output={folder}"]
    assert cli.main(run) == 0
    captured = capsys.readouterr()
    assert "Suggested learning rate: 0." in captured.out
    assert "mean over 2 of 2 seeds" in captured.out
    paths = [folder / name for name in ("picture.png", "records.csv", "result.json")]
    assert f"Written: {', '.join(map(str, paths))}" in captured.out
    assert captured.err.splitlines() == ["sgd (1 of 1): started", "sgd (1 of 1): 100 of 100"]
    assert sorted(folder.iterdir()) == paths
    picture, records, result = paths
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(records.read_text().splitlines()))
    assert len(rows) == 2 * 100
    assert {row["rule"] for row in rows} == {"sgd"}
    document = json.loads(result.read_text())
    (summary,) = document["summary"]
    assert summary["rule"] == "sgd"
    assert summary["criterion"] == CRITERION
    assert 0.04 < summary["suggestion"] < 0.7
    assert len(summary["seeds"]) == 2
    assert document["is_finished"] is True
    assert document["settings"] == {"steps": 100, "seeds": 2, "batch_size": 64}
    assert document["provenance"]["versions"]["lion_jax"] == lion_jax.__version__
    assert lab.load(folder).suggestion == summary["suggestion"]


@pytest.mark.slow
def test_the_command_finds_for_several_rules_and_draws_as_asked(
    task, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(TASKS, "digits", lambda: task)
    run = ["find", "--rules=sgd,lion(b1=0.95,b2=0.98)", "--steps=40", "--seeds=1"]
    assert cli.main([*run, "--picture=svg", f"--output={tmp_path}"]) == 0
    assert (tmp_path / "picture.svg").read_text().startswith("<?xml")
    assert list(lab.load(tmp_path).tests) == ["sgd", "lion(b1=0.95,b2=0.98)"]
    assert "lion(b1=0.95,b2=0.98): " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rules=lyon"], "unknown rule 'lyon'; did you mean 'lion'? Possible: lion, "),
        (["--rules=sgd,sgd"], "rules must have different names; got sgd, sgd"),
        (["--rules=,"], "rules must name at least one; got none"),
        (["--rules=lion_vote_2"], "only `compare` trains rules of several replicas; got lion_vote"),
        (["--task=cifar"], "unknown task 'cifar'. Possible: digits"),
        (["--low=1", "--high=0.1"], "low must be less than high; got low=1 and high=0.1"),
        (["--low=5"], "low must be less than high; got low=5 and high=1"),
        (["--low=nan"], "must be a learning rate, finite and > 0, such as 1e-4; got 'nan'"),
        (["--high=inf"], "must be a learning rate, finite and > 0, such as 1e-4; got 'inf'"),
        (["--high=many"], "must be a learning rate, finite and > 0, such as 1e-4; got 'many'"),
        (["--steps=39"], "steps must be from 40 to 1000000, since every loss is kept; got 39"),
        (["--steps=2147483648"], "steps must be from 40 to 1000000, since every loss is kept"),
        (["--seeds=0"], "must be a whole number of at least 1; got '0'"),
        (
            ["--batch-size=1079"],
            "from 1 to 1078, the training split of digits; got 1079",
        ),
        (["--picture=gif"], "choose from"),
        (["--rule=sgd", "--records=csv"], "--records"),
    ],
)
def test_impossible_requests_are_refused_in_one_line(tmp_path, capsys, arguments, message):
    folder = tmp_path / "new"
    try:
        status = cli.main(["find", *arguments, f"--output={folder}"])
    except SystemExit as end:
        status = end.code
    assert status == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert message in line
    assert captured.out == ""
    assert not folder.exists()


def test_a_rule_that_ignores_its_learning_rate_is_refused_in_one_line(
    task, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(TASKS, "digits", lambda: task)
    mine = tmp_path / "mine.py"
    mine.write_text(
        "import optax\n"
        "from lion_jax import lab\n"
        "stuck = lab.Rule('stuck', lambda learning_rate: optax.sgd(0.1), (1e-3, 1e-1))\n"
    )
    folder = tmp_path / "new"
    assert cli.main(["find", f"--rules=sgd,{mine}:stuck", f"--output={folder}"]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith(
        "lion-jax: the rule 'stuck' must use the learning rate that it gets; its factory never "
    )
    assert captured.out == ""
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"low": 0.0}, r"low must be in \[1e-37, 1e\+38\]; got 0"),
        ({"low": 1e-40}, r"low must be in \[1e-37, 1e\+38\]; got 1e-40"),
        ({"high": float("nan")}, r"high must be in \[1e-37, 1e\+38\]; got nan"),
        ({"high": 1e40}, r"high must be in \[1e-37, 1e\+38\]; got 1e\+40"),
        ({"low": "1e-3"}, "low must be a number; got '1e-3'"),
        ({"low": True}, "low must be a number; got True"),
        ({"low": 2.0, "high": 1.0}, "^low must be less than high; got low=2 and high=1"),
        ({"steps": 99.5}, r"steps must be a whole number; got 99\.5"),
        ({"seeds": True}, "seeds must be a whole number; got True"),
        (
            {"batch_size": 121},
            "batch_size must be from 1 to 120, the training split of triangle",
        ),
        ({"rules": [3]}, "a rule must be a name or a lab.Rule; got 3 of type int"),
        ({"rules": [optax.adam]}, r"a rule must be a name or a lab.Rule; got adam\. To make one: "),
        ({"rules": optax.adam(1e-3)}, "a rule must be a name or a lab.Rule; .* To make one: lab.R"),
        ({"rules": 3}, "a rule must be a name or a lab.Rule; got 3 of type int"),
        ({"rules": optax.adam}, r"a rule must be a name or a lab.Rule; got adam\. To make one: "),
        ({"rules": ()}, "rules must name at least one; got none"),
    ],
)
def test_impossible_arguments_say_what_is_possible(task, arguments, message):
    with pytest.raises(lab.RequestError, match=message):
        lab.find(**{"task": task} | arguments)


def test_a_rule_of_several_replicas_is_refused_as_its_name_is(task):
    with pytest.raises(lab.RequestError, match=r"^only `compare` trains rules of several replicas"):
        lab.find(task, AMONG_REPLICAS["lion_vote_2"], **SMALL)


POINTS = np.zeros((STEPS, 1), np.float32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"make": optax.sgd(0.1)}, r"^make must be a function of a learning rate; .*Try lab\.Rule"),
        ({"make": lambda _: optax.sgd(0.1)}, "^the rule 'of mine' must use the learning rate that"),
        ({"make": lambda rate: rate}, "^the rule 'of mine' must make a transformation, .*Try lab"),
        ({"init": lambda key: key}, r"nnx\.split"),
        ({"init": lambda key: jax.nn.relu}, r"eqx\.partition"),
        ({"train": [POINTS[0]] * 50}, "^the splits must have the same structure; .*Try lab.split"),
        (
            {"train": iter(POINTS)},
            "^train must be a tree of arrays .*, or a function step -> batch",
        ),
        ({"loss": lambda p, b, k: p - b}, r"^loss\(params, batch, key\) must be a real scalar"),
        ({"loss": lambda p, b, k: (p, b)}, r"^loss\(params, batch, key\) must be a real scalar"),
        ({"train": {}}, r"^train must be a tree of arrays with a leading axis .*got \{\}"),
        ({"train": jnp.zeros(())}, "^train must be a tree of arrays with a leading axis"),
        ({"train": (POINTS, POINTS[:50])}, r"^the arrays of train must have one leading axis of "),
        (
            {"train": POINTS[:0]},
            r"^the arrays of train must have one leading .*, of one length > 0",
        ),
    ],
)
def test_a_user_s_mistakes_are_named(changed, message):
    arguments = {
        "make": optax.sgd,
        "init": lambda key: jnp.ones((1, 1)),
        "loss": quadratic,
        "train": POINTS,
    } | changed
    make = arguments.pop("make")
    with pytest.raises(lab.RequestError, match=message):
        lab.find(lab.Task(**arguments, validation=POINTS, test=POINTS), rule_of(make))
