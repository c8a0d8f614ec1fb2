"""Peers' exact numbers under their own argument names and defaults: one peer per module.

They carry a run or a config file over. Where a peer departs from the paper, so does the rule here;
the optimizers at top level follow the papers. Numbers may be traced scalars, ``lr`` also a
schedule from the update count; ``static_args`` names all other arguments.
"""

from lion_jax.compat import holocron as holocron
from lion_jax.compat import keras as keras
from lion_jax.compat import lion_pytorch as lion_pytorch
from lion_jax.compat import llm_foundry as llm_foundry
from lion_jax.compat import torch as torch
from lion_jax.compat import wiki as wiki
