"""The learning-rate range test: one run whose learning rate grows until the loss diverges."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lion_jax.lab.comparison import choose_rules, choose_task
from lion_jax.lab.finder_checks import (
    TRY_OPTIMIZER,
    check_batches,
    check_counts,
    check_loss,
    check_optimizer,
    check_params,
    check_range,
)
from lion_jax.lab.finding import Finding, read
from lion_jax.lab.rules import Rule
from lion_jax.lab.tasks import Task
from lion_jax.lab.training import batch_indices, run_interruptibly

BEYOND = 10
"""The range tried reaches this many times beyond a rule's own, at both ends."""


def find_learning_rate(
    optimizer: Callable[[optax.Schedule], optax.GradientTransformation],
    loss: Callable[[Any, Any], jax.Array],
    params: optax.Params,
    batches: Any,
    *,
    low: float = 1e-6,
    high: float = 10.0,
) -> Finding:
    r"""Finds a learning rate for any model: one run whose learning rate grows at every step.

    .. math::

      \eta_t = \eta_\text{low} (\eta_\text{high} / \eta_\text{low})^{t / (T - 1)},
        \qquad t = 0, \dots, T - 1

    for :math:`T` steps, as many as there are batches. Smith's test lets it grow linearly; over
    decades only a logarithmic scale sees them all. The run is one compiled ``jax.lax.scan``.

    The suggestion is the learning rate at which the loss is lowest once it is smoothed, by an
    average that looks both ways with weights falling as :math:`e^{-|s - t| / w}`, about
    :math:`w = T / 20`. It looks ahead as well, so the rise that follows pulls it to the safe side.

    Args:
      optimizer: from a schedule of the learning rate to a transformation, for example
        ``lambda schedule: lion_jax.lion(schedule, weight_decay=0.1)``.
      loss: ``(params, batch) -> loss``, of shape (). What a step needs beside its examples, such as
        a key for dropout, is part of its batch.
      params: where the run starts; they stay as they are.
      batches: a tree of arrays whose first axis is the step, at least 40 long. Where the data fit
        into memory, batches of indices will do.
      low: the learning rate of the first step, in [1e-37, 1e38]; one at which nothing moves.
      high: that of the last, in the same range and > ``low``; one at which the loss diverges.

    Returns:
      A :class:`Finding` of one run. Its ``suggestion`` is None where the loss never falls, is not
      finite from the start, or still falls at the end; ``lion_jax.lab.finder_report`` says so in
      words, and draws it.

    Raises:
      RequestError: a range that is none, batches that do not agree or are too few; a
        ``ValueError``.
      TypeError: an ``optimizer`` that makes no transformation or ignores the schedule, a ``loss``
        that is no scalar, parameters or batches that are no tree of arrays.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import lion_jax
      >>> from lion_jax.lab import find_learning_rate
      >>> x = jax.random.normal(jax.random.key(0), (1000, 3))
      >>> y = x @ jnp.array([1.0, -2.0, 3.0])
      >>> finding = find_learning_rate(
      ...     lambda schedule: lion_jax.lion(schedule, weight_decay=0.1),
      ...     lambda params, rows: jnp.mean((x[rows] @ params - y[rows]) ** 2),
      ...     jnp.zeros(3),
      ...     jax.random.randint(jax.random.key(1), (200, 32), 0, 1000),
      ... )
      >>> print(f"{finding.suggestion:.1g}")
      0.1

    References:
      Smith, `Cyclical Learning Rates for Training Neural Networks
      <https://arxiv.org/abs/1506.01186>`_, 2017, Section 3.3.
    """
    check_optimizer(optimizer)
    check_params(params)
    steps = check_batches(batches)
    params, batches = jax.tree.map(jnp.asarray, (params, batches))
    check_range(low, high)
    check_loss(loss, params, batches)
    settings = {"low": low, "high": high, "steps": steps, "seeds": 1}

    def program(rates, params, batches):
        return _losses(optimizer, loss, params, batches, rates)[None]

    return _run(program, (params, batches), settings, "learning-rate range test", "")


