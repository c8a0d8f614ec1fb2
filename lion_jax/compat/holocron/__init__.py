"""pylocron's (Holocron's) optimizers and wrappers."""

from lion_jax.compat.holocron.adaptive import adabelief, adamp, adan, ademamix, tadam
from lion_jax.compat.holocron.layerwise import lamb, lars, ralars
from lion_jax.compat.holocron.wrappers import lookahead, scout

__all__ = [
    "adabelief",
    "adamp",
    "adan",
    "ademamix",
    "lamb",
    "lars",
    "lookahead",
    "ralars",
    "scout",
    "tadam",
]
__dir__ = __all__.copy  # TAB offers no more
