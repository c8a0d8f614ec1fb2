"""Public names that the tests use and the oldest supported versions lack, such as jax 0.7."""

import jax
import jax.experimental
import pytest


def fill_in():
    """Gives jax those that it lacks."""
    if not hasattr(jax, "enable_x64"):
        jax.enable_x64 = jax.experimental.enable_x64
    if not hasattr(jax, "set_mesh"):
        jax.set_mesh = jax.sharding.use_mesh
    if not hasattr(jax.monitoring, "unregister_event_duration_listener"):
        jax.monitoring.unregister_event_duration_listener = _unregister


def needs(module, name):
    """The mark of a test that calls what the oldest supported versions lack."""
    reason = f"the installed {module.__name__} has no {name}"
    return pytest.mark.skipif(not hasattr(module, name), reason=reason)


def pcast(tree, axis_name):
    """`jax.lax.pcast(tree, axis_name, to="varying")`."""
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(tree, axis_name, to="varying")
    return jax.lax.pvary(tree, axis_name)


def _unregister(listener):
    del listener
    jax.monitoring.clear_event_listeners()
