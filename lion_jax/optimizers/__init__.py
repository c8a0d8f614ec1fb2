"""Named algorithms: each body is one `optax.chain` of primitives.

Numbers may be Python's or traced scalars, those of type ``ScalarOrSchedule`` also schedules from
the update count. A factory's ``static_args`` names all other arguments, masks included, for
``optax.inject_hyperparams``. Everything is computed in at least float32 and rounded once. A number
out of range is a ValueError, one of the wrong type a TypeError. See docs/arguments.md.
"""

from lion_jax._core.hyperparameters import HyperparametersState as HyperparametersState
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
