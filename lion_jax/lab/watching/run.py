"""Watching update rules at work: one run of each, with the metrics of its steps."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lion_jax.lab import progress
from lion_jax.lab.choosing import choose_rules, choose_task
from lion_jax.lab.comparing.run import compare
from lion_jax.lab.errors import RequestError, check_rate, check_whole, known
from lion_jax.lab.progress import OnProgress, Progress, Tell
from lion_jax.lab.provenance import provenance
from lion_jax.lab.reporting import reporting
from lion_jax.lab.rules.rule import Rule
from lion_jax.lab.tasks.batches import batches, choose_batch_size, most_seeds
from lion_jax.lab.tasks.task import Task
from lion_jax.lab.training import (
    MOST_STEPS,
    SCHEDULES,
    begin,
    run_interruptibly,
    seeded,
    step,
    tell,
)
from lion_jax.lab.watching.report import Observation
from lion_jax.metrics import read_metrics, with_metrics

DEFAULT_RULES = ("lion", "adamw")
TUNING_SEEDS = 5
"""Runs for each learning rate where one has to be tuned, as ``compare`` has by default."""


@reporting
def watch(
    task: str | Task = "digits",
    rules: str | Rule | Iterable[str | Rule] = DEFAULT_RULES,
    *,
    learning_rate: float | Mapping[str, float] | None = None,
    steps: int = 600,
    seed: int = 0,
    every: int = 1,
    batch_size: int | None = None,
    schedule: str = "cosine",
    per_parameter: bool = False,
    on_progress: OnProgress = progress.silent,
) -> Iterator[Observation]:
    """Trains each rule once with ``lion_jax.with_metrics`` around it, and records what it does.

    The run of a rule is one compiled ``jax.lax.scan``, and its parameters are those of the same run
    unwatched. A seed decides the initial parameters and the order of the examples, the same for
    every rule, as in :func:`~lion_jax.lab.compare`. A run that diverges is recorded to its end.

    Args:
      task: a name from ``lab.TASKS``, a :class:`~lion_jax.lab.Task`, or ``"mine.py:task"``.
      rules: one or several, as :func:`~lion_jax.lab.compare` takes them.
      learning_rate: the peak, in [1e-37, 1e38]; or one by rule. Rules without one are tuned first,
        as :func:`~lion_jax.lab.compare` does by default: 10 trials, 5 seeds, as many steps, and the
        best mean on validation data.
      steps: training steps, at least 1.
      seed: at least 0.
      every: a step is recorded where its number, counted from 1, is divisible by this; from 1 to
        ``steps``.
      batch_size: examples in a batch; None is 64, or all examples if they are fewer.
      schedule: ``"cosine"`` (a warm-up over a twentieth of the steps, then a decay to 0) or
        ``"constant"``.
      per_parameter: whether to record each metric for each parameter too.
      on_progress: called with a :class:`~lion_jax.lab.Progress` now and then; None shows bars on a
        terminal and lines in a notebook.

    Returns:
      The :class:`Observation`.

    Raises:
      RequestError: an unknown name, or a number out of range; a ``ValueError``.

    Example:
      >>> from lion_jax import lab
      >>> seen = lab.watch("digits", "lion", learning_rate=0.005, steps=20, every=5)
      >>> seen.steps
      array([ 5, 10, 15, 20])
      >>> bool((seen.values["lion"]["cosine/update_grad"] < 0).all())  # downhill
      True
    """
    task = choose_task(task)
    chosen = choose_rules(rules, task)
    known("schedule", schedule, SCHEDULES)
    check_whole("steps", steps, 1, MOST_STEPS, "the largest of 32 bits")
    check_whole("seed", seed, 0, *most_seeds(task, steps))
    check_whole("every", every, 1, steps, "the steps")
    size = choose_batch_size(task, batch_size)
    if not isinstance(per_parameter, bool):
        raise RequestError(f"per_parameter must be True or False; got {per_parameter!r}")
    given = _given_rates(learning_rate, chosen)
    untuned = [rule for rule in chosen if rule.name not in given]
    told = progress.teller(
        on_progress, [*(f"tuning {rule.name}" for rule in untuned), *(rule.name for rule in chosen)]
    )

    run: dict[str, Any] = {"steps": steps, "schedule": schedule}
    settings = {**run, "batch_size": size, "seed": seed, "every": every}
    observation = Observation(
        provenance=provenance(),
        settings={**settings, "per_parameter": per_parameter, "tuned": [r.name for r in untuned]},
        missing=tuple(rule.name for rule in chosen),
        task=task.described(),
        rules={rule.name: rule.described() for rule in chosen},
        steps=np.arange(every, steps + 1, every),
    )
    yield observation
    at = given | (_tune(task, untuned, run, batch_size, told) if untuned else {})
    observation = dataclasses.replace(observation, chosen=at)
    for rule in chosen:
        told(rule.name, 0, steps)
        program = _program(
            task,
            rule,
            at[rule.name],
            **settings,
            per_parameter=per_parameter,
            on_step=lambda t, name=rule.name: told(name, t, steps),
        )
        rate = np.float32(at[rule.name]["learning_rate"])
        recorded = run_interruptibly(jax.jit(program).lower(rate).compile(), rate)
        recorded = {"loss": recorded.pop("loss"), **recorded}  # the first column
        told(rule.name, steps, steps)
        observation = dataclasses.replace(
            observation,
            values={**observation.values, rule.name: recorded},
            missing=observation.missing[1:],
        )
        yield observation


def _tune(
    task: Task, rules: list[Rule], run: dict[str, Any], batch_size: int | None, told: Tell
) -> dict[str, dict[str, float]]:
    """Tunes each rule with `compare`; gives its arguments by name."""

    def on_progress(of: Progress) -> None:
        told(f"tuning {of.stage}", of.done, of.total)

    tuned = compare(
        task, rules, **run, batch_size=batch_size, seeds=TUNING_SEEDS, on_progress=on_progress
    )
    return {result.rule: result.chosen for result in tuned.results}


def _program(
    task: Task,
    rule: Rule,
    chosen: dict[str, float],
    *,
    steps: int,
    batch_size: int,
    schedule: str,
    seed: int,
    every: int,
    per_parameter: bool,
    on_step: Callable[[int], None],
) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """A program from a peak learning rate to the metrics of recorded steps: a scan in a scan."""
    task = task.stored_in(rule.params_dtype)
    shape = SCHEDULES[schedule](steps)
    tuned = {name: chosen[name] for name in rule.tuned}

    def program(peak):
        inner = rule.transformation(peak, shape, **tuned)
        tx = with_metrics(inner, per_parameter=per_parameter)
        seeds = jnp.array([seed])
        keys, feed = seeded(seeds), batches(task, seeds, steps, batch_size)
        init_key, noise_key = keys.init[0], keys.noise[0]

        def advance(carry, t):
            run, place = carry
            tell(on_step, t + 1, steps)
            place, batch = feed.next(place)
            batch = jax.tree.map(lambda x: x[0], batch)
            run, loss = step(task, rule, tx, run, batch, jax.random.fold_in(noise_key, t))
            return (run, place), loss

        def record(carry, first):
            carry, losses = jax.lax.scan(advance, carry, first + jnp.arange(every))
            metrics = read_metrics(carry[0].optimizer)
            named = {name: metrics[name] for name in metrics if name != "step"}
            return carry, {"loss": losses[-1], **named}

        run = begin(task, rule, tx, *task.start(init_key))
        firsts = jnp.arange(0, steps - every + 1, every)  # what follows the last record is not run
        return jax.lax.scan(record, (run, feed.start(keys.order)), firsts)[1]

    return program


def _given_rates(
    learning_rate: float | Mapping[str, float] | None, rules: list[Rule]
) -> dict[str, dict[str, float]]:
    """The learning rate given for each rule, and the middle of its other ranges."""
    by_name = {rule.name: rule for rule in rules}
    if learning_rate is None:
        return {}
    if not isinstance(learning_rate, Mapping):
        learning_rate = dict.fromkeys(by_name, learning_rate)
    for name, rate in learning_rate.items():
        known("rule", name, by_name)
        check_rate("learning_rate", rate)
    return {
        name: {**by_name[name].middle, "learning_rate": float(rate)}
        for name, rate in learning_rate.items()
    }
