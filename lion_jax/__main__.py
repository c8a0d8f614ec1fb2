"""The command `lion-jax`, also as `python -m lion_jax`."""

import io
import os
import sys
from typing import NoReturn

from lion_jax._interruption import heard
from lion_jax._versions import UnsupportedVersionError, check_versions

INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def main() -> int:
    """Runs the command line, or says what to install for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ± shows a question mark
    try:
        check_versions()
        with heard(_leave):  # what is imported here may swallow an exception
            from lion_jax.lab.cli import main as run

            return run()
    except UnsupportedVersionError as error:
        print(f"lion-jax: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("lion_jax"):
            raise
        from lion_jax._installation import to_install

        print(f"lion-jax: {error.name} is missing; try: {to_install('lab')}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        return _leave(str(interruption))


def _leave(said: str = "") -> NoReturn:
    """Ends at once: an orderly exit would wait for the interrupted program to end."""
    print(f"lion-jax: {said or 'interrupted; nothing was written'}", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
