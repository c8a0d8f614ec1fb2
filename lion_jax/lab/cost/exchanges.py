"""Sentences and records of the exchanges between chips in a step."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lion_jax.lab.cost.gpus import Gpu

if TYPE_CHECKING:
    from lion_jax.lab.cost.figures import PodCost


def sentences(cost: "PodCost") -> Iterator[str]:
    """A line for each kind, type and size of group, those that send most first."""
    device = cost.generation.device
    alike: dict[Any, list[float]] = {}
    for collective, sent in cost.exchanges:
        key = collective.kind, "/".join(collective.dtypes), sent.group_size
        sums = alike.setdefault(key, [0, 0.0, 0.0, 0.0])
        figures = collective.times, sent.nbytes, sent.hop_bytes, sent.network_bytes
        for i, value in enumerate(figures):
            sums[i] += value
    for (kind, dtype, group), (times, nbytes, hops, network) in sorted(
        alike.items(), key=lambda item: -item[1][1]
    ):
        among = "in pairs" if kind == "collective-permute" else f"among {group} {device}s"
        ways = f"{hops / nbytes if nbytes else 0:.2f} links crossed"
        if isinstance(cost.generation, Gpu):
            parts = {"NVLink": nbytes - network, "the network": network}
            ways = " and ".join(f"{_bytes(n)} by {way}" for way, n in parts.items() if n)
        yield f"{times} {kind} of {dtype} {among}: {_bytes(nbytes)} sent by each {device}, {ways}."


def assumptions(cost: "PodCost") -> Iterator[str]:
    """A line on the links between GPUs, of which the program says nothing."""
    gpu, (hosts, per_host) = cost.generation, cost.hosts
    if not isinstance(gpu, Gpu) or not cost.sent_bytes:
        return
    network = (
        f", and between the {hosts} hosts a network, assumed to take {_rate(gpu.network)} from "
        "each GPU. A group on several hosts reduces and gathers within each host first, then "
        "between the GPUs of one rank"
        if hosts > 1
        else ""
    )
    yield (
        f"Links are a model: NVLink's switch joins the {per_host} GPUs of a host, "
        f"{_rate(gpu.nvlink)} from each{network}. Rates are of data sheets, in one direction."
    )


def times(cost: "PodCost") -> Iterator[str]:
    """A line on the time for which the links between GPUs are busy at the rates assumed.

    Times below 10 µs are left out: latency, which is not counted, takes as long.
    """
    gpu = cost.generation
    if not isinstance(gpu, Gpu):
        return
    ways = (
        ("NVLink", cost.nvlink_bytes, gpu.nvlink),
        ("the network", cost.network_bytes, gpu.network),
    )
    busy = [f"{way} for {1e3 * n / rate:.3g} ms" for way, n, rate in ways if n / rate >= 1e-5]
    if busy:
        yield f"at the rates below a step occupies {' and '.join(busy)}."


def records(cost: "PodCost") -> list[dict[str, Any]]:
    """A record for each collective."""
    return [
        {
            "kind": collective.kind,
            "dtypes": collective.dtypes,
            "shapes": [x.dims for x in collective.operands][:100],
            "operand_bytes": collective.operand_bytes,
            "times": collective.times,
            "group_size": sent.group_size,
            "sent_bytes": sent.nbytes,
            "hop_bytes": sent.hop_bytes,
            "network_bytes": sent.network_bytes,
            "source": collective.source,
        }
        for collective, sent in cost.exchanges
    ]


def _bytes(n: float) -> str:
    for unit, value in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= value:
            return f"{n / value:.3g} {unit}"
    return f"{n:.3g} B"


def _rate(n: float) -> str:
    return f"{n / 1e9:g} GB/s"
