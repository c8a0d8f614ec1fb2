"""NVIDIA GPUs by their names, with the figures of their data sheets; imports no jax."""

import dataclasses
from typing import ClassVar

from lion_jax.lab.errors import RequestError

PER_HOST = 8
"""GPUs of a DGX or HGX host, which NVLink and its switches join."""
MOST_HOSTS = 1024


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU, as its data sheet and CUDA's table of compute capabilities have it.

    Rates are bytes per second in one direction. The network is no part of a GPU: it is assumed to
    be that of NVIDIA's DGX hosts, which have a network card for each GPU.

    Attributes:
      title: what XLA calls it.
      capability: CUDA compute capability.
      cores: streaming multiprocessors.
      fpus: units for float32 on each of them.
      shared: bytes of shared memory on each of them.
      l2: bytes of the cache.
      clock: GHz.
      memory: bytes.
      bandwidth: of memory.
      nvlink: to other GPUs of the host.
      network: to other hosts.
    """

    title: str
    capability: tuple[int, int]
    cores: int
    fpus: int
    shared: int
    l2: int
    clock: float
    memory: int
    bandwidth: float
    nvlink: float
    network: float

    platform: ClassVar[str] = "gpu"
    device: ClassVar[str] = "GPU"

    def axes(self, extents: tuple[int, ...]) -> tuple[str, ...]:
        """Names of a mesh's axes: `gpu` within a host, then `host` where there are several.

        The functions of `lion_jax.distributed` exchange along the axes in the mesh's order, so that
        the fast links come first.
        """
        return ("gpu", "host")[: len(extents)]

    @property
    def target(self) -> str:
        """The GPU as XLA's compiler takes it, the text of a `GpuTargetConfigProto`."""
        major, minor = self.capability
        return f"""
            gpu_device_info {{
              threads_per_block_limit: 1024  threads_per_warp: 32  threads_per_core_limit: 2048
              shared_memory_per_block: 49152  shared_memory_per_core: {self.shared}
              shared_memory_per_block_optin: {self.shared - 1024}
              core_count: {self.cores}  fpus_per_core: {self.fpus}  clock_rate_ghz: {self.clock}
              block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
              registers_per_core_limit: 65536  registers_per_block_limit: 65536
              memory_bandwidth: {self.bandwidth:.0f}  l2_cache_size: {self.l2}
              device_memory_size: {self.memory}
              cuda_compute_capability {{ major: {major} minor: {minor} }}
            }}
            platform_name: "CUDA"
            dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
            device_description_str: "{self.title}"
        """


# A100 80GB, H100, H200 and B200, all SXM, from NVIDIA's data sheets of these names; NVLink's
# figures there, 600, 900, 900 and 1800 GB/s, are of both directions. A DGX A100 has a card of
# 200 Gb/s for each GPU, DGX H100, H200 and B200 have one of 400 Gb/s.
GPUS = {
    "a100": Gpu(
        title="NVIDIA A100-SXM4-80GB",
        capability=(8, 0),
        cores=108,
        fpus=64,
        shared=167_936,
        l2=41_943_040,
        clock=1.41,
        memory=85_100_068_864,
        bandwidth=2.039e12,
        nvlink=300e9,
        network=25e9,
    ),
    "h100": Gpu(
        title="NVIDIA H100 80GB HBM3",
        capability=(9, 0),
        cores=132,
        fpus=128,
        shared=233_472,
        l2=52_428_800,
        clock=1.98,
        memory=84_942_979_072,
        bandwidth=3.352e12,
        nvlink=450e9,
        network=50e9,
    ),
    "h200": Gpu(
        title="NVIDIA H200 141GB HBM3e",
        capability=(9, 0),
        cores=132,
        fpus=128,
        shared=233_472,
        l2=52_428_800,
        clock=1.98,
        memory=151_397_597_184,
        bandwidth=4.8e12,
        nvlink=450e9,
        network=50e9,
    ),
    "b200": Gpu(
        title="NVIDIA B200",
        capability=(10, 0),
        cores=148,
        fpus=128,
        shared=233_472,
        l2=132_644_864,
        clock=1.965,
        memory=191_514_411_008,
        bandwidth=7.672e12,
        nvlink=900e9,
        network=50e9,
    ),
}


def parse(name: str) -> tuple[Gpu, tuple[int, ...]]:
    """A GPU and how many there are: `h100`, `h100:8` on one host, `h100:32x8` on 32 of them."""
    kind, colon, shape = name.partition(":")
    parts = shape.split("x") if colon else ["1"]
    whole = len(parts) <= 2 and all(p.isdecimal() and len(p) < 9 for p in parts)
    extents = tuple(int(p) for p in parts) if whole else ()
    hosts, on_each = (1, *extents)[-2:] if whole else (0, 0)
    if not (0 < hosts <= MOST_HOSTS and 0 < on_each <= PER_HOST):
        raise RequestError(
            f"topology must be one {kind} or several; got {name!r}; possible: {kind}, {kind}:1 to "
            f"{kind}:{PER_HOST} on one host, {kind}:2x{PER_HOST} to {kind}:{MOST_HOSTS}x{PER_HOST} "
            f"on several, with at most {PER_HOST} on each"
        )
    return GPUS[kind], extents
