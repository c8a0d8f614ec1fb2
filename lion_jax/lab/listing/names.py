"""The names that commands know, by kind."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import rich.box
from rich.table import Table

from lion_jax.lab.cost.gpus import GPUS, PER_HOST
from lion_jax.lab.cost.names import GENERATIONS
from lion_jax.lab.cost.published import MODELS
from lion_jax.lab.errors import RequestError
from lion_jax.lab.rules.catalogue import AMONG_REPLICAS, IN_FEWER_BYTES, IN_FLOAT32
from lion_jax.lab.rules.rule import Rule
from lion_jax.lab.tasks.catalogue import TASKS
from lion_jax.lab.tasks.task import Task


class Section(NamedTuple):
    """Names of a kind.

    Attributes:
      title: the kind of name.
      columns: the headings.
      rows: the cells, each row with a name first.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def names(self) -> list[str]:
        """The names alone."""
        return [row[0] for row in self.rows]

    def table(self) -> Table:
        """The names with their descriptions."""
        table = Table(
            title=self.title,
            title_justify="left",
            box=rich.box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        for name in self.columns:
            table.add_column(name, overflow="fold")  # a call longer than its column is broken
        for row in self.rows:
            table.add_row(*row)
        return table


def sections(kinds: Sequence[str]) -> Iterator[Section]:
    """The sections of some kinds."""
    if "tasks" in kinds:
        yield Section("Tasks", ("task", "what it is"), [(n, _task(m)) for n, m in TASKS.items()])
    if "rules" in kinds:
        rows = [
            (r.name, r.description, "{:g} to {:g}".format(*r.learning_rates), _decays(r))
            for r in IN_FLOAT32.values()
        ]
        columns = ("rule", "what it is", "learning\nrates", "weight decays\nin a sweep")
        yield Section("Rules", columns, rows)
        yield _rules("Rules in fewer bytes", IN_FEWER_BYTES)
        yield _rules("Rules that split a batch among replicas, for compare", AMONG_REPLICAS)
    if "models" in kinds:
        models = [(name, model.description) for name, model in MODELS.items()]
        yield Section("Models, for cost", ("model", "what it is"), models)
    if "topologies" in kinds:
        slices = [(f"{n}:{s}", f"TPU {n}") for n, of in GENERATIONS.items() for s in of.shapes]
        gpus = [(n, of.title) for n, of in GPUS.items()]
        gpus += [(f"{n}:{PER_HOST}", f"one host of {PER_HOST}") for n in GPUS]
        gpus += [(f"{n}:32x{PER_HOST}", f"32 hosts of {PER_HOST}") for n in GPUS]
        yield Section("Topologies, for cost", ("topology", "what it is"), slices + gpus)


def _rules(title: str, rules: Mapping[str, Rule]) -> Section:
    return Section(title, ("rule", "what it is"), [(r.name, r.description) for r in rules.values()])


def _decays(rule: Rule) -> str:
    """The weight decays that a sweep tries."""
    ranges = rule.tunable or {}
    return "{:g} to {:g}".format(*ranges["weight_decay"]) if "weight_decay" in ranges else "-"


def _task(make: Callable[[], Task]) -> str:
    """The description of a task, or the reason why this machine does not have it."""
    try:
        return make().description
    except RequestError as error:
        return str(error)