def find(
    task: str | Task = "digits",
    rule: str | Rule = "lion",
    *,
    low: float | None = None,
    high: float | None = None,
    steps: int = 200,
    seeds: int = 3,
    batch_size: int = 64,
    on_progress: Callable[[str, int], None] = lambda name, done: None,
) -> Finding:
    """Finds a learning rate for a rule on a task; all seeds run side by side in one program.

    A seed decides the initial parameters and the order of the examples, as in
    :func:`~lion_jax.lab.compare`. See :func:`find_learning_rate` for the method.

    Args:
      task: a name from ``TASKS``, or a :class:`~lion_jax.lab.Task`.
      rule: a name from ``RULES``, or a :class:`~lion_jax.lab.Rule`.
      low: the learning rate of the first step, in [1e-37, 1e38]; None is a tenth of the rule's
        smallest.
      high: that of the last, in the same range and > ``low``; None is ten times the rule's largest.
      steps: how many, at least 40.
      seeds: runs, at least 1.
      batch_size: examples in a batch, from 1 to the size of the training split.
      on_progress: called with the rule's name and the steps done: 0, and ``steps`` at the end.

    Returns:
      A :class:`Finding` of ``seeds`` runs.

    Raises:
      RequestError: an unknown name, or a number out of range; a ``ValueError``.
    """
    (rule,) = choose_rules([rule])
    task = choose_task(task).stored_in(rule.params_dtype)
    low = rule.learning_rates[0] / BEYOND if low is None else low
    high = rule.learning_rates[1] * BEYOND if high is None else high
    check_range(low, high)
    check_counts(steps, seeds, batch_size, len(task.train.y))
    settings = {
        "task": task.name,
        "rule": rule.name,
        "low": low,
        "high": high,
        "steps": steps,
        "seeds": seeds,
        "batch_size": batch_size,
    }
    x, y = jnp.asarray(task.train.x), jnp.asarray(task.train.y)

    def program(rates):
        def one(seed):
            init_key, order_key = jax.random.split(jax.random.key(seed))
            return _losses(
                lambda schedule: rule.make(schedule, rates[-1]),
                lambda params, batch: task.loss(params, x[batch], y[batch]),
                task.init(init_key),
                batch_indices(order_key, len(y), steps, batch_size),
                rates,
            )

        return jax.vmap(one)(jnp.arange(seeds))

    on_progress(rule.name, 0)
    finding = _run(program, (), settings, f"{rule.name} on {task.name}", "nats")
    on_progress(rule.name, steps)
    return finding


def _losses(
    optimizer: Callable[[optax.Schedule], optax.GradientTransformation],
    loss: Callable[[Any, Any], jax.Array],
    params: optax.Params,
    batches: Any,
    rates: jax.Array,
) -> jax.Array:
    """The loss before each step, of shape (steps,)."""
    was_read = False

    def at(rate):
        def schedule(count):
            nonlocal was_read
            was_read = True
            return rate  # the step's own, whatever the optimizer counts: under accumulation, say

        return optax.with_extra_args_support(optimizer(schedule))

    def step(carry, inputs):
        params, state = carry
        rate, batch = inputs
        value, gradients = jax.value_and_grad(loss)(params, batch)
        updates, state = at(rate).update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), value

    _, losses = jax.lax.scan(step, (params, at(rates[0]).init(params)), (rates, batches))
    if not was_read:
        raise TypeError(
            f"optimizer must read the schedule that it gets; this one never does. {TRY_OPTIMIZER}"
        )
    return losses


def _run(
    program: Callable[..., jax.Array],
    arguments: tuple[Any, ...],
    settings: dict[str, Any],
    subject: str,
    loss_unit: str,
) -> Finding:
    rates = np.geomspace(settings["low"], settings["high"], settings["steps"])
    arguments = jnp.asarray(rates), *arguments
    compiled = jax.jit(program).lower(*arguments).compile()
    losses = np.asarray(run_interruptibly(compiled, *arguments), np.float64)
    readings = tuple(read(rates, row) for row in losses)
    return Finding(subject, loss_unit, settings, rates, losses, readings)
