"""Functions that the oldest supported jax and optax lack: newer ones have them under public names.

jax 0.7 lacks those of jax; optax 0.2.5 lacks `optax.init_empty_state`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

_HAS_PCAST = hasattr(lax, "pcast")


def as_varying(x: jax.Array, axis_name: str) -> jax.Array:
    """An array, alike on all replicas, of which jax no longer assumes it: `jax.lax.pcast`."""
    if _HAS_PCAST:
        return lax.pcast(x, axis_name, to="varying")
    return lax.pvary(x, axis_name)  # pyright: ignore[reportAttributeAccessIssue]


def is_varying(x: jax.Array, axis_name: str) -> bool:
    """Tells whether jax knows that an array differs between replicas, or cannot tell."""
    if not _HAS_PCAST:
        return axis_name in jax.typeof(x).vma
    try:
        lax.pcast(x, axis_name, to="varying")
    except ValueError:
        return True
    return False


def all_gather_alike(x: jax.Array, axis_name: str, axis: int) -> jax.Array:
    """The arrays of all replicas, joined along a dimension, which jax knows to be alike on all."""
    if _HAS_PCAST:
        return lax.all_gather(x, axis_name, axis=axis, tiled=True, to="invarying")
    width = x.shape[axis]  # jax knows of sums alone that they are alike
    shape = (*x.shape[:axis], width * lax.axis_size(axis_name), *x.shape[axis + 1 :])
    start = lax.axis_index(axis_name) * width
    return lax.psum(
        lax.dynamic_update_slice_in_dim(jnp.zeros(shape, x.dtype), x, start, axis), axis_name
    )


def mesh_in_use() -> jax.sharding.Mesh:
    """The mesh of `jax.set_mesh`.

    Raises:
      ValueError: this jax does not tell.
    """
    if hasattr(jax.sharding, "get_mesh"):
        return jax.sharding.get_mesh()
    raise ValueError(
        "a leaf of an abstract mesh has no devices, and jax tells those of the mesh in use from "
        f"0.8.1 on; got jax {jax.__version__}. Try leaves with a sharding of a jax.sharding.Mesh."
    )


def bits_of(dtype: Any) -> int:
    """The bits of an entry, of which `int4` has 4: `jax.dtypes.itemsize_bits`."""
    if hasattr(jax.dtypes, "itemsize_bits"):
        return jax.dtypes.itemsize_bits(dtype)
    is_integer = jnp.issubdtype(dtype, jnp.integer)
    return jnp.iinfo(dtype).bits if is_integer else 8 * jnp.dtype(dtype).itemsize


def init_empty_state(params: optax.Params) -> optax.EmptyState:
    """The state of a transformation without one: `optax.init_empty_state`."""
    del params
    return optax.EmptyState()
