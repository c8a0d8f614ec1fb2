"""Shape trees of published models, and a user's own."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lion_jax.lab.errors import RequestError, known

Tree = dict[str, Any]
_LARGEST = 10**14
"""Parameters of a model: the bytes of a pod's gradients are counted in 63 bits."""


class Model(NamedTuple):
    """A published model.

    Attributes:
      description: its sizes and where they are published.
      shapes: makes its tree of shapes.
      parameters: its published number of parameters.
    """

    description: str
    shapes: Callable[[], Tree]
    parameters: int


def abstract_params(model: Any, dtype: Any) -> Any:
    """The parameters of a model, without numbers.

    Args:
      model: a name from :data:`MODELS`; a path to a JSON file ``{"name": [rows, columns], ...}``,
        nested at will; or a tree of arrays, of ``jax.ShapeDtypeStruct``, or of shapes, tuples.
      dtype: of all parameters that do not have one of their own.

    Raises:
      RequestError: an unknown name, or what is no tree of shapes.
    """
    if isinstance(model, str | Path) and str(model) not in MODELS:
        model = _read(Path(model))
    elif isinstance(model, str | Path):
        model = MODELS[str(model)].shapes()
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: _leaf(path, leaf, dtype), model, is_leaf=_is_shape
    )
    size = sum(math.prod(p.shape) for p in jax.tree.leaves(params))
    if not 0 < size <= _LARGEST:
        raise RequestError(
            f"the model must have at least one parameter, and at most {_LARGEST:.0e}; "
            f"got {f'{size:.3g}' if size else 'none'}"
        )
    return params


def _is_shape(x: Any) -> bool:
    """Tells whether a value is a shape, a list or tuple; the shape of a scalar is empty."""
    return isinstance(x, list | tuple) and all(
        isinstance(n, int) and not isinstance(n, bool) for n in x
    )


def _leaf(path: Any, leaf: Any, dtype: Any) -> jax.ShapeDtypeStruct:
    if _is_shape(leaf) and all(n >= 0 for n in leaf):
        return jax.ShapeDtypeStruct(tuple(leaf), jnp.dtype(dtype))
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    raise RequestError(
        f"the model's leaf at {jax.tree_util.keystr(path) or 'the root'} must be a shape, such as "
        f"[768, 3072]; got {'null' if leaf is None else repr(leaf)}"
    )


def _read(path: Path) -> Any:
    if path.suffix != ".json":
        known("model", str(path), MODELS | {"a path to a JSON file of shapes": None})
    try:
        tree = json.loads(path.read_text())
    except OSError as error:
        raise RequestError(f"cannot read the model {path} ({error.strerror or error})") from error
    except ValueError as error:
        raise RequestError(f"the model {path} is no JSON ({error})") from error
    for place, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: x is None):
        if leaf is None:  # which jax takes for a tree without leaves
            _leaf(place, leaf, jnp.float32)
    return tree


def _gpt2() -> Tree:
    return {"wte": (50257, 768), "wpe": (1024, 768), **_blocks()}


def _vit_b_16() -> Tree:
    return {
        "patches": {"w": (16, 16, 3, 768), "b": (768,)},
        "class_token": (1, 1, 768),
        "positions": (1, 197, 768),
        **_blocks(),
        "head": _dense(768, 1000),
    }


def _blocks(layers: int = 12, d: int = 768) -> Tree:
    """The shapes that GPT-2 and ViT-B share: pre-norm blocks with biases, and the last norm."""
    norm = {"g": (d,), "b": (d,)}
    block = {
        "ln_1": norm,
        "attn": {"qkv": _dense(d, 3 * d), "out": _dense(d, d)},
        "ln_2": norm,
        "mlp": {"up": _dense(d, 4 * d), "down": _dense(4 * d, d)},
    }
    return {f"block_{i}": block for i in range(layers)} | {"ln_f": norm}


def _dense(rows: int, columns: int) -> Tree:
    return {"w": (rows, columns), "b": (columns,)}


def _llama(layers: int, width: int, hidden: int, key_values: int, vocabulary: int) -> Tree:
    block = {
        "attn_norm": (width,),
        "q": (width, width),
        "k": (width, key_values),
        "v": (width, key_values),
        "out": (width, width),
        "mlp_norm": (width,),
        "gate": (width, hidden),
        "up": (width, hidden),
        "down": (hidden, width),
    }
    ends = {"embed": (vocabulary, width), "norm": (width,), "head": (width, vocabulary)}
    return ends | {f"block_{i}": block for i in range(layers)}


MODELS = {
    "gpt2": Model(
        "GPT-2 of 124M: 12 layers, width 768, 50257 tokens, head tied (Radford et al. 2019)",
        _gpt2,
        124_439_808,
    ),
    "vit_b_16": Model(
        "ViT-B/16 for 224 x 224 pixels and 1000 classes (Dosovitskiy et al. 2021; torchvision)",
        _vit_b_16,
        86_567_656,
    ),
    "decoder_1b": Model(
        "TinyLlama 1.1B: 22 layers, width 2048, 4 of 32 heads for keys (Zhang et al. 2024)",
        lambda: _llama(22, 2048, 5632, 256, 32000),
        1_100_048_384,
    ),
    "decoder_7b": Model(
        "Llama 2 7B: 32 layers, width 4096, hidden 11008, 32000 tokens (Touvron et al. 2023)",
        lambda: _llama(32, 4096, 11008, 4096, 32000),
        6_738_415_616,
    ),
}
