"""The figures of a step on a chip of a pod."""

import dataclasses
from typing import Any

from lion_jax.lab.cost.floors import Floors
from lion_jax.lab.cost.telling import Costs
from lion_jax.lab.cost.traffic import Collective, Traffic
from lion_jax.lab.cost.wires import Sent


@dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
class PodCost(Costs):
    """The cost of a step for each chip, counted in its compiled program.

    All bytes are of one chip and one step. Bytes stored, moved through HBM and temporary are also
    given per parameter that a chip holds; bytes sent are also given per parameter of the model.

    Attributes:
      rule: the rule's name.
      settings: model, topology, sharding and dtype.
      chips: number of chips of the slice; 1 with the sharding `single`.
      parameters: number of parameters of the model.
      held: parameters that a chip holds.
      stored_bytes: bytes of parameters and state, without padding.
      stored_in_tiles: the same with the padding of the tiles that arrays lie in.
      traffic: what the step moves through HBM, and its collectives.
      temporary_bytes: what the program needs beside its arguments and results.
      exchanges: each collective with what it sends.
      links_per_chip: outgoing links of a chip, the mean.
      floors: the least that the layout needs of each.
      coarse: what the layout splits over fewer chips than there are, and over how many: parameters
        by their paths with `fsdp`, leaves of the state with `zero` and `sign_gather`; those that
        take most of a chip first.
      text: the compiled program; empty once it was saved and loaded.
    """

    rule: str
    chips: int
    parameters: int
    held: int
    stored_bytes: float
    stored_in_tiles: float
    traffic: Traffic
    temporary_bytes: int
    exchanges: tuple[tuple[Collective, Sent], ...]
    links_per_chip: float
    floors: Floors
    coarse: dict[str, int]
    text: str = ""

    def _each(self) -> tuple["PodCost", ...]:
        return (self,)

    def _without_text(self) -> "PodCost":
        return dataclasses.replace(self, text="")

    @property
    def hbm_bytes(self) -> float:
        """Bytes read from HBM and written to it, in a step that takes the dearest branches."""
        return self.traffic.most.total

    @property
    def sent_bytes(self) -> float:
        """Bytes that a chip sends."""
        return sum(s.nbytes for _, s in self.exchanges)

    @property
    def hop_bytes(self) -> float:
        """Bytes that a chip sends, each times the links that it crosses."""
        return sum(s.hop_bytes for _, s in self.exchanges)

    @property
    def link_bytes(self) -> float:
        """Bytes that a link carries in one direction, the mean over all links."""
        return self.hop_bytes / self.links_per_chip if self.links_per_chip else 0.0

    def record(self) -> dict[str, Any]:
        """All figures under their names, in bytes per chip and step and per parameter."""
        cheapest = self.traffic.least.total
        return {
            "rule": self.rule,
            **self.settings,
            "chips": self.chips,
            "parameters": self.parameters,
            "parameters_per_chip": self.held,
            "stored_bytes": self.stored_bytes,
            "stored_bytes_in_tiles": self.stored_in_tiles,
            "stored_bytes_floor": self.floors.stored,
            "hbm_bytes": self.hbm_bytes,
            "hbm_bytes_cheapest_branches": cheapest,
            "hbm_bytes_in_tiles": self.traffic.most.in_tiles,
            "hbm_bytes_floor": self.floors.hbm,
            "temporary_bytes": self.temporary_bytes,
            "temporary_bytes_floor": self.floors.temporary,
            "sent_bytes": self.sent_bytes,
            "sent_bytes_floor": self.floors.sent,
            "hop_bytes": self.hop_bytes,
            "link_bytes": self.link_bytes,
            "stored_per_parameter": self.stored_bytes / self.held,
            "hbm_per_parameter": self.hbm_bytes / self.held,
            "hbm_per_parameter_cheapest_branches": cheapest / self.held,
            "temporary_per_parameter": self.temporary_bytes / self.held,
            "sent_per_parameter": self.sent_bytes / self.parameters,
            "link_per_parameter": self.link_bytes / self.parameters,
            "collectives": " ".join(sorted({c.kind for c, _ in self.exchanges})),
            "loops_of_unknown_length": len(self.traffic.unknown_loops),
        }
