"""Watched runs: a plain loop's numbers, the unwatched run itself, divergence told as it is."""

import csv
import json
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

import lion_jax
from lion_jax import __main__, lab, metrics
from lion_jax.lab import cli, report, watch_report, watching
from lion_jax.lab.rules import RULES, Rule
from lion_jax.lab.tasks import TASKS
from lion_jax.lab.training import SCHEDULES, batch_indices
from lion_jax.lab.watching import Observation

SMALL = {"steps": 12, "seed": 3, "batch_size": 40}
RATES = {"lion": 0.02, "bad": 0.1}


def break_at_the_fifth(schedule, peak):
    """An update of NaN, and then on."""
    broken = optax.scale_by_schedule(lambda count: jnp.where(count < 4, 1.0, jnp.nan))
    return optax.chain(optax.sgd(schedule), broken)


RULES_SEEN = {"lion": RULES["lion"], "bad": Rule("bad", "", break_at_the_fifth, (0.1, 1.0))}


@pytest.fixture(scope="module")
def watched(task):
    """Both rules, lion at a rate that a tuning made up; with what was heard and asked meanwhile."""
    heard, asked, compilations = [], [], []

    def tune(task, rules, *, on_progress, **settings):
        asked.append(([rule.name for rule in rules], settings))
        on_progress("lion", 0)
        best = types.SimpleNamespace(rule=RULES["lion"], best_learning_rate=RATES["lion"])
        return types.SimpleNamespace(results=[best])

    def listen(name, *args, **kwargs):
        if "backend_compile" in name:
            compilations.append(name)

    jax.tree.map(jnp.asarray, task.train)  # the first copy of a shape to the device compiles too
    jax.monitoring.register_event_duration_secs_listener(listen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watching, "compare", tune)
        seen = lab.watch(
            RULES_SEEN.values(),
            task,
            learning_rate={"bad": RATES["bad"]},
            on_progress=lambda *event: heard.append(event),
            **SMALL,
        )
    jax.monitoring.unregister_event_duration_listener(listen)
    return types.SimpleNamespace(seen=seen, heard=heard, asked=asked, compilations=compilations)


@pytest.fixture
def small(watched):
    return watched.seen


def steps_of(task, tx):
    """Gradient, parameters, loss and update of each step of a plain loop, and the state after."""
    init_key, order_key = jax.random.split(jax.random.key(SMALL["seed"]))
    batches = batch_indices(order_key, 120, SMALL["steps"], SMALL["batch_size"])
    params = task.init(init_key)

    @jax.jit
    def step(params, state, x, y):
        loss, gradient = jax.value_and_grad(task.loss)(params, x, y)
        return gradient, loss, *tx.update(gradient, state, params)

    state = tx.init(params)
    for batch in np.asarray(batches):
        gradient, loss, updates, state = step(
            params, state, task.train.x[batch], task.train.y[batch]
        )
        yield gradient, params, loss, updates, state
        params = optax.apply_updates(params, updates)


def rule_of(name):
    """The rule under the schedule of a watched run."""
    shape, peak = SCHEDULES["cosine"](SMALL["steps"]), jnp.float32(RATES[name])
    return RULES_SEEN[name].make(lambda count: peak * shape(count), peak)


def flat(tree):
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])


@pytest.mark.parametrize("name", ["lion", pytest.param("bad", marks=pytest.mark.slow)])
def test_what_is_recorded_is_what_a_plain_loop_reads(task, small, name):
    tx = metrics.with_metrics(rule_of(name))
    for i, (_, _, loss, _, state) in enumerate(steps_of(task, tx)):
        read = metrics.read_metrics(state)
        assert int(read.pop("step")) == small.steps[i] == i + 1
        assert set(small.values[name]) == {"loss", *read}
        for key, value in {"loss": loss, **read}.items():
            np.testing.assert_allclose(
                small.values[name][key][i], value, rtol=1e-4, atol=1e-5, err_msg=key
            )


