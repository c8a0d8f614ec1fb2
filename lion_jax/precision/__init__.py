"""Optimizers in fewer bytes, and the effect of rounding on their steps."""

from lion_jax.precision.audit import audit_dead_steps
from lion_jax.precision.master_weights import (
    MasterWeightsState,
    master_params,
    set_master_params,
    with_master_weights,
)
from lion_jax.precision.quantized_state import Quantized, QuantizedState, with_quantized_state
from lion_jax.precision.stochastic_rounding import StochasticRoundingState, round_stochastically

__all__ = [
    "MasterWeightsState",
    "Quantized",
    "QuantizedState",
    "StochasticRoundingState",
    "audit_dead_steps",
    "master_params",
    "round_stochastically",
    "set_master_params",
    "with_master_weights",
    "with_quantized_state",
]
__dir__ = __all__.copy  # TAB offers no more
