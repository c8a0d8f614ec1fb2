"""Watching update rules at work: one run of each, with the metrics of its steps."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lion_jax.lab.comparison import MOST_EXAMPLES, choose_rules, choose_task, compare
from lion_jax.lab.errors import RequestError, check_rate, check_whole, known
from lion_jax.lab.rules import Rule
from lion_jax.lab.tasks import Task
from lion_jax.lab.training import SCHEDULES, batch_indices, run_interruptibly, tell
from lion_jax.metrics import read_metrics, with_metrics

DEFAULT_RULES = ("lion", "adamw")
TUNING_SEEDS = 5
"""Runs for each learning rate where one has to be tuned, as ``compare`` has by default."""


@dataclasses.dataclass(frozen=True)
class Observation:
    """The steps and metrics that `watch` recorded.

    Attributes:
      task: the task.
      settings: steps, every, seed, batch size, schedule, the learning rate of each rule, and which
        of them were tuned.
      steps: the steps recorded, counted from 1, of shape (records,).
      values: arrays of shape (records,) by rule and metric: ``loss``, the loss of the step's batch
        before the step, in nats; and the metrics that ``lion_jax.read_metrics`` gives.
    """

    task: Task
    settings: dict[str, Any]
    steps: np.ndarray
    values: dict[str, dict[str, np.ndarray]]

    def __repr__(self) -> str:
        """The settings, rather than thousands of values."""
        return f"Observation({self.task.name!r}, {self.settings})"

    @property
    def metrics(self) -> list[str]:
        """Names of all that was recorded of any rule."""
        return list(dict.fromkeys(key for values in self.values.values() for key in values))

    def first_not_finite(self, rule: str) -> int | None:
        """The first recorded step of a rule whose loss is not finite; None if all are."""
        steps = self.steps[~np.isfinite(self.values[rule]["loss"])]
        return int(steps[0]) if len(steps) else None

    def records(self) -> list[dict[str, Any]]:
        """One record for each rule and step; None for a metric that the rule does not have."""
        metrics = self.metrics
        return [
            {
                "rule": rule,
                "step": int(step),
                **{key: values[key][i].item() if key in values else None for key in metrics},
            }
            for rule, values in self.values.items()
            for i, step in enumerate(self.steps)
        ]


def watch(
    rules: Iterable[str | Rule] = DEFAULT_RULES,
    task: str | Task = "digits",
    *,
    learning_rate: float | Mapping[str, float] | None = None,
    steps: int = 600,
    seed: int = 0,
    every: int = 1,
    batch_size: int = 64,
    schedule: str = "cosine",
    per_parameter: bool = False,
    on_progress: Callable[[str, int], None] = lambda name, done: None,
) -> Observation:
    """Trains each rule once with ``lion_jax.with_metrics`` around it, and records what it does.

    The run of a rule is one compiled ``jax.lax.scan``, and its parameters are those of the same run
    unwatched. A seed decides the initial parameters and the order of the examples, the same for
    every rule, as in :func:`compare`. A run that diverges is recorded to its end.

    Args:
      rules: names from ``RULES``, or :class:`Rule` objects.
      task: a name from ``TASKS``, or a :class:`Task`.
      learning_rate: the peak, in [1e-37, 1e38]; or one by rule. Rules without one are tuned first,
        as :func:`compare` does by default: 10 learning rates, 5 seeds, as many steps, and the best
        mean accuracy on validation data.
      steps: training steps, at least 1.
      seed: at least 0.
      every: a step is recorded where its number, counted from 1, is divisible by this; from 1 to
        ``steps``.
      batch_size: examples in a batch, from 1 to the size of the training split.
      schedule: ``"cosine"`` (a warm-up over a twentieth of the steps, then a decay to 0) or
        ``"constant"``.
      per_parameter: whether to record each metric for each parameter too.
      on_progress: called with what runs, a rule's name or ``"tuning"`` and its name, and the steps
        that it has done: 0 when it starts to compile, and ``steps`` at the end.

    Returns:
      The :class:`Observation`. ``lion_jax.lab.watch_report`` puts it into a table and a picture.

    Raises:
      RequestError: an unknown name, or a number out of range; a ``ValueError``.

    Example:
      >>> from lion_jax import lab
      >>> seen = lab.watch(["lion"], learning_rate=0.005, steps=20, every=5)
      >>> seen.steps
      array([ 5, 10, 15, 20])
      >>> bool((seen.values["lion"]["cosine/update_grad"] < 0).all())  # downhill
      True
    """
    rules, task = choose_rules(rules), choose_task(task)
    known("schedule", schedule, SCHEDULES)
    check_whole("steps", steps, 1)
    check_whole("seed", seed, 0, 2**31 - 1, "the largest of 32 bits")
    check_whole("every", every, 1, steps, "the steps")
    check_whole("batch_size", batch_size, 1, len(task.train.y), "the training split")
    if not isinstance(per_parameter, bool):
        raise RequestError(f"per_parameter must be True or False; got {per_parameter!r}")
    rates = _given_rates(learning_rate, rules)
    untuned = [rule for rule in rules if rule.name not in rates]
    _check_examples(steps, batch_size, TUNING_SEEDS if untuned else 1)

    run: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "schedule": schedule}
    if untuned:
        tuned = compare(
            task,
            untuned,
            **run,
            seeds=TUNING_SEEDS,
            on_progress=lambda name, done: on_progress(f"tuning {name}", done),
        )
        rates |= {result.rule.name: result.best_learning_rate for result in tuned.results}
    run |= {"seed": seed, "every": every, "per_parameter": per_parameter}
    values = {}
    for rule in rules:
        on_progress(rule.name, 0)
        program = _program(task, rule, **run, on_step=functools.partial(on_progress, rule.name))
        rate = np.float32(rates[rule.name])
        recorded = run_interruptibly(jax.jit(program).lower(rate).compile(), rate)
        values[rule.name] = {"loss": recorded.pop("loss"), **recorded}  # the first column
        on_progress(rule.name, steps)
    settings = {
        **run,
        "learning_rates": {rule.name: rates[rule.name] for rule in rules},
        "tuned": [rule.name for rule in untuned],
    }
    return Observation(task, settings, np.arange(every, steps + 1, every), values)


def _program(
    task: Task,
    rule: Rule,
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
    x, y = jnp.asarray(task.train.x), jnp.asarray(task.train.y)
    shape = SCHEDULES[schedule](steps)

    def program(peak):
        inner = rule.make(lambda count: peak * shape(count), peak)
        tx = with_metrics(inner, per_parameter=per_parameter)
        init_key, order_key = jax.random.split(jax.random.key(seed))
        batches = batch_indices(order_key, len(y), steps, batch_size)

        def step(carry, t):
            params, state = carry
            tell(on_step, t + 1, steps)
            loss, gradients = jax.value_and_grad(task.loss)(params, x[batches[t]], y[batches[t]])
            updates, state = tx.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), loss

        def record(carry, first):
            carry, losses = jax.lax.scan(step, carry, first + jnp.arange(every))
            metrics = read_metrics(carry[1])
            named = {name: metrics[name] for name in metrics if name != "step"}
            return carry, {"loss": losses[-1], **named}

        params = task.init(init_key)
        firsts = jnp.arange(0, steps - every + 1, every)  # what follows the last record is not run
        return jax.lax.scan(record, (params, tx.init(params)), firsts)[1]

    return program


def _given_rates(
    learning_rate: float | Mapping[str, float] | None, rules: list[Rule]
) -> dict[str, float]:
    """The learning rates that somebody gave, by rule."""
    names = {rule.name: rule for rule in rules}
    if learning_rate is None:
        return {}
    if not isinstance(learning_rate, Mapping):
        learning_rate = dict.fromkeys(names, learning_rate)
    for name, rate in learning_rate.items():
        known("rule", name, names)
        check_rate("learning_rate", rate)
    return {name: float(rate) for name, rate in learning_rate.items()}


def _check_examples(steps: int, batch_size: int, seeds: int) -> None:
    if steps * batch_size * seeds > MOST_EXAMPLES:
        raise RequestError(
            f"steps * batch_size must be at most {MOST_EXAMPLES // seeds}, since the order of the "
            f"examples is kept in memory{f', {seeds} times while tuning' if seeds > 1 else ''}; "
            f"got {steps * batch_size}"
        )
