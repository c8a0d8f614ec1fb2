"""Comparing update rules: each with its best learning rate, several seeds and an interval."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.stats

from lion_jax.lab.errors import RequestError, check_whole, known
from lion_jax.lab.rules import AMONG_REPLICAS, RULES, Rule
from lion_jax.lab.tasks import TASKS, Task
from lion_jax.lab.training import SCHEDULES, Outcome, Timing, train

DEFAULT_RULES = ("lion", "lookahead_lion", "adamw", "sgd")
MOST_RUNS = 10_000
"""Runs of a rule that are trained side by side in memory."""
MOST_EXAMPLES = 2**28
"""Examples whose order is kept in memory, over all steps and seeds."""
GOOD_WITHIN = 0.01
"""A learning rate is good where its validation accuracy is this close to the rule's best."""


@dataclasses.dataclass(frozen=True)
class Band:
    """A range of good learning rates.

    Attributes:
      low: its lower end, interpolated between the rates tried.
      high: its upper end.
      is_open: whether it reaches an end of what was tried, so that it may be wider.
    """

    low: float
    high: float
    is_open: bool

    @property
    def factor(self) -> float:
        """The upper end divided by the lower one."""
        return self.high / self.low


class Difference(NamedTuple):
    """A mean over seeds and its 95% interval, NaN for a single seed."""

    mean: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Result:
    """All runs of one rule.

    Attributes:
      rule: the rule.
      learning_rates: the peaks tried, ascending, of shape (learning rates,).
      outcome: what came of each run, arrays of shape (learning rates, seeds).
      timing: wall seconds for compiling and running.
      state_bytes_per_parameter: size of the optimizer's state.
      weight_bytes_per_parameter: size of a stored parameter.
    """

    rule: Rule
    learning_rates: np.ndarray
    outcome: Outcome
    timing: Timing
    state_bytes_per_parameter: float
    weight_bytes_per_parameter: float = 4.0

    @property
    def best(self) -> int:
        """Index of the rate with the best mean validation accuracy; the smallest of equals."""
        return int(np.argmax(self.outcome.validation_accuracy.mean(axis=1)))

    @property
    def best_learning_rate(self) -> float:
        """The learning rate chosen on the validation split."""
        return float(self.learning_rates[self.best])

    @property
    def is_best_at_edge(self) -> bool:
        """Tells whether the best learning rate, of several, is the smallest or largest tried."""
        return len(self.learning_rates) > 1 and self.best in (0, len(self.learning_rates) - 1)

    @property
    def test_accuracies(self) -> np.ndarray:
        """Test accuracy of each seed at the best learning rate."""
        return self.outcome.test_accuracy[self.best]

    @property
    def test_accuracy(self) -> float:
        """Mean test accuracy at the best learning rate."""
        return float(self.test_accuracies.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of that mean over seeds; NaN for a single seed."""
        return float(standard_error(self.test_accuracies))

    @property
    def dead_at_peak(self) -> float:
        """Mean share of trained weights that the best rate could not move, stored in bfloat16."""
        return float(self.outcome.dead_in_bfloat16_at_peak[self.best].mean())

    @property
    def dead_at_hundredth(self) -> float:
        """The same for a hundredth of the best rate."""
        return float(self.outcome.dead_in_bfloat16_at_hundredth[self.best].mean())

    @property
    def good_band(self) -> Band:
        """The learning rates around the best with a mean validation accuracy within 0.01 of its."""
        accuracy = self.outcome.validation_accuracy.mean(axis=1)
        surplus = accuracy - (accuracy[self.best] - GOOD_WITHIN)
        log_rates = np.log(self.learning_rates)
        low, is_low_open = _crossing(
            log_rates[: self.best + 1][::-1], surplus[: self.best + 1][::-1]
        )
        high, is_high_open = _crossing(log_rates[self.best :], surplus[self.best :])
        return Band(math.exp(low), math.exp(high), is_low_open or is_high_open)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The results of `compare`.

    Attributes:
      task: the task.
      settings: steps, seeds, batch size and schedule.
      results: one for each rule, in the order asked for.
      against: the rule that the others are compared to; None where that is the best.
    """

    task: Task
    settings: dict[str, Any]
    results: tuple[Result, ...]
    against: str | None = None

    @property
    def baseline(self) -> Result:
        """The result that others are compared to: the rule asked for, or the best on test data."""
        if self.against is None:
            return max(self.results, key=lambda result: result.test_accuracy)
        return next(result for result in self.results if result.rule.name == self.against)

    def difference(self, result: Result) -> Difference:
        """A result's test accuracy minus the baseline's, paired by seed."""
        differences = result.test_accuracies - self.baseline.test_accuracies
        mean, half = float(differences.mean()), float(half_interval(differences))
        return Difference(mean, mean - half, mean + half)

    def records(self) -> list[dict[str, Any]]:
        """One record for each run: rule, learning rate, seed, loss, accuracies, divergence."""
        return [
            {
                "task": self.task.name,
                "rule": result.rule.name,
                "learning_rate": float(learning_rate),
                "seed": seed,
                "is_chosen": i == result.best,
                **{
                    name: values[i, seed].item()
                    for name, values in result.outcome._asdict().items()
                },
            }
            for result in self.results
            for i, learning_rate in enumerate(result.learning_rates)
            for seed in range(self.settings["seeds"])
        ]

    def summary(self) -> list[dict[str, Any]]:
        """One record for each rule: what the table shows."""
        return [
            {
                "rule": result.rule.name,
                "best_learning_rate": result.best_learning_rate,
                "is_best_at_edge": result.is_best_at_edge,
                "test_accuracy": result.test_accuracy,
                "standard_error": result.standard_error,
                "compared_to": self.baseline.rule.name,
                "difference": self.difference(result).mean,
                "difference_low": self.difference(result).low,
                "difference_high": self.difference(result).high,
                "good_learning_rates_low": result.good_band.low,
                "good_learning_rates_high": result.good_band.high,
                "is_band_open": result.good_band.is_open,
                "state_bytes_per_parameter": result.state_bytes_per_parameter,
                "weight_bytes_per_parameter": result.weight_bytes_per_parameter,
                "compile_seconds": result.timing.compile_seconds,
                "run_seconds": result.timing.run_seconds,
                "dead_in_bfloat16_at_peak": result.dead_at_peak,
                "dead_in_bfloat16_at_hundredth": result.dead_at_hundredth,
                "diverged_runs": int(result.outcome.diverged.sum()),
                "runs": result.outcome.diverged.size,
            }
            for result in self.results
        ]


def compare(
    task: str | Task = "digits",
    rules: Iterable[str | Rule] = DEFAULT_RULES,
    *,
    against: str | None = None,
    learning_rates: int = 10,
    steps: int = 600,
    seeds: int = 5,
    batch_size: int = 64,
    schedule: str = "cosine",
    on_progress: Callable[[str, int], None] | None = None,
) -> Comparison:
    """Trains each rule with each learning rate and seed, and chooses the rate on validation data.

    Everything but the learning rate is fixed by the rule. All rules get equally many learning
    rates, evenly spaced on a logarithmic scale over the rule's own range; and for each seed the
    same initial parameters and the same batches. The runs of a rule are one compiled program.

    Args:
      task: a name from ``TASKS``, or a :class:`~lion_jax.lab.tasks.Task`.
      rules: names from ``RULES`` or ``AMONG_REPLICAS``, or
        :class:`~lion_jax.lab.rules.Rule` objects.
      against: the name of one of the rules, which differences are taken to; None is the best.
      learning_rates: how many peak learning rates to try for each rule, at least 1.
      steps: training steps of a run, at least 1.
      seeds: runs for each learning rate, at least 1; a standard error needs 2.
      batch_size: examples in a batch, from 1 to the size of the training split, and a
        multiple of the replicas of each rule.
      schedule: ``"cosine"`` (a warm-up over a twentieth of the steps, then a decay to 0) or
        ``"constant"``.
      on_progress: called with a rule's name and the steps that its runs have done: 0 when it starts
        to compile, and ``steps`` at the end.

    Returns:
      The :class:`Comparison`.

    Raises:
      RequestError: an unknown name, or a number out of range; a ``ValueError``.
    """
    rules = choose_rules(rules, among_replicas=True)
    if against is not None:
        known("rule to compare against", against, {rule.name: rule for rule in rules})
    known("schedule", schedule, SCHEDULES)
    task = choose_task(task)
    check_whole("learning_rates", learning_rates, 1)
    check_whole("steps", steps, 1)
    check_whole("seeds", seeds, 1)
    check_whole("batch_size", batch_size, 1, len(task.train.y), "the training split")
    for rule in rules:
        if batch_size % rule.replicas:
            raise RequestError(
                f"batch_size must be a multiple of {rule.replicas}, the replicas of {rule.name} "
                f"that share a batch; got {batch_size}"
            )
    if learning_rates * seeds > MOST_RUNS:
        raise RequestError(
            f"learning_rates * seeds must be at most {MOST_RUNS}, since the runs of a rule are "
            f"trained side by side in memory; got {learning_rates * seeds}"
        )
    if steps * seeds * batch_size > MOST_EXAMPLES:
        raise RequestError(
            f"steps * seeds * batch_size must be at most {MOST_EXAMPLES}, since the order of the "
            f"examples is kept in memory; got {steps * seeds * batch_size}"
        )

    settings = {"steps": steps, "seeds": seeds, "batch_size": batch_size, "schedule": schedule}
    notify = on_progress or (lambda name, done: None)
    results = []
    for rule in rules:
        notify(rule.name, 0)
        rates = _rates(rule, learning_rates)
        outcome, timing = train(
            task, rule, rates, **settings, on_step=lambda t, rule=rule: notify(rule.name, int(t))
        )
        notify(rule.name, steps)
        results.append(Result(rule, rates, outcome, timing, *_stored_bytes(task, rule)))
    return Comparison(task, settings, tuple(results), against)


def choose_rules(rules: Iterable[str | Rule], *, among_replicas: bool = False) -> list[Rule]:
    """The rules of these names; refuses none, two of one name, and replicas unless allowed."""
    if isinstance(rules, str):
        raise RequestError(f"rules must be a list of names; got the string {rules!r}")
    possible = RULES | AMONG_REPLICAS if among_replicas else RULES
    rules = [r if isinstance(r, Rule) else possible[known("rule", r, possible)] for r in rules]
    names = [rule.name for rule in rules]
    if not rules:
        raise RequestError(f"rules must name at least one of {', '.join(possible)}; got none")
    if len(set(names)) < len(names):
        raise RequestError(f"rules must have different names; got {', '.join(names)}")
    shared = [rule.name for rule in rules if rule.replicas > 1]
    if shared and not among_replicas:
        raise RequestError(f"only `compare` trains rules of several replicas; got {shared[0]}")
    return rules


def choose_task(task: str | Task) -> Task:
    """The task of this name."""
    return task if isinstance(task, Task) else TASKS[known("task", task, TASKS)]()


def standard_error(values: np.ndarray) -> np.ndarray:
    """Standard error of the mean over the last axis; NaN for a single value."""
    count = values.shape[-1]
    if count == 1:
        return np.full(values.shape[:-1], np.nan)
    return values.std(axis=-1, ddof=1) / math.sqrt(count)


def half_interval(values: np.ndarray) -> np.ndarray:
    """Half the width of Student's 95% interval for the mean over the last axis."""
    return scipy.stats.t.ppf(0.975, max(values.shape[-1] - 1, 1)) * standard_error(values)


def _rates(rule: Rule, count: int) -> np.ndarray:
    """Rates evenly spaced on a logarithmic scale over the rule's range; a single one amid it."""
    low, high = rule.learning_rates
    return np.geomspace(low, high, count) if count > 1 else np.array([math.sqrt(low * high)])


def _crossing(log_rates: np.ndarray, surplus: np.ndarray) -> tuple[float, bool]:
    """The log rate at which the surplus falls to 0, and False; else the last log rate, and True."""
    for i in range(1, len(surplus)):
        if surplus[i] < 0:
            share = surplus[i - 1] / (surplus[i - 1] - surplus[i])
            return float(log_rates[i - 1] + share * (log_rates[i] - log_rates[i - 1])), False
    return float(log_rates[-1]), True


def _stored_bytes(task: Task, rule: Rule) -> tuple[float, float]:
    """Bytes of optimizer state and of weights, per parameter."""

    def bytes_of(tree: Any) -> float:  # int4 counts as half a byte, which a CPU does not pack
        return sum(x.size * jax.dtypes.itemsize_bits(x.dtype) / 8 for x in jax.tree.leaves(tree))

    params = jax.eval_shape(task.stored_in(rule.params_dtype).init, jax.random.key(0))
    state = jax.eval_shape(rule.make(lambda count: 1e-3, 1e-3).init, params)  # pyright: ignore
    count = sum(x.size for x in jax.tree.leaves(params))
    return bytes_of(state) / count, bytes_of(params) / count
