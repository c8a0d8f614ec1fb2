"""The example of many processes refuses in a line what it cannot do."""

import runpy
import sys
from pathlib import Path

import jax
import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "train_on_many_processes.py"

pytestmark = pytest.mark.skipif(not EXAMPLE.exists(), reason="the docs are not here")


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLE))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--every", "0"], "--every: must be a whole number, >= 1; got '0'"),
        (["--devices-per-process", "0"], "must be a whole number, >= 1; got '0'"),
        (["--steps", "many"], "--steps: must be a whole number, >= 1; got 'many'"),
        (["--process", "-1"], "--process: must be a whole number, >= 0; got '-1'"),
        (["--process", "0"], "go together: give all or none"),
    ],
)
def test_what_cannot_be_is_refused_with_the_range(example, words, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train", *words])
    with pytest.raises(SystemExit) as exit_:
        example["parse_arguments"]()
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("devices", [1, 6, 64, 192])
def test_devices_that_divide_the_batch_may_train(example, devices, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    example["check_devices"]()


@pytest.mark.parametrize("devices", [5, 128, 384])
def test_devices_that_do_not_are_told_which_do(example, devices, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    with pytest.raises(SystemExit, match=rf"divide the batch of 192: 1, 2, .*; got {devices}\."):
        example["check_devices"]()