def test_the_watched_run_is_the_unwatched_run(task, small):
    """Its losses, parameters and updates, measured again by NumPy alone."""
    seen, last = small.values["lion"], None
    for i, (gradient, params, loss, updates, _) in enumerate(steps_of(task, rule_of("lion"))):
        g, p, u = flat(gradient), flat(params), flat(updates)
        sizes = np.linalg.norm(u) * np.linalg.norm(g)
        for key, value in {
            "loss": loss,
            "norm/grad": np.linalg.norm(g),
            "norm/param": np.linalg.norm(p),
            "norm/update": np.linalg.norm(u),
            "cosine/update_grad": u @ g / sizes if sizes else 0.0,
            "share/agree": np.mean(u * g < 0),
            "share/sign_flips": 0.0 if last is None else np.mean(u * last < 0),
        }.items():
            np.testing.assert_allclose(seen[key][i], value, rtol=1e-4, atol=1e-6, err_msg=key)
        last = u
    assert seen["share/sign_flips"].max() > 0


def test_the_run_of_a_rule_is_one_compiled_program(watched):
    assert len(watched.compilations) == len(RULES_SEEN)


def test_progress_is_told(watched):
    every_step = [*range(SMALL["steps"] + 1)]
    assert watched.heard == [
        ("tuning lion", 0),
        *(("lion", step) for step in every_step),
        *(("bad", step) for step in every_step),
    ]


def test_rates_that_nobody_gave_are_tuned(watched):
    tuning = {"steps": 12, "batch_size": 40, "schedule": "cosine", "seeds": 5}
    assert watched.asked == [(["lion"], tuning)]
    assert watched.seen.settings["learning_rates"] == RATES
    assert watched.seen.settings["tuned"] == ["lion"]


@pytest.mark.slow
def test_the_tuning_is_that_of_compare(task):
    settings = {"steps": 12, "batch_size": 40}
    (tuned,) = lab.compare(task, ["sgd"], **settings).results
    seen = lab.watch(["sgd"], task, **settings)
    assert seen.settings["learning_rates"] == {"sgd": tuned.best_learning_rate}


def test_a_run_that_breaks_is_recorded_to_its_end_and_told(small):
    finite = np.isfinite(small.values["bad"]["loss"])
    np.testing.assert_array_equal(finite, np.arange(12) < 5)
    assert (small.first_not_finite("bad"), small.first_not_finite("lion")) == (6, None)
    assert watch_report.summary(small) == [
        "Learning rates tuned on validation data, as lion-jax compare does: lion 0.02.",
        "bad diverged: its loss is not finite at step 6.",
    ]
    assert "nan" in rendered(watch_report.table(small))
    labels = watch_report.picture(small).axes[0].get_legend_handles_labels()[1]
    assert labels == ["lion  at 0.02", "bad  at 0.1, diverged at step 6"]


def test_only_sign_rules_have_sign_flips(small):
    assert "share/sign_flips" not in small.values["bad"]
    rows = small.records()
    assert len(rows) == 2 * SMALL["steps"]
    assert list(rows[0])[:3] == ["rule", "step", "loss"]
    assert [(row["rule"], row["step"]) for row in rows[11:13]] == [("lion", 12), ("bad", 1)]
    assert rows[11]["share/sign_flips"] == small.values["lion"]["share/sign_flips"][-1]
    assert rows[12]["share/sign_flips"] is None


@pytest.mark.slow
def test_each_parameter_has_metrics_of_its_own_on_request(task, small):
    rate = RATES["lion"]
    seen = lab.watch(["lion"], task, learning_rate=rate, per_parameter=True, **SMALL)
    values = seen.values["lion"]
    parts = {key for key in values if key.startswith("norm/grad/")}
    assert len(parts) == 2
    whole = np.sqrt(sum(values[key] ** 2 for key in parts))
    np.testing.assert_allclose(values["norm/grad"], whole, rtol=1e-5)
    np.testing.assert_allclose(values["norm/grad"], small.values["lion"]["norm/grad"], rtol=1e-4)
    assert len(watch_report.picture(seen).axes) == 9


