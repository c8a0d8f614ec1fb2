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
from lab import oracle
from lab.made_up import rendered

import lion_jax
from lion_jax import __main__, lab, metrics
from lion_jax.lab import cli, plots
from lion_jax.lab.rules.catalogue import AMONG_REPLICAS, RULES
from lion_jax.lab.tasks.catalogue import TASKS
from lion_jax.lab.training import SCHEDULES
from lion_jax.lab.watching import run as watching_run
from lion_jax.lab.watching.report import Observation

SMALL = {"steps": 12, "seed": 3, "batch_size": 40}
RATES = {"lion": 0.02, "bad": 0.1}


def break_at_the_fifth(learning_rate):
    """An update of NaN, and then on."""
    broken = optax.scale_by_schedule(lambda count: jnp.where(count < 4, 1.0, jnp.nan))
    return optax.chain(optax.sgd(learning_rate), broken)


RULES_SEEN = {"lion": RULES["lion"], "bad": lab.Rule("bad", break_at_the_fifth, (0.1, 1.0))}


@pytest.fixture(scope="module")
def watched(task):
    """Both rules, lion at a rate that a tuning made up; with what was heard and asked meanwhile."""
    heard, asked, compilations = [], [], []

    def tune(task, rules, *, on_progress, **settings):
        asked.append((task.name, [rule.name for rule in rules], settings))
        on_progress(lab.Progress("lion", 1, 1, 0, 12, None))
        best = types.SimpleNamespace(rule="lion", chosen={"learning_rate": RATES["lion"]})
        return types.SimpleNamespace(results=[best])

    def listen(name, *args, fun_name="program", **kwargs):
        # The first copy of a shape to the device compiles too, under another name.
        if "backend_compile" in name and "program" in fun_name:
            compilations.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watching_run, "compare", tune)
        seen = lab.watch(
            task,
            RULES_SEEN.values(),
            learning_rate={"bad": RATES["bad"]},
            on_progress=heard.append,
            **SMALL,
        )
    jax.monitoring.unregister_event_duration_listener(listen)
    return types.SimpleNamespace(seen=seen, heard=heard, asked=asked, compilations=compilations)


@pytest.fixture
def small(watched):
    return watched.seen


def steps_of(task, tx, batches=None):
    """Gradient, parameters, loss and update of each step of a plain loop, and the state after."""
    seed, steps, size = SMALL["seed"], SMALL["steps"], SMALL["batch_size"]
    key = jax.random.key(seed)
    params, noise = task.init(jax.random.split(key)[0]), jax.random.fold_in(key, 2)
    params, beside = params if task.has_state else (params, None)

    def loss_of(params, beside, batch, key):
        if task.has_state:
            return task.loss(params, beside, batch, key)
        return task.loss(params, batch, key), None

    @jax.jit
    def step(params, beside, state, batch, key):
        (loss, beside), gradient = jax.value_and_grad(loss_of, has_aux=True)(
            params, beside, batch, key
        )
        return gradient, loss, beside, *tx.update(gradient, state, params)

    state = tx.init(params)
    batches = oracle.batches_of(task, seed, steps, size) if batches is None else batches
    for number, batch in enumerate(batches):
        key = jax.random.fold_in(noise, number)
        gradient, loss, beside, updates, state = step(params, beside, state, batch, key)
        yield gradient, params, loss, updates, state
        params = optax.apply_updates(params, updates)


def made(rule, rate):
    """The transformation of a rule under the schedule of a watched run."""
    schedule = oracle.Schedule(jnp.float32(rate), SCHEDULES["cosine"](SMALL["steps"]))
    return rule.make(schedule, **rule.fixed)


def rule_of(name):
    """The transformation of one of the rules seen."""
    return made(RULES_SEEN[name], RATES[name])


def assert_seen(values, task, tx, batches=None):
    """Each metric recorded of a rule is the one that a plain loop reads."""
    tx = metrics.with_metrics(tx)
    for i, (_, _, loss, _, state) in enumerate(steps_of(task, tx, batches)):
        read = metrics.read_metrics(state)
        assert int(read.pop("step")) == i + 1
        assert set(values) == {"loss", *read}
        for key, value in {"loss": loss, **read}.items():
            np.testing.assert_allclose(values[key][i], value, rtol=1e-4, atol=1e-5, err_msg=key)


