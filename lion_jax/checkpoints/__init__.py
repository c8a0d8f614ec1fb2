"""Checkpoints of parameters and optimizer state, through orbax: needs the extra `checkpoints`.

A checkpoint is a step's folder, which appears under its name only when it is complete. In it are
two items of orbax: `leaves`, the arrays by their number in the tree (orbax joins keys by dots, so
that the paths of ``{"a.b": x}`` and ``{"a": {"b": x}}`` would be one), and `lion_jax`, the path,
shape, dtype and checksum of each. Trees may thus have any nodes and any keys.
"""

from lion_jax.checkpoints.saving import CheckpointError, latest, restore, save

__all__ = [
    "CheckpointError",
    "latest",
    "restore",
    "save",
]
__dir__ = __all__.copy  # TAB offers no more
