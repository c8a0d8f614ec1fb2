"""Shardings, dtypes and topologies by name; imports no jax."""

import dataclasses
from typing import Any, ClassVar

from lion_jax.lab.cost import gpus
from lion_jax.lab.cost.gpus import GPUS, Gpu
from lion_jax.lab.errors import RequestError

DTYPES = ("float32", "bfloat16")
SHARDINGS = {
    "single": "one chip alone",
    "data": "parameters and state on every chip; each chip has gradients of its own part of the "
    "batch, which are averaged in float32",
    "fsdp": "parameters, gradients and state split over all chips; only the step is counted",
    "zero": "as data, but the state is split over the chips (ZeRO-1): each updates its part, and "
    "the new parameters are gathered",
    "vote": "as data, but each chip has a momentum of its own, and a majority vote of signs "
    "replaces the average of gradients; lion only",
    "sign_gather": "as zero, but signs are gathered instead of parameters; lion only",
}
SIGN_SHARDINGS = ("vote", "sign_gather")
"""The shardings in which the transformation itself exchanges what chips need of each other."""


@dataclasses.dataclass(frozen=True)
class Generation:
    """A generation of TPUs.

    Attributes:
      shapes: of slices that Cloud TPU offers, each a grid of chips.
      largest: chips along each dimension of a whole pod.
      options: what the compiler needs to take a chip for one device.
    """

    shapes: tuple[str, ...]
    largest: tuple[int, ...]
    options: dict[str, str] = dataclasses.field(default_factory=dict)

    platform: ClassVar[str] = "tpu"
    device: ClassVar[str] = "chip"

    def axes(self, extents: tuple[int, ...]) -> tuple[str, ...]:
        """Names of a mesh's axes, one for each dimension of the slice."""
        return ("x", "y", "z")[: len(extents)]

    def wraps(self, extents: tuple[int, ...]) -> tuple[bool, ...]:
        """Tells which dimensions are rings: in 2-D the full ones, in 3-D all if 4 divides each."""
        if len(self.largest) == 2:
            return tuple(n == most for n, most in zip(extents, self.largest, strict=True))
        return (all(n % 4 == 0 for n in extents),) * len(extents)


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16")
_DEEP = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", *_CUBES)
GENERATIONS = {
    "v5e": Generation(_FLAT, (16, 16)),
    "v6e": Generation(_FLAT, (16, 16)),
    "v5p": Generation((*_DEEP, "16x16x24"), (16, 20, 28)),
    "v4": Generation(_DEEP, (16, 16, 16), {"chip_config_name": "megacore"}),
}


def parse(name: Any) -> tuple[Generation | Gpu, tuple[int, ...]]:
    """A topology's generation and extents, refused where no pod or host has them.

    Extents are a slice's grid, the number of GPUs of a host, or the numbers of hosts and of GPUs
    on each.
    """
    kind, _, shape = name.partition(":") if isinstance(name, str) else ("", "", "")
    if kind in GPUS:
        return gpus.parse(name)
    if kind not in GENERATIONS:
        largest = ", ".join(f"{kind}:{of.shapes[-1]}" for kind, of in GENERATIONS.items())
        several = "h100:8 on one host, h100:32x8 on 32"
        raise RequestError(
            f"unknown topology {name!r}. Possible: {largest}, {', '.join(GPUS)} ({several})"
        )
    generation = GENERATIONS[kind]
    parts = shape.split("x")
    fits = len(parts) == len(generation.largest) and all(p.isdecimal() and int(p) for p in parts)
    extents = tuple(int(p) for p in parts) if fits else ()
    # Slices may lie along any dimension, so the sorted extents decide.
    if not fits or any(
        n > most for n, most in zip(sorted(extents), sorted(generation.largest), strict=True)
    ):
        raise RequestError(f"topology must be a slice of {kind}; got {name!r}; {possible(kind)}")
    return generation, extents


def possible(kind: str) -> str:
    """The slices that a generation offers, for an error."""
    return f"possible: {', '.join(f'{kind}:{shape}' for shape in GENERATIONS[kind].shapes)}"
