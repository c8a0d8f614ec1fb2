"""Comparisons that are interrupted: what is finished is kept, and --resume ends with the same."""

import dataclasses
import json
import math
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optax
import pytest

from lion_jax import lab
from lion_jax.lab.finding.report import Finding

ASKED = {
    "against": None,
    "learning_rates": 2,
    "steps": 3,
    "seeds": 2,
    "batch_size": 20,
    "schedule": "cosine",
}
RULES = ["sgd", "lion", "adamw"]


def compared(task, folder, rules=RULES, resume=True, **changes):
    """The comparison that an earlier one in a folder is a part of."""
    resume = resume and folder is not None
    *_, last = lab.compare.each(task, rules, folder=folder, resume=resume, **ASKED | changes)
    return last


def interrupted(task, folder, items, rules=RULES, **changes):
    """Only the first items of a comparison."""
    reports = lab.compare.each(task, rules, folder=folder, **ASKED | changes)
    taken = [next(reports) for _ in range(items)]
    reports.close()
    return taken[-1]


@pytest.mark.slow
def test_a_resumed_comparison_has_the_records_of_an_uninterrupted_one(line, tmp_path):
    rules = ["sgd", "lion"]
    *_, whole = lab.compare.each(line, rules, **ASKED)
    interrupted(line, tmp_path, 2, rules)
    resumed = compared(line, tmp_path, rules)
    assert resumed.records() == whole.records()
    assert resumed.is_finished
    for found, expected in zip(resumed.results, whole.results, strict=True):
        assert found.described == expected.described
        np.testing.assert_array_equal(found.outcome.curve, expected.outcome.curve)


def test_an_interruption_before_anything_is_finished_leaves_nothing_to_resume(
    task, instant, tmp_path
):
    empty = interrupted(task, tmp_path / "new", 1)
    assert empty.is_empty
    assert empty.missing == tuple(RULES)
    assert compared(task, tmp_path / "new").is_finished
    assert instant == RULES


@pytest.mark.parametrize("items", [2, 3, 4])
def test_only_rules_that_are_missing_are_run(items, task, instant, tmp_path):
    interrupted(task, tmp_path, items)
    assert instant == RULES[: items - 1]
    left = lab.load(tmp_path)
    assert [found.rule for found in left.results] == RULES[: items - 1]
    assert left.missing == tuple(RULES[items - 1 :])
    assert left.is_finished == (items == 4)
    instant.clear()
    resumed = compared(task, tmp_path)
    assert instant == RULES[items - 1 :]
    assert resumed.records() == compared(task, None).records()
    assert lab.load(tmp_path).records() == resumed.records()


def test_what_compare_keeps_in_a_folder_it_resumes(task, instant, tmp_path):
    asked = {**ASKED, "folder": tmp_path / "new", "rules": ["sgd"]}
    first = lab.compare(task, **asked)
    again = lab.compare(task, **asked, resume=True)
    assert instant == ["sgd"]
    assert again.records() == first.records() == lab.load(tmp_path / "new").records()


def test_without_resume_everything_is_run_again(task, instant, tmp_path):
    interrupted(task, tmp_path, 3)
    compared(task, tmp_path, resume=False)
    assert instant == [*RULES[:2], *RULES]


def test_an_empty_folder_or_none_is_begun(task, instant, tmp_path):
    compared(task, tmp_path, ["sgd"])
    compared(task, tmp_path / "new", ["sgd"])
    assert instant == ["sgd", "sgd"]


def test_rules_may_be_added_dropped_and_in_another_order(task, instant, tmp_path):
    interrupted(task, tmp_path, 3)
    instant.clear()
    resumed = compared(task, tmp_path, ["signum", "lion"], against="lion")
    assert instant == ["signum"]
    assert [found.rule for found in resumed.results] == ["signum", "lion"]
    assert resumed.baseline.rule == "lion"


def test_a_rule_that_is_another_now_is_run_again(task, instant, tmp_path):
    rule = lab.Rule("own", optax.adamw, (1e-3, 1e-1), fixed={"b1": 0.9})
    compared(task, tmp_path, [rule, "sgd"])
    instant.clear()
    compared(task, tmp_path, [rule, "sgd"])
    assert instant == []
    compared(task, tmp_path, [dataclasses.replace(rule, fixed={"b1": 0.95}), "sgd"])
    assert instant == ["own"]


@pytest.mark.parametrize("fixed", [{"b1": 0.95}, {"max_norm": math.inf}, {"mask": (True, None)}])
def test_a_rule_with_arguments_of_its_own_is_not_run_again(fixed, task, instant, tmp_path):
    def make(learning_rate, **arguments):
        del arguments
        return optax.sgd(learning_rate)

    rule = lab.Rule("own", make, (1e-3, 1e-1), fixed=fixed)
    compared(task, tmp_path, [rule])
    compared(task, tmp_path, [rule])
    assert instant == ["own"]


def test_progress_counts_what_is_still_to_run(task, instant, tmp_path):
    interrupted(task, tmp_path, 2)
    heard = []
    compared(task, tmp_path, on_progress=heard.append)
    assert instant == RULES
    assert {(p.stage, p.place, p.stages) for p in heard} == {("lion", 1, 2), ("adamw", 2, 2)}