def test_the_table_shows_start_middle_and_end_on_a_narrow_terminal(task):
    numbers = np.array([4.4e-5, 3.3e-5, 2.2e-5])
    metrics = dict.fromkeys(["norm/grad", "norm/update", "norm/param", "norm/moment"], numbers)
    share, cosine = np.array([0.0, 0.25, 1.0]), np.array([-0.123, -0.5, 0.5])
    values = {
        "loss": numbers,
        "cosine/update_grad": cosine,
        **metrics,
        "share/agree": share,
        "share/sign_flips": share,
    }
    settings = {**SMALL, "steps": 3, "every": 1, "schedule": "cosine"}
    rates = {"learning_rates": {"lookahead_lion": 1e-3}, "tuned": []}
    seen = Observation(task, settings | rates, np.arange(1, 4), {"lookahead_lion": values})
    text = rendered(watch_report.table(seen))
    assert "…" not in text
    for row in ["lookahead_lion start  4.4e-05", "lr 0.001       middle 3.3e-05", "end    2.2e-05"]:
        assert row in text
    assert "-0.12    0%   0%" in text
    assert " 0.50  100% 100%" in text


def test_the_picture_has_a_panel_for_each_metric_and_a_colour_for_each_rule(small):
    panels = {axes.get_title(): axes for axes in watch_report.picture(small).axes}
    assert len(panels) == 9
    loss = panels["loss of the batch (nats)"]
    assert loss.get_yscale() == "log"
    lion, bad, end = loss.lines
    np.testing.assert_array_equal(lion.get_xdata(), small.steps)
    np.testing.assert_allclose(lion.get_ydata(), small.values["lion"]["loss"])
    np.testing.assert_array_equal(bad.get_xdata(), small.steps[:5])
    assert [*end.get_xdata()] == [6, 6]
    assert lion.get_color() == report.COLOURS[0]
    assert bad.get_color() == end.get_color() == report.COLOURS[4]
    flips = panels["share of signs that flip"].lines[0]
    assert flips.get_color() == lion.get_color()
    np.testing.assert_array_equal(flips.get_ydata(), small.values["lion"]["share/sign_flips"])


def test_long_runs_are_drawn_with_a_running_median(task):
    noise = np.random.default_rng(0).standard_normal(500)
    values = {"cosine/update_grad": np.tanh(noise), "loss": np.ones(500)}
    settings = {**SMALL, "every": 1, "schedule": "cosine", "learning_rates": {"sgd": 1.0}}
    seen = Observation(task, settings, np.arange(1, 501), {"sgd": values})
    _, axes = watch_report.picture(seen).axes
    each, median, _ = axes.lines
    np.testing.assert_array_equal(each.get_ydata(), np.tanh(noise))
    np.testing.assert_allclose(median.get_ydata()[100], np.median(np.tanh(noise)[84:117]))


def test_rules_look_the_same_in_every_picture():
    assert report.numbered(["adamw", "lion", "adan", "lamb"]) == [2, 0, 4, 5]


def test_the_command_writes_what_it_says(task, small, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TASKS, "digits", lambda: task)
    run = ["--rules=lion", "--learning-rate=lion=0.02", "--every=5", f"--output={tmp_path / 'new'}"]
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    assert cli.main(["watch", *run, *settings]) == 0
    captured = capsys.readouterr()
    assert "median" in captured.out
    picture, records = tmp_path / "new" / "watch.png", tmp_path / "new" / "watch.csv"
    assert f"Written: {picture}, {records}" in captured.out
    assert captured.err.splitlines() == ["lion: compiling", "lion: step 12 of 12"]
    assert sorted((tmp_path / "new").iterdir()) == [records, picture]
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(records.read_text().splitlines()))
    assert [row["step"] for row in rows] == ["5", "10"]
    for key, values in small.values["lion"].items():  # the same run, two of its steps
        found = [float(row[key]) for row in rows]
        np.testing.assert_allclose(found, values[[4, 9]], rtol=1e-4, atol=1e-5, err_msg=key)