def observation_of(task, steps, settings, rates, values):
    """A made-up observation of some rules."""
    return Observation(
        settings={**SMALL, "every": 1, "schedule": "cosine", "tuned": []} | settings,
        task=task.described(),
        rules={rule: RULES[rule].described() for rule in rates},
        steps=np.arange(1, steps + 1),
        chosen={rule: {"learning_rate": rate} for rule, rate in rates.items()},
        values=values,
    )


def flat(tree):
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])


@pytest.mark.parametrize("name", ["lion", pytest.param("bad", marks=pytest.mark.slow)])
def test_what_is_recorded_is_what_a_plain_loop_reads(task, small, name):
    np.testing.assert_array_equal(small.steps, np.arange(1, 13))
    assert_seen(small.values[name], task, rule_of(name))


@pytest.mark.slow
def test_a_task_s_state_is_carried_from_step_to_step(with_state):
    seen = lab.watch(with_state, "lion", learning_rate=RATES["lion"], **SMALL)
    assert_seen(seen.values["lion"], with_state, rule_of("lion"))


@pytest.mark.slow
def test_a_seed_sees_its_own_steps_of_a_stream():
    """The batches of a comparison of as many steps: seed 3 begins where seed 2 ends."""
    points = np.random.default_rng(0).standard_normal((48, 4, 3)).astype(np.float32)

    def loss(params, batch, key):
        return jnp.mean((params[None] - batch + 0.1 * jax.random.normal(key, batch.shape)) ** 2)

    stream = lab.Task(
        lambda key: jax.random.normal(key, (3,)),
        loss,
        lambda step: jnp.asarray(points)[step],
        points[0],
        points[0],
    )
    seen = lab.watch(stream, "lion", learning_rate=RATES["lion"], steps=12, seed=3)
    assert seen.settings["batch_size"] == 4
    assert_seen(seen.values["lion"], stream, rule_of("lion"), points[36:])


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
    assert [tuple(of)[:5] for of in watched.heard] == [
        ("tuning lion", 1, 3, 0, 12),
        *(("lion", 2, 3, step, 12) for step in every_step),
        *(("bad", 3, 3, step, 12) for step in every_step),
    ]


def test_rates_that_nobody_gave_are_tuned(watched):
    tuning = {"steps": 12, "batch_size": 40, "schedule": "cosine", "seeds": 5}
    assert watched.asked == [("triangle", ["lion"], tuning)]
    assert watched.seen.learning_rates == RATES
    assert watched.seen.settings["tuned"] == ["lion"]


@pytest.mark.slow
def test_what_a_rule_tunes_besides_is_tuned_with_it_or_stays_at_the_middle(task, monkeypatch):
    def tune(task, rules, **settings):
        best = types.SimpleNamespace(rule="tuned", chosen={"learning_rate": 0.1, "momentum": 0.5})
        return types.SimpleNamespace(results=[best])

    monkeypatch.setattr(watching_run, "compare", tune)
    rule = lab.Rule("tuned", optax.sgd, (1e-2, 1.0), tuned={"momentum": (0.1, 0.9)})
    for given, momentum in ((None, 0.5), (0.1, 0.3)):
        seen = lab.watch(task, rule, learning_rate=given, **SMALL)
        assert seen.chosen["tuned"] == pytest.approx({"learning_rate": 0.1, "momentum": momentum})
        fixed = lab.Rule("fixed", optax.sgd, (1e-2, 1.0), fixed={"momentum": momentum})
        assert_seen(seen.values["tuned"], task, made(fixed, 0.1))


@pytest.mark.slow
def test_the_tuning_is_that_of_compare(task):
    settings = {"steps": 12, "batch_size": 40}
    (tuned,) = lab.compare(task, ["sgd"], **settings).results
    seen = lab.watch(task, ["sgd"], **settings)
    assert seen.chosen == {"sgd": tuned.chosen}
    assert seen.settings["tuned"] == ["sgd"]


