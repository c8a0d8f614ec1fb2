"""Wrappers that take any optax transformation and return another."""

from lion_jax.combinators.accumulation import AccumulationState, with_accumulation
from lion_jax.combinators.averaging import (
    ParameterAverageState,
    averaged_params,
    with_parameter_average,
)
from lion_jax.combinators.cautious import cautious
from lion_jax.combinators.guard import (
    FiniteGuardState,
    has_given_up,
    skipped_steps,
    with_finite_guard,
)
from lion_jax.combinators.hyperball import HyperballState, hyperball
from lion_jax.combinators.lookahead import LookaheadState, lookahead, slow_params
from lion_jax.combinators.loss_scale import (
    DynamicLossScale,
    DynamicLossScaleState,
    LossScaleState,
    current_loss_scale,
    with_loss_scale,
)
from lion_jax.combinators.per_layer import per_layer
from lion_jax.combinators.scout import ScoutState, scout
from lion_jax.combinators.spike_guard import (
    SpikeGuardState,
    SpikeStatistics,
    spike_statistics,
    with_spike_guard,
)

__all__ = [
    "AccumulationState",
    "DynamicLossScale",
    "DynamicLossScaleState",
    "FiniteGuardState",
    "HyperballState",
    "LookaheadState",
    "LossScaleState",
    "ParameterAverageState",
    "ScoutState",
    "SpikeGuardState",
    "SpikeStatistics",
    "averaged_params",
    "cautious",
    "current_loss_scale",
    "has_given_up",
    "hyperball",
    "lookahead",
    "per_layer",
    "scout",
    "skipped_steps",
    "slow_params",
    "spike_statistics",
    "with_accumulation",
    "with_finite_guard",
    "with_loss_scale",
    "with_parameter_average",
    "with_spike_guard",
]
__dir__ = __all__.copy  # TAB offers no more
