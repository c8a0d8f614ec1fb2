"""Slices of TPU pods and hosts of GPUs by their names, described without them."""

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from lion_jax._installation import to_install, to_run_with
from lion_jax.lab.cost.gpus import Gpu
from lion_jax.lab.cost.names import Generation, parse, possible
from lion_jax.lab.cost.wires import Links, linked
from lion_jax.lab.errors import RequestError

# The compiler asks the machine what it runs on unless told that there is no TPU.
_NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing runs on a TPU: several may compile at once
}
# Without CUDA's libraries jax refuses the plugin that holds the compiler, unless told not to.
_NO_GPU = {"JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"}
_PLUGINS = ("cuda13", "cuda12")
"""The compiler for GPUs, of which each consists of two packages, `plugin` and `pjrt`."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """Described chips.

    Attributes:
      name: such as `v5e:16x16` or `h100:8`.
      mesh: the chips in the order of their coordinates, with an axis for each dimension; for GPUs
        on several hosts those of a host, and then the hosts.
      links: how they are linked.
      platform: `tpu` or `gpu`.
    """

    name: str
    mesh: Mesh
    links: Links
    platform: str

    @property
    def chips(self) -> int:
        """The number of chips."""
        return self.mesh.devices.size


def describe(name: str) -> Topology:
    """Describes chips to their compiler.

    Args:
      name: a generation of TPUs and a grid of chips, such as ``"v5e:16x16"`` or ``"v5p:8x8x8"``, or
        a GPU and how many, ``"h100"``, ``"h100:8"`` or ``"h100:32x8"``.

    Raises:
      RequestError: no such chips, or their compiler is missing.
    """
    generation, extents = parse(name)
    if isinstance(generation, Gpu):
        devices = _gpus(name, generation, extents)
    else:
        devices = _slice(name, generation, extents)
    mesh, links = Mesh(devices, generation.axes(extents)), linked(generation, extents)
    return Topology(name, mesh, links, generation.platform)


def _slice(name: str, generation: Generation, extents: tuple[int, ...]) -> np.ndarray:
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise RequestError(
            "libtpu is missing, the compiler for TPUs, which needs no TPU; "
            + _remedy("pods", ["libtpu"], name)
        )
    try:
        with _told(_NO_TPU):
            described = topologies.get_topology_desc(
                topology_name=name, platform="tpu", **generation.options
            )
    except Exception as error:
        kind = name.partition(":")[0]
        raise RequestError(
            f"the compiler knows no topology {name!r} ({_reason(error)}); {possible(kind)}"
        ) from error
    devices = sorted(described.devices, key=lambda d: tuple(d.coords))
    return np.array(devices).reshape(extents)


def _gpus(name: str, gpu: Gpu, extents: tuple[int, ...]) -> np.ndarray:
    plugin = _plugin(name)
    hosts, per_host = (1, *extents)[-2:]
    request = {
        "topology_name": gpu.title,
        "platform": "cuda",
        "target_config": gpu.target,
        "topology": f"1x{hosts}x{per_host}",  # slices, hosts, GPUs on each host
    }
    try:
        with _told(_NO_GPU):
            try:
                described = topologies.get_topology_desc(**request)
            except NotImplementedError:  # jax has started, and refused the plugin then
                importlib.import_module(f"jax_plugins.{plugin}").initialize()
                described = topologies.get_topology_desc(**request)
    except Exception as error:
        raise RequestError(
            f"the compiler cannot describe {name!r} ({_reason(error)}). Set JAX_PLATFORMS=cpu "
            "before jax is imported"
        ) from error
    devices = np.array(sorted(described.devices, key=lambda d: d.id))
    return devices.reshape(extents).T


def _plugin(name: str) -> str:
    """The module of the compiler for GPUs, found to be of the installed jaxlib's version."""
    needed = importlib.metadata.version("jaxlib")
    wrong = []
    for plugin in _PLUGINS:
        packages = f"jax-{plugin}-plugin", f"jax-{plugin}-pjrt"
        versions = [_version(package) for package in packages]
        if versions == [needed, needed]:
            return f"xla_{plugin}"
        pairs = zip(packages, versions, strict=True)
        wrong += [f"{package} is {v or 'missing'}" for package, v in pairs if any(versions)]
    problem = f"is of another version than jaxlib {needed} ({', '.join(wrong)})"
    wheels = f"jax-cuda13-plugin=={needed}", f"jax-cuda13-pjrt=={needed}"
    raise RequestError(
        f"the compiler for GPUs, which needs no GPU, {problem if wrong else 'is missing'}; "
        + _remedy("gpus", wheels, name)
    )


def _remedy(extra: str, wheels: Sequence[str], name: str) -> str:
    """A remedy for a missing compiler; or the fact that none is made for this system."""
    here = f"{platform.system()} on {platform.machine()}"
    if here != "Linux on x86_64":
        return f"it is made for Linux on x86_64, and this is {here}"
    once = to_run_with(wheels, "cost", "--topology", name)
    lent = f", or for one command: {once}" if once else ""
    return (
        f"try: {to_install(extra)}{lent}. Once it is installed, every program of this environment "
        "looks for such chips first, unless JAX_PLATFORMS=cpu is set"
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:160]


@contextmanager
def _told(environment: Mapping[str, str]) -> Iterator[None]:
    """Variables that a compiler reads when it is loaded; those that the user has set stay."""
    missing = environment.keys() - os.environ.keys()
    os.environ.update({variable: environment[variable] for variable in missing})
    try:
        yield
    finally:
        for variable in missing:
            os.environ.pop(variable, None)
