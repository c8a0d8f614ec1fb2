"""The command `lion-jax`, also as `python -m lion_jax`."""

import io
import os
import sys

INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def main() -> int:
    """Runs the command line, or says what to install for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ± shows a question mark
    try:
        from lion_jax.lab import cli

        return cli.main()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("lion_jax"):
            raise
        print(
            f"lion-jax: {error.name} is missing; try: pip install 'lion-jax[lab]'", file=sys.stderr
        )
        return 2
    except KeyboardInterrupt:
        print("lion-jax: interrupted; nothing was written", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)  # an orderly exit would wait for the interrupted program to end


if __name__ == "__main__":
    sys.exit(main())
