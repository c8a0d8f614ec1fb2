"""The checks of a learning-rate range test; each refusal says what to try instead."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lion_jax._core.kinds import TRANSFORMATION
from lion_jax.lab.comparison import MOST_EXAMPLES
from lion_jax.lab.errors import RequestError, check_rate, check_whole
from lion_jax.lab.finding import LEAST_STEPS

_TRY_STACK = "Try jax.tree.map(lambda *b: jnp.stack(b), *list_of_batches)."
TRY_OPTIMIZER = "Try optimizer=lambda schedule: lion_jax.lion(schedule, weight_decay=0.1)."


def check_optimizer(optimizer: Any) -> None:
    """Refuses what is no function from a schedule to a transformation."""
    if not callable(optimizer):
        raise TypeError(
            "optimizer must be a function from a schedule of the learning rate to a "
            f"transformation; got {optimizer!r} of type {type(optimizer).__name__}. "
            f"{TRY_OPTIMIZER}"
        )
    TRANSFORMATION.check("optimizer(schedule)", optimizer(lambda count: 1e-3))


def check_batches(batches: Any) -> int:
    """The length of the first axis, the same for all."""
    if isinstance(batches, list | Iterator) or not _is_tree_of_arrays(batches):
        kind = type(batches).__name__
        raise TypeError(
            "batches must be one tree of arrays whose first axis is the step; got "
            f"{f'a list of {len(batches)}' if isinstance(batches, list) else f'a {kind}'}. "
            f"{_TRY_STACK}"
        )
    shapes = [jnp.shape(x) for x in jax.tree.leaves(batches)]
    lengths = {shape[0] for shape in shapes if shape}
    if len(lengths) != 1 or () in shapes:
        raise RequestError(
            "batches must be a tree of arrays whose first axis, the step, has one length; "
            f"got the shapes {shapes}. {_TRY_STACK}"
        )
    (steps,) = lengths
    if steps < LEAST_STEPS:
        raise RequestError(f"batches must be at least {LEAST_STEPS}, one for a step; got {steps}")
    return steps


def check_params(params: Any) -> None:
    """Refuses a model in the place of its parameters."""
    if not _is_tree_of_arrays(params) or _has_keys(params):
        raise TypeError(
            "params must be a tree of arrays; got leaves of other kinds in a "
            f"{type(params).__name__}. Try nnx.split(model, nnx.Param, ...) or "
            "eqx.partition(model, eqx.is_inexact_array), and put the model together in the loss."
        )


def _is_tree_of_arrays(tree: Any) -> bool:
    kinds = int | float | np.ndarray | np.generic | jax.Array
    return all(isinstance(x, kinds) for x in jax.tree.leaves(tree))


def _has_keys(tree: Any) -> bool:
    keys = jax.dtypes.prng_key
    return any(jnp.issubdtype(jnp.asarray(x).dtype, keys) for x in jax.tree.leaves(tree))


def check_loss(loss: Callable[[Any, Any], Any], params: Any, batches: Any) -> None:
    """Refuses a loss that is no real scalar."""
    found = jax.eval_shape(loss, params, jax.tree.map(lambda x: x[0], batches))
    if getattr(found, "shape", None) != () or not jnp.issubdtype(found.dtype, jnp.floating):
        raise TypeError(
            f"loss(params, batch) must be a real scalar, of shape (); got {found}. "
            "Try a mean over the batch, and leave out what comes beside the loss."
        )


def check_range(low: Any, high: Any) -> None:
    """Refuses learning rates that are none, or no range."""
    check_rate("low", low)
    check_rate("high", high)
    if not low < high:
        raise RequestError(f"low must be less than high; got low={low:g} and high={high:g}")


def check_counts(steps: Any, seeds: Any, batch_size: Any, examples: int) -> None:
    """Refuses numbers of steps, seeds and examples that cannot be."""
    check_whole("steps", steps, LEAST_STEPS)
    check_whole("seeds", seeds, 1)
    check_whole("batch_size", batch_size, 1, examples, "the training split")
    if steps * seeds * batch_size > MOST_EXAMPLES:
        raise RequestError(
            f"steps * seeds * batch_size must be at most {MOST_EXAMPLES}, since the order of the "
            f"examples is kept in memory; got {steps * seeds * batch_size}"
        )
