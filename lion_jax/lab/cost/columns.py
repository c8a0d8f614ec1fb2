"""The columns of the table of costs, for slices of pods and for GPUs."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lion_jax.lab.cost.figures import PodCost

_FLOOR = (
    "Floor: the least possible, with parameters, gradients and state read once, parameters and "
    "state written once, and the best exchange."
)


class Column(NamedTuple):
    """A column.

    Attributes:
      title: its heading.
      figure: its cell in the row of a cost.
      floor: its cell in the row of the floors below.
    """

    title: str
    figure: "Callable[[PodCost], str]"
    floor: "Callable[[PodCost], str]"


class Layout(NamedTuple):
    """The columns of a platform, and the caption that explains them."""

    columns: tuple[Column, ...]
    caption: str


_MOVED = (
    Column(
        "stored",
        lambda cost: f"{cost.stored_bytes / cost.held:.2f}",
        lambda cost: f"{cost.floors.stored / cost.held:.2f}",
    ),
    Column(
        "HBM",
        lambda cost: f"{cost.hbm_bytes / cost.held:.2f}",
        lambda cost: f"{cost.floors.hbm / cost.held:.2f}",
    ),
)


def _stored(title: str) -> Column:
    return Column(
        title,
        lambda cost: f"{cost.stored_bytes / 1e6:.2f}",
        lambda cost: f"{cost.floors.stored / 1e6:.2f}",
    )


def _cheapest(title: str) -> Column:
    return Column(title, lambda cost: f"{cost.traffic.least.total / cost.held:.2f}", lambda _: "")


def _temporary(title: str) -> Column:
    return Column(
        title,
        lambda cost: f"{cost.temporary_bytes / cost.held:.2f}",
        lambda cost: f"{cost.floors.temporary / cost.held:.2f}",
    )


def _on_a_link_at_best(cost: "PodCost") -> str:
    links = cost.links_per_chip
    return f"{cost.floors.sent / cost.parameters / links:.3g}" if links else "0"


def _kernels(cost: "PodCost") -> str:
    launched = cost.traffic.most
    return f"{launched.kernels - launched.small_kernels}+{launched.small_kernels}"


_OF_SLICES = Layout(
    (
        _stored("MB/chip"),
        *_MOVED,
        _cheapest("cheapest"),
        _temporary("temporary"),
        Column(
            "sent",
            lambda cost: f"{cost.sent_bytes / cost.parameters:.3g}",
            lambda cost: f"{cost.floors.sent / cost.parameters:.3g}",
        ),
        Column(
            "on a link",
            lambda cost: f"{cost.link_bytes / cost.parameters:.3g}",
            _on_a_link_at_best,
        ),
    ),
    "Stored, HBM and temporary: bytes of a chip, divided by the parameters that it holds. HBM: "
    "bytes through memory in a step; cheapest: in a step that takes every shorter branch. Sent: "
    "bytes that a chip sends, divided by all parameters. On a link: sent bytes times the links "
    f"they cross, divided by a chip's outgoing links. {_FLOOR}",
)
_OF_GPUS = Layout(
    (
        _stored("MB/GPU"),
        *_MOVED,
        _cheapest("least"),
        _temporary("temp."),
        Column("kernels", _kernels, lambda _: ""),
        Column(
            "NVLink",
            lambda cost: f"{cost.nvlink_bytes / cost.parameters:.2g}",
            lambda cost: f"{(cost.floors.sent - cost.network_floor) / cost.parameters:.2g}",
        ),
        Column(
            "network",
            lambda cost: f"{cost.network_bytes / cost.parameters:.2g}",
            lambda cost: f"{cost.network_floor / cost.parameters:.2g}",
        ),
    ),
    "Stored, HBM and temporary: bytes of a GPU, divided by the parameters that it holds. HBM: "
    "bytes through memory in a step; least: in a step that takes every shorter branch. Kernels: "
    "launches in a step, + those that move less than 1 kB. NVLink and network: bytes that a GPU "
    f"sends within its host and to others, divided by all parameters. {_FLOOR}",
)
LAYOUTS = {"tpu": _OF_SLICES, "gpu": _OF_GPUS}
