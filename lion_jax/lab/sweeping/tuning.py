"""Tuning one rule in one place: studies of trials, a selection among their best, fresh seeds."""

from typing import Any, NamedTuple

import jax
import numpy as np

from lion_jax.lab.progress import Tell
from lion_jax.lab.rules.rule import Rule
from lion_jax.lab.sweeping.cells import Place, Tuned, best_of_each_study, chosen, edges
from lion_jax.lab.tasks.task import Task
from lion_jax.lab.trainer import Outcome, Timing, Trainer

MOST_WIDENINGS = 3
"""A rule's ranges are widened at most so often, each time by a factor of ten."""


class Work(NamedTuple):
    """One rule in one place."""

    place: Place
    task: Task
    rule: Rule
    described: dict[str, Any]

    @property
    def name(self) -> str:
        """The place and the rule in words."""
        return f"{self.place}: {self.rule.name}"


class Protocol(NamedTuple):
    """The budget of every rule in every place; see :func:`lion_jax.lab.sweep`."""

    trials: int
    studies: int
    seeds: int
    first_seed: int
    extend: bool
    schedule: str

    @property
    def of_studies(self) -> np.ndarray:
        """The seeds of the studies."""
        return self.first_seed + np.arange(self.studies)

    @property
    def fresh(self) -> np.ndarray:
        """The seeds on which nothing was chosen."""
        return self.first_seed + self.studies + np.arange(self.seeds)


def tune(work: Work, protocol: Protocol, tell: Tell) -> Tuned:
    """Tunes a rule in a place, and runs the values that it chose on fresh seeds."""
    metric, deciding = work.task.deciding
    is_up, rule, widened = deciding.direction == "up", work.rule, 0
    stages = _Stages(work, protocol, tell)
    while True:
        trials = rule.studies(protocol.studies, protocol.trials, protocol.first_seed)
        tuning = stages.run(0, trials, protocol.of_studies)
        candidates = best_of_each_study(trials, tuning, metric, is_up)
        selection = stages.run(1, candidates, protocol.of_studies)
        values = chosen(candidates, selection, metric, is_up)
        at_edge = edges(trials, values)
        if not (protocol.extend and at_edge and widened < MOST_WIDENINGS):
            break
        rule, widened = rule.widened(at_edge), widened + 1
    final = stages.run(
        2, {name: np.array([value]) for name, value in values.items()}, protocol.fresh
    )
    stages.end()
    return Tuned(
        rule=rule.name,
        described=work.described,
        trials=trials,
        tuning=tuning._replace(curve=tuning.curve[..., :0]),
        selection=selection._replace(curve=selection.curve[..., :0]),
        final=final._replace(curve=final.curve.mean(axis=1, keepdims=True)),
        timing=stages.timing,
        widened=widened,
    )


class _Stages:
    """The three stages of a rule in a place, which one compiled program serves."""

    def __init__(self, work: Work, protocol: Protocol, tell: Tell):
        """The stages, none of which has begun."""
        studies, self._steps = protocol.studies, work.place.steps
        # A CPU gains little from more side by side.
        at_once = (1, studies) if jax.default_backend() == "cpu" else None
        self._trainer = Trainer(
            work.task,
            work.rule,
            steps=self._steps,
            batch_size=work.place.batch_size,
            schedule=protocol.schedule,
            at_once=at_once,
        )
        runs = np.array([protocol.trials * studies, studies * studies, protocol.seeds])
        self._shares = runs / runs.sum()
        self._tell = lambda done: tell(work.name, done, self._steps)
        self._tell(0)
        self.timing = Timing(0.0, 0.0)

    def run(self, stage: int, trials: dict[str, np.ndarray], seeds: np.ndarray) -> Outcome:
        """The outcome of a stage: of trials on seeds, each seed with its own if they are 2-D."""
        own = {name: x if x.ndim == 2 else _on_all(x, len(seeds)) for name, x in trials.items()}
        before, share = self._shares[:stage].sum(), self._shares[stage]

        def on_step(done: int) -> None:
            self._tell(max(1, int(before * self._steps + share * done)))

        outcome, spent = self._trainer.run(own, seeds, on_step)
        self.timing = Timing(*map(sum, zip(self.timing, spent, strict=True)))
        return outcome

    def end(self) -> None:
        """Tells that all is done."""
        self._tell(self._steps)


def _on_all(values: np.ndarray, seeds: int) -> np.ndarray:
    """Some values, the same on all seeds: of shape (values, seeds)."""
    return np.repeat(values[:, None], seeds, axis=1)