def test_a_run_that_breaks_is_recorded_to_its_end_and_told(small):
    finite = np.isfinite(small.values["bad"]["loss"])
    np.testing.assert_array_equal(finite, np.arange(12) < 5)
    assert (small.first_not_finite("bad"), small.first_not_finite("lion")) == (6, None)
    assert small.lines() == [
        "Learning rates tuned on validation data, as lion-jax compare does: lion 0.02.",
        "bad diverged: its loss is not finite at step 6.",
    ]
    assert "nan" in rendered(small.table(), width=80)
    labels = small.picture().axes[0].get_legend_handles_labels()[1]
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
    seen = lab.watch(task, ["lion"], learning_rate=rate, per_parameter=True, **SMALL)
    values = seen.values["lion"]
    parts = {key for key in values if key.startswith("norm/grad/")}
    assert len(parts) == 2
    whole = np.sqrt(sum(values[key] ** 2 for key in parts))
    np.testing.assert_allclose(values["norm/grad"], whole, rtol=1e-5)
    np.testing.assert_allclose(values["norm/grad"], small.values["lion"]["norm/grad"], rtol=1e-4)
    assert len(seen.picture().axes) == 9


def test_the_table_shows_start_middle_and_end_on_a_narrow_terminal(task):
    numbers = np.array([4.4e-5, 3.3e-5, 2.2e-5])
    norms = dict.fromkeys(["norm/grad", "norm/update", "norm/param", "norm/moment"], numbers)
    share, cosine = np.array([0.0, 0.25, 1.0]), np.array([-0.123, -0.5, 0.5])
    values = {
        "loss": numbers,
        "cosine/update_grad": cosine,
        **norms,
        "share/agree": share,
        "share/sign_flips": share,
    }
    rates = {"lookahead_lion": 1e-3}
    seen = observation_of(task, 3, {"steps": 3}, rates, {"lookahead_lion": values})
    text = rendered(seen.table(), width=80)
    assert "…" not in text
    for row in ["lookahead_lion start  4.4e-05", "lr 0.001       middle 3.3e-05", "end    2.2e-05"]:
        assert row in text
    assert "-0.12    0%   0%" in text
    assert " 0.50  100% 100%" in text


def test_the_picture_has_a_panel_for_each_metric_and_a_colour_for_each_rule(small):
    panels = {axes.get_title(): axes for axes in small.picture().axes}
    assert len(panels) == 9
    loss = panels["loss of the batch (nats)"]
    assert loss.get_yscale() == "log"
    lion, bad, end = loss.lines
    np.testing.assert_array_equal(lion.get_xdata(), small.steps)
    np.testing.assert_allclose(lion.get_ydata(), small.values["lion"]["loss"])
    np.testing.assert_array_equal(bad.get_xdata(), small.steps[:5])
    assert [*end.get_xdata()] == [6, 6]
    assert lion.get_color() == plots.COLOURS[0]
    assert bad.get_color() == end.get_color() == plots.COLOURS[4]
    flips = panels["share of signs that flip"].lines[0]
    assert flips.get_color() == lion.get_color()
    np.testing.assert_array_equal(flips.get_ydata(), small.values["lion"]["share/sign_flips"])


def test_long_runs_are_drawn_with_a_running_median(task):
    noise = np.random.default_rng(0).standard_normal(500)
    values = {"cosine/update_grad": np.tanh(noise), "loss": np.ones(500)}
    seen = observation_of(task, 500, {"steps": 500}, {"sgd": 1.0}, {"sgd": values})
    _, axes = seen.picture().axes
    each, median, _ = axes.lines
    np.testing.assert_array_equal(each.get_ydata(), np.tanh(noise))
    np.testing.assert_allclose(median.get_ydata()[100], np.median(np.tanh(noise)[84:117]))


def test_rules_look_the_same_in_every_picture():
    looks = plots.looks(["adamw", "lion", "adan", "lamb"])
    numbers = {"adamw": 2, "lion": 0, "adan": 4, "lamb": 5}
    assert {rule: look["color"] for rule, look in looks.items()} == {
        rule: plots.COLOURS[number] for rule, number in numbers.items()
    }
    assert plots.looks(["lion"])["lion"] == looks["lion"]


