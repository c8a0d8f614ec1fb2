"""Gradients in, updates out: one published equation each; no learning rate, no chain."""

from lion_jax.primitives.clipping import clip_by_global_norm as clip_by_global_norm
from lion_jax.primitives.decay import add_decoupled_weight_decay as add_decoupled_weight_decay
from lion_jax.primitives.momentum import InterpolateMomentumState as InterpolateMomentumState
from lion_jax.primitives.momentum import interpolate_momentum as interpolate_momentum
from lion_jax.primitives.momentum import scale_by_sign_momentum as scale_by_sign_momentum
