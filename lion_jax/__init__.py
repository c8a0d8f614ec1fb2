"""The Lion family of optimizers as pure optax transformations.

A tour, from the equation to the training step:

>>> import jax, jax.numpy as jnp, lion_jax, optax
>>> params, loss = jnp.array([3.0, -1.0]), lambda p: jnp.sum(p**2)
>>> tx = optax.chain(                                  # Lion is two primitives and a learning rate
...     lion_jax.scale_by_sign_momentum(b1=0.9, b2=0.99),
...     lion_jax.add_decoupled_weight_decay(0.1),
...     optax.scale_by_learning_rate(1e-2),
... )
>>> tx = lion_jax.lion(1e-2, weight_decay=0.1)         # the same in one word
>>> tx = lion_jax.lookahead(tx)                        # any transformation goes into a combinator
>>> state = tx.init(params)
>>> updates, state = tx.update(jax.grad(loss)(params), state, params)
>>> params = optax.apply_updates(params, updates)      # parameters stay a plain pytree
"""

from importlib.metadata import version as _version

from lion_jax import checkpoints as checkpoints
from lion_jax import compat as compat
from lion_jax import distributed as distributed
from lion_jax import experimental as experimental
from lion_jax import groups as groups
from lion_jax import precision as precision
from lion_jax import primitives as primitives
from lion_jax._core.hyperparameters import hyperparameters as hyperparameters
from lion_jax.carrying import CarryReport as CarryReport
from lion_jax.carrying import carry_state as carry_state
from lion_jax.combinators.accumulation import with_accumulation as with_accumulation
from lion_jax.combinators.averaging import averaged_params as averaged_params
from lion_jax.combinators.averaging import with_parameter_average as with_parameter_average
from lion_jax.combinators.cautious import cautious as cautious
from lion_jax.combinators.guard import has_given_up as has_given_up
from lion_jax.combinators.guard import skipped_steps as skipped_steps
from lion_jax.combinators.guard import with_finite_guard as with_finite_guard
from lion_jax.combinators.hyperball import hyperball as hyperball
from lion_jax.combinators.lookahead import lookahead as lookahead
from lion_jax.combinators.lookahead import slow_params as slow_params
from lion_jax.combinators.loss_scale import DynamicLossScale as DynamicLossScale
from lion_jax.combinators.loss_scale import current_loss_scale as current_loss_scale
from lion_jax.combinators.loss_scale import with_loss_scale as with_loss_scale
from lion_jax.combinators.per_layer import per_layer as per_layer
from lion_jax.combinators.scout import scout as scout
from lion_jax.combinators.spike_guard import spike_statistics as spike_statistics
from lion_jax.combinators.spike_guard import with_spike_guard as with_spike_guard
from lion_jax.conversion import LionHyperparameters as LionHyperparameters
from lion_jax.conversion import beta_for_batch as beta_for_batch
from lion_jax.conversion import from_adamw as from_adamw
from lion_jax.metrics import read_metrics as read_metrics
from lion_jax.metrics import with_metrics as with_metrics
from lion_jax.optimizers.adaptive import adabelief as adabelief
from lion_jax.optimizers.adaptive import adan as adan
from lion_jax.optimizers.adaptive import ademamix as ademamix
from lion_jax.optimizers.adaptive import tadam as tadam
from lion_jax.optimizers.layerwise import adamp as adamp
from lion_jax.optimizers.layerwise import lamb as lamb
from lion_jax.optimizers.layerwise import lars as lars
from lion_jax.optimizers.layerwise import ralars as ralars
from lion_jax.optimizers.lion import decoupled_lion as decoupled_lion
from lion_jax.optimizers.lion import lion as lion
from lion_jax.optimizers.lion_k import cautious_lion as cautious_lion
from lion_jax.optimizers.lion_k import lion_k as lion_k
from lion_jax.optimizers.lion_k import signum as signum
from lion_jax.optimizers.lion_muon import lion_muon as lion_muon
from lion_jax.optimizers.mars import mars_adamw as mars_adamw
from lion_jax.optimizers.mars import mars_lion as mars_lion
from lion_jax.optimizers.tiger import tiger as tiger
from lion_jax.primitives.decay import add_decoupled_weight_decay as add_decoupled_weight_decay
from lion_jax.primitives.momentum import interpolate_momentum as interpolate_momentum
from lion_jax.primitives.momentum import scale_by_sign_momentum as scale_by_sign_momentum

__version__ = _version("lion-jax")
