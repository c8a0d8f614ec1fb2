"""The origin of figures: versions, command, device and date."""

import datetime
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import jax
import optax

import lion_jax


def provenance(device: str | None = None) -> dict[str, Any]:
    """The origin of a result, for its record.

    Args:
      device: what the figures were taken on; None is jax's first device.
    """
    program = Path(sys.argv[0])
    called = program.stem == "lion-jax" or program.parts[-2:] == ("lion_jax", "__main__.py")
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["lion-jax", *sys.argv[1:]]) if called else "from Python",
        "device": device or describe(jax.devices()[0]),
        "versions": {
            "lion_jax": lion_jax.__version__,
            "jax": jax.__version__,
            "optax": optax.__version__,
            "python": platform.python_version(),
        },
    }


def describe(device: Any) -> str:
    """A device in words; of a CPU the processor and its cores."""
    if device.platform != "cpu":
        return device.device_kind
    return f"{processor()}, {os.cpu_count()} cores"


def processor() -> str:
    """The name of this machine's processor, as far as the machine tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine() or "cpu"
