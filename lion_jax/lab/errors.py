"""The error of a request that cannot be met, and the checks that all commands share."""

import difflib
import math
from typing import Any

import numpy as np

_SMALLEST, _LARGEST = 1e-37, 1e38  # what float32 holds


class RequestError(ValueError):
    """A request that cannot be met as asked; the message says what is possible."""


def known(kind: str, name: Any, table: dict[str, Any]) -> str:
    """The name, refused with its nearest neighbour if the table does not have it."""
    if not isinstance(name, str) or name not in table:
        close = difflib.get_close_matches(name, table, n=1) if isinstance(name, str) else []
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise RequestError(f"unknown {kind} {name!r}{hint} Possible: {', '.join(table)}")
    return name


def check_whole(name: str, value: Any, least: int, most: float = math.inf, why: str = "") -> None:
    """Refuses what is no whole number from `least` to `most`; `why` says what `most` is."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(f"{name} must be a whole number; got {value!r}")
    if not least <= value <= most:
        limit = f"at least {least}" if most == math.inf else f"from {least} to {most}, {why}"
        raise RequestError(f"{name} must be {limit}; got {value}")


def check_rate(name: str, value: Any) -> None:
    """Refuses what is no learning rate > 0 in float32."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise RequestError(f"{name} must be a number; got {value!r}")
    if not _SMALLEST <= value <= _LARGEST:  # NaN too
        raise RequestError(f"{name} must be in [{_SMALLEST}, {_LARGEST}]; got {value:g}")
