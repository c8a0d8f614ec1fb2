"""The command `lion-jax`, also as `python -m lion_jax`."""

import os
import sys


def main() -> int:
    """Runs the command line, or says what to install for it."""
    try:
        from lion_jax.lab import cli
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("lion_jax"):
            raise
        print(
            f"lion-jax: {error.name} is missing; try: pip install 'lion-jax[lab]'", file=sys.stderr
        )
        return 2
    status = cli.main()
    if status == cli.INTERRUPTED:
        os._exit(status)  # an orderly exit would wait for the interrupted program to end
    return status


if __name__ == "__main__":
    sys.exit(main())