def test_json_records_carry_settings_and_versions(small, tmp_path):
    watch_report.save(small, tmp_path, "json")
    assert {path.name for path in tmp_path.iterdir()} == {"watch.png", "watch.json"}
    document = json.loads((tmp_path / "watch.json").read_text())
    assert document["settings"]["learning_rates"] == RATES
    assert document["versions"]["lion_jax"] == lion_jax.__version__
    assert len(document["records"]) == 2 * SMALL["steps"]
    assert document["records"][-1]["loss"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rules=lyon"], "unknown rule 'lyon'; did you mean 'lion'? Possible: lion, "),
        (["--rules=sgd,sgd"], "rules must have different names; got sgd, sgd"),
        (["--rules=,"], "rules must name at least one of lion, "),
        (["--task=digit"], "unknown task 'digit'; did you mean 'digits'? Possible: digits"),
        (["--schedule=linear"], "unknown schedule 'linear'. Possible: cosine, constant"),
        (["--steps=0"], "must be a whole number of at least 1; got '0'"),
        (["--every=0"], "must be a whole number of at least 1; got '0'"),
        (["--every=601"], "every must be from 1 to 600, the steps; got 601"),
        (["--seed=-1"], "must be a whole number of at least 0; got '-1'"),
        (["--seed=4294967296"], "seed must be from 0 to 2147483647"),
        (["--batch-size=1079"], "batch_size must be from 1 to 1078, the training split; got 1079"),
        (["--steps=1000000"], "steps * batch_size must be at most 53687091, since the order"),
        (
            ["--steps=5000000", "--learning-rate=1"],
            "steps * batch_size must be at most 268435456, since the order of the examples is kept",
        ),
        (["--learning-rate=0"], "must be a learning rate, finite and > 0, such as 1e-4; got '0'"),
        (["--learning-rate=lion=nan"], "must be a learning rate, finite and > 0, such as 1e-4"),
        (["--learning-rate=lion=1,2"], "must be a learning rate, finite and > 0, such as 1e-4"),
        (["--learning-rate=lion=1,lion=2"], "must name each rule once; got 'lion=1,lion=2'"),
        (["--learning-rate=1e-40"], "learning_rate must be in [1e-37, 1e+38]; got 1e-40"),
        (
            ["--learning-rate=lyon=1"],
            "unknown rule 'lyon'; did you mean 'lion'? Possible: lion, adamw",
        ),
        (["--learning-rate=sgd=1"], "unknown rule 'sgd'. Possible: lion, adamw"),
        (["--records=xml"], "choose from"),
    ],
)
def test_impossible_requests_are_refused_in_one_line(tmp_path, capsys, arguments, message):
    folder = tmp_path / "new"
    try:
        status = cli.main(["watch", *arguments, f"--output={folder}"])
    except SystemExit as end:
        status = end.code
    assert status == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert message in line
    assert captured.out == ""
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rules": "lion"}, "rules must be a list of names; got the string 'lion'"),
        ({"learning_rate": "1e-3"}, "learning_rate must be a number; got '1e-3'"),
        ({"learning_rate": {"lion": -1.0}}, r"learning_rate must be in \[1e-37, 1e\+38\]; got -1"),
        ({"steps": 2.5}, "steps must be a whole number; got 2.5"),
        ({"seed": True}, "seed must be a whole number; got True"),
        ({"every": 13, "steps": 12}, "every must be from 1 to 12, the steps; got 13"),
        ({"per_parameter": 1}, "per_parameter must be True or False; got 1"),
    ],
)
def test_impossible_arguments_say_what_is_possible(task, arguments, message):
    with pytest.raises(lab.RequestError, match=message):
        lab.watch(**{"task": task} | arguments)


def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path, capsys):
    (tmp_path / "watch.csv").mkdir()
    assert cli.main(["watch", f"--output={tmp_path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lion-jax: cannot write to the output folder")
    assert [path.name for path in tmp_path.iterdir()] == ["watch.csv"]


def test_an_interruption_writes_nothing(tmp_path, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    def leave(status):
        raise SystemExit(status)

    monkeypatch.setattr(cli, "watch", interrupt)
    monkeypatch.setattr(__main__.os, "_exit", leave)
    monkeypatch.setattr(sys, "argv", ["lion-jax", "watch", "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match="130"):
        __main__.main()
    assert capsys.readouterr().err == "lion-jax: interrupted; nothing was written\n"
    assert list(tmp_path.iterdir()) == []


def test_it_shows_itself_without_its_values(small):
    assert len(repr(small)) < 300
    assert repr(small).startswith("Observation('triangle', {'steps': 12")


@pytest.mark.slow
def test_every_rule_can_be_watched(task):
    seen = lab.watch(RULES, task, learning_rate=1e-3, steps=2, batch_size=20)
    for values in seen.values.values():
        assert all(np.isfinite(x).all() for x in values.values())


def rendered(table):
    """What a table prints on a narrow terminal."""
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table)
    return capture.get()
