"""Shape trees of published models; imports no jax."""

from collections.abc import Callable
from typing import Any, NamedTuple

Tree = dict[str, Any]


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
