"""The packages that only tests need: `uv run pytest` installs them the first time."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INSTALL = ("sync", "--inexact", "--group", "test")  # what else was installed stays
BEGUN_AGAIN = "LION_JAX_TESTS_BEGUN_AGAIN"


def begin_again(config):
    """The exit status of a run that began again with what was missing; None if nothing is."""
    missing = missing_packages()
    if not missing:
        return None
    said, uv = f"the tests need {', '.join(missing)}", uv_of_this_environment()
    if uv is None or BEGUN_AGAIN in os.environ:
        raise pytest.UsageError(f"{said}. Try: pip install uv && uv run pytest")
    print(f"{said}; installing: uv {' '.join(INSTALL)}", file=sys.stderr, flush=True)
    if status := subprocess.run([uv, *INSTALL], cwd=ROOT).returncode:
        return status
    return subprocess.run(
        [sys.executable, "-m", "pytest", *config.invocation_params.args],
        cwd=config.invocation_params.dir,
        env={**os.environ, BEGUN_AGAIN: "1"},
    ).returncode


def missing_packages():
    """The packages of the group `test` that are not installed."""
    file = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    needed = file["dependency-groups"]["test"]
    needed += file["project"]["optional-dependencies"]["checkpoints"]
    names = [re.match(r"[\w.-]+", entry)[0] for entry in needed if isinstance(entry, str)]
    installed = {
        re.sub(r"[-_.]+", "-", found.name).lower() for found in importlib.metadata.distributions()
    }
    return [name for name in names if name not in installed]


def uv_of_this_environment():
    """The `uv` that made the environment the tests run in; None in one that someone else made."""
    if "UV" in os.environ:  # set by `uv run`
        return os.environ["UV"]
    is_own = Path(sys.prefix).resolve() == (ROOT / ".venv").resolve()
    return shutil.which("uv") if is_own else None
