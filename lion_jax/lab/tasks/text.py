"""The next character of a text that comes with Python."""

import collections
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lion_jax.lab.errors import RequestError
from lion_jax.lab.tasks.classification import classification
from lion_jax.lab.tasks.data import Data, Labelled
from lion_jax.lab.tasks.layers import dense, embed, init_dense, init_embedding
from lion_jax.lab.tasks.task import Task

_CONTEXT = 16
_CHARACTERS = 64
_EXAMPLES = {"train": 32768, "validation": 4096, "test": 8192}


def text(size: int = 1) -> Task:
    """The next character of Python's language reference, from the 16 before it.

    The text, some 400,000 characters, comes with Python, for ``help()``: nothing is downloaded.
    Each version of Python has its own, so figures compare within one version only. It is in lower
    case, and what it says twice it says once here; the first 60% are trained on, the next 20%
    validate and the last 20% test. The model is a neural probabilistic language model.

    Args:
      size: hidden units in units of 128; 1 is 42,000 parameters.

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
    features, width = 16, 128 * size

    def init(key: jax.Array) -> dict[str, Any]:
        return {
            "Embed_0": init_embedding(key, "Embed_0", _CHARACTERS, features),
            "Dense_0": init_dense(key, "Dense_0", _CONTEXT * features, width),
            "Dense_1": init_dense(key, "Dense_1", width, _CHARACTERS),
        }

    def logits(params: dict[str, Any], x: jax.Array) -> jax.Array:
        embedded = embed(params["Embed_0"], x).reshape(len(x), -1)
        return dense(params["Dense_1"], jnp.tanh(dense(params["Dense_0"], embedded)))

    return classification(
        init,
        logits,
        Data(**splits),
        name="text",
        description="the next character of Python's language reference (this Python's own "
        f"pydoc_data) from the 16 before it; embeddings of {features}, {width} hidden units",
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


def _windows(indices: np.ndarray, examples: int) -> Labelled:
    """Evenly spaced characters of a text and, for each, those before it."""
    places = np.linspace(_CONTEXT, len(indices) - 1, examples).astype(int)
    return Labelled(indices[places[:, None] + np.arange(-_CONTEXT, 0)], indices[places])
