"""The warning about state that cannot be split."""

import math

import jax
import optax

from lion_jax.distributed._placing import Placed, name_of, place_state
from lion_jax.distributed._splitting import split_dimensions

_LISTED = 10


def describe(
    optimizer: optax.GradientTransformation,
    params: optax.Params,
    parameters: list[Placed],
    state: list[Placed],
    axes: tuple[str, ...],
) -> str | None:
    """Says whose state is whole along these axes, why, how much and what to try; None if none is.

    Args:
      optimizer: any transformation.
      params: arrays or `jax.ShapeDtypeStruct`s.
      parameters: the same, placed.
      state: the leaves of its state, placed.
      axes: of the mesh.
    """
    whole: dict[int, list[Placed]] = {}
    for leaf in state:
        if leaf.owner is not None and leaf.array.size > 1 and leaf.missing(axes):
            whole.setdefault(leaf.owner, []).append(leaf)
    if not whole:
        return None
    size = {i: sum(leaf.bytes_per_device for leaf in leaves) for i, leaves in whole.items()}
    before = sum(
        (
            leaf if leaf.owner is None else place_state(leaf.array, 0, parameters[leaf.owner])
        ).bytes_per_device
        for leaf in state
    )
    listed = sorted(whole, key=lambda i: -size[i])[:_LISTED]
    remedies = _remedies(optimizer, params, parameters, state, listed, axes)
    lines = [
        f"  {parameters[i].path} of shape {parameters[i].array.shape}: {size[i]} bytes; "
        f"{_why(parameters[i], whole[i], axes)}{remedies[i]}"
        for i in listed
    ]
    if len(whole) > len(lines):
        lines.append(f"  and {len(whole) - len(lines)} smaller ones")
    total = sum(size.values())
    return (
        f"zero_sharding cannot split the state of {len(whole)} of {len(parameters)} parameters "
        f"along {name_of(axes)}: {total} bytes stay whole on every device, "
        f"{total / before:.2%} of the state:\n" + "\n".join(lines)
    )


def _why(parameter: Placed, whole: list[Placed], axes: tuple[str, ...]) -> str:
    """The reason why these leaves of its state are whole."""
    shapes = ", ".join(str(s) for s in dict.fromkeys(leaf.array.shape for leaf in whole))
    if all(leaf.array.ndim != parameter.array.ndim for leaf in whole):
        return f"its state of shape {shapes} has other dimensions than it"
    further = parameter.missing(axes)
    if not further:
        return f"its state of shape {shapes} is not a multiple of its parts"
    shards = parameter.devices_along(further)
    if any(_divides(parameter, d, shards) for d in range(parameter.array.ndim)):
        return f"{shards} parts would end within the groups of its state of shape {shapes}"
    return f"no dimension is a multiple of {shards}" + (
        " times its parts" if max(parameter.parts, default=1) > 1 else ""
    )


def _divides(parameter: Placed, d: int, shards: int) -> bool:
    return parameter.array.shape[d] % (shards * parameter.parts[d]) == 0


def _remedies(
    optimizer: optax.GradientTransformation,
    params: optax.Params,
    parameters: list[Placed],
    state: list[Placed],
    listed: list[int],
    axes: tuple[str, ...],
) -> dict[int, str]:
    """Remedies that would split the state of each, as far as trying them on shapes has shown."""
    treedef = jax.tree.structure(params)
    taken = treedef.unflatten([p.parts for p in parameters])
    arrays = [p.array for p in parameters]
    shards = {i: parameters[i].devices_along(parameters[i].missing(axes)) for i in listed}

    def splits(shards, arrays):
        found = split_dimensions(optimizer, treedef.unflatten(arrays), shards, taken)
        return [d is not None for d in treedef.flatten_up_to(found)]

    moments = {
        i: [x.array for x in state if x.owner == i and x.array.ndim == arrays[i].ndim]
        for i in listed
    }
    fewer = {i: _largest(parameters[i], moments[i], shards[i]) for i in listed}
    fewer_split = {n: splits(n, arrays) for n in set(fewer.values()) - {1}}
    padding = {i: _padded(parameters[i], shards[i]) for i in listed if arrays[i].ndim}
    padded = [padding[i][1] if i in padding else p for i, p in enumerate(arrays)]
    padded_split = {n: splits(n, padded) for n in set(shards.values()) - {1}}
    remedies = {}
    for i in listed:
        options = []
        if fewer[i] > 1 and fewer_split[fewer[i]][i]:
            options.append(f"an axis of {fewer[i]}")
        if i in padding and shards[i] > 1 and padded_split[shards[i]][i]:
            d, array = padding[i]
            options.append(f"padding dimension {d} to {array.shape[d]}")
        remedies[i] = f". Try {' or '.join(options)}." if options else "."
    return remedies


def _largest(parameter: Placed, moments: list[jax.ShapeDtypeStruct], shards: int) -> int:
    """The largest number of parts, less than these, into which all extents could be cut."""
    arrays = [parameter.array, *(x for x in moments if x.size > 1)]
    extents = [math.gcd(*(x.shape[d] for x in arrays)) for d in range(parameter.array.ndim)]
    cuts = list(zip(extents, parameter.parts, strict=True))
    return max((n for n in range(1, shards) if any(e % (n * k) == 0 for e, k in cuts)), default=1)


def _padded(parameter: Placed, shards: int) -> tuple[int, jax.ShapeDtypeStruct]:
    """The dimension that would need the smallest share more to be cut, and the larger shape."""
    shape, parts = parameter.array.shape, parameter.parts
    larger = [math.ceil(n / (shards * k)) * shards * k for n, k in zip(shape, parts, strict=True)]
    d = min(range(len(shape)), key=lambda d: larger[d] / max(shape[d], 1))
    return d, parameter.array.update(shape=(*shape[:d], larger[d], *shape[d + 1 :]))
