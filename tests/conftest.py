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
import quick
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
    from search import counting  # not before the packages that it needs are there

    counting.seed_of_run()  # before workers start, which inherit it
    config.pluginmanager.register(counting.Reporter())
    quick.start()
    if hasattr(config, "cache"):
        programs = config.cache.mkdir("xla-quick" if quick.is_quick() else "xla")
        jax.config.update("jax_compilation_cache_dir", str(programs))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # What another process is just writing is compiled.
    unreadable = "ignore:Error reading persistent compilation cache entry:UserWarning"
    config.addinivalue_line("filterwarnings", unreadable)


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items):
    """All but the first case of a sampled test are slow; tests of an entry share its programs."""
    sampled = [item for item in items if item.get_closest_marker("sampled")]
    first = {(item.path, item.originalname): item for item in reversed(sampled)}
    for item in sampled:
        if item is not first[item.path, item.originalname]:
            item.add_marker(pytest.mark.slow)
    order = {name: i for i, name in enumerate(dict.fromkeys(map(_entry_of, items)))}
    items.sort(key=lambda item: order[_entry_of(item)])


def _entry_of(item):
    """The catalogue's entry that this test is about; all other tests are about none."""
    entry = getattr(item, "callspec", None) and item.callspec.params.get("entry")
    return getattr(entry, "name", None)


@pytest.fixture(scope="module")
def optimized():
    """All of XLA's optimizations: where two programs' bits are compared, and where much is run."""
    quick.optimize(True)
    yield
    quick.optimize(not quick.is_quick())


@pytest.fixture
def x64():
    """float64 for the length of one test."""
    with jax.enable_x64(True):
        yield
