"""PyTorch's optimizers, gradient clipping and learning-rate schedules."""

from lion_jax.compat.torch.clipping import clip_grad_norm, clip_grad_value
from lion_jax.compat.torch.one_cycle import one_cycle_lr, one_cycle_momentum
from lion_jax.compat.torch.optimizers import adadelta, adagrad, adam, adamw, rmsprop, sgd
from lion_jax.compat.torch.plateau import ReduceLrOnPlateauState, reduce_lr_on_plateau
from lion_jax.compat.torch.schedules import (
    cosine_annealing_lr,
    exponential_lr,
    lambda_lr,
    multi_step_lr,
    step_lr,
)

__all__ = [
    "ReduceLrOnPlateauState",
    "adadelta",
    "adagrad",
    "adam",
    "adamw",
    "clip_grad_norm",
    "clip_grad_value",
    "cosine_annealing_lr",
    "exponential_lr",
    "lambda_lr",
    "multi_step_lr",
    "one_cycle_lr",
    "one_cycle_momentum",
    "reduce_lr_on_plateau",
    "rmsprop",
    "sgd",
    "step_lr",
]
__dir__ = __all__.copy  # TAB offers no more
