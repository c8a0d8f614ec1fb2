"""The public names of `lion_jax`, which it loads when one is first asked for."""

import lion_jax.checkpoints as checkpoints
import lion_jax.combinators as combinators
import lion_jax.compat as compat
import lion_jax.distributed as distributed
import lion_jax.experimental as experimental
import lion_jax.groups as groups
import lion_jax.lab as lab
import lion_jax.metrics as metrics
import lion_jax.optimizers as optimizers
import lion_jax.precision as precision
import lion_jax.primitives as primitives
from lion_jax._core.hyperparameters import hyperparameters
from lion_jax.carrying import CarryReport, carry_state
from lion_jax.combinators import (
    DynamicLossScale,
    averaged_params,
    cautious,
    current_loss_scale,
    has_given_up,
    hyperball,
    lookahead,
    per_layer,
    scout,
    skipped_steps,
    slow_params,
    spike_statistics,
    with_accumulation,
    with_finite_guard,
    with_loss_scale,
    with_parameter_average,
    with_spike_guard,
)
from lion_jax.conversion import LionHyperparameters, beta_for_batch, from_adamw
from lion_jax.metrics import read_metrics, with_metrics
from lion_jax.optimizers import (
    adabelief,
    adamp,
    adan,
    ademamix,
    cautious_lion,
    decoupled_lion,
    lamb,
    lars,
    lion,
    lion_k,
    lion_muon,
    mars_adamw,
    mars_lion,
    ralars,
    signum,
    tadam,
    tiger,
)
from lion_jax.primitives import (
    add_decoupled_weight_decay,
    interpolate_momentum,
    scale_by_sign_momentum,
)

__all__ = [
    "CarryReport",
    "DynamicLossScale",
    "LionHyperparameters",
    "adabelief",
    "adamp",
    "adan",
    "add_decoupled_weight_decay",
    "ademamix",
    "averaged_params",
    "beta_for_batch",
    "carry_state",
    "cautious",
    "cautious_lion",
    "checkpoints",
    "combinators",
    "compat",
    "current_loss_scale",
    "decoupled_lion",
    "distributed",
    "experimental",
    "from_adamw",
    "groups",
    "has_given_up",
    "hyperball",
    "hyperparameters",
    "interpolate_momentum",
    "lab",
    "lamb",
    "lars",
    "lion",
    "lion_k",
    "lion_muon",
    "lookahead",
    "mars_adamw",
    "mars_lion",
    "metrics",
    "optimizers",
    "per_layer",
    "precision",
    "primitives",
    "ralars",
    "read_metrics",
    "scale_by_sign_momentum",
    "scout",
    "signum",
    "skipped_steps",
    "slow_params",
    "spike_statistics",
    "tadam",
    "tiger",
    "with_accumulation",
    "with_finite_guard",
    "with_loss_scale",
    "with_metrics",
    "with_parameter_average",
    "with_spike_guard",
]
