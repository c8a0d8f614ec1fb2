"""Checkpoints of parameters and optimizer state, through orbax: needs the extra `checkpoints`.

A checkpoint is a step's folder, which appears under its name only when it is complete. The folder
holds two items of orbax. `leaves` has the arrays, by their number in the tree: orbax joins keys by
dots, so the paths of ``{"a.b": x}`` and ``{"a": {"b": x}}`` would clash. `lion_jax` has the path,
shape, dtype and checksum of each. So trees may have any nodes and any keys.
"""

from lion_jax.checkpoints.saving import CheckpointError, latest, restore, save

__all__ = [
    "CheckpointError",
    "latest",
    "restore",
    "save",
]
__dir__ = __all__.copy  # TAB offers no more
