"""The Lion family of optimizers as pure optax transformations.

A tour, from the equation to the training step:

>>> import jax, jax.numpy as jnp, lion_jax, optax
>>> params, loss = jnp.array([3.0, -1.0]), lambda p: jnp.sum(p**2)
>>> tx = optax.chain(                                  # Lion is two primitives and a learning rate
...     lion_jax.scale_by_sign_momentum(b1=0.9, b2=0.99),
...     lion_jax.add_decoupled_weight_decay(0.1),
...     optax.scale_by_learning_rate(1e-2),
... )
>>> tx = lion_jax.lion(1e-2, weight_decay=0.1)         # the same in one call
>>> tx = lion_jax.lookahead(tx)                        # any transformation goes into a combinator
>>> state = tx.init(params)
>>> updates, state = tx.update(jax.grad(loss)(params), state, params)
>>> params = optax.apply_updates(params, updates)      # parameters stay a plain pytree
"""

from importlib.metadata import version as _version
from typing import TYPE_CHECKING

from lion_jax._lazy import load_when_asked

__version__ = _version("lion-jax")

if TYPE_CHECKING:
    from lion_jax._public import *  # noqa: F403
else:
    __getattr__, __dir__ = load_when_asked(__name__)  # `lion-jax --help` answers without jax
