"""The least that a layout of a step needs of each chip."""

import dataclasses
import functools
import math
from typing import Any

import jax

from lion_jax.lab.cost import hlo
from lion_jax.lab.cost.steps import Step

_SIGN_BYTES = math.log2(3) / 8  # of a sign: -1, 0 or 1


@dataclasses.dataclass(frozen=True)
class Floors:
    """The least that the same layout needs, in bytes per chip.

    Attributes:
      stored: of parameters and state, without padding, split over as many chips as the layout
        splits them over; scalars are on every chip.
      hbm: parameters, gradients and state read once, parameters and state written once.
      temporary: none.
      sent: what the exchange of the layout's numbers takes at best.
    """

    stored: float
    hbm: float
    sent: float
    temporary: float = 0.0


@dataclasses.dataclass(frozen=True)
class Stored:
    """A leaf of the step's arguments, whole, and as an array of each chip."""

    path: str
    leaf: Any
    array: hlo.Array

    @functools.cached_property
    def whole_bytes(self) -> float:
        """Bytes of the leaf over all chips, each element counted once."""
        part = math.prod(self.leaf.sharding.shard_shape(self.leaf.shape))
        return self.array.nbytes * self.leaf.size / part if part else 0.0


def stored(step: Step, program: hlo.Program) -> tuple[list[Stored], ...]:
    """The arguments of the step as the program has them."""
    found = iter(program.entry.parameters)
    return tuple(
        [
            Stored(jax.tree_util.keystr(path), leaf, next(hlo.arrays(next(found).type)))
            for path, leaf in jax.tree_util.tree_leaves_with_path(argument)
        ]
        for argument in step.arguments
    )


def least(
    sharding: str, n: int, params: list[Stored], gradients: list[Stored], state: list[Stored]
) -> Floors:
    """The floors of a layout over `n` chips."""
    p, s = (sum(x.whole_bytes for x in of) for of in (params, state))
    part_of_p, part_of_g, part_of_s = (_part(of, n) for of in (params, gradients, state))
    size = sum(x.leaf.size for x in params)
    if sharding == "fsdp":
        return Floors(part_of_p + part_of_s, 2 * part_of_p + part_of_g + 2 * part_of_s, 0)
    exchanged = {
        "data": 2 * 4 * size,
        "zero": 4 * size + p,
        "vote": 2 * _SIGN_BYTES * size,
        "sign_gather": (4 + _SIGN_BYTES) * size,
    }
    mine = s if sharding in ("single", "data") else part_of_s
    read = part_of_p if sharding == "zero" else p
    sent = exchanged.get(sharding, 0) * (n - 1) / n
    return Floors(p + mine, part_of_g + read + p + 2 * mine, sent)


def _part(of: list[Stored], n: int) -> float:
    """Bytes of leaves split over `n` chips, but for scalars."""
    return sum(x.whole_bytes / (n if x.leaf.ndim else 1) for x in of)
