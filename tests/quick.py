"""The compiler of the tests: of XLA's ways to write code for CPUs, the one that is done first."""

import importlib.metadata
import os

import jax

AS_USERS_COMPILE = "LION_JAX_TESTS_AS_USERS_COMPILE"


def is_quick():
    """Tells whether jaxlib still has the older emitters, and nobody asked for the newer ones.

    Most of the tests' time is the compilation of small programs, and the older emitters halve it.
    CI runs the default tests with those that users have: LION_JAX_TESTS_AS_USERS_COMPILE=1.
    """
    version = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2]))
    return (0, 7) <= version <= (0, 10) and AS_USERS_COMPILE not in os.environ


def flags():
    """The flags of XLA with which a process compiles quickly; it must not start libtpu.

    An unknown flag ends a process: jaxlib 0.12 and libtpu have the newer emitters alone.
    """
    given = os.environ.get("XLA_FLAGS", "")
    return f"{given} --xla_cpu_use_fusion_emitters=false" if is_quick() else given


def start():
    """Starts jax with these flags, and leaves the environment without them for libtpu."""
    given = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = flags()
    jax.devices()
    os.environ["XLA_FLAGS"] = given
