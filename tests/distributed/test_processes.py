"""Several processes train as one does, and others go on from where a dead one has left them."""

import contextlib
import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from children import free_address, started

from lion_jax import checkpoints

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "train_on_many_processes.py"
STEPS, EVERY, DEVICES = 40, 10, 4
NOTICED = 15  # seconds in which a death must be: the example's ten of silence, and some of load

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not EXAMPLE.exists(), reason="the docs are not here"),
]


@contextlib.contextmanager
def example(count, folder):
    """The example on so many processes, of four devices in all; none outlives the block."""
    options = ["--folder", folder, "--steps", STEPS, "--every", EVERY]
    options += ["--devices-per-process", DEVICES // count]
    if count > 1:
        options += ["--coordinator", free_address(), "--processes", count]
    ours = ("JAX_", "XLA_", "PYTHONDONTWRITEBYTECODE")  # without which importing jax takes a third
    settings = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    settings |= {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir or "",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    commands = {}
    for i in range(count):
        own = ["--process", i] if count > 1 else []
        log = folder.with_suffix(f".{count}-{i}.log")
        commands[log] = ([sys.executable, EXAMPLE, *options, *own], settings)
    with started(commands) as children:
        yield children, list(commands)


def finish(count, folder):
    """Trains to the end, and returns the step that it went on from."""
    with example(count, folder) as (children, logs):
        assert [child.wait(timeout=120) for child in children] == [0] * count
    first, *others = [log.read_text() for log in logs]
    assert not any("step " in other for other in others)
    [start] = [line for line in first.splitlines() if "devices" in line]
    step, rest = start.removeprefix("step ").split(": ")
    assert rest == f"{count} processes, {DEVICES} devices"
    return int(step)


def wait_for(pattern, folder, children, timeout=120):
    deadline = time.monotonic() + timeout
    while not list(folder.glob(pattern)):
        assert all(child.poll() is None for child in children), "a process has ended early"
        assert time.monotonic() < deadline, f"no {pattern} after {timeout} s"
        time.sleep(0.005)


def assert_all_others_end(children, victim):
    """In bounded time, with a status that a shell or a cluster takes for a failure."""
    deadline = time.monotonic() + NOTICED
    others = [child for i, child in enumerate(children) if i != victim]
    assert 0 not in [child.wait(timeout=deadline - time.monotonic()) for child in others]


def result(folder):
    """The leaves of parameters and state at the end."""
    names = runpy.run_path(str(EXAMPLE))
    params = jax.eval_shape(names["init"], jax.random.key(0))
    state = jax.eval_shape(names["optimizer"](STEPS).init, params)
    step, (params, state) = checkpoints.restore(folder, (params, state))
    assert step == STEPS
    return [[np.asarray(leaf) for leaf in jax.tree.leaves(tree)] for tree in (params, state)]


def assert_same_bits(actual, expected):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == e.dtype
        np.testing.assert_array_equal(a, e)


def assert_close(actual, expected):
    """As close as another order of adding the same gradients leaves them.

    A moment whose sign hangs on the last bit moves its parameter the other way, by 1e-3 at each
    such step: that may happen to one in a thousand.
    """
    for a, e in zip(actual[0], expected[0], strict=True):
        assert np.mean(a != e) <= 1e-3
    for a, e in zip(actual[1], expected[1], strict=True):
        assert np.mean(np.abs(a - e) > 1e-6) <= 1e-3


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The folder and the end of a run on two processes that nothing befell."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    assert finish(2, folder) == 0
    return folder, result(folder)


def test_two_and_four_processes_end_with_the_same_bits(unbroken, tmp_path):
    assert finish(4, tmp_path / "run") == 0
    assert_same_bits(result(tmp_path / "run"), unbroken[1])


def test_one_process_ends_where_two_do(unbroken, tmp_path):
    assert finish(1, tmp_path / "run") == 0
    assert_close(result(tmp_path / "run"), unbroken[1])


def test_what_every_process_has_all_of_is_saved_with_a_checksum(unbroken):
    text = (unbroken[0] / str(STEPS) / "lion_jax" / "metadata").read_text()
    missing = {path for path, *_, checksum in json.loads(text)["leaves"] if checksum is None}
    assert missing == {f"{tree}/{leaf}" for tree in ("0", "1/inner_state/0/mu") for leaf in "bvw"}


def test_two_processes_of_which_one_is_killed_go_on_as_four(unbroken, tmp_path):
    folder = tmp_path / "run"
    with example(2, folder) as (children, _):
        wait_for("20", folder, children)
        children[1].kill()
        assert_all_others_end(children, victim=1)
        assert children[1].wait() == -signal.SIGKILL
    last = checkpoints.latest(folder)
    assert 20 <= last < STEPS
    assert finish(4, folder) == last
    assert_same_bits(result(folder), unbroken[1])


def test_two_processes_of_which_the_first_is_killed_while_saving_go_on_as_one(unbroken, tmp_path):
    folder = tmp_path / "run"
    with example(2, folder) as (children, _):
        wait_for("20.*tmp*", folder, children)
        children[0].kill()
        assert_all_others_end(children, victim=0)
        assert children[0].wait() == -signal.SIGKILL
    assert list(folder.glob("20.*tmp*"))
    assert finish(1, folder) == 10
    assert not list(folder.glob("*tmp*"))
    assert_close(result(folder), unbroken[1])


def test_a_silent_process_ends_the_other(tmp_path):
    with example(2, tmp_path / "run") as (children, _):
        wait_for("10", tmp_path / "run", children)
        children[0].send_signal(signal.SIGSTOP)
        assert_all_others_end(children, victim=0)
