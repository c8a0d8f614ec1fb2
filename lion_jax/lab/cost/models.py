"""Parameters to count the cost of: a published model's, a task's, or a user's own."""

import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from lion_jax.lab.choosing import choose_task
from lion_jax.lab.cost.published import MODELS
from lion_jax.lab.errors import RequestError, known
from lion_jax.lab.tasks.catalogue import TASKS
from lion_jax.lab.tasks.task import Task

_LARGEST = 10**14
"""Parameters of a model: the bytes of a pod's gradients are counted in 63 bits."""


def abstract_params(model: Any, dtype: Any = None) -> Any:
    """The parameters of a model, without numbers.

    Args:
      model: what :func:`choose_model` takes or gives.
      dtype: of a task's parameters, and of all others that do not have one of their own; None
        leaves a task's as they are, and is float32 for the others.

    Raises:
      RequestError: an unknown name, or what is no tree of shapes.
    """
    model = choose_model(model)
    if isinstance(model, Task):
        task = model.stored_in(dtype)
        model = jax.eval_shape(lambda: task.start(jax.random.key(0))[0])
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: _leaf(path, leaf, dtype or jnp.float32), model, is_leaf=_is_shape
    )
    size = sum(math.prod(p.shape) for p in jax.tree.leaves(params))
    if not 0 < size <= _LARGEST:
        raise RequestError(
            f"the model must have at least one parameter, and at most {_LARGEST:.0e}; "
            f"got {f'{size:.3g}' if size else 'none'}"
        )
    return params


def choose_model(model: Any) -> Any:
    """A task or a tree of shapes, as it is or by its name.

    Args:
      model: a name from :data:`MODELS`; a path to a JSON file ``{"name": [rows, columns], ...}``,
        nested at will; a tree of arrays, of ``jax.ShapeDtypeStruct``, or of shapes, tuples; or
        what :func:`~lion_jax.lab.choosing.choose_task` takes.

    Raises:
      RequestError: an unknown name, or a file that cannot be read.
    """
    if not isinstance(model, str | Path):
        return model
    name = str(model)
    if name in MODELS:
        return MODELS[name].shapes()
    if name.endswith(".json"):
        return _read(Path(name))
    if name in TASKS or ":" in name:
        return choose_task(name)
    others = "a path to a JSON file of shapes", "a task such as mine.py:task"
    return known("model", name, [*MODELS, *TASKS, *others])


def _is_shape(x: Any) -> bool:
    """Tells whether a value is a shape, a list or tuple; the shape of a scalar is empty."""
    return isinstance(x, list | tuple) and all(
        isinstance(n, int) and not isinstance(n, bool) for n in x
    )


def _leaf(path: Any, leaf: Any, dtype: Any) -> jax.ShapeDtypeStruct:
    if _is_shape(leaf) and all(n >= 0 for n in leaf):
        return jax.ShapeDtypeStruct(tuple(leaf), jnp.dtype(dtype))
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    raise RequestError(
        f"the model's leaf at {jax.tree_util.keystr(path) or 'the root'} must be a shape, such as "
        f"[768, 3072]; got {'null' if leaf is None else repr(leaf)}"
    )


def _read(path: Path) -> Any:
    try:
        tree = json.loads(path.read_text())
    except OSError as error:
        raise RequestError(f"cannot read the model {path} ({error.strerror or error})") from error
    except ValueError as error:
        raise RequestError(f"the model {path} must be JSON ({error})") from error
    for place, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: x is None):
        if leaf is None:  # which jax takes for a tree without leaves
            _leaf(place, leaf, jnp.float32)
    return tree
