"""The error of a request that cannot be met, and the checks that all commands share."""

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any

_SMALLEST, _LARGEST = 1e-37, 1e38  # what float32 holds
_MOST_NAMED = 20


class RequestError(ValueError):
    """The error of a request that cannot be met; its message says what is possible."""


def known(kind: str, name: Any, table: Iterable[str]) -> str:
    """Returns a name that a table has; refuses others, with the nearest one."""
    names = list(table)
    if isinstance(name, str) and name in names:
        return name
    close = _close(name, names) if isinstance(name, str) else None
    hint = f"; did you mean {close!r}?" if close else "."
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    possible = ", ".join(names[:_MOST_NAMED])
    shown = repr(name) if len(repr(name)) < 100 else f"{repr(name)[:100]}..."
    raise RequestError(f"unknown {kind} {shown}{hint} Possible: {possible}{more}")


def _close(name: str, names: list[str]) -> str | None:
    """A known name that begins so, else the most similar one: for `adam` not `tadam`."""
    longer = [known for known in names if name and known.startswith(name)]
    return next(iter(longer or difflib.get_close_matches(name, names, n=1)), None)


def check_whole(name: str, value: Any, least: int, most: float = math.inf, why: str = "") -> None:
    """Refuses all but whole numbers from `least` to `most`; `why` says what `most` is."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(f"{name} must be a whole number; got {value!r}")
    if not least <= value <= most:
        limit = f"at least {least}" if most == math.inf else f"from {least} to {most}, {why}"
        raise RequestError(f"{name} must be {limit}; got {value}")


def check_rate(name: str, value: Any) -> None:
    """Refuses all but learning rates > 0 in float32."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise RequestError(f"{name} must be a number; got {value!r}")
    if not _SMALLEST <= float(value) <= _LARGEST:  # NaN too
        raise RequestError(f"{name} must be in [{_SMALLEST}, {_LARGEST}]; got {float(value):g}")
