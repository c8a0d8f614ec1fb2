"""Optimizers on many chips: shardings for their state, and exchanges of signs.

::

    sharding = state_sharding(optimizer, params, param_sharding)  # of any transformation's state
    state = jax.jit(optimizer.init, out_shardings=sharding)(params)

Within `jax.shard_map` or `jax.pmap` :func:`majority_vote` exchanges signs instead of gradients, and
:func:`sign_gather` shards the state of a sign rule and gathers signs instead of weights.
"""

from lion_jax.distributed.majority_vote import majority_vote
from lion_jax.distributed.sharding import state_sharding, zero_sharding
from lion_jax.distributed.sign_gather import SignGatherState, sign_gather

__all__ = [
    "SignGatherState",
    "majority_vote",
    "sign_gather",
    "state_sharding",
    "zero_sharding",
]
__dir__ = __all__.copy  # TAB offers no more
