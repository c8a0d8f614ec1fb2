"""The learning-rate finder: a plain loop's numbers, a known answer, and no answer said in words."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

import lion_jax
from lion_jax import lab
from lion_jax.lab import cli, finder_report
from lion_jax.lab.finder import find, find_learning_rate
from lion_jax.lab.finding import CRITERION, Finding, read, smooth
from lion_jax.lab.rules import RULES, Rule
from lion_jax.lab.tasks import TASKS
from lion_jax.lab.training import batch_indices

STEPS = 60
RATES = np.geomspace(1e-5, 1e0, 200)


@pytest.fixture(scope="module")
def small(task):
    return find(task, "lion", steps=STEPS, seeds=2, batch_size=40)


def quadratic(params, batch):
    """Half the squared distance to a point."""
    return 0.5 * jnp.sum((params - batch) ** 2)


def valley(lowest_at, rates=RATES, noise=0.0, seed=0):
    """A loss that falls from 2 to 1 at a learning rate, and rises as fast beyond it."""
    distance = np.abs(np.log10(rates / lowest_at))
    rng = np.random.default_rng(seed)
    return 2 - np.maximum(0, 1 - distance) + noise * rng.standard_normal(len(rates))


def finding_of(*losses, rates=RATES):
    """A finding with made-up losses."""
    losses = np.array(losses)
    settings = {"steps": len(rates), "seeds": len(losses)}
    return Finding("made up", "", settings, rates, losses, tuple(read(rates, x) for x in losses))


@pytest.mark.parametrize("name", ["sgd", "lion"])
def test_the_run_equals_a_plain_loop(x64, name):
    """Written again for a quadratic, with NumPy alone."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((STEPS, 3))
    rates = 1e-4 * (1e5 ** (np.arange(STEPS) / (STEPS - 1)))
    make = {"sgd": optax.sgd, "lion": lambda rate: lion_jax.lion(rate, weight_decay=0.1)}[name]
    found = find_learning_rate(make, quadratic, np.ones(3), points, low=1e-4, high=1e1)

    params, momentum, losses = np.ones(3), np.zeros(3), []
    for rate, point in zip(rates, points, strict=True):
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
    rates = np.geomspace(1e-5, 1e0, STEPS)
    np.testing.assert_allclose(small.learning_rates, rates)
    assert not np.array_equal(*small.losses)
    for seed in range(2):
        init_key, order_key = jax.random.split(jax.random.key(seed))
        params = task.init(init_key)
        rule = RULES["lion"].make(lambda count: jnp.asarray(rates, jnp.float32)[count], rates[-1])
        state, update = rule.init(params), jax.jit(rule.update)
        gradient_of = jax.jit(jax.value_and_grad(task.loss))
        for t, batch in enumerate(np.asarray(batch_indices(order_key, 120, STEPS, 40))):
            loss, gradient = gradient_of(params, task.train.x[batch], task.train.y[batch])
            np.testing.assert_allclose(small.losses[seed, t], loss, rtol=1e-3)
            updates, state = update(gradient, state, params)
            params = optax.apply_updates(params, updates)


def test_the_rate_is_the_step_s_whatever_the_optimizer_counts():
    def accumulating(schedule):
        return optax.MultiSteps(optax.sgd(schedule), 4).gradient_transformation()

    points = jnp.zeros((STEPS, 1))
    found = find_learning_rate(accumulating, quadratic, jnp.ones(1), points, low=1e-3, high=1.0)
    factors = 1 - np.geomspace(1e-3, 1.0, STEPS)[3::4]  # the rates of the steps that apply
    weights = np.cumprod(np.concatenate([[1.0], factors]))[:-1]
    np.testing.assert_allclose(found.losses[0], 0.5 * np.repeat(weights, 4) ** 2, rtol=1e-4)


def test_a_test_is_one_compiled_program(task):
    # The first copy of a shape to the device compiles too.
    jax.tree.map(jnp.asarray, (*task.train, np.zeros(41)))
    compilations = []

    def listen(name, *args, **kwargs):
        if "backend_compile" in name:
            compilations.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        find(task, "sgd", steps=41, seeds=3, batch_size=20)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(compilations) == 1


def test_a_run_is_one_scan():
    points = jnp.zeros((STEPS, 1))
    traced = []

    def loss(params, batch):
        traced.append(batch)
        return quadratic(params, batch)

    find_learning_rate(optax.sgd, loss, jnp.ones(1), points)
    assert len(traced) < 5  # not once for each step


