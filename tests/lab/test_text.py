"""The text task: real text that comes with Python, split without overlap, and learned."""

import sys
import types

import numpy as np
import pytest
import scipy.stats

from lion_jax import lab
from lion_jax.lab import cli
from lion_jax.lab.tasks import text as module
from lion_jax.lab.tasks.text import text


@pytest.fixture
def reads(monkeypatch):
    """Puts other topics in the place of Python's."""

    def put(topics):
        module = types.SimpleNamespace(topics=topics)
        monkeypatch.setitem(sys.modules, "pydoc_data.topics", module)

    return put


def splits(task):
    return task.train, task.validation, task.test


def test_the_text_is_real_and_always_the_same():
    task = text()
    assert [len(split.y) for split in splits(task)] == [32768, 4096, 8192]
    for split, again in zip(splits(task), splits(text()), strict=True):
        np.testing.assert_array_equal(split.x, again.x)
        np.testing.assert_array_equal(split.y, again.y)
        assert split.x.dtype == split.y.dtype == np.int32
        shares = np.bincount(split.y, minlength=64) / len(split.y)
        assert len(shares) == 64
        assert shares[0] < 0.002  # what is none of the 63 characters
        assert 2.5 < scipy.stats.entropy(shares) < 3.5  # nats of a character of English: 2.8


def test_splits_share_no_stretch_of_the_text(reads):
    """Of a text in which no ten letters come twice."""
    letters = np.random.default_rng(0).choice(list("abcdefghijklmnopqrstuvwxyz"), 20_000)
    reads({"RANDOM": "".join(letters)})
    stretches = [
        {row[i : i + 10].tobytes() for row in np.column_stack([split.x, split.y]) for i in range(8)}
        for split in splits(text())
    ]
    assert len(set.union(*stretches)) == sum(len(found) for found in stretches) > 19_000


def test_the_label_is_the_character_that_follows(reads):
    reads({"PERIOD": "0123456789" * 1000})
    for split in splits(text()):
        np.testing.assert_array_equal(split.y, split.x[:, -10])
        np.testing.assert_array_equal(split.x[:, 10:], split.x[:, :6])
        assert len(set(split.y)) == 10


def test_paragraphs_that_topics_share_are_read_once(reads):
    reads({"B": "Two.\n\nThree.", "A": "One.\n\nTwo.\n"})
    assert module._language_reference() == "one.\n\ntwo.\n\nthree."


@pytest.mark.slow
def test_a_python_without_the_text_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(lab.RequestError, match="pydoc_data, which this Python lacks; possible: "):
        lab.compare("text")
    assert cli.main(["list"]) == 0
    assert "this Python lacks" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_lion_learns_more_of_the_text_than_how_frequent_characters_are():
    compared = lab.compare("text", ["lion"], learning_rates=3, seeds=2)
    (found,) = compared.results
    labels = text().test.y
    shares = np.bincount(labels) / len(labels)
    assert found.test > shares.max() + 0.15
    assert (found.outcome.train_loss[found.best] < scipy.stats.entropy(shares) - 0.5).all()
    assert not found.outcome.diverged[found.best].any()
