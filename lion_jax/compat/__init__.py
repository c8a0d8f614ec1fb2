"""Rules of other libraries under their own argument names and defaults: one library per module.

Use them to move a run or a config file to JAX: they reproduce the results of the originals. Where a
library departs from the paper, so does the rule here; the optimizers at top level follow the
papers. Numbers may be traced scalars, and ``lr`` may be a schedule from the update count;
``static_args`` names all other arguments.
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
