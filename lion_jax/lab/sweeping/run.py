"""Sweeping: every rule tuned in every cell of tasks, sizes, batch sizes and lengths."""

import dataclasses
import itertools
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import jax

from lion_jax.lab import files, progress
from lion_jax.lab.arguments import names
from lion_jax.lab.choosing import choose_rules, choose_task
from lion_jax.lab.comparing.run import DEFAULT_RULES, MOST_TRIALS, described
from lion_jax.lab.errors import RequestError, check_whole, known
from lion_jax.lab.progress import OnProgress, Tell
from lion_jax.lab.provenance import provenance
from lion_jax.lab.report import RESULT, load
from lion_jax.lab.reporting import reporting
from lion_jax.lab.rules.rule import Rule
from lion_jax.lab.sweeping.cells import Cell, Place, Tuned
from lion_jax.lab.sweeping.report import Sweep
from lion_jax.lab.sweeping.tuning import Protocol, Work, tune
from lion_jax.lab.tasks.batches import choose_batch_size, most_seeds
from lion_jax.lab.tasks.task import Task
from lion_jax.lab.training import MOST_STEPS, SCHEDULES


@reporting
def sweep(
    tasks: str | Task | Iterable[str | Task] = "digits",
    rules: str | Rule | Iterable[str | Rule] = DEFAULT_RULES,
    *,
    against: str | None = None,
    sizes: int | Iterable[int] | None = None,
    batch_sizes: int | Iterable[int] | None = None,
    steps: int | Iterable[int] = 600,
    trials: int = 5,
    studies: int = 5,
    seeds: int = 5,
    first_seed: int = 0,
    extend: bool = False,
    schedule: str = "cosine",
    folder: str | Path | None = None,
    resume: bool = False,
    jobs: int | None = None,
    on_progress: OnProgress = progress.silent,
) -> Iterator[Sweep]:
    """Tunes each rule in each cell of tasks x sizes x batch sizes x steps, and compares them there.

    Every rule gets the same budget in every cell: `studies` times `trials` runs over its learning
    rate, its weight decay and what else it declares, quasi-random in the logarithm. A study has one
    seed, the same for all rules. Each study's best trial on validation data runs again on the seeds
    of all studies, and the best of those by its mean on `seeds` fresh seeds: the figures are the
    last ones, on test data. The median over studies of the best of their trials says how easy a
    rule is to tune, as in AlgoPerf.

    Args:
      tasks: one or several, as :func:`~lion_jax.lab.compare` takes them.
      rules: one or several, as :func:`~lion_jax.lab.compare` takes them. Each must declare what to
        tune beside its learning rate, as those in ``lab.RULES`` do.
      against: the name of the rule to compare the others with; None is the best.
      sizes: sizes of the model, at least 1, for tasks that take a `size`; None is the task's own.
      batch_sizes: as of :func:`~lion_jax.lab.compare`; None is one, 64.
      steps: one or several numbers of training steps.
      trials: runs of a study, at least 1.
      studies: how many, at least 1.
      seeds: fresh seeds for the chosen values, at least 1; an interval needs 2.
      first_seed: the first study's seed; another one gives an independent repetition.
      extend: whether to widen a range by a factor of ten and tune again, at most three times,
        while the best value is the smallest or largest tried.
      schedule: ``"cosine"`` or ``"constant"``.
      folder: a folder to save finished work in, so that nothing is lost.
      resume: whether to go on with what earlier calls left in `folder`, also for other cells.
      jobs: how many rules to train side by side; None is one for each core of a CPU.
      on_progress: called with a :class:`~lion_jax.lab.Progress` now and then; None shows bars on a
        terminal and lines in a notebook.

    Returns:
      The :class:`Sweep`.

    Raises:
      RequestError: an unknown name, a number out of range, a rule without ranges, a task without
        sizes or with too few examples, or a folder that holds a sweep with another budget; a
        ``ValueError``.

    References:
      Dahl et al., `Benchmarking Neural Network Training Algorithms
      <https://arxiv.org/abs/2306.07179>`_, 2023; and the external tuning ruleset of `AlgoPerf
      <https://github.com/mlcommons/algorithmic-efficiency>`_.
    """
    for name, value in {"trials": trials, "studies": studies, "seeds": seeds}.items():
        check_whole(name, value, 1, MOST_TRIALS, "since each is recorded")
    check_whole("first_seed", first_seed, 0)
    known("schedule", schedule, SCHEDULES)
    if jobs is not None:
        check_whole("jobs", jobs, 1)
    if resume and folder is None:
        raise RequestError("resume needs the folder of the interrupted run; got folder=None")
    protocol = Protocol(trials, studies, seeds, first_seed, extend, schedule)
    work = list(_work(tasks, rules, sizes, batch_sizes, steps, against, protocol))
    settings = protocol._asdict()
    done = _finished(settings, work, Path(folder)) if resume and folder is not None else []
    there = {(cell.place, result.rule) for cell in done for result in cell.results}
    missing = [item for item in work if (item.place, item.rule.name) not in there]
    report = Sweep(provenance=provenance(), settings=settings, cells=tuple(done), against=against)
    tell = progress.teller(on_progress, [item.name for item in missing])
    finished = _run_all(missing, protocol, tell, jobs or _cores())
    left = [item.name for item in missing]
    while True:
        report = dataclasses.replace(report, missing=tuple(left))
        if folder is not None and (report.cells or not (Path(folder) / RESULT).exists()):
            report.checkpoint(Path(folder))  # an earlier result stays until there is another
        yield report
        if not left:
            return
        item, result = next(finished)
        left.remove(item.name)
        report = dataclasses.replace(report, cells=_with(report.cells, work, item, result))


