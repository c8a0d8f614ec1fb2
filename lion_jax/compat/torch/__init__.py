"""PyTorch's optimizers and gradient clipping."""

from lion_jax.compat.torch.clipping import clip_grad_norm as clip_grad_norm
from lion_jax.compat.torch.clipping import clip_grad_value as clip_grad_value
from lion_jax.compat.torch.optimizers import adadelta as adadelta
from lion_jax.compat.torch.optimizers import adagrad as adagrad
from lion_jax.compat.torch.optimizers import adam as adam
from lion_jax.compat.torch.optimizers import adamw as adamw
from lion_jax.compat.torch.optimizers import rmsprop as rmsprop
from lion_jax.compat.torch.optimizers import sgd as sgd
