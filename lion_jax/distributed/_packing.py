"""Signs as bytes for the wire: up to five of -1, 0, 1 in one byte.

A byte c stands for the fraction c / 256 = 0.d1 d2 d3 d4 d5 in base three, whose digits are the
signs plus one. Five of them have 243 values: 1.6 bits a sign, where the least is log2(3) = 1.585.
The first digit is the whole part of 3 c / 256, and what is left has the other digits.

The n signs of a byte come from n blocks of a leaf's rows, since whole tiles of a TPU are cut and
joined without a change of layout; the rows that are left over go into one common rest.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from lion_jax._core.types import PyTree

_TILE = 8  # rows


def signs_of(x: jax.Array) -> jax.Array:
    """-1, 0 or 1 as int8; NaN has no sign: 0."""
    return (x > 0).astype(jnp.int8) - (x < 0).astype(jnp.int8)


def pack(signs: Sequence[jax.Array]) -> jax.Array:
    """Up to five arrays of signs as one of bytes, uint8."""
    number = jnp.float32(0)
    for digit in signs:
        number = 3 * number + (digit.astype(jnp.float32) + 1)
    # Rounded up, so that no digit is cut off.
    return jnp.ceil(number * (256 / 3 ** len(signs))).astype(jnp.int32).astype(jnp.uint8)


def unpack(code: jax.Array, n: int) -> list[jax.Array]:
    """The n arrays of signs that bytes hold: int8."""
    return [_digit(code, 3**i) for i in range(n)]


def pack_tree(tree: PyTree, n: int) -> jax.Array:
    """The signs of all leaves, n in a byte: uint8, one vector."""
    blocks, rest = [], [jnp.zeros(0, jnp.int8)]
    for leaf in jax.tree.leaves(tree):
        # Else a TPU computes a step's direction once for each of the blocks.
        rows = lax.optimization_barrier(signs_of(leaf)).reshape(-1, _columns(leaf))
        height = _height(leaf, n)
        blocks.append(pack([rows[i * height : (i + 1) * height] for i in range(n)]).ravel())
        rest.append(rows[n * height :].ravel())
    left = jnp.concatenate(rest)
    left = jnp.pad(left, (0, -len(left) % n)).reshape(n, -1)
    return jnp.concatenate([*blocks, pack(list(left))])


def unpack_tree(code: jax.Array, like: PyTree, n: int) -> PyTree:
    """The signs that :func:`pack_tree` packed, in the shapes and dtypes of a tree.

    The bytes are laid out as the signs will be, each n times: then reading the digits is arithmetic
    of each entry alone, which fuses with what the signs are used for.
    """
    start = _end_of_blocks(like, n)
    rest = pack([jnp.concatenate(unpack(code[start:], n))])

    def signs(x, codes):
        rows = _digit(codes.reshape(-1, _columns(x)), _shift(x, n))
        return rows.reshape(x.shape).astype(x.dtype)

    return jax.tree.map(signs, like, _join([code] * n, rest, like))


def lay_out(rows: Sequence[jax.Array], like: PyTree) -> PyTree:
    """In the shapes of a tree a value for each sign: n vectors as long as the packed bytes."""
    start = _end_of_blocks(like, len(rows))
    return _join(rows, jnp.concatenate([row[start:] for row in rows]), like)


def _join(blocks: Sequence[jax.Array], rest: jax.Array, like: PyTree) -> PyTree:
    n, start, at = len(blocks), 0, 0
    leaves, treedef = jax.tree.flatten(like)
    joined = []
    for x in leaves:
        size = _height(x, n) * _columns(x)
        left = x.size - n * size
        parts = [*(block[start : start + size] for block in blocks), rest[at : at + left]]
        rows = jnp.concatenate([part.reshape(-1, _columns(x)) for part in parts])
        joined.append(rows.reshape(x.shape))
        start, at = start + size, at + left
    return treedef.unflatten(joined)


def _end_of_blocks(like: PyTree, n: int) -> int:
    return sum(_height(x, n) * _columns(x) for x in jax.tree.leaves(like))


def _digit(code: jax.Array, shift: jax.Array | int) -> jax.Array:
    """The sign in the first digit after a shift by 3**i."""
    return ((3 * (code.astype(jnp.int32) * shift & 255) >> 8) - 1).astype(jnp.int8)


def _shift(leaf: jax.Array, n: int) -> jax.Array:
    """3**i for each row of block i, and 1 for those that are left over: shape (rows, 1)."""
    height, row = _height(leaf, n), jnp.arange(_rows(leaf))[:, None]
    shift = jnp.ones_like(row)
    for i in range(1, n):
        shift = jnp.where((row >= i * height) & (row < n * height), 3**i, shift)
    return shift


def _rows(leaf: jax.Array) -> int:
    return leaf.size // _columns(leaf)


def _columns(leaf: jax.Array) -> int:
    return max(1, leaf.shape[-1]) if leaf.ndim else 1


def _height(leaf: jax.Array, n: int) -> int:
    """Rows of each of the n blocks."""
    return _rows(leaf) // (n * _TILE) * _TILE
