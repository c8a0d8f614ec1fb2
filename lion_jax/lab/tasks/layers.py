"""Layers as plain functions, with the weights and names that flax linen gives them."""

import hashlib

import jax
import jax.numpy as jnp
from jax.nn import initializers

Layer = dict[str, jax.Array]


def init_dense(key: jax.Array, name: str, inputs: int, outputs: int) -> Layer:
    """The weights of `flax.linen.Dense` of this name in the module that the key begins."""
    kernel = initializers.lecun_normal()(_key_of(key, name), (inputs, outputs))
    return {"kernel": kernel, "bias": jnp.zeros(outputs)}


def dense(layer: Layer, x: jax.Array) -> jax.Array:
    """An affine function of the last axis."""
    y = jax.lax.dot_general(x, layer["kernel"], (((x.ndim - 1,), (0,)), ((), ())))
    return y + layer["bias"].reshape((1,) * (y.ndim - 1) + (-1,))


def init_embedding(key: jax.Array, name: str, entries: int, features: int) -> Layer:
    """The weights of `flax.linen.Embed` of this name in the module that the key begins."""
    init = initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0)
    return {"embedding": init(_key_of(key, name), (entries, features))}


def embed(layer: Layer, indices: jax.Array) -> jax.Array:
    """The rows of these indices."""
    return jnp.take(layer["embedding"], indices, axis=0)


def _key_of(key: jax.Array, name: str) -> jax.Array:
    """The key of a layer's first parameter: flax hashes its name and the parameter's number, 1."""
    digest = hashlib.sha1(name.encode() + b"\x01", usedforsecurity=False).digest()
    return jax.random.fold_in(key, jnp.uint32(int.from_bytes(digest[:4], "big")))
