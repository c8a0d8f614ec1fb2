"""The same optimizer on many chips.

    sharding = state_sharding(optimizer, params, param_sharding)  # of any transformation's state
    state = jax.jit(optimizer.init, out_shardings=sharding)(params)

Within `jax.shard_map` or `jax.pmap` :func:`majority_vote` exchanges signs in place of gradients,
and :func:`sign_gather` shards the state of a rule made of signs, gathering signs, not weights.
"""

from lion_jax.distributed.majority_vote import majority_vote as majority_vote
from lion_jax.distributed.sharding import state_sharding as state_sharding
from lion_jax.distributed.sharding import zero_sharding as zero_sharding
from lion_jax.distributed.sign_gather import SignGatherState as SignGatherState
from lion_jax.distributed.sign_gather import sign_gather as sign_gather
