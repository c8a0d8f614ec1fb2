"""Writing results: all files of one or none, each whole at any moment."""

import contextlib
import csv
import errno
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from lion_jax.lab.errors import RequestError


def write(folder: Path, writers: dict[str, Callable[[Path], None]]) -> list[Path]:
    """Writes files into `folder` once all are ready, replacing earlier ones.

    Args:
      folder: where to; created if need be.
      writers: for each file's name, what writes it to a path.

    Returns:
      The paths written.

    Raises:
      RequestError: the folder or a file in it cannot be written; nothing was.
    """
    check_writable(folder, writers)
    with _said_in_a_line(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            drafts = [Path(scratch) / name for name in writers]
            for draft, writer in zip(drafts, writers.values(), strict=True):
                writer(draft)
            return [draft.replace(folder / draft.name) for draft in drafts]


def check_writable(folder: Path, names: Iterable[str]) -> None:
    """Refuses a folder that `write` could not write to; leaves no trace."""
    with _said_in_a_line(folder):
        _try_to_write(folder, names)


@contextlib.contextmanager
def _said_in_a_line(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RequestError(
            f"cannot write to the output folder {folder} ({error.strerror or error}); "
            "possible: a folder that exists or can be created, such as --output results"
        ) from error


def _try_to_write(folder: Path, names: Iterable[str]) -> None:
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for name in names:
            if (folder / name).is_dir():
                raise IsADirectoryError(errno.EISDIR, f"{name} is a folder there")
    finally:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()


def write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    """A line for each row, under all the names that rows have."""
    with path.open("w", newline="") as file:
        names = dict.fromkeys(name for row in rows for name in row)
        writer = csv.DictWriter(file, fieldnames=list(names))
        writer.writeheader()
        writer.writerows(rows)


def write_json(document: Any, path: Path) -> None:
    """A document in strict JSON, which has null for what is not finite."""
    path.write_text(json.dumps(finite(document), indent=1, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """A value as JSON has it: null for NaN, text for an infinity."""
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
