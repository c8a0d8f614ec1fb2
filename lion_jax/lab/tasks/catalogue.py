"""The tasks that come with the lab, each in a file of its name that loads when asked for."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from lion_jax._installation import to_install
from lion_jax.lab.errors import RequestError, check_whole, known
from lion_jax.lab.tasks.task import Task


def made(name: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """The result of a task's function.

    Raises:
      RequestError: an argument that the function does not have, or a size that cannot be.
    """
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for argument in () if takes_any else arguments:
        if argument == "size" and argument not in parameters:
            raise of_one_size(name)
        if not parameters:
            raise RequestError(f"task {name!r} takes no arguments; got {argument}")
        known("argument", argument, parameters)
    if "size" in arguments:
        check_whole("size", arguments["size"], 1)
    return function(**arguments)


def of_one_size(name: str) -> RequestError:
    """The error of a size for a task without sizes."""
    return RequestError(
        f"task {name!r} has one size; give a function with the argument size: def task(size=1)"
    )


def _task(name: str) -> Callable[..., Task]:
    def make(**arguments: Any) -> Task:
        try:
            module = importlib.import_module(f"lion_jax.lab.tasks.{name}")
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] != "flax":
                raise
            raise RequestError(
                f"the model of the task {name!r} is made of the package flax, which is missing; "
                f"try: {to_install('tasks')}"
            ) from error
        return made(name, getattr(module, name), arguments)

    return make


TASKS: dict[str, Callable[..., Task]] = {
    name: _task(name) for name in ("digits", "text", "mnist", "phonemes", "diamonds")
}
"""The functions that make the tasks, by name; `size` makes the model larger."""
