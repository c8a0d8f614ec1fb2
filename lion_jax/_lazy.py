"""Packages whose public names load when one is first asked for."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Any


def load_when_asked(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package whose names stand in its module `_public`.

    Importing the package then costs nothing, and a module of it loads alone.
    """
    own = vars(sys.modules[package])

    def public() -> dict[str, Any]:
        names = vars(importlib.import_module(f"{package}._public"))
        return {name: value for name, value in names.items() if not name.startswith("_")}

    def load(name: str) -> Any:
        if name == "__all__":
            return sorted(public())
        if not name.startswith("_"):
            if importlib.util.find_spec(f"{package}.{name}") is not None:
                return importlib.import_module(f"{package}.{name}")
            names = public()
            if name in names:
                own.update(names)
                return names[name]
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return load, lambda: sorted({*(name for name in own if name.startswith("__")), *public()})
