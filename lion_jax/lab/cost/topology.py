"""Slices of TPU pods by their names, described without a TPU."""

import dataclasses
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from lion_jax.lab.cost.names import parse, possible
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
            "libtpu is missing, the compiler for TPUs, which needs no TPU. On Linux, "
            "`uv run --with libtpu lion-jax cost ...` brings it along for one command; "
            "pip install 'lion-jax[pods]' keeps it, and then every program of this environment "
            "looks for a TPU, unless JAX_PLATFORMS=cpu is set"
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
            f"the compiler knows no topology {name!r} ({reason}); {possible(kind)}"
        ) from error
    devices = sorted(described.devices, key=lambda d: tuple(d.coords))
    mesh = Mesh(np.array(devices).reshape(extents), AXES[: len(extents)])
    return Slice(name, mesh, Torus(extents, generation.wraps(extents)))


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
