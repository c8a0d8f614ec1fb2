"""The memory that a device has free, and the memory that trees take."""

import os
from pathlib import Path
from typing import Any

import jax


def nbytes(tree: Any) -> int:
    """Memory of the leaves of a concrete or abstract tree."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def available_bytes(device: Any) -> int | None:
    """Free memory of a device; None where the platform does not tell it."""
    if device.platform != "cpu":
        stats = device.memory_stats()
        return stats and stats["bytes_limit"] - stats["bytes_in_use"]
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (ValueError, OSError, AttributeError):
            return None
    lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
    free = 1024 * int(lines["MemAvailable"].split()[0])
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def fits(compiled: Any) -> bool:
    """Tells whether a compiled program's results and temporaries fit into the free memory."""
    needed, free = compiled.memory_analysis(), available_bytes(jax.devices()[0])
    if needed is None or free is None:
        return True
    return needed.temp_size_in_bytes + needed.output_size_in_bytes < 0.9 * free
