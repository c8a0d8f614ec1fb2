"""The learning-rate range test: one run whose learning rate grows until the loss diverges."""

import dataclasses
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from lion_jax.lab import progress
from lion_jax.lab.choosing import choose_rules, choose_task
from lion_jax.lab.errors import RequestError, check_rate, check_whole
from lion_jax.lab.finding.reading import LEAST_STEPS, read
from lion_jax.lab.finding.report import Finding, RangeTest
from lion_jax.lab.progress import OnProgress
from lion_jax.lab.provenance import provenance
from lion_jax.lab.reporting import reporting
from lion_jax.lab.rules.rule import PeakSchedule, Rule
from lion_jax.lab.tasks.batches import batches, choose_batch_size, most_seeds
from lion_jax.lab.tasks.task import Task
from lion_jax.lab.training import begin, run_interruptibly, seeded, step

MOST_STEPS = 10**6
BEYOND = 10
"""The range tried reaches this many times beyond a rule's own, at both ends."""


@reporting
def find(
    task: str | Task = "digits",
    rules: str | Rule | Iterable[str | Rule] = "lion",
    *,
    low: float | None = None,
    high: float | None = None,
    steps: int = 200,
    seeds: int = 3,
    batch_size: int | None = None,
    on_progress: OnProgress = progress.silent,
) -> Iterator[Finding]:
    r"""Finds a learning rate: one run whose learning rate grows at every step.

    .. math::

      \eta_t = \eta_\text{low} (\eta_\text{high} / \eta_\text{low})^{t / (T - 1)},
        \qquad t = 0, \dots, T - 1

    for :math:`T` steps. Smith's test lets it grow linearly; over decades only a logarithmic scale
    sees them all. All seeds run side by side in one program.

    The suggestion is the learning rate at which the loss is lowest once it is smoothed, by an
    average that looks both ways with weights falling as :math:`e^{-|s - t| / w}`, about
    :math:`w = T / 20`. It looks ahead as well, so the rise that follows pulls it to the safe side.

    Args:
      task: a name from ``lab.TASKS``, a :class:`~lion_jax.lab.Task`, or ``"mine.py:task"``.
      rules: one or several, as :func:`~lion_jax.lab.compare` takes them. What a rule tunes beside
        its learning rate stays at the middle of its range.
      low: the learning rate of the first step, in [1e-37, 1e38], one at which nothing moves; None
        is a tenth of the rule's smallest.
      high: that of the last, in the same range and > ``low``, one at which the loss diverges; None
        is ten times the rule's largest.
      steps: how many, at least 40.
      seeds: runs, at least 1. A seed decides the initial parameters and the order of the examples,
        as in :func:`~lion_jax.lab.compare`.
      batch_size: examples in a batch; None is 64, or all examples if they are fewer.
      on_progress: called with a :class:`~lion_jax.lab.Progress` now and then; None shows bars on a
        terminal and lines in a notebook.

    Returns:
      A :class:`Finding`. A suggestion is None where the loss never falls, is not finite from the
      start, or still falls at the end; :meth:`Finding.lines` says which.

    Raises:
      RequestError: an unknown name, a number out of range, a rule that ignores its learning rate;
        a ``ValueError``.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from lion_jax import lab
      >>> x = jax.random.normal(jax.random.key(0), (2000, 3))
      >>> data = lab.split((x, x @ jnp.array([1.0, -2.0, 3.0])))
      >>> def loss(w, batch, key):
      ...     return jnp.mean((batch[0] @ w - batch[1]) ** 2)
      >>> task = lab.Task(lambda key: jnp.zeros(3), loss, *data)
      >>> print(f"{lab.find(task, 'lion', seeds=1, batch_size=32).suggestion:.1g}")
      0.1

    References:
      Smith, `Cyclical Learning Rates for Training Neural Networks
      <https://arxiv.org/abs/1506.01186>`_, 2017, Section 3.3.
    """
    task = choose_task(task)
    chosen = choose_rules(rules, task)
    check_whole("steps", steps, LEAST_STEPS, MOST_STEPS, "since every loss is kept")
    check_whole("seeds", seeds, 1, *most_seeds(task, steps))
    size = choose_batch_size(task, batch_size)
    ranges = {rule.name: _range(rule, low, high) for rule in chosen}
    found = Finding(
        provenance=provenance(),
        settings={"steps": steps, "seeds": seeds, "batch_size": size},
        missing=tuple(ranges),
        task=task.described(),
    )
    tell = progress.teller(on_progress, list(ranges))
    yield found
    for rule in chosen:
        tell(rule.name, 0, steps)
        rates = np.geomspace(*ranges[rule.name], steps)
        losses = _losses(task, rule, rates, seeds, size)
        tell(rule.name, steps, steps)
        readings = tuple(read(rates, row) for row in losses)
        tests = {**found.tests, rule.name: RangeTest(rule.described(), rates, losses, readings)}
        found = dataclasses.replace(found, tests=tests, missing=found.missing[1:])
        yield found


def _range(rule: Rule, low: float | None, high: float | None) -> tuple[float, float]:
    low = rule.learning_rates[0] / BEYOND if low is None else low
    high = rule.learning_rates[1] * BEYOND if high is None else high
    check_rate("low", low)
    check_rate("high", high)
    if not low < high:
        raise RequestError(f"low must be less than high; got low={low:g} and high={high:g}")
    return low, high


def _losses(task: Task, rule: Rule, rates: np.ndarray, seeds: int, size: int) -> np.ndarray:
    """The loss before each step, of shape (seeds, steps)."""
    task = task.stored_in(rule.params_dtype)
    tuned = {name: rule.middle[name] for name in rule.tuned}
    steps = len(rates)

    def at(rate, peak):  # the step's own, whatever the optimizer counts: under accumulation, say
        return rule.on(PeakSchedule(peak, lambda count: rate), **tuned)

    def program(rates):
        numbers = jnp.arange(seeds)
        keys, feed = seeded(numbers), batches(task, numbers, steps, size)
        params, state = jax.vmap(task.start)(keys.init)
        tx = at(rates[0], rates[-1])
        runs = jax.vmap(lambda p, s: begin(task, rule, tx, p, s))(params, state)

        def advance(carry, inputs):
            runs, place = carry
            t, rate = inputs
            place, batch = feed.next(place)
            tx = at(rate, rates[-1])

            def one(run, batch, key):
                return step(task, rule, tx, run, batch, jax.random.fold_in(key, t))

            runs, losses = jax.vmap(one)(runs, batch, keys.noise)
            return (runs, place), losses

        carry = runs, feed.start(keys.order)
        return jax.lax.scan(advance, carry, (jnp.arange(steps), rates))[1].T

    rates = rates.astype(np.float32)
    compiled = jax.jit(program).lower(rates).compile()
    return np.asarray(run_interruptibly(compiled, rates), np.float64)
