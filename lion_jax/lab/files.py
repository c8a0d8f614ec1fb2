"""Writing pictures and records: all of them or nothing."""

import contextlib
import csv
import errno
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import optax

import lion_jax


def write(folder: Path, writers: dict[str, Callable[[Path], None]]) -> list[Path]:
    """Writes files into `folder` once all are ready, replacing earlier ones.

    Args:
      folder: where to; created if need be.
      writers: for each file's name, what writes it to a path.

    Returns:
      The paths written.

    Raises:
      OSError: the folder or a file in it cannot be written; nothing was.
    """
    check_writable(folder, writers)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        drafts = [Path(scratch) / name for name in writers]
        for draft, writer in zip(drafts, writers.values(), strict=True):
            writer(draft)
        return [draft.replace(folder / draft.name) for draft in drafts]


def check_writable(folder: Path, names: Iterable[str]) -> None:
    """Raises an OSError where `write` could not write; leaves no trace."""
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
    """A line for each row, under the names of the first."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_json(document: Any, path: Path) -> None:
    """A document in strict JSON."""
    path.write_text(json.dumps(_without_nan(document), indent=1, allow_nan=False) + "\n")


def versions() -> dict[str, str]:
    """The versions of the packages that every figure depends on."""
    return {
        "lion_jax": lion_jax.__version__,
        "jax": jax.__version__,
        "optax": optax.__version__,
    }


def _without_nan(value: Any) -> Any:
    """None for what JSON cannot say: the loss of a diverged run, the error of a single seed."""
    if isinstance(value, dict):
        return {key: _without_nan(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