@pytest.mark.slow
def test_the_command_writes_what_it_says(task, small, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TASKS, "digits", lambda: task)
    run = ["--rules=lion", "--learning-rate=lion=0.02", "--every=5", f"--output={tmp_path / 'new'}"]
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    assert cli.main(["watch", *run, *settings]) == 0
    captured = capsys.readouterr()
    assert "median" in captured.out
    paths = [tmp_path / "new" / name for name in ("picture.png", "records.csv", "result.json")]
    assert f"Written: {', '.join(map(str, paths))}" in captured.out
    assert captured.err.splitlines() == ["lion (1 of 1): started", "lion (1 of 1): 12 of 12"]
    assert sorted((tmp_path / "new").iterdir()) == paths
    picture, records, _ = paths
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(records.read_text().splitlines()))
    assert [row["step"] for row in rows] == ["5", "10"]
    for key, values in small.values["lion"].items():  # the same run, two of its steps
        found = [float(row[key]) for row in rows]
        np.testing.assert_allclose(found, values[[4, 9]], rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.mark.slow
def test_the_result_carries_settings_and_versions_in_strict_json(small, tmp_path):
    def refuse(constant):
        raise AssertionError(constant)

    small.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "picture.png",
        "records.csv",
        "result.json",
    }
    document = json.loads((tmp_path / "result.json").read_text(), parse_constant=refuse)
    assert document["command"] == "watching"
    assert document["is_finished"] is True
    assert {row["name"]: row["learning_rate"] for row in document["summary"]} == RATES
    assert document["settings"]["tuned"] == ["lion"]
    assert document["provenance"]["versions"]["lion_jax"] == lion_jax.__version__
    rows = list(csv.DictReader((tmp_path / "records.csv").read_text().splitlines()))
    assert len(rows) == 2 * SMALL["steps"]
    assert rows[-1]["loss"] == "nan"


@pytest.mark.slow
def test_what_is_saved_is_loaded_as_it_was(small, tmp_path):
    """With losses that are not finite, and metrics that only one rule has."""
    small.save(tmp_path / "new")
    again = lab.load(tmp_path / "new")
    assert isinstance(again, lab.Observation)
    np.testing.assert_equal(again.records(), small.records())
    for of in ("provenance", "settings", "missing", "task", "rules", "chosen", "is_finished"):
        assert getattr(again, of) == getattr(small, of), of
    np.testing.assert_array_equal(again.steps, small.steps)
    assert again.steps.dtype == small.steps.dtype
    for rule, values in small.values.items():
        assert list(again.values[rule]) == list(values)
        for key, x in values.items():
            assert again.values[rule][key].dtype == x.dtype
            np.testing.assert_array_equal(again.values[rule][key], x)
    assert again.lines() == small.lines()
    assert repr(again) == repr(small)
    assert rendered(again.table()) == rendered(small.table())
    again.save(tmp_path / "again")
    for file in ("result.json", "records.csv"):
        assert (tmp_path / "again" / file).read_text() == (tmp_path / "new" / file).read_text()


def test_infinite_values_are_loaded_as_they_were(task, tmp_path):
    values = {"loss": np.array([1.0, np.inf, -np.inf, np.nan], np.float32)}
    seen = observation_of(task, 4, {"steps": 4}, {"sgd": 1.0}, {"sgd": values})
    seen.save(tmp_path)
    np.testing.assert_array_equal(lab.load(tmp_path).values["sgd"]["loss"], values["loss"])


@pytest.mark.slow
def test_what_an_interruption_leaves_is_an_observation_that_names_what_is_missing(task, tmp_path):
    reports = lab.watch.each(task, RULES_SEEN.values(), learning_rate=RATES, **SMALL)
    nothing, one = next(reports), next(reports)
    reports.close()
    assert nothing.is_empty
    assert nothing.missing == ("lion", "bad")
    assert not one.is_empty
    assert one.missing == ("bad",)
    assert repr(one) == ("Observation(triangle, 12 steps: lion at 0.02, unfinished: bad not run)")
    for left, named in (nothing, "unfinished: lion, bad not run"), (one, "unfinished: bad not run"):
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rules=lyon"], "unknown rule 'lyon'; did you mean 'lion'? Possible: lion, "),
        (["--rules=sgd,sgd"], "rules must have different names; got sgd, sgd"),
        (["--rules=,"], "rules must name at least one; got none"),
        (["--rules=lion_vote_2"], "only `compare` trains rules of several replicas; got lion_vote"),
        (["--task=digit"], "unknown task 'digit'; did you mean 'digits'? Possible: digits"),
        (["--schedule=linear"], "unknown schedule 'linear'. Possible: cosine, constant"),
        (["--steps=0"], "must be a whole number of at least 1; got '0'"),
        (["--every=0"], "must be a whole number of at least 1; got '0'"),
        (["--every=601"], "every must be from 1 to 600, the steps; got 601"),
        (["--seed=-1"], "must be a whole number of at least 0; got '-1'"),
        (["--seed=4294967296"], "seed must be from 0 to 2147483647"),
        (
            ["--batch-size=1079"],
            "from 1 to 1078, the training split of digits; got 1079",
        ),
        (["--steps=2147483648"], "steps must be from 1 to 2147483647, the largest of 32 bits"),
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
        (["--picture=gif"], "choose from"),
        (["--records=csv"], "--records"),
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
        ({"rules": ["lion", 3]}, "a rule must be a name or a lab.Rule; got 3 of type int"),
        ({"rules": 3}, "a rule must be a name or a lab.Rule; got 3 of type int"),
        (
            {"task": ["lion"]},
            r"task, given first, must be a lab.Task or a name; got \['lion'\]",
        ),
        ({"schedule": 1}, "unknown schedule 1. Possible: cosine, constant"),
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


