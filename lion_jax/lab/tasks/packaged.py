"""Data files that come inside other packages, of the extra ``tasks``."""

import importlib.util
from pathlib import Path

from lion_jax._installation import to_install
from lion_jax.lab.errors import RequestError


def packaged(task: str, package: str, file: str) -> Path:
    """The path of a data file in a package, which is not imported.

    Raises:
      RequestError: the package or the file is missing.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / file).is_file():
            return Path(folder) / file
    missing = f"its file {file}, which this version lacks" if spec else "which is missing"
    raise RequestError(
        f"the task {task!r} reads data of the package {package}, {missing}; "
        f"try: {to_install('tasks')}"
    )
