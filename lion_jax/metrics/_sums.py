"""Several sums over the entries of one parameter, in one pass over them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_LONGEST = 256  # entries that one float32 adds up one after the other
_SHORTEST = 32


@jax.custom_jvp
def sums_over(*terms: jax.Array) -> tuple[jax.Array, ...]:
    """The sum of each of these arrays of one shape and dtype.

    What else is computed of the entries is to share the pass, and to be written in place:

    - XLA:GPU writes beside a reduction in place, but beside a second one to a temporary, which it
      copies. So all sums are one reduction.
    - XLA:CPU makes a loop of each reduction; one reduction is one loop. It adds in order, so rows
      are to be short: of ones it would count 2**24 at most.
    - XLA:TPU fuses reductions of one array each with the step, and no others.
    """
    return lax.platform_dependent(*terms, tpu=_each, cpu=_of_rows, default=_at_once)


@sums_over.defjvp
def _sums_over_jvp(terms: Sequence[jax.Array], tangents: Sequence[jax.Array]) -> Any:
    return sums_over(*terms), _each(*tangents)


def _each(*terms):
    return tuple(jnp.sum(x) for x in terms)


def _at_once(*terms):
    return tuple(_reduce(terms, tuple(range(terms[0].ndim))))


def _of_rows(*terms):
    *outer, last = terms[0].shape or (1,)
    length = next((n for n in range(_LONGEST, _SHORTEST, -1) if last % n == 0), 0)
    if not length or not terms[0].size:
        return _each(*terms)
    rows = [x.reshape(*outer, last // length, length) for x in terms]
    sums = lax.optimization_barrier(_reduce(rows, (len(outer) + 1,)))
    return tuple(jnp.sum(jnp.stack(sums), axis=tuple(range(1, len(outer) + 2))))


def _reduce(terms: Sequence[jax.Array], axes: tuple[int, ...]) -> Sequence[jax.Array]:
    zeros = tuple(jnp.zeros((), x.dtype) for x in terms)
    return lax.reduce(tuple(terms), zeros, _add, axes)


def _add(a, b):
    return tuple(x + y for x, y in zip(a, b, strict=True))
