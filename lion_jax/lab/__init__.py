"""Comparisons of update rules on your own tasks, and the command line: needs the extra `lab`."""

from typing import TYPE_CHECKING

from lion_jax._lazy import load_when_asked

if TYPE_CHECKING:
    from lion_jax.lab._public import *  # noqa: F403
else:
    __getattr__, __dir__ = load_when_asked(__name__)
