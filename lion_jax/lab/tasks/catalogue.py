"""The tasks that come with the lab, each in a file of its name that loads when asked for."""

import importlib
from collections.abc import Callable

from lion_jax.lab.tasks.task import Task


def _task(name: str) -> Callable[[], Task]:
    return lambda: getattr(importlib.import_module(f"lion_jax.lab.tasks.{name}"), name)()


TASKS: dict[str, Callable[[], Task]] = {name: _task(name) for name in ("digits", "text")}
