"""Published equations, one each: gradients in, updates out; no learning rate, no chain.

Numbers, schedules, masks and ``static_args`` are those of :mod:`lion_jax.optimizers`. The
arithmetic is at least float32, and updates are rounded once to the parameters' dtype, or to the
gradients' if ``update`` gets no parameters. A number out of range raises a ValueError, one of the
wrong type a TypeError.
"""

from lion_jax.primitives import signs
from lion_jax.primitives.clipping import clip_by_global_norm, clip_by_leaf_norm
from lion_jax.primitives.decay import add_decoupled_weight_decay, apply_proximal_weight_decay
from lion_jax.primitives.layerwise import (
    project_to_tangent,
    scale_by_lars_ratio,
    scale_by_trust_ratio,
)
from lion_jax.primitives.lion_muon import (
    AlternatingRateState,
    ScaleByLionMuonState,
    scale_by_alternating_rate,
    scale_by_lion_muon,
)
from lion_jax.primitives.momentum import (
    InterpolateMomentumState,
    interpolate_momentum,
    scale_by_sign_momentum,
)
from lion_jax.primitives.nesterov import (
    ScaleByAdanState,
    ScaleByNesterovAdamState,
    scale_by_adan,
    scale_by_nesterov_adam,
)
from lion_jax.primitives.orthogonal import orthogonalize
from lion_jax.primitives.parameter_rms import scale_by_parameter_rms
from lion_jax.primitives.rectified import ScaleByRectifiedAdamState, scale_by_rectified_adam
from lion_jax.primitives.student_t import ScaleByStudentTState, scale_by_student_t
from lion_jax.primitives.two_speed import scale_by_ademamix
from lion_jax.primitives.variance import VarianceReducedGradientState, variance_reduced_gradient

__all__ = [
    "AlternatingRateState",
    "InterpolateMomentumState",
    "ScaleByAdanState",
    "ScaleByLionMuonState",
    "ScaleByNesterovAdamState",
    "ScaleByRectifiedAdamState",
    "ScaleByStudentTState",
    "VarianceReducedGradientState",
    "add_decoupled_weight_decay",
    "apply_proximal_weight_decay",
    "clip_by_global_norm",
    "clip_by_leaf_norm",
    "interpolate_momentum",
    "orthogonalize",
    "project_to_tangent",
    "scale_by_adan",
    "scale_by_ademamix",
    "scale_by_alternating_rate",
    "scale_by_lars_ratio",
    "scale_by_lion_muon",
    "scale_by_nesterov_adam",
    "scale_by_parameter_rms",
    "scale_by_rectified_adam",
    "scale_by_sign_momentum",
    "scale_by_student_t",
    "scale_by_trust_ratio",
    "signs",
    "variance_reduced_gradient",
]
__dir__ = __all__.copy  # TAB offers no more
