"""Runs that do not fit into memory together: split into pieces, with the same outcome."""

import gc
import types
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lion_jax import lab
from lion_jax.lab import memory, trainer
from lion_jax.lab.rules.catalogue import RULES

TRIALS, SEEDS, BATCH = 3, 2, 7
PIECES = [(3, 2, None), (2, 2, None), (1, 2, None), (1, 1, None), (1, 1, BATCH)]
"""Trials, seeds and examples at once, as ever more programs are refused."""


@pytest.fixture
def refuse(monkeypatch):
    """Lets the memory have no room for some programs, and counts what is compiled and run."""
    counts = {"compiled": 0, "run": 0}

    def first(refused):
        def fits(compiled):
            assert isinstance(compiled, jax.stages.Compiled)
            counts["compiled"] += 1
            return counts["compiled"] > refused

        def run(compiled, *arguments):
            counts["run"] += 1
            return run_interruptibly(compiled, *arguments)

        run_interruptibly = trainer.run_interruptibly
        monkeypatch.setattr(memory, "fits", fits)
        monkeypatch.setattr(trainer, "run_interruptibly", run)
        return counts

    return first


def trained(task, heard=lambda t: None):
    """The outcome of three learning rates and two seeds."""
    outcome, _ = trainer.train(
        task,
        RULES["sgd"],
        {"learning_rate": np.array([1e-3, 1e-2, 1e-1])},
        steps=4,
        seeds=SEEDS,
        batch_size=BATCH,
        schedule="constant",
        on_step=heard,
    )
    return outcome


@pytest.fixture(scope="module")
def whole(line):
    return trained(line)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("refused", "runs"),
    [
        (1, 2),
        pytest.param(2, 3, marks=pytest.mark.slow),
        pytest.param(3, 6, marks=pytest.mark.slow),
        pytest.param(4, 6, marks=pytest.mark.slow),
        pytest.param(99, 6, marks=pytest.mark.slow),
    ],
)
def test_in_pieces_the_outcome_is_that_of_the_whole(refused, runs, line, whole, refuse):
    counts = refuse(refused)
    same(trained(line), whole)
    assert counts == {"compiled": min(refused + 1, len(PIECES)), "run": runs}


@pytest.mark.slow
def test_splits_are_measured_in_batches_where_they_do_not_fit(line, whole, monkeypatch):
    monkeypatch.setattr(trainer, "_pieces", lambda *all_: [PIECES[-1]])
    same(trained(line), whole)


def same(outcome, expected):
    """Checks that two outcomes are alike."""
    for name, wanted in expected._asdict().items():
        got = getattr(outcome, name)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), got, wanted)
        assert jax.tree.map(np.shape, got) == jax.tree.map(np.shape, wanted)


def test_pieces_are_halved_trials_first_then_seeds_then_examples():
    assert list(trainer._pieces(TRIALS, SEEDS, BATCH)) == PIECES
    assert list(trainer._pieces(1, 1, 5)) == [(1, 1, None), (1, 1, 5)]
    assert list(trainer._pieces(10, 5, 8))[:6] == [
        *((10, 5, None), (5, 5, None), (3, 5, None), (2, 5, None), (1, 5, None)),
        (1, 3, None),
    ]


@pytest.mark.slow
def test_progress_never_goes_back_when_runs_are_split(line, monkeypatch):
    monkeypatch.setattr(trainer, "_pieces", lambda *all_: PIECES[1:2])
    heard = []
    trained(line, heard.append)
    assert heard == sorted(heard)
    assert max(heard) <= 4


@pytest.mark.sampled
@pytest.mark.parametrize("size", [None, 1, 3, 5, 10, 11])
def test_a_mean_over_batches_is_the_mean_over_all(size):
    split = {"x": np.arange(10, dtype=np.float32), "y": np.arange(10, dtype=np.float32)[::-1] ** 2}

    def function(part):
        return {"sum": jnp.mean(part["x"] + part["y"]), "most": jnp.mean(part["x"] > 4)}

    found = trainer._mean(function, split, size)
    np.testing.assert_allclose(found["sum"], np.mean(split["x"] + split["y"]), rtol=1e-6)
    np.testing.assert_allclose(found["most"], 0.5, rtol=1e-6)


@pytest.mark.slow
def test_a_stream_is_split_too(refuse):
    x = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)

    def loss(w, batch, key):
        del key
        return jnp.mean((batch @ w - 1) ** 2)

    def stream(step):
        return np.random.default_rng(step).standard_normal((BATCH, 3)).astype(np.float32)

    task = lab.Task(lambda key: jax.random.normal(key, (3,)), loss, stream, x, x)
    expected = trained(task)
    refuse(4)
    same(trained(task), expected)


@pytest.mark.parametrize(
    ("temporary", "output", "free", "fits"),
    [(50, 30, 100, True), (50, 50, 100, False), (95, 0, 100, False), (10**9, 0, None, True)],
)
def test_a_program_fits_whose_results_and_temporaries_leave_a_tenth(
    temporary, output, free, fits, monkeypatch
):
    needed = types.SimpleNamespace(temp_size_in_bytes=temporary, output_size_in_bytes=output)
    compiled = types.SimpleNamespace(memory_analysis=lambda: needed)
    monkeypatch.setattr(memory, "available_bytes", lambda device: free)
    assert memory.fits(compiled) is fits


def test_a_program_that_says_nothing_of_its_memory_fits():
    assert memory.fits(types.SimpleNamespace(memory_analysis=lambda: None))


def test_what_is_free_is_known_of_this_machine():
    free = memory.available_bytes(jax.devices()[0])
    assert free is None or free > 1e6


@pytest.mark.slow
def test_a_compiled_program_is_freed_with_its_trainer(task):
    """A sweep compiles hundreds; programs that stay use up the memory maps of a process."""
    of = trainer.Trainer(task, RULES["sgd"], steps=3, batch_size=10, schedule="cosine")
    on_step = types.MethodType(lambda trainer, step: None, of)  # keeps the trainer
    of.run({"learning_rate": np.array([0.1])}, np.arange(1), on_step)
    ((compiled, _, _),) = of._compiled.values()
    program = weakref.ref(compiled)
    del of, compiled, on_step
    gc.collect()
    assert program() is None