def _several(values: Any) -> list[Any]:
    """One or several values as a list."""
    if values is None or isinstance(values, str | int | float | Task | Rule):
        return [values]
    return list(values)


def _work(
    tasks: Any,
    rules: Any,
    sizes: Any,
    batch_sizes: Any,
    steps: Any,
    against: str | None,
    protocol: Protocol,
) -> Iterator[Work]:
    """Every rule in every place, all of them checked."""
    tasks = names(tasks) if isinstance(tasks, str) else _several(tasks)
    if not tasks:
        raise RequestError("tasks must name at least one; got none. Try digits")
    lengths = _several(steps)
    for length in lengths:
        check_whole("steps", length, 1, MOST_STEPS, "the largest of 32 bits")
    rules = names(rules) if isinstance(rules, str) else _several(rules)
    places = set()
    for name, size in itertools.product(tasks, _several(sizes)):
        task = choose_task(name) if size is None else choose_task(name, size=size)
        chosen_rules = choose_rules(rules, task, among_replicas=True)
        if against is not None:
            known("rule to compare against", against, {rule.name: rule for rule in chosen_rules})
        tuned = [rule.wholly_tuned() for rule in chosen_rules]
        words = [files.finite(described(task, rule)) for rule in tuned]
        for batch_size, length in itertools.product(_several(batch_sizes), lengths):
            place = Place(task.name, size, choose_batch_size(task, batch_size), length)
            if place in places:
                raise RequestError(f"each cell must be asked for once; got {place} twice")
            places.add(place)
            runs = protocol.first_seed + protocol.studies + protocol.seeds
            check_whole("first_seed + studies + seeds", runs, 1, *most_seeds(task, length))
            for rule, of_rule in zip(tuned, words, strict=True):
                if place.batch_size % rule.replicas:
                    raise RequestError(
                        f"batch_sizes must be multiples of {rule.replicas}, the replicas of "
                        f"{rule.name} that share a batch; got {place.batch_size}"
                    )
                yield Work(place, task, rule, of_rule)


def _run_all(
    work: list[Work], protocol: Protocol, tell: Tell, jobs: int
) -> Iterator[tuple[Work, Tuned]]:
    """Runs all that is asked for, several at a time, and gives each as it is finished."""
    if jobs == 1:
        yield from ((item, tune(item, protocol, tell)) for item in work)
        return
    lock = threading.Lock()

    def tell_one(*told: Any) -> None:
        with lock:
            tell(*told)

    pool = ThreadPoolExecutor(jobs)
    try:
        running: dict[Future[Tuned], Work] = {
            pool.submit(tune, item, protocol, tell_one): item for item in work
        }
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _with(cells: tuple[Cell, ...], work: list[Work], item: Work, result: Tuned) -> tuple[Cell, ...]:
    """The cells with one more result, in the order of the work."""
    order = {name: place for place, name in enumerate(w.name for w in work)}
    by_place = {cell.place: cell for cell in cells}
    cell = by_place.get(item.place) or Cell(item.place, item.task.described())
    others = [r for r in cell.results if r.rule != result.rule]
    ranked = sorted(
        [*others, result], key=lambda r: order.get(f"{cell.place}: {r.rule}", len(order))
    )
    by_place[item.place] = dataclasses.replace(cell, results=tuple(ranked))
    places = {place: number for number, place in enumerate(dict.fromkeys(w.place for w in work))}
    return tuple(sorted(by_place.values(), key=lambda cell: places.get(cell.place, len(places))))


def _finished(settings: dict[str, Any], work: list[Work], folder: Path) -> list[Cell]:
    """The cells that earlier sweeps with the same budget left in a folder.

    What changed since, a rule or a task, is left out; other cells stay.
    """
    if not (folder / RESULT).exists():
        return []
    earlier = load(folder)
    if not isinstance(earlier, Sweep):
        raise RequestError(f"{folder} holds a {type(earlier).__name__}, no sweep to resume")
    for name, value in settings.items():
        if earlier.settings.get(name) != value:
            raise RequestError(
                f"{folder} holds a sweep with another {name}, {earlier.settings.get(name)!r} "
                f"instead of {value!r}: give the same arguments, or another folder"
            )
    rules = {(item.place, item.rule.name): item.described for item in work}
    tasks = {item.place: item.task for item in work}
    kept = []
    for cell in earlier.cells:
        if cell.place in tasks and cell.task != files.finite(tasks[cell.place].described()):
            continue
        results = tuple(
            result
            for result in cell.results
            if rules.get((cell.place, result.rule), result.described) == result.described
        )
        if results:
            kept.append(dataclasses.replace(cell, results=results))
    return kept


def _cores() -> int:
    """The number of rules to train side by side: one for each core of a CPU."""
    if jax.default_backend() != "cpu":
        return 1
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
