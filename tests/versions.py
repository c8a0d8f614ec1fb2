"""Differences of the oldest supported versions: names of jax that 0.7 lacks, and warnings."""

import jax
import jax.experimental

WARNINGS = (
    # jax before 0.8, whose pmap was not yet made of shard_map
    "ignore:The function .* includes a pmap:UserWarning",
    # matplotlib 3.9 calls pyparsing by names that it had before 3.0
    "ignore:'[a-zA-Z]+' deprecated - use '[a-z_]+':DeprecationWarning",
)
"""Warnings of old versions about each other."""


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
