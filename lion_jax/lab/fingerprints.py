"""Fingerprints of functions, which change when what they compute does."""

import hashlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def fingerprint(function: Callable[..., Any], *arguments: Any) -> str:
    """A hash of a function's traced program, with the arrays that it holds.

    It is the same in another process, but not with another version of jax.

    Args:
      function: a function of arrays.
      arguments: abstract ones will do.
    """
    traced = jax.make_jaxpr(function)(*arguments)
    text = re.sub(r"0x[0-9a-f]+", "", str(traced))  # functions are named by their addresses
    digest = hashlib.sha256(text.encode())
    for constant in traced.consts:
        if not jnp.issubdtype(constant.dtype, jax.dtypes.prng_key):
            digest.update(np.ascontiguousarray(constant).tobytes())
    return digest.hexdigest()[:16]