def test_any_tree_of_batches_and_parameters_will_do():
    """With a key for each step, a dictionary of parameters, and bfloat16 among them."""
    steps, key = 80, jax.random.key(0)
    batches = {
        "x": np.random.default_rng(0).standard_normal((steps, 64, 3)),
        "key": jax.random.split(key, steps),
    }
    params = {"w": jnp.zeros(3, jnp.bfloat16), "b": np.zeros(())}

    def loss(params, batch):
        kept = jax.random.bernoulli(batch["key"], 0.9, batch["x"].shape)
        target = batch["x"] @ jnp.array([1.0, 2.0, 3.0])
        return jnp.mean(((kept * batch["x"]) @ params["w"] + params["b"] - target) ** 2)

    found = find_learning_rate(lion_jax.lion, loss, params, batches, low=1e-4, high=100.0)
    assert 0.01 < found.suggestion < 1
    assert found.losses.shape == (1, steps)
    np.testing.assert_array_equal(params["b"], 0.0)


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
    first, second = finder_report.summary(finding)
    assert first == "No suggestion: 0 of 1 seeds have one."
    assert objection in second
    assert ": try " in second
    assert rendered(finder_report.table(finding)).count(" - ") >= 2
    assert "no suggestion" in finder_report.picture(finding).axes[0].get_legend_handles_labels()[1]


def test_it_shows_itself_without_its_losses():
    finding = finding_of(valley(1e-2))
    assert len(repr(finding)) < 300
    assert "suggestion=0.0098)" in repr(finding)


def test_noise_alone_suggests_nothing():
    rng = np.random.default_rng(0)
    readings = [read(RATES, np.exp(rng.standard_normal(200))) for _ in range(200)]
    assert sum(reading.objection == "" for reading in readings) <= 2


def test_seeds_are_summed_up_by_their_geometric_mean():
    finding = finding_of(valley(1e-3), valley(1e-2), np.full(200, 2.0))
    low, high, none = finding.suggestions
    assert finding.suggestion == pytest.approx(np.sqrt(low * high))
    assert np.isnan(none)
    lines = finder_report.summary(finding)
    assert lines[0].startswith("Suggested learning rate: 0.003")
    assert f"of 2 of 3 seeds, from {low:.2g} to {high:.2g}." in lines[0]
    assert CRITERION in lines[1]
    assert lines[2].startswith("For 1 of 3 seeds the loss never falls")


def test_a_minority_of_seeds_suggests_nothing():
    assert finding_of(valley(1e-3), np.full(200, 2.0)).suggestion is None


def test_a_rule_that_breaks_at_once_suggests_nothing(task):
    def make(schedule, peak):
        return optax.chain(optax.sgd(schedule), optax.scale(jnp.nan))

    broken = Rule("broken", "", make, (1e-3, 1e-2))
    finding = find(task, broken, steps=STEPS, seeds=2, batch_size=20)
    assert finding.suggestion is None
    assert [r.objection.split(":")[0] for r in finding.readings] == [
        "the loss is not finite after 1 steps"
    ] * 2


def test_a_rule_s_range_is_widened_by_a_decade_at_both_ends(small):
    np.testing.assert_allclose(small.learning_rates[[0, -1]], [1e-5, 1e0])
    assert (small.settings["low"], small.settings["high"]) == (1e-5, 1e0)


def test_records_name_every_step(small):
    rows = small.records()
    assert len(rows) == 2 * STEPS
    assert list(rows[0]) == ["seed", "step", "learning_rate", "loss", "smoothed_loss"]
    assert rows[STEPS]["seed"] == 1
    assert rows[STEPS]["learning_rate"] == pytest.approx(1e-5)


def test_the_picture_marks_the_suggestion_and_the_divergence():
    losses = valley(1e-3, noise=0.02)
    losses[150:] = 1e6
    figure = finder_report.picture(finding_of(losses, valley(1e-2)))
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "learning rate of the step"
    assert axes.get_ylim()[1] < 4
    labels = axes.get_legend_handles_labels()[1]
    assert any("suggested" in label and "over seeds" in label for label in labels)
    assert any("diverged" in label for label in labels)


