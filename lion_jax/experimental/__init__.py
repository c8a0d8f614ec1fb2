"""Rules with no evidence beyond their authors' own.

They hold the promises of all other rules: see docs/design.md. What does not hold is that anybody
else has found them useful; names and arguments may change.
"""

from lion_jax.experimental.olion import olion
from lion_jax.experimental.soft_signum import SoftSignumState, scale_free_soft_signum, soft_signum
from lion_jax.experimental.stochastic_signum import StochasticSignumState, stochastic_signum

__all__ = [
    "SoftSignumState",
    "StochasticSignumState",
    "olion",
    "scale_free_soft_signum",
    "soft_signum",
    "stochastic_signum",
]
__dir__ = __all__.copy  # TAB offers no more
