"""The same optimizer in fewer bytes, and what rounding does to its steps."""

from lion_jax.precision.audit import audit_dead_steps as audit_dead_steps
from lion_jax.precision.master_weights import MasterWeightsState as MasterWeightsState
from lion_jax.precision.master_weights import master_params as master_params
from lion_jax.precision.master_weights import set_master_params as set_master_params
from lion_jax.precision.master_weights import with_master_weights as with_master_weights
from lion_jax.precision.quantized_state import Quantized as Quantized
from lion_jax.precision.quantized_state import QuantizedState as QuantizedState
from lion_jax.precision.quantized_state import with_quantized_state as with_quantized_state
from lion_jax.precision.stochastic_rounding import (
    StochasticRoundingState as StochasticRoundingState,
)
from lion_jax.precision.stochastic_rounding import round_stochastically as round_stochastically