@pytest.mark.parametrize("records", ["csv", "json"])
def test_the_command_writes_what_it_says(task, tmp_path, monkeypatch, capsys, records):
    monkeypatch.setitem(TASKS, "digits", lambda: task)
    arguments = ["find-lr", "--rule=sgd", "--steps=100", "--seeds=2", f"--records={records}"]
    assert cli.main([*arguments, "--high=3", f"--output={tmp_path / 'new'}"]) == 0
    captured = capsys.readouterr()
    assert "Suggested learning rate: 0." in captured.out
    assert "of 2 of 2 seeds" in captured.out
    assert captured.err.splitlines() == ["sgd: compiling", "sgd: step 100 of 100"]
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {"learning_rate.png", f"records.{records}"}
    assert (tmp_path / "new" / "learning_rate.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "new" / f"records.{records}").read_text()
    if records == "csv":
        rows = list(csv.DictReader(text.splitlines()))
    else:
        document = json.loads(text)
        rows = document["records"]
        assert document["criterion"] == CRITERION
        assert document["settings"]["rule"] == "sgd"
        assert document["versions"]["lion_jax"] == lion_jax.__version__
        assert 0.04 < document["suggestion"] < 0.7
    assert len(rows) == 2 * 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rule=lyon"], "unknown rule 'lyon'; did you mean 'lion'? Possible: lion, "),
        (["--task=mnist"], "unknown task 'mnist'. Possible: digits"),
        (["--low=1", "--high=0.1"], "low must be less than high; got low=1 and high=0.1"),
        (["--low=5"], "low must be less than high; got low=5 and high=1"),
        (["--low=nan"], "must be a learning rate, finite and > 0, such as 1e-4; got 'nan'"),
        (["--high=inf"], "must be a learning rate, finite and > 0, such as 1e-4; got 'inf'"),
        (["--high=many"], "must be a learning rate, finite and > 0, such as 1e-4; got 'many'"),
        (["--steps=39"], "steps must be at least 40; got 39"),
        (["--seeds=0"], "must be a whole number of at least 1; got '0'"),
        (["--batch-size=1079"], "batch_size must be from 1 to 1078, the training split; got 1079"),
        (["--steps=999999999"], "steps * seeds * batch_size must be at most"),
    ],
)
def test_impossible_requests_are_refused_in_one_line(tmp_path, capsys, arguments, message):
    folder = tmp_path / "new"
    try:
        status = cli.main(["find-lr", *arguments, f"--output={folder}"])
    except SystemExit as end:
        status = end.code
    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
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
        ({"steps": 99.5}, r"steps must be a whole number; got 99\.5"),
        ({"seeds": True}, "seeds must be a whole number; got True"),
        ({"rule": 3}, "unknown rule 3. Possible: lion, "),
    ],
)
def test_impossible_arguments_say_what_is_possible(task, arguments, message):
    with pytest.raises(lab.RequestError, match=message):
        find(**{"task": task} | arguments)


POINTS = jnp.zeros((STEPS, 1))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"optimizer": optax.sgd(0.1)}, TypeError, r"^optimizer must be a function from .*Try opt"),
        ({"optimizer": lambda _: optax.sgd(0.1)}, TypeError, "^optimizer must read the sched"),
        (
            {"params": jax.random.key(0)},
            TypeError,
            r"^params must be a tree of arrays; .*nnx\.split",
        ),
        ({"params": jax.nn.relu}, TypeError, r"^params must be a tree of arrays; .*eqx\.partition"),
        ({"batches": [POINTS[0]] * 50}, TypeError, r"^batches must be one tree .*a list of 50\."),
        ({"batches": iter(POINTS)}, TypeError, r"^batches must be one tree .*Try jax\.tree\.map"),
        ({"optimizer": lambda rate: rate}, TypeError, r"^optimizer\(schedule\) must be an optax"),
        ({"loss": lambda p, b: p - b}, TypeError, r"^loss\(params, batch\) must be a real scalar"),
        ({"loss": lambda p, b: (p, b)}, TypeError, r"^loss\(params, batch\) must be a real scalar"),
        ({"batches": {}}, ValueError, r"^batches must be a tree of arrays .*got the shapes \[\]"),
        ({"batches": jnp.zeros(())}, ValueError, r"^batches must be a tree of arrays .*\[\(\)\]"),
        ({"batches": (POINTS, POINTS[:50])}, ValueError, r"^batches must be a tree of arrays"),
        ({"batches": POINTS[:39]}, ValueError, "^batches must be at least 40.*; got 39"),
        ({"low": 2.0, "high": 1.0}, ValueError, "^low must be less than high; got low=2 and high"),
    ],
)
def test_a_user_s_mistakes_are_named(changed, error, message):
    arguments = {
        "optimizer": optax.sgd,
        "loss": quadratic,
        "params": jnp.ones(1),
        "batches": POINTS,
    }
    with pytest.raises(error, match=message):
        find_learning_rate(**arguments | changed)


def rendered(table):
    """What a table prints on a narrow terminal."""
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table)
    return capture.get()
