"""Comparing update rules: each with its best learning rate, several seeds and an interval."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax

from lion_jax._core.versions import bits_of
from lion_jax.lab import files, progress
from lion_jax.lab.choosing import choose_rules, choose_task
from lion_jax.lab.comparing.report import Comparison
from lion_jax.lab.comparing.result import Result
from lion_jax.lab.errors import RequestError, check_whole, known
from lion_jax.lab.progress import OnProgress, Tell
from lion_jax.lab.provenance import provenance
from lion_jax.lab.report import RESULT, load
from lion_jax.lab.reporting import reporting
from lion_jax.lab.rules.rule import Rule
from lion_jax.lab.tasks.batches import choose_batch_size, most_seeds
from lion_jax.lab.tasks.task import Task
from lion_jax.lab.trainer import train
from lion_jax.lab.training import MOST_STEPS, SCHEDULES

MOST_TRIALS = 10**6
DEFAULT_RULES = ("lion", "lookahead_lion", "adamw", "sgd")


@reporting
def compare(
    task: str | Task = "digits",
    rules: str | Rule | Iterable[str | Rule] = DEFAULT_RULES,
    *,
    against: str | None = None,
    learning_rates: int = 10,
    steps: int = 600,
    seeds: int = 5,
    batch_size: int | None = None,
    schedule: str = "cosine",
    folder: str | Path | None = None,
    resume: bool = False,
    on_progress: OnProgress = progress.silent,
) -> Iterator[Comparison]:
    """Trains each rule with each learning rate and seed, and chooses the rate on validation data.

    Everything but the learning rate and what a rule declares as tuned is fixed by the rule. All
    rules get equally many trials: evenly spaced on a logarithmic scale over the rule's range of
    learning rates, or quasi-random where it tunes more. For each seed they get the same initial
    parameters and the same batches. The runs of a rule are one compiled program, or several where
    one would not fit into memory.

    Args:
      task: a name from ``lab.TASKS``, a :class:`~lion_jax.lab.Task`, or ``"mine.py:task"``.
      rules: names from ``lab.RULES``, :class:`~lion_jax.lab.Rule` objects, ``"optax.adafactor"``,
        ``"mine.py:rule"``, ``"lion(b1=0.95)"``; :func:`~lion_jax.lab.choosing.choose_rules` says
        more.
      against: the name of the rule to compare the others with; None is the best.
      learning_rates: how many trials each rule gets, at least 1.
      steps: training steps of a run, at least 1.
      seeds: runs for each trial, at least 1; a standard error needs 2.
      batch_size: examples in a batch, from 1 to the size of the training split, and a
        multiple of the replicas of each rule; None is 64, or all examples if they are fewer. A
        stream has batches of its own.
      schedule: ``"cosine"`` (a warm-up over a twentieth of the steps, then a decay to 0) or
        ``"constant"``.
      folder: a folder to save each finished rule in, so that nothing is lost.
      resume: whether to go on with what an earlier call with the same arguments left in `folder`.
      on_progress: called with a :class:`~lion_jax.lab.Progress` now and then; None shows bars on a
        terminal and lines in a notebook.

    Returns:
      The :class:`Comparison`.

    Raises:
      RequestError: an unknown name, a number out of range, or a folder that holds a comparison of
        something else; a ``ValueError``.
    """
    task = choose_task(task)
    chosen = choose_rules(rules, task, among_replicas=True)
    by_name = {rule.name: rule for rule in chosen}
    if against is not None:
        known("rule to compare against", against, by_name)
    known("schedule", schedule, SCHEDULES)
    check_whole("learning_rates", learning_rates, 1, MOST_TRIALS, "since each is recorded")
    if resume and folder is None:
        raise RequestError("resume needs the folder of the interrupted run; got folder=None")
    check_whole("steps", steps, 1, MOST_STEPS, "the largest of 32 bits")
    check_whole("seeds", seeds, 1, *most_seeds(task, steps))
    size = choose_batch_size(task, batch_size)
    for rule in chosen:
        if size % rule.replicas:
            raise RequestError(
                f"batch_size must be a multiple of {rule.replicas}, the replicas of {rule.name} "
                f"that share a batch; got {size}"
            )
    run = {"steps": steps, "seeds": seeds, "batch_size": size, "schedule": schedule}
    comparison = Comparison(
        provenance=provenance(),
        settings={**run, "learning_rates": learning_rates},
        missing=tuple(by_name),
        task=task.described(),
        against=against,
    )
    done = (
        _finished(comparison, task, chosen, Path(folder)) if resume and folder is not None else {}
    )
    missing = [rule for rule in chosen if rule.name not in done]
    tell = progress.teller(on_progress, [rule.name for rule in missing])
    while True:
        comparison = dataclasses.replace(
            comparison,
            results=tuple(done[name] for name in by_name if name in done),
            missing=tuple(rule.name for rule in missing),
        )
        if folder is not None and (done or not (Path(folder) / RESULT).exists()):
            comparison.checkpoint(Path(folder))  # an earlier result stays until there is another
        yield comparison
        if not missing:
            return
        rule = missing.pop(0)
        done[rule.name] = _result(task, rule, learning_rates, run, tell)


def _result(task: Task, rule: Rule, learning_rates: int, run: dict[str, Any], tell: Tell) -> Result:
    """All runs of a rule."""
    steps, trials = run["steps"], rule.trials(learning_rates)
    tell(rule.name, 0, steps)
    outcome, timing = train(task, rule, trials, **run, on_step=lambda t: tell(rule.name, t, steps))
    tell(rule.name, steps, steps)
    name, metric = task.deciding
    result = Result(
        rule=rule.name,
        described=described(task, rule),
        metric=name,
        direction=metric.direction,
        good_within=metric.good_within,
        trials=trials,
        outcome=outcome,
        timing=timing,
        **_stored_bytes(task, rule),
    )
    chosen = outcome._replace(curve=outcome.curve[result.best])
    return dataclasses.replace(result, outcome=chosen)


def _finished(
    comparison: Comparison, task: Task, rules: list[Rule], folder: Path
) -> dict[str, Result]:
    """The results that an earlier comparison of the same left in a folder, by rule."""
    if not (folder / RESULT).exists():
        return {}
    earlier = load(folder)
    if not isinstance(earlier, Comparison):
        raise RequestError(f"{folder} holds a {type(earlier).__name__}, no comparison to resume")
    asked = {**comparison.task, **comparison.settings}
    there = {**earlier.task, **earlier.settings}
    for name, value in asked.items():
        if json.dumps(there.get(name)) != json.dumps(value):  # with the order of the metrics
            raise RequestError(
                f"{folder} holds a comparison with another {name}, {there.get(name)!r} instead of "
                f"{value!r}: give the same arguments, or another folder"
            )
    asked_for = {rule.name: files.finite(described(task, rule)) for rule in rules}
    return {r.rule: r for r in earlier.results if r.described == asked_for.get(r.rule)}


def described(task: Task, rule: Rule) -> dict[str, Any]:
    """A rule's description, with a fingerprint of its step."""
    stored = task.stored_in(rule.params_dtype)
    params = jax.eval_shape(lambda: stored.start(jax.random.key(0))[0])
    return {**rule.described(), "program": rule.program(params)}


def _stored_bytes(task: Task, rule: Rule) -> dict[str, float]:
    """Bytes of optimizer state and of weights, per parameter."""

    def bytes_of(tree: Any) -> float:  # int4 counts as half a byte, which a CPU does not pack
        return sum(x.size * bits_of(x.dtype) / 8 for x in jax.tree.leaves(tree))

    stored = task.stored_in(rule.params_dtype)
    params = jax.eval_shape(lambda: stored.start(jax.random.key(0))[0])
    tuned = {name: high for name, (_, high) in rule.tuned.items()}
    tx = rule.transformation(1e-3, lambda count: 1.0, **tuned)
    count = sum(x.size for x in jax.tree.leaves(params))
    return {
        "state_bytes_per_parameter": bytes_of(jax.eval_shape(tx.init, params)) / count,
        "weight_bytes_per_parameter": bytes_of(params) / count,
    }
