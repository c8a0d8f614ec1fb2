"""Groups and pairs of chips that exchange, read from each form that a compiled program has."""

import itertools
import math
import re

import numpy as np

from lion_jax.lab.errors import RequestError

_LISTED = re.compile(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")
_AXIS = re.compile(r"'?([\w.\-]+)'?(?::\((\d+)\)(\d+))?")
_PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")


def replica_groups(text: str, chips: int) -> np.ndarray:
    """Groups of chips that a collective runs in.

    Args:
      text: an instruction's attributes, with the groups as lists `{{0,1},{2,3}}`, as a reshaped
        and transposed range `[2,2]<=[2,2]T(1,0)`, or as axes of a mesh
        `mesh['a'=2,'b'=2] {'b'}`, some of them split as `'a':(2)4`.
      chips: how many there are; all form one group where the text names none.

    Returns:
      Numbers of chips, a row for each group.

    Raises:
      RequestError: groups in another form, or not all of one size.
    """
    if match := _LISTED.search(text):
        groups = [_numbers(g) for g in re.findall(r"\{([\d,]*)\}", match.group(1))]
        if len({len(g) for g in groups}) > 1:
            raise RequestError(f"groups of several sizes cannot be counted: {match.group(0)[:80]}")
        return np.array(groups) if any(groups) else np.arange(chips)[None]
    if match := _IOTA.search(text):
        shape, dims, order = match.groups()
        return _iota(dims, order).reshape(_numbers(shape))
    if match := _MESH.search(text):
        return _of_mesh(*match.groups())
    if "replica_groups=" in text:
        raise RequestError(f"unknown form of replica groups: {text[:80]!r}")
    return np.arange(chips)[None]


def source_target_pairs(text: str) -> list[tuple[int, int]]:
    """Pairs of sender and receiver in a permutation; a chip may send to itself.

    Raises:
      RequestError: no pairs in the text.
    """
    match = _PAIRS.search(text)
    if match is None:
        raise RequestError(f"unknown form of source_target_pairs: {text[:80]!r}")
    pairs = re.findall(r"\{(\d+),(\d+)\}", match.group(1))
    return [(int(source), int(target)) for source, target in pairs]


def _of_mesh(axes_text: str, grouped_text: str) -> np.ndarray:
    """Groups along some axes of a mesh; all other axes number the groups."""
    sizes = {n: int(size) for n, size in re.findall(r"'?([\w.\-]+)'?=(\d+)", axes_text)}
    grouped = [
        (name, int(before or 1), int(size or sizes[name]))
        for name, before, size in _AXIS.findall(grouped_text)
    ]
    # An axis of which a part is grouped stands as several: what is before, the part, the rest.
    parts = []
    for name, extent in sizes.items():
        cuts = {1, extent}
        for other, before, size in grouped:
            if other == name:
                cuts |= {before, before * size}
        bounds = sorted(cuts)
        parts += [(name, low, high // low) for low, high in itertools.pairwise(bounds)]
    ids = np.arange(math.prod(sizes.values())).reshape([size for _, _, size in parts])
    inner = [parts.index(part) for part in grouped if part[2] > 1]
    outer = [i for i in range(len(parts)) if i not in inner]
    members = math.prod(parts[i][2] for i in inner)
    return ids.transpose(outer + inner).reshape(-1, members)


def _iota(dims: str, order: str | None) -> np.ndarray:
    extents = _numbers(dims)
    ids = np.arange(math.prod(extents)).reshape(extents)
    return ids.transpose(_numbers(order)) if order else ids


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n.strip()]
