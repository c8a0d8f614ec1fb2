"""Named algorithms: each body is one `optax.chain` of primitives."""

from lion_jax._hyperparameters import HyperparametersState as HyperparametersState
from lion_jax.optimizers.lion import decoupled_lion as decoupled_lion
from lion_jax.optimizers.lion import lion as lion
