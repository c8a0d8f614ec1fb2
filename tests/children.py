"""Processes that a test starts: none outlives its block, and pytest shows what they said."""

import contextlib
import socket
import subprocess


def free_address():
    """An address on this machine at which nobody listens."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


@contextlib.contextmanager
def started(commands):
    """The processes of `{log: (words, environment)}`; each writes to its log."""
    children = []
    try:
        for log, (words, environment) in commands.items():
            with log.open("w") as file:
                children.append(
                    subprocess.Popen(
                        [str(word) for word in words],
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        env=environment,
                    )
                )
        yield children
    finally:
        for child in children:
            child.kill()
            child.wait()
        for log in filter(lambda log: log.exists(), commands):
            print(f"--- {log.name}\n{log.read_text()}")
