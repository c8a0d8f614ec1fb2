"""Ctrl-C that nothing swallows, as imports of extension modules can."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def heard(at_once: Callable[[], None] | None = None) -> Iterator[Callable[[], None]]:
    """Listens for Ctrl-C.

    Args:
      at_once: what happens on Ctrl-C; None raises ``KeyboardInterrupt``.

    Yields:
      A function to call now and then: it raises ``KeyboardInterrupt`` where an earlier one was
      swallowed.
    """
    was_pressed = False

    def on_signal(number: int, frame: Any) -> None:
        nonlocal was_pressed
        was_pressed = True
        if at_once is not None:
            at_once()
        raise KeyboardInterrupt

    def check() -> None:
        if was_pressed and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
