"""Public names of jax that the tests use and the oldest supported version, 0.7, lacks."""

import jax
import jax.experimental


def fill_in():
    """Gives jax those that it lacks."""
    if not hasattr(jax, "enable_x64"):
        jax.enable_x64 = jax.experimental.enable_x64
    if not hasattr(jax, "set_mesh"):
        jax.set_mesh = jax.sharding.use_mesh
    if not hasattr(jax.lax, "pcast"):
        jax.lax.pcast = _pcast
    if not hasattr(jax.monitoring, "unregister_event_duration_listener"):
        jax.monitoring.unregister_event_duration_listener = _unregister


def _pcast(x, axis_name, *, to):
    assert to == "varying"
    return jax.lax.pvary(x, axis_name)


def _unregister(listener):
    del listener
    jax.monitoring.clear_event_listeners()
