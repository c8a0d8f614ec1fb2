"""Published equations, one each: gradients in, updates out; no learning rate, no chain.

Numbers, schedules, masks and ``static_args`` are those of :mod:`lion_jax.optimizers`. The
arithmetic is at least float32, and updates are rounded once to the parameters' dtype, or to the
gradients' if ``update`` gets no parameters. A number out of range is a ValueError, one of the wrong
type a TypeError.
"""

from lion_jax.primitives import signs as signs
from lion_jax.primitives.clipping import clip_by_global_norm as clip_by_global_norm
from lion_jax.primitives.clipping import clip_by_leaf_norm as clip_by_leaf_norm
from lion_jax.primitives.decay import add_decoupled_weight_decay as add_decoupled_weight_decay
from lion_jax.primitives.decay import apply_proximal_weight_decay as apply_proximal_weight_decay
from lion_jax.primitives.layerwise import project_to_tangent as project_to_tangent
from lion_jax.primitives.layerwise import scale_by_lars_ratio as scale_by_lars_ratio
from lion_jax.primitives.layerwise import scale_by_trust_ratio as scale_by_trust_ratio
from lion_jax.primitives.lion_muon import AlternatingRateState as AlternatingRateState
from lion_jax.primitives.lion_muon import ScaleByLionMuonState as ScaleByLionMuonState
from lion_jax.primitives.lion_muon import scale_by_alternating_rate as scale_by_alternating_rate
from lion_jax.primitives.lion_muon import scale_by_lion_muon as scale_by_lion_muon
from lion_jax.primitives.momentum import InterpolateMomentumState as InterpolateMomentumState
from lion_jax.primitives.momentum import interpolate_momentum as interpolate_momentum
from lion_jax.primitives.momentum import scale_by_sign_momentum as scale_by_sign_momentum
from lion_jax.primitives.nesterov import ScaleByAdanState as ScaleByAdanState
from lion_jax.primitives.nesterov import ScaleByNesterovAdamState as ScaleByNesterovAdamState
from lion_jax.primitives.nesterov import scale_by_adan as scale_by_adan
from lion_jax.primitives.nesterov import scale_by_nesterov_adam as scale_by_nesterov_adam
from lion_jax.primitives.orthogonal import orthogonalize as orthogonalize
from lion_jax.primitives.parameter_rms import scale_by_parameter_rms as scale_by_parameter_rms
from lion_jax.primitives.rectified import ScaleByRectifiedAdamState as ScaleByRectifiedAdamState
from lion_jax.primitives.rectified import scale_by_rectified_adam as scale_by_rectified_adam
from lion_jax.primitives.student_t import ScaleByStudentTState as ScaleByStudentTState
from lion_jax.primitives.student_t import scale_by_student_t as scale_by_student_t
from lion_jax.primitives.two_speed import scale_by_ademamix as scale_by_ademamix
from lion_jax.primitives.variance import (
    VarianceReducedGradientState as VarianceReducedGradientState,
)
from lion_jax.primitives.variance import variance_reduced_gradient as variance_reduced_gradient
