"""PyTorch's optimizers, gradient clipping and learning-rate schedules."""

from lion_jax.compat.torch.clipping import clip_grad_norm as clip_grad_norm
from lion_jax.compat.torch.clipping import clip_grad_value as clip_grad_value
from lion_jax.compat.torch.one_cycle import one_cycle_lr as one_cycle_lr
from lion_jax.compat.torch.one_cycle import one_cycle_momentum as one_cycle_momentum
from lion_jax.compat.torch.optimizers import adadelta as adadelta
from lion_jax.compat.torch.optimizers import adagrad as adagrad
from lion_jax.compat.torch.optimizers import adam as adam
from lion_jax.compat.torch.optimizers import adamw as adamw
from lion_jax.compat.torch.optimizers import rmsprop as rmsprop
from lion_jax.compat.torch.optimizers import sgd as sgd
from lion_jax.compat.torch.plateau import ReduceLrOnPlateauState as ReduceLrOnPlateauState
from lion_jax.compat.torch.plateau import reduce_lr_on_plateau as reduce_lr_on_plateau
from lion_jax.compat.torch.schedules import cosine_annealing_lr as cosine_annealing_lr
from lion_jax.compat.torch.schedules import exponential_lr as exponential_lr
from lion_jax.compat.torch.schedules import lambda_lr as lambda_lr
from lion_jax.compat.torch.schedules import multi_step_lr as multi_step_lr
from lion_jax.compat.torch.schedules import step_lr as step_lr
