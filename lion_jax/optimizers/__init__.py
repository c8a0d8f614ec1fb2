"""Named algorithms: each body is one `optax.chain` of primitives.

Numbers may be Python or traced scalars; arguments of type ``ScalarOrSchedule`` may also be
schedules from the update count. A factory's ``static_args`` names all other arguments, masks
included, for ``optax.inject_hyperparams``. Everything is computed in at least float32 and rounded
once. A number out of range raises a ValueError, one of the wrong type a TypeError. See
:doc:`/arguments`.
"""

from lion_jax._core.hyperparameters import HyperparametersState
from lion_jax.optimizers.adaptive import adabelief, adan, ademamix, tadam
from lion_jax.optimizers.layerwise import adamp, lamb, lars, ralars
from lion_jax.optimizers.lion import decoupled_lion, lion
from lion_jax.optimizers.lion_k import cautious_lion, lion_k, signum
from lion_jax.optimizers.lion_muon import lion_muon
from lion_jax.optimizers.mars import mars_adamw, mars_lion
from lion_jax.optimizers.tiger import tiger

__all__ = [
    "HyperparametersState",
    "adabelief",
    "adamp",
    "adan",
    "ademamix",
    "cautious_lion",
    "decoupled_lion",
    "lamb",
    "lars",
    "lion",
    "lion_k",
    "lion_muon",
    "mars_adamw",
    "mars_lion",
    "ralars",
    "signum",
    "tadam",
    "tiger",
]
__dir__ = __all__.copy  # TAB offers no more
