"""Tasks to compare rules on: real data, a small model, three splits that never mix."""

import collections
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import sklearn.datasets
from sklearn.model_selection import train_test_split

from lion_jax.lab.errors import RequestError


class Split(NamedTuple):
    """Examples and their labels.

    Attributes:
      x: inputs of shape (examples, ...), float32, or int32 where they are indices.
      y: labels of shape (examples,), int32.
    """

    x: np.ndarray
    y: np.ndarray


@dataclasses.dataclass(frozen=True)
class Task:
    """A classification task: a model, and data in three splits.

    Attributes:
      name: what the command line calls it.
      description: one line on data and model.
      init: `key -> params`, the model's fresh parameters.
      logits: `(params, x) -> logits` of shape (examples, classes).
      train: the split that is trained on.
      validation: the split that chooses the learning rate.
      test: the split that the reported figure comes from.
    """

    name: str
    description: str
    init: Callable[[jax.Array], Any]
    logits: Callable[[Any, jax.Array], jax.Array]
    train: Split
    validation: Split
    test: Split

    def loss(self, params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        """Mean cross-entropy in nats, of shape ()."""
        logits = self.logits(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def accuracy(self, params: Any, split: Split) -> jax.Array:
        """Share of right answers in [0, 1], of shape (); logits that are not finite are wrong."""
        logits = self.logits(params, jnp.asarray(split.x))
        is_right = jnp.argmax(logits, axis=-1) == split.y
        return jnp.mean(is_right & jnp.isfinite(logits).all(axis=-1))

    def stored_in(self, dtype: Any) -> "Task":
        """The same task with its parameters, and so their gradients, in another dtype.

        The model computes in float32 all the same: a difference is the optimizer's and the
        storage's, not the model's. None leaves the task as it is.
        """
        if dtype is None:
            return self
        return dataclasses.replace(
            self,
            init=lambda key: _cast(self.init(key), dtype),
            logits=lambda params, x: self.logits(_cast(params, jnp.float32), x),
        )


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


class _MLP(nn.Module):
    """One hidden layer of rectified units."""

    width: int
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(self.classes)(nn.relu(nn.Dense(self.width)(x)))


def digits() -> Task:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, and a perceptron of 64 hidden units.

    The digits come with scikit-learn: nothing is downloaded. They are split 60/20/20, always the
    same way and with the classes in proportion.
    """
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    x, y = np.asarray(x / 16, np.float32), np.asarray(y, np.int32)
    everything = np.arange(len(y))
    train, rest = train_test_split(everything, test_size=0.4, stratify=y, random_state=0)
    validation, test = train_test_split(rest, test_size=0.5, stratify=y[rest], random_state=0)
    model = _MLP(width=64, classes=10)
    return Task(
        name="digits",
        description="1,797 handwritten digits of 8x8 pixels (scikit-learn); a 64-64-10 perceptron",
        init=lambda key: model.init(key, x[:1])["params"],
        logits=lambda params, inputs: jnp.asarray(model.apply({"params": params}, inputs)),
        train=Split(x[train], y[train]),
        validation=Split(x[validation], y[validation]),
        test=Split(x[test], y[test]),
    )


_CONTEXT = 16
_CHARACTERS = 64
_EXAMPLES = {"train": 32768, "validation": 4096, "test": 8192}


class _CharacterModel(nn.Module):
    """The embeddings of the last characters, side by side, and a hidden layer over them."""

    characters: int
    features: int
    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        embedded = nn.Embed(self.characters, self.features)(x)
        hidden = nn.tanh(nn.Dense(self.width)(embedded.reshape(len(x), -1)))
        return nn.Dense(self.characters)(hidden)


def text() -> Task:
    """The next character of Python's language reference, from the 16 before it.

    The text, some 400,000 characters, comes with Python, for ``help()``: nothing is downloaded.
    Each version of Python has its own, so figures compare within one version only. It is in lower
    case, and what it says twice it says once here; the first 60% are trained on, the next 20%
    validate and the last 20% test. The model is a neural probabilistic language model, 42,000
    parameters.

    Raises:
      RequestError: this Python has no ``pydoc_data``.

    References:
      Bengio et al., `A Neural Probabilistic Language Model
      <https://www.jmlr.org/papers/v3/bengio03a.html>`_, 2003.
    """
    whole = _language_reference()
    ends = [len(whole) * share // 10 for share in (0, 6, 8, 10)]
    frequent = collections.Counter(whole[: ends[1]]).most_common(_CHARACTERS - 1)
    index = {character: i for i, (character, _) in enumerate(sorted(frequent), start=1)}
    indices = np.array([index.get(character, 0) for character in whole], np.int32)  # 0: any other
    splits = {
        name: _windows(indices[start:end], examples)
        for (name, examples), start, end in zip(_EXAMPLES.items(), ends, ends[1:], strict=False)
    }
    model = _CharacterModel(_CHARACTERS, features=16, width=128)
    return Task(
        name="text",
        description="the next character of Python's language reference (this Python's own "
        "pydoc_data) from the 16 before it; embeddings of 16, 128 hidden units",
        init=lambda key: model.init(key, splits["train"].x[:1])["params"],
        logits=lambda params, inputs: jnp.asarray(model.apply({"params": params}, inputs)),
        **splits,
    )


def _language_reference() -> str:
    """The text of ``help("TOPIC")`` on all topics, in lower case; each paragraph is there once."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise RequestError(
            "the task 'text' reads the texts of Python's help(), pydoc_data, which this Python "
            "lacks; possible: the full Python of the system's packages or of python.org, "
            "or --task digits"
        ) from error
    paragraphs = [p for name in sorted(topics) for p in topics[name].lower().split("\n\n")]
    return "\n\n".join(dict.fromkeys(paragraph.strip("\n") for paragraph in paragraphs))


def _windows(indices: np.ndarray, examples: int) -> Split:
    """Evenly spaced characters of a text and, for each, those before it."""
    places = np.linspace(_CONTEXT, len(indices) - 1, examples).astype(int)
    return Split(indices[places[:, None] + np.arange(-_CONTEXT, 0)], indices[places])


TASKS: dict[str, Callable[[], Task]] = {"digits": digits, "text": text}
