"""Eight host devices, strict promotion and a compilation cache for every test."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

# Before jax is imported anywhere.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
import versions

versions.fill_in()
jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = Path(__file__).parent.parent
INSTALL = ("sync", "--inexact", "--group", "test")  # what else was installed stays
BEGUN_AGAIN = "LION_JAX_TESTS_BEGUN_AGAIN"


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Adds the packages that only tests need, and begins again: `uv run` installs without them."""
    missing = missing_packages()
    if not missing:
        return None
    said, uv = f"the tests need {', '.join(missing)}", uv_of_this_environment()
    if uv is None or BEGUN_AGAIN in os.environ:
        raise pytest.UsageError(f"{said}. Try: pip install uv && uv run pytest")
    print(f"{said}: installed by `uv {' '.join(INSTALL)}`", file=sys.stderr, flush=True)
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


def pytest_configure(config):
    """Programs that another test, process or run compiled are read instead.

    Three quarters of the time went into compiling, often the same small program again. They are
    found by their text, the flags and the version of XLA; `pytest --cache-clear` forgets them.
    """
    if hasattr(config, "cache"):
        jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("xla")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # What another process is just writing is compiled.
    unreadable = "ignore:Error reading persistent compilation cache entry:UserWarning"
    config.addinivalue_line("filterwarnings", unreadable)
    config.addinivalue_line("filterwarnings", versions.JIT_OF_PMAP)


@pytest.fixture
def x64():
    """float64 for the length of one test."""
    with jax.enable_x64(True):
        yield
