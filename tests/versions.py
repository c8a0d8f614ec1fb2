"""Public names of jax that the tests use and the oldest supported version, 0.7, lacks."""

import jax
import jax.experimental


def fill_in():
    """Gives jax those that it lacks."""
    if not hasattr(jax, "enable_x64"):
        jax.enable_x64 = jax.experimental.enable_x64
    if not hasattr(jax, "set_mesh"):
        jax.set_mesh = jax.sharding.use_mesh
    if not hasattr(jax.monitoring, "unregister_event_duration_listener"):
        jax.monitoring.unregister_event_duration_listener = _unregister


def pcast(tree, axis_name):
    """`jax.lax.pcast(tree, axis_name, to="varying")`."""
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(tree, axis_name, to="varying")
    return jax.lax.pvary(tree, axis_name)


def _unregister(listener):
    del listener
    jax.monitoring.clear_event_listeners()
