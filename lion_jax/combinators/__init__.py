"""A transformation in, a transformation out; they know no algorithm by name."""

from lion_jax.combinators.accumulation import AccumulationState as AccumulationState
from lion_jax.combinators.accumulation import with_accumulation as with_accumulation
from lion_jax.combinators.averaging import ParameterAverageState as ParameterAverageState
from lion_jax.combinators.averaging import averaged_params as averaged_params
from lion_jax.combinators.averaging import with_parameter_average as with_parameter_average
from lion_jax.combinators.cautious import cautious as cautious
from lion_jax.combinators.guard import FiniteGuardState as FiniteGuardState
from lion_jax.combinators.guard import has_given_up as has_given_up
from lion_jax.combinators.guard import skipped_steps as skipped_steps
from lion_jax.combinators.guard import with_finite_guard as with_finite_guard
from lion_jax.combinators.hyperball import HyperballState as HyperballState
from lion_jax.combinators.hyperball import hyperball as hyperball
from lion_jax.combinators.lookahead import LookaheadState as LookaheadState
from lion_jax.combinators.lookahead import lookahead as lookahead
from lion_jax.combinators.lookahead import slow_params as slow_params
from lion_jax.combinators.loss_scale import DynamicLossScale as DynamicLossScale
from lion_jax.combinators.loss_scale import DynamicLossScaleState as DynamicLossScaleState
from lion_jax.combinators.loss_scale import LossScaleState as LossScaleState
from lion_jax.combinators.loss_scale import current_loss_scale as current_loss_scale
from lion_jax.combinators.loss_scale import with_loss_scale as with_loss_scale
from lion_jax.combinators.scout import ScoutState as ScoutState
from lion_jax.combinators.scout import scout as scout
from lion_jax.combinators.spike_guard import SpikeGuardState as SpikeGuardState
from lion_jax.combinators.spike_guard import SpikeStatistics as SpikeStatistics
from lion_jax.combinators.spike_guard import spike_statistics as spike_statistics
from lion_jax.combinators.spike_guard import with_spike_guard as with_spike_guard
