"""Converts the leaves of a tree to arrays that orbax stores, and back."""

import itertools
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lion_jax._core.leaves import is_array
from lion_jax._core.versions import mesh_in_use
from lion_jax._installation import to_install

# What orbax gives back as it was; others it refuses while it writes, without saying where.
_DTYPES = frozenset(
    {
        *("bool", "int2", "int4", "int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64", "bfloat16", "float16", "float32", "float64"),
        *("complex64", "complex128", "float4_e2m1fn", "float8_e3m4", "float8_e4m3b11fnuz"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    }
)


def orbax() -> Any:
    """The package, which is optional: only what needs it imports it."""
    try:
        import orbax.checkpoint as ocp
    except ModuleNotFoundError as error:
        if error.name not in ("orbax", "orbax.checkpoint"):
            raise
        raise ImportError(
            f"checkpoints need orbax, which is missing; try: {to_install('checkpoints')}",
            name=error.name,
        ) from error
    return ocp


class Record(NamedTuple):
    """The entry of one leaf in a checkpoint.

    Attributes:
      path: its keys, joined by "/".
      shape: of the array.
      dtype: its name, whatever the order of its bytes; that of a typed key has the generator's, as
        in "key<fry>".
      checksum: CRC-32 of its bytes in the order of its indices, whatever its sharding; None where
        no process has all of them. Neither orbax nor tensorstore has one of the arrays.
    """

    path: str
    shape: list[int]
    dtype: str
    checksum: int | None = None

    def __str__(self) -> str:
        return f"{self.dtype}{tuple(self.shape)}"


def record(path: jax.tree_util.KeyPath, leaf: Any) -> Record:
    """The record of a leaf, without its checksum; refuses what no checkpoint can hold."""
    name = jax.tree_util.keystr(path, simple=True, separator="/") or "the root"
    if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
        remedy = "jnp.asarray of it" if is_array(leaf) else "the tree with None in its place"
        raise TypeError(
            f"each leaf must be an array; got {leaf!r} of type {type(leaf).__name__} at {name}. "
            f"Try {remedy}."
        )
    if isinstance(leaf, np.ma.MaskedArray):
        raise TypeError(
            f"each leaf must be an array without a mask of its own; got a masked one at {name}. "
            "Try (leaf.data, numpy.ma.getmaskarray(leaf))."
        )
    dtype = _native(leaf.dtype)
    if not (_is_key(leaf) or str(dtype) in _DTYPES):
        raise TypeError(
            f"each leaf must have a dtype that orbax can store; got {dtype} at {name}. "
            "Try leaf.astype of a common one, leaf.view(numpy.uint8) for its bits, or the tree "
            "without it."
        )
    if has_place(leaf):
        try:
            leaf.sharding.shard_shape(leaf.shape)
        except ValueError as error:
            raise ValueError(
                f"each sharding must suit its leaf; got one at {name} that does not: {error}. "
                "Try one that leaves this axis whole."
            ) from error
    return Record(name, list(leaf.shape), str(dtype))


def first_difference(
    saved: list[Record], wanted: list[Record]
) -> tuple[str, Record | None, Record | None] | None:
    """The first path at which two trees differ, and the leaf of each; None if they are equal."""
    paths = {record.path for record in saved}
    for has, wants in itertools.zip_longest(saved, wanted):
        if has and wants and has.path == wants.path:
            if has[:3] != wants[:3]:
                return has.path, has, wants
        elif has and not (wants and wants.path not in paths):
            return has.path, has, None
        else:
            return wants.path, None, wants
    return None


def places(saved: list[Record], wanted: list[Record]) -> list[int]:
    """The place of each saved leaf in the tree to restore, whose nodes may sort keys otherwise.

    Trees that are not the same keep their order, so that the first difference is found.
    """
    at = {record.path: i for i, record in enumerate(wanted)}
    found = [at.get(record.path, -1) for record in saved]
    is_same = sorted(found) == list(range(len(wanted)))
    return found if is_same else list(range(len(wanted)))


def checksum(leaf: Any) -> int | None:
    """The checksum of a :class:`Record`."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        return None
    flat = _on_host(leaf).reshape(-1)
    if flat.strides != (flat.itemsize,):  # a single entry may have any
        flat = flat.copy()
    return zlib.crc32(flat.view(np.uint8).data)


def to_write(leaf: Any) -> Any:
    """The array that orbax writes: a host's unless the leaf has a place on devices."""
    return _bits(leaf) if has_place(leaf) else _on_host(leaf)


def to_read(like: Any) -> Any:
    """The template that orbax reads a leaf by: its sharding if any, else a host's array."""
    if has_place(like) and not _is_key(like):
        return jax.ShapeDtypeStruct(like.shape, like.dtype, sharding=_place(like))
    return to_read_on_host(like)


def to_read_on_host(like: Any) -> np.ndarray:
    """The template without its sharding: an array of one entry's memory."""
    bits = jax.eval_shape(jax.random.key_data, like) if _is_key(like) else like
    return np.broadcast_to(np.empty((), _native(bits.dtype)), bits.shape)


def to_return(like: Any, read: Any) -> Any:
    """An array as it was read, of the kind of `like` and where that lies."""
    if isinstance(read, jax.Array):
        return read
    if isinstance(like, np.ndarray | np.generic):
        read = np.asarray(read).astype(like.dtype, copy=False)  # in its order of bytes
        return read[()] if isinstance(like, np.generic) else read
    if _is_key(like):
        read = jax.random.wrap_key_data(jnp.asarray(read), impl=_generator(like))
    return jax.device_put(read, _place(like)) if has_place(like) else jnp.asarray(read)


def read(folder: Any, templates: dict[str, Any]) -> dict[str, Any]:
    """The arrays of these names in one item of orbax, each read by what `to_read` made of it."""
    if not templates:
        return {}
    ocp = orbax()
    restore_args = ocp.checkpoint_utils.construct_restore_args(templates)
    args = ocp.args.PyTreeRestore(templates, restore_args=restore_args, partial_restore=True)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        return checkpointer.restore(folder, args=args)


def has_place(leaf: Any) -> bool:
    """Tells whether it lies somewhere of its own, not just where JAX puts new arrays.

    An array that JAX put somewhere by itself goes along with others in a computation; restored to
    a place of its own, a step counter could not meet parameters on a mesh.
    """
    if isinstance(leaf, jax.Array):
        return leaf.committed
    return getattr(leaf, "sharding", None) is not None


def _place(leaf: Any) -> Any:
    """Its sharding; on the mesh in use where it is of an abstract one, as in explicit mode."""
    sharding = leaf.sharding
    if isinstance(getattr(sharding, "mesh", None), jax.sharding.AbstractMesh):
        return jax.sharding.NamedSharding(mesh_in_use(), sharding.spec)
    return sharding


def _on_host(leaf: Any) -> np.ndarray:
    """Its bits as orbax takes them: in the order of the indices and of this machine's bytes."""
    array = np.asarray(_bits(leaf), order="C")
    return array.astype(_native(array.dtype), copy=False)


def _native(dtype: Any) -> Any:
    return dtype.newbyteorder("=") if getattr(dtype, "byteorder", "=") in "<>" else dtype


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _generator(like: Any) -> Any:
    return jax.random.key_impl(jnp.empty((), like.dtype))


def _bits(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf
