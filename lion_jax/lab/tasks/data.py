"""Data in three splits: making them, checking them, and their hashes."""

import hashlib
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lion_jax.lab.errors import RequestError


class Data(NamedTuple):
    """Data in three splits, each a tree of arrays with a leading axis of examples.

    Attributes:
      train: the examples to train on; or a function `step -> batch`, a stream.
      validation: the examples that choose the learning rate.
      test: the examples that the reported figures come from.
    """

    train: Any
    validation: Any
    test: Any


class Labelled(NamedTuple):
    """Examples and their labels.

    Attributes:
      x: inputs of shape (examples, ...), float32, or int32 where they are indices.
      y: labels of shape (examples,), int32.
    """

    x: np.ndarray
    y: np.ndarray


def split(data: Any, shares: tuple[float, float, float] = (0.6, 0.2, 0.2), seed: int = 0) -> Data:
    """Splits examples at random into training, validation and test data.

    Args:
      data: a tree of arrays with a leading axis of examples.
      shares: of the three, each > 0; what they leave of 1 is left out.
      seed: decides which examples go where.

    Returns:
      A :class:`Data`, for ``lab.Task(init, loss, *data)``.

    Raises:
      RequestError: arrays of different lengths, shares that are not > 0 or exceed 1, a split
        without an example.
    """
    if len(shares) != 3 or not all(s > 0 for s in shares) or not sum(shares) < 1 + 1e-9:
        raise RequestError(f"shares must be three numbers > 0, at most 1 in all; got {shares}")
    row_of("data", data)
    count = len(jax.tree.leaves(data)[0])
    order = np.random.default_rng(seed).permutation(count)
    ends = np.round(np.cumsum((0.0, *shares)) * count).astype(int)
    if min(np.diff(ends)) < 1:
        raise RequestError(f"each split must have an example; got {count} examples in all")
    parts = (order[start:end] for start, end in itertools.pairwise(ends))
    return Data(*(jax.tree.map(lambda x, rows=rows: np.asarray(x)[rows], data) for rows in parts))


def splits_of(data: Any) -> Data:
    """Data in three splits, refused if they are not."""
    if not isinstance(data, tuple) or len(data) != 3:
        raise RequestError(
            f"data must be three splits, train, validation and test; got {shown(data)}. "
            "Try lab.split(data)"
        )
    return Data(*data)


def row_of(name: str, split: Any) -> tuple[Any, ...]:
    """The structure of an example, with shapes and dtypes; refuses what has no rows."""
    leaves = jax.tree.leaves(split)
    if not leaves or not all(isinstance(x, np.ndarray | jax.Array) and x.ndim for x in leaves):
        raise RequestError(
            f"{name} must be a tree of arrays with a leading axis of examples"
            f"{', or a function step -> batch' if name == 'train' else ''}; got {shown(split)}"
        )
    if len({len(x) for x in leaves}) > 1 or not len(leaves[0]):
        raise RequestError(
            f"the arrays of {name} must have one leading axis of examples, of one length > 0; "
            f"got the shapes {[x.shape for x in leaves]}"
        )
    return jax.tree.structure(split), *((x.shape[1:], _dtype_name(x)) for x in leaves)


def _dtype_name(x: Any) -> str:
    """The dtype that an array has once it is jax's."""
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return str(x.dtype if is_key else jax.dtypes.canonicalize_dtype(x.dtype))


def shown(tree: Any) -> str:
    """A tree in few words."""
    if isinstance(tree, tuple) and tree and isinstance(tree[0], jax.tree_util.PyTreeDef):
        return f"{tree[0]} of {', '.join(f'{dtype}{list(shape)}' for shape, dtype in tree[1:])}"
    text = repr(jax.tree.map(lambda x: getattr(x, "shape", type(x).__name__), tree))
    return text if len(text) < 200 else f"{text[:200]}..."


def sha256(tree: Any) -> str:
    """A hash of all arrays, with their places, dtypes and shapes."""
    digest = hashlib.sha256()
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        x = np.asarray(jax.random.key_data(x) if is_key else x)
        digest.update(f"{jax.tree_util.keystr(path)} {x.dtype} {x.shape} ".encode())
        digest.update(np.ascontiguousarray(x).tobytes())
    return digest.hexdigest()
