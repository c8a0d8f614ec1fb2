"""The figures of a step on a chip of a pod, or on a GPU."""

import dataclasses
from typing import Any

from lion_jax.lab.cost.floors import Floors
from lion_jax.lab.cost.gpus import Gpu
from lion_jax.lab.cost.names import Generation, parse
from lion_jax.lab.cost.telling import Costs
from lion_jax.lab.cost.traffic import Collective, Traffic
from lion_jax.lab.cost.wires import Sent


@dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
class PodCost(Costs):
    """The cost of a step for each chip, counted in its compiled program.

    A GPU is a chip, too. All bytes are of one chip and one step. Bytes stored, moved through HBM
    and temporary are also given per parameter that a chip holds; bytes sent are also given per
    parameter of the model.

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
      links_per_chip: outgoing links of a chip, the mean; 1 for a GPU.
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
    def generation(self) -> Generation | Gpu:
        """The chips' generation."""
        return parse(self.settings["topology"])[0]

    @property
    def hosts(self) -> tuple[int, int]:
        """The number of hosts of GPUs, and that of GPUs on each."""
        hosts, per_host = (1, *parse(self.settings["topology"])[1])[-2:]
        return hosts, per_host

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

    @property
    def network_bytes(self) -> float:
        """Bytes that a GPU sends to other hosts."""
        return sum(s.network_bytes for _, s in self.exchanges)

    @property
    def nvlink_bytes(self) -> float:
        """Bytes that a GPU sends within its host."""
        return self.sent_bytes - self.network_bytes

    @property
    def network_floor(self) -> float:
        """The part of the floor of sent bytes that goes to other hosts."""
        hosts, _ = self.hosts
        return self.floors.sent * (hosts - 1) / (self.chips - 1) if self.chips > 1 else 0.0

    @property
    def kernels(self) -> int:
        """Kernels that a GPU launches in a step that takes the dearest branches."""
        return self.traffic.most.kernels

    @property
    def copies(self) -> int:
        """Operations that only copy from HBM to HBM."""
        return self.traffic.most.copies

    @property
    def copied_bytes(self) -> float:
        """Bytes through HBM of these copies."""
        return self.traffic.most.copied

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
            "copies": self.copies,
            "copied_bytes": self.copied_bytes,
            "stored_per_parameter": self.stored_bytes / self.held,
            "hbm_per_parameter": self.hbm_bytes / self.held,
            "hbm_per_parameter_cheapest_branches": cheapest / self.held,
            "temporary_per_parameter": self.temporary_bytes / self.held,
            "sent_per_parameter": self.sent_bytes / self.parameters,
            **(self._of_a_gpu() if isinstance(self.generation, Gpu) else self._of_a_slice()),
            "collectives": " ".join(sorted({c.kind for c, _ in self.exchanges})),
            "loops_of_unknown_length": len(self.traffic.unknown_loops),
        }

    def _of_a_slice(self) -> dict[str, float]:
        """Figures of the links of a torus."""
        return {
            "hop_bytes": self.hop_bytes,
            "link_bytes": self.link_bytes,
            "link_per_parameter": self.link_bytes / self.parameters,
        }

    def _of_a_gpu(self) -> dict[str, float]:
        """Figures of launches, and of the links within and between hosts."""
        return {
            "kernels": self.kernels,
            "small_kernels": self.traffic.most.small_kernels,
            "kernels_cheapest_branches": self.traffic.least.kernels,
            "nvlink_bytes": self.nvlink_bytes,
            "network_bytes": self.network_bytes,
            "nvlink_per_parameter": self.nvlink_bytes / self.parameters,
            "network_per_parameter": self.network_bytes / self.parameters,
        }
