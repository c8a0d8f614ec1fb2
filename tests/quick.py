"""How the tests compile: XLA makes few optimizations, and so takes less time."""

import importlib.metadata
import os

import jax

AS_USERS_COMPILE = "LION_JAX_TESTS_AS_USERS_COMPILE"


def is_quick():
    """Tells whether the tests compile quickly; LION_JAX_TESTS_AS_USERS_COMPILE=1 says no.

    Most of the tests' time goes into compiling small programs. CI compiles the default tests as
    users do, and the slow ones quickly.
    """
    return AS_USERS_COMPILE not in os.environ


def flags():
    """The flags of XLA with which a process compiles quickly; it must not start libtpu.

    XLA has two ways to write code for CPUs, and the older takes less time. jaxlib 0.12 and libtpu
    do not have it, and end a process that asks for it.
    """
    given = os.environ.get("XLA_FLAGS", "")
    version = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2]))
    has_older = version <= (0, 10)  # 0.11 was not tried
    older = "--xla_cpu_use_fusion_emitters=false"
    return f"{given} {older}" if is_quick() and has_older else given


def start():
    """Starts jax with these flags, and leaves the environment without them for libtpu."""
    optimize(not is_quick())
    given = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = flags()
    jax.devices()
    os.environ["XLA_FLAGS"] = given


def optimize(is_wanted):
    """Asks for all of XLA's optimizations or for few, also in the processes that tests start."""
    jax.config.update("jax_disable_most_optimizations", not is_wanted)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(not is_wanted))
