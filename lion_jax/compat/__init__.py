"""Peers' exact numbers under their own argument names and defaults: one peer per module.

They carry a run or a config file over. Where a peer departs from the paper, so does the rule here;
the optimizers at top level follow the papers. Numbers may be traced scalars, ``lr`` also a
schedule from the update count; ``static_args`` names all other arguments.
"""

from lion_jax.compat import holocron, keras, lion_pytorch, llm_foundry, torch, wiki

__all__ = [
    "holocron",
    "keras",
    "lion_pytorch",
    "llm_foundry",
    "torch",
    "wiki",
]
__dir__ = __all__.copy  # TAB offers no more
