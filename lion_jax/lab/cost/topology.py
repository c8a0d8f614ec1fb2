"""Slices of TPU pods by their names, described without a TPU."""

import dataclasses
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from lion_jax.lab.cost.wires import Torus
from lion_jax.lab.errors import RequestError

AXES = ("x", "y", "z")
"""The names of a mesh's axes, one for each dimension of the slice."""

# The compiler asks the machine what it runs on unless told that there is no TPU.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing runs on a TPU: several may compile at once
}


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


@dataclasses.dataclass(frozen=True)
class Slice:
    """A described slice of a pod.

    Attributes:
      name: such as `v5e:16x16`.
      mesh: its chips in the order of their coordinates, with an axis for each dimension.
      torus: how they are linked.
    """

    name: str
    mesh: Mesh
    torus: Torus

    @property
    def chips(self) -> int:
        """The number of chips."""
        return self.mesh.devices.size


def describe(name: str) -> Slice:
    """Describes a slice to the compiler.

    Args:
      name: a generation and a grid of chips, such as ``"v5e:16x16"`` or ``"v5p:8x8x8"``.

    Raises:
      RequestError: no such slice, or libtpu is missing.
    """
    generation, extents = parse(name)
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise RequestError(
            "libtpu is missing, the compiler for TPUs, which needs no TPU; "
            'try: pip install "lion-jax[pods]" (on Linux)'
        )
    try:
        with _told_that_there_is_no_tpu():
            described = topologies.get_topology_desc(
                topology_name=name, platform="tpu", **generation.options
            )
    except Exception as error:
        reason = str(error).strip().partition("\n")[0][:160]
        kind = name.partition(":")[0]
        raise RequestError(
            f"the compiler knows no topology {name!r} ({reason}); {_shapes(kind)}"
        ) from error
    devices = sorted(described.devices, key=lambda d: tuple(d.coords))
    mesh = Mesh(np.array(devices).reshape(extents), AXES[: len(extents)])
    return Slice(name, mesh, Torus(extents, generation.wraps(extents)))


def parse(name: Any) -> tuple[Generation, tuple[int, ...]]:
    """A slice's generation and grid, refused where no pod has it."""
    kind, _, shape = name.partition(":") if isinstance(name, str) else ("", "", "")
    if kind not in GENERATIONS:
        raise RequestError(f"unknown topology {name!r}. {_possible()}")
    generation = GENERATIONS[kind]
    parts = shape.split("x")
    fits = len(parts) == len(generation.largest) and all(p.isdecimal() and int(p) for p in parts)
    extents = tuple(int(p) for p in parts) if fits else ()
    # Slices may lie along any dimension, so the sorted extents decide.
    if not fits or any(
        n > most for n, most in zip(sorted(extents), sorted(generation.largest), strict=True)
    ):
        raise RequestError(f"topology {name!r} is no slice of {kind}; {_shapes(kind)}")
    return generation, extents


@contextmanager
def _told_that_there_is_no_tpu() -> Iterator[None]:
    """The variables that the compiler reads when it is loaded; what the user has set stays."""
    missing = _ENVIRONMENT.keys() - os.environ.keys()
    os.environ.update({variable: _ENVIRONMENT[variable] for variable in missing})
    try:
        yield
    finally:
        for variable in missing:
            os.environ.pop(variable, None)


def _shapes(kind: str) -> str:
    return f"possible: {', '.join(f'{kind}:{shape}' for shape in GENERATIONS[kind].shapes)}"


def _possible() -> str:
    return f"Possible: {', '.join(f'{k}:{g.shapes[-1]}' for k, g in GENERATIONS.items())}"
