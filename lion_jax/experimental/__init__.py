"""Rules with no evidence beyond their authors' own.

They keep the contract of all other rules (see docs/design.md), but nobody else is known to have
found them useful. Names and arguments may change.
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
