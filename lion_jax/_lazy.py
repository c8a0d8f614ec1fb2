"""Packages whose public names load when one is first asked for."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def load_when_asked(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package whose names stand in its module `_public`.

    Importing the package then costs nothing, and a module of it loads alone.
    """
    this = sys.modules[package]

    def public() -> ModuleType:
        return importlib.import_module(f"{package}._public")

    def load(name: str) -> Any:
        if name == "__all__":
            return public().__all__
        if not name.startswith("_"):
            if importlib.util.find_spec(f"{package}.{name}") is not None:
                return importlib.import_module(f"{package}.{name}")
            names = public()
            if name in names.__all__:
                vars(this).update({each: getattr(names, each) for each in names.__all__})
                return vars(this)[name]
        message = f"module {package!r} has no attribute {name!r}"
        raise AttributeError(message, name=name, obj=this)

    return load, lambda: public().__all__.copy()
