"""Eight host devices, strict promotion and a compilation cache for every test."""

import os

# Before jax is imported anywhere.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import needed
import pytest
import versions

versions.fill_in()
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Adds the packages that only tests need, and begins again: `uv run` installs without them."""
    return needed.begin_again(config)


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


@pytest.fixture
def x64():
    """float64 for the length of one test."""
    with jax.enable_x64(True):
        yield
