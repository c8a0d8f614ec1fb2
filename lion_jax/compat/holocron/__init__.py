"""pylocron's (Holocron's) optimizers and wrappers."""

from lion_jax.compat.holocron.adaptive import adabelief as adabelief
from lion_jax.compat.holocron.adaptive import adamp as adamp
from lion_jax.compat.holocron.adaptive import adan as adan
from lion_jax.compat.holocron.adaptive import ademamix as ademamix
from lion_jax.compat.holocron.adaptive import tadam as tadam
from lion_jax.compat.holocron.layerwise import lamb as lamb
from lion_jax.compat.holocron.layerwise import lars as lars
from lion_jax.compat.holocron.layerwise import ralars as ralars
from lion_jax.compat.holocron.wrappers import lookahead as lookahead
from lion_jax.compat.holocron.wrappers import scout as scout
