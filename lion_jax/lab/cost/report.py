"""The result of `lion-jax cost`: the costs of several rules side by side."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from lion_jax.lab.cost.figures import PodCost
from lion_jax.lab.cost.telling import Costs


@dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
class PodCosts(Costs):
    """The costs of several rules, a sequence of :class:`PodCost`.

    Attributes:
      costs: one for each rule that was compiled, in the order asked for.
    """

    costs: tuple[PodCost, ...] = ()

    def __len__(self) -> int:
        """The number of costs."""
        return len(self.costs)

    def __getitem__(self, place: int) -> PodCost:
        """The cost at a place."""
        return self.costs[place]

    def __iter__(self) -> Iterator[PodCost]:
        """The costs in their order."""
        return iter(self.costs)

    def _each(self) -> tuple[PodCost, ...]:
        return self.costs

    def _without_text(self) -> "PodCosts":
        costs = tuple(dataclasses.replace(cost, text="") for cost in self.costs)
        return dataclasses.replace(self, costs=costs)

    @classmethod
    def from_document(cls, document: Any) -> Any:
        """The result of a document that :meth:`save` wrote, of several rules or of one alone."""
        if "costs" not in document:
            return PodCost.from_document(document)
        return super().from_document(document)


REPORT = PodCosts