def changed(task, **splits):
    """The task with other data or names."""
    return dataclasses.replace(task, **splits)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 4}, "another steps, 3 instead of 4"),
        ({"seeds": 3}, "another seeds, 2 instead of 3"),
        ({"batch_size": 10}, "another batch_size, 20 instead of 10"),
        ({"batch_size": None}, "another batch_size, 20 instead of 64"),
        ({"schedule": "constant"}, "another schedule, 'cosine' instead of 'constant'"),
        ({"learning_rates": 3}, "another learning_rates, 2 instead of 3"),
    ],
)
def test_other_settings_are_refused_by_name(changes, message, task, instant, tmp_path):
    interrupted(task, tmp_path, 2)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    refused(
        lambda: compared(task, tmp_path, **changes), f"{tmp_path} holds a comparison with ", message
    )
    assert instant == ["sgd"]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda task: changed(task, name="other"), "another name, 'triangle' instead of 'other'"),
        (
            lambda task: changed(task, test=task.test._replace(x=task.test.x + 1)),
            "another sha256, ",
        ),
        (
            lambda task: changed(
                task, train=type(task.train)(task.train.x[:90], task.train.y[:90])
            ),
            "another examples, ",
        ),
        (
            lambda task: changed(
                task,
                metrics={
                    **task.metrics,
                    "none": ("down", lambda params, split: 0.0 * split.x[0, 0]),
                },
            ),
            "another metrics, ",
        ),
    ],
)
def test_another_task_is_refused_by_name(change, message, task, instant, tmp_path):
    interrupted(task, tmp_path, 2)
    refused(
        lambda: compared(change(task), tmp_path), f"{tmp_path} holds a comparison with ", message
    )
    assert instant == ["sgd"]


def test_another_metric_first_is_another_task(task, instant, tmp_path):
    """Since the first decides which learning rate is best."""
    loss = ("down", lambda params, split: 0.0 * split.x[0, 0])
    two = changed(task, metrics={**task.metrics, "none": loss})
    interrupted(two, tmp_path, 2)
    turned = changed(task, metrics={"none": loss, **task.metrics})
    refused(lambda: compared(turned, tmp_path), "metric")
    assert instant == ["sgd"]


def test_what_is_no_comparison_is_refused(task, instant, tmp_path):
    Finding(settings={}, task=task.described()).save(tmp_path)
    refused(
        lambda: compared(task, tmp_path), f"{tmp_path} holds a Finding, no comparison to resume"
    )
    (tmp_path / "result.json").write_text("{")
    refused(lambda: compared(task, tmp_path), f"cannot read {tmp_path}/result.json (")
    assert instant == []
    assert (tmp_path / "result.json").read_text() == "{"


def refused(make, *parts):
    """Checks that something is refused with one line, which has some parts."""
    with pytest.raises(lab.RequestError) as error:
        make()
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


COMMAND = [
    *(sys.executable, "-m", "lion_jax", "compare", "--rules", "sgd,lion,adamw", "--steps", "150"),
    *("--seeds", "2", "--learning-rates", "2", "--batch-size", "32"),
]


@pytest.mark.slow
def test_ctrl_c_at_a_random_moment_loses_nothing_that_was_finished(tmp_path):
    started = time.monotonic()
    subprocess.run([*COMMAND, "--output", tmp_path / "whole"], check=True, timeout=180)
    took = time.monotonic() - started
    seed = random.randrange(2**32)
    print(f"moments are of the seed {seed}")
    moments = random.Random(seed)
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        status, said = ended_by_ctrl_c(folder, after=moments.uniform(0.1, 0.9) * took)
        if status == 130:
            break
        assert status == 0, said
    assert status == 130
    assert said.splitlines()[-1].startswith("lion-jax: interrupted; ")
    if (folder / "result.json").exists():
        left = lab.load(folder)
        assert not left.is_finished
        rules = [found.rule for found in left.results]
        assert (*rules, *left.missing) == ("sgd", "lion", "adamw")
    subprocess.run([*COMMAND, "--output", folder, "--resume"], check=True, timeout=180)
    for name in ("records.csv", "picture.png"):
        assert (folder / name).exists()
    assert (folder / "records.csv").read_text() == (tmp_path / "whole/records.csv").read_text()
    assert json.loads((folder / "result.json").read_text())["is_finished"]
    assert {path.name for path in Path(folder).iterdir()} == {
        *("picture.png", "records.csv", "result.json")
    }


def ended_by_ctrl_c(folder, after):
    """The status of a comparison after Ctrl-C, and what it said."""
    process = subprocess.Popen(
        [*COMMAND, "--output", folder], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=180)
    return process.returncode, said


def test_another_loss_of_the_same_name_is_refused(task, instant, tmp_path):
    interrupted(task, tmp_path, 2)
    changed = dataclasses.replace(task, loss=lambda p, batch, key: 7 + task.loss(p, batch, key))
    with pytest.raises(lab.RequestError, match="a comparison with another program"):
        compared(changed, tmp_path)


def test_a_rule_whose_step_has_changed_is_run_again(task, instant, tmp_path):
    import optax

    def rule(limit):
        return lab.Rule("r", lambda lr: optax.chain(optax.clip(limit), optax.sgd(lr)), (0.1, 1.0))

    compared(task, tmp_path, rules=[rule(1e-9)])
    compared(task, tmp_path, rules=[rule(1.0)])
    assert instant == ["r", "r"]
