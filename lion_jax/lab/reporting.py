"""Functions that report as they go: the finished report when called, each one from `each`."""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from lion_jax.lab import progress
from lion_jax.lab.report import Report

P = ParamSpec("P")
R = TypeVar("R", bound=Report)


class Reporting(Protocol, Generic[P, R]):
    """A function that gives its finished report."""

    each: Callable[..., Iterator[R]]
    """Gives a report after each rule, the finished one last; an interruption loses none of them."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The finished report."""
        ...


def reporting(each: Callable[P, Iterator[R]]) -> Reporting[P, R]:
    """Makes a function of a generator of ever longer reports, whose last one is the result.

    Its argument `on_progress` is None for bars on a terminal and lines in a notebook.
    """

    @functools.wraps(each)
    def run(*arguments: Any, on_progress: progress.OnProgress | None = None, **words: Any) -> Any:
        with progress.shown(on_progress) as on_shown:
            *_, finished = each(*arguments, on_progress=on_shown, **words)  # pyright: ignore
        return finished

    signature = inspect.signature(each)
    (report,) = signature.return_annotation.__args__
    function: Any = run
    function.__signature__ = signature.replace(return_annotation=report)
    function.each = each
    return function