def test_a_rule_of_several_replicas_is_refused_as_its_name_is(task):
    with pytest.raises(lab.RequestError, match=r"^only `compare` trains rules of several replicas"):
        lab.watch(task, AMONG_REPLICAS["lion_vote_2"], learning_rate=0.01, **SMALL)


@pytest.mark.slow
def test_a_rate_can_be_given_to_a_rule_with_arguments(task, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TASKS, "digits", lambda: task)
    rule = "lion(b1=0.95,b2=0.98)"
    run = [f"--rules={rule},sgd", f"--learning-rate={rule}=0.02,sgd=0.1", "--steps=2"]
    assert cli.main(["watch", *run, f"--output={tmp_path}"]) == 0
    assert lab.load(tmp_path).learning_rates == {rule: 0.02, "sgd": 0.1}


def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch, capsys):
    def work(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(watching_run, "compare", work)
    (tmp_path / "records.csv").mkdir()
    assert cli.main(["watch", f"--output={tmp_path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lion-jax: cannot write to the output folder")
    assert [path.name for path in tmp_path.iterdir()] == ["records.csv"]


def interrupted_command(monkeypatch, *words):
    """Runs a command that is interrupted, as `lion-jax` does."""

    def leave(status):
        raise SystemExit(status)

    monkeypatch.setattr(__main__.os, "_exit", leave)
    monkeypatch.setattr(sys, "argv", ["lion-jax", *words])
    with pytest.raises(SystemExit, match="130"):
        __main__.main()


def test_an_interruption_before_the_first_rule_writes_nothing(tmp_path, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(watching_run, "compare", interrupt)
    interrupted_command(monkeypatch, "watch", f"--output={tmp_path}")
    assert capsys.readouterr().err == "lion-jax: interrupted; nothing was finished\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_interruption_keeps_the_rules_that_are_finished(task, tmp_path, monkeypatch, capsys):
    runs, run_interruptibly = [], watching_run.run_interruptibly

    def interrupt_the_second(*arguments):
        runs.append(arguments)
        if len(runs) == 2:
            raise KeyboardInterrupt
        return run_interruptibly(*arguments)

    monkeypatch.setitem(TASKS, "digits", lambda: task)
    monkeypatch.setattr(watching_run, "run_interruptibly", interrupt_the_second)
    run = ["--rules=sgd,lion,adamw", "--learning-rate=0.1", "--steps=2", f"--output={tmp_path}"]
    interrupted_command(monkeypatch, "watch", *run)
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"lion-jax: interrupted; what was finished is in {tmp_path}, without lion, adamw"
    )
    kept = lab.load(tmp_path)
    assert list(kept.values) == ["sgd"]
    assert kept.missing == ("lion", "adamw")
    assert (tmp_path / "picture.png").exists()


def test_it_shows_itself_without_its_values(small):
    assert repr(small) == "Observation(triangle, 12 steps: lion at 0.02, bad at 0.1)"


@pytest.mark.slow
def test_every_rule_can_be_watched(task):
    seen = lab.watch(task, RULES, learning_rate=1e-3, steps=2, batch_size=20)
    for values in seen.values.values():
        assert all(np.isfinite(x).all() for x in values.values())
