"""Parameters and the leaves of a state, each with its shape and where it lives."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from lion_jax._core.types import PyTree


class Placed(NamedTuple):
    """An array's shape and dtype and where it lives.

    Attributes:
      path: of a parameter, for messages; of a leaf of the state, that of its parameter.
      array: shape and dtype.
      sharding: over which devices it is split.
      owner: of a leaf of the state, the index of its parameter, or None.
    """

    path: str
    array: jax.ShapeDtypeStruct
    sharding: NamedSharding
    owner: int | None = None

    @property
    def axes(self) -> list[tuple[str, ...]]:
        """The mesh axes along which each dimension is split."""
        spec = self.sharding.spec
        entries = [*spec, *[None] * (self.array.ndim - len(spec))]
        return [() if e is None else (e,) if isinstance(e, str) else tuple(e) for e in entries]

    @property
    def parts(self) -> tuple[int, ...]:
        """The number of parts into which each dimension is split."""
        return tuple(self.devices_along(axes) for axes in self.axes)

    @property
    def bytes_per_device(self) -> int:
        """The bytes of the one part that a device keeps."""
        return self.array.size * self.array.dtype.itemsize // math.prod(self.parts)

    def devices_along(self, axes: tuple[str, ...]) -> int:
        """The number of devices that its mesh has along these axes."""
        return math.prod(self.sharding.mesh.shape[axis] for axis in axes)

    def missing(self, axes: tuple[str, ...]) -> tuple[str, ...]:
        """The axes, of these, that have several devices and along which it is not split."""
        mine = {axis for of_dimension in self.axes for axis in of_dimension}
        return tuple(a for a in axes if a not in mine and self.devices_along((a,)) > 1)

    def split(self, axes: list[tuple[str, ...]]) -> "Placed":
        """Split along these axes for each dimension instead."""
        entries = [of_d[0] if len(of_d) == 1 else of_d or None for of_d in axes]
        while entries and entries[-1] is None:
            entries.pop()
        return self._replace(sharding=self.sharding.update(spec=PartitionSpec(*entries)))


def place_parameters(params: optax.Params, param_sharding: PyTree) -> list[Placed]:
    """The parameters where `param_sharding` has them, if it has a fitting place for each."""
    for sharding in jax.tree.leaves(param_sharding):
        if not isinstance(sharding, NamedSharding):
            raise TypeError(
                "param_sharding must hold shardings over a mesh, jax.sharding.NamedSharding; got "
                f"{sharding!r} of type {type(sharding).__name__}. "
                "Try NamedSharding(mesh, PartitionSpec())."
            )
    try:
        shardings = jax.tree.leaves(jax.tree.broadcast(param_sharding, params))
    except ValueError as error:
        raise ValueError(
            "param_sharding must be one sharding, a tree of them like params or a prefix of such a "
            f"tree; got {jax.tree.structure(param_sharding)} for {jax.tree.structure(params)}. "
            "Try jax.tree.map(lambda p: p.sharding, params)."
        ) from error
    placed = [
        Placed(
            jax.tree_util.keystr(path) or "the root",
            jax.ShapeDtypeStruct(jnp.shape(p), jnp.result_type(p)),
            sharding,
        )
        for (path, p), sharding in zip(
            jax.tree_util.tree_leaves_with_path(params), shardings, strict=True
        )
    ]
    for parameter in placed:
        _check_fits(parameter)
    return placed


def place_state(leaf: jax.ShapeDtypeStruct, owner: int, parameter: Placed) -> Placed:
    """A leaf of the state split as its parameter, along the dimensions that allow it.

    Several of the parameter's shape, one behind the other, are split as it is.
    """
    mine = parameter._replace(array=leaf, owner=owner)
    if leaf.shape == parameter.array.shape:
        return mine
    leading = leaf.ndim - parameter.array.ndim
    if leading > 0 and leaf.shape[leading:] == parameter.array.shape:
        return mine.split([()] * leading + parameter.axes)
    if leading:
        return mine.split([])
    cuts = zip(leaf.shape, parameter.axes, parameter.parts, strict=True)
    return mine.split([axes if extent % parts == 0 else () for extent, axes, parts in cuts])


def _check_fits(parameter: Placed) -> None:
    path, shape, spec = parameter.path, parameter.array.shape, parameter.sharding.spec
    if PartitionSpec.UNCONSTRAINED in spec:
        raise ValueError(
            f"param_sharding must say where each dimension is; got {spec} for the parameter at "
            f"{path}. Try None instead of UNCONSTRAINED, which leaves a dimension whole."
        )
    if len(spec) > len(shape):
        raise ValueError(
            "param_sharding must have no more entries than a parameter has dimensions; got "
            f"{spec} for the parameter at {path} of shape {shape}. "
            "Try PartitionSpec(), which leaves it whole."
        )
    for d, (axes, parts) in enumerate(zip(parameter.axes, parameter.parts, strict=True)):
        if shape[d] % parts == 0:
            continue
        divisible = [i for i, extent in enumerate(shape) if extent % parts == 0]
        remedy = f"dimension {divisible[0]}, which they divide" if divisible else "PartitionSpec()"
        raise ValueError(
            f"param_sharding must divide every dimension that it splits; got dimension {d} of "
            f"extent {shape[d]} over the {parts} devices of {name_of(axes)} for the parameter at "
            f"{path} of shape {shape}. Try {remedy}, or padding it to "
            f"{math.ceil(shape[d] / parts) * parts}."
        )


def name_of(axes: tuple[str, ...]) -> str:
    """Mesh axes, for messages."""
    return f"mesh {'axis' if len(axes) == 1 else 'axes'} " + ", ".join(map(repr, axes))
