"""The compiler of the tests: XLA with few of its optimizations, which is done sooner."""

import contextlib
import importlib.metadata
import os

import jax

AS_USERS_COMPILE = "LION_JAX_TESTS_AS_USERS_COMPILE"


def is_quick():
    """Tells whether nobody asked for programs as users compile them.

    Most of the tests' time is the compilation of small programs. CI compiles those of the default
    tests as users do, with LION_JAX_TESTS_AS_USERS_COMPILE=1, and those of the slow ones quickly.
    """
    return AS_USERS_COMPILE not in os.environ


def flags():
    """The flags of XLA with which a process compiles quickly; it must not start libtpu.

    The older of XLA's two ways to write code for CPUs takes half the time. jaxlib 0.12 and libtpu
    have the newer one alone, and an unknown flag ends a process.
    """
    given = os.environ.get("XLA_FLAGS", "")
    version = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2]))
    has_older = (0, 7) <= version <= (0, 10)
    older = "--xla_cpu_use_fusion_emitters=false"
    return f"{given} {older}" if is_quick() and has_older else given


def start():
    """Starts jax with these flags, and leaves the environment without them for libtpu."""
    _optimize(not is_quick())
    given = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = flags()
    jax.devices()
    os.environ["XLA_FLAGS"] = given


@contextlib.contextmanager
def optimized():
    """All of XLA's optimizations for as long as this lasts, also in processes that are started."""
    _optimize(True)
    yield
    _optimize(not is_quick())


def _optimize(is_wanted):
    jax.config.update("jax_disable_most_optimizations", not is_wanted)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(not is_wanted))
