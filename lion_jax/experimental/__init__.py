"""Rules with no evidence beyond their authors' own.

They hold the promises of all other rules: see docs/design.md. What does not hold is that anybody
else has found them useful; names and arguments may change.
"""

from lion_jax.experimental.olion import olion as olion
from lion_jax.experimental.soft_signum import SoftSignumState as SoftSignumState
from lion_jax.experimental.soft_signum import scale_free_soft_signum as scale_free_soft_signum
from lion_jax.experimental.soft_signum import soft_signum as soft_signum
from lion_jax.experimental.stochastic_signum import (
    StochasticSignumState as StochasticSignumState,
)
from lion_jax.experimental.stochastic_signum import stochastic_signum as stochastic_signum
