"""Stochastic rounding: narrow parameters that move by the true update on average."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lion_jax._core.checks import check_has_params, check_match, check_storable
from lion_jax._core.counters import wrapping_count, zero
from lion_jax._core.dtypes import cast, round_to
from lion_jax._core.kinds import KEY
from lion_jax._core.leaves import has_gradient, is_none
from lion_jax._core.rule import takes


class StochasticRoundingState(NamedTuple):
    """State of `round_stochastically`.

    Attributes:
      rounding_count: updates so far, int32 of shape (): each has random numbers of its own. The
        smallest follows the largest.
    """

    rounding_count: jax.Array


@takes(key=KEY)
def round_stochastically(key: jax.Array) -> optax.GradientTransformationExtraArgs:
    r"""Rounds each new weight up or down at random, so that it is right on average.

    .. math::

      \theta \leftarrow \begin{cases}
        b & \text{with probability } (t - a) / (b - a) \\
        a & \text{otherwise}
      \end{cases}
      \qquad \operatorname{E} \theta = t

    of :math:`t = \theta + u` between two neighbours :math:`a \le t \le b` that the parameter's
    dtype can hold. A bfloat16 weight has 8 significant bits: rounded to the nearest, it ignores
    every update below a 256th to a 512th of itself, however often it comes. With random rounding it
    sometimes moves to the neighbour, by a whole step. Only a count is stored; the price is noise of
    up to half that step in each update, and the time for the random numbers.

    It must be the last link of a chain: its updates are made for ``optax.apply_updates``, which
    adds them in float32 and then stores exactly :math:`a` or :math:`b`. The updates that it gets
    count as exact; the optimizers of this library round theirs to the parameters' dtype, which
    keeps 8 bits of an update of any size. :func:`lion_jax.lookahead` and :func:`lion_jax.scout`
    come before it in the chain, not around it; an average that overwrites the parameters cannot be
    used with it.

    Args:
      key: one key of ``jax.random``, typed or of the older kind; traced under ``jit`` or ``vmap``.
        Within ``shard_map`` or ``pmap`` fold it with ``jax.lax.axis_index`` where parameters are
        split, not where they are replicated.

    Returns:
      A transformation of updates of any floating dtype. For bfloat16 and float16 parameters it
      emits float32; for float32 and float64 ones the updates as they are. Where the new weight
      would not be finite, above the largest that the dtype holds included, it is that of plain
      rounding. Probabilities are multiples of 2**-23; subnormal float32 numbers are 0, as XLA has
      them. The state is a :class:`StochasticRoundingState`; the key is not in it: a run that
      goes on from a checkpoint needs the same one again.

    Raises:
      ValueError: at ``update``, missing parameters.
      TypeError: no key; at ``update``, a parameter of another dtype.

    Notes:
      The random numbers are those of the key, the count of updates and the place of the leaf in the
      tree. They are the same for any sharding under ``jit``, with keys of the default
      implementation; those of ``rbg`` may change with the sharding. Within ``shard_map`` or
      ``pmap`` each shard draws for its own positions: all the same numbers, unless the key is
      folded.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from lion_jax.precision import round_stochastically
      >>> tx = optax.chain(optax.sgd(1e-3), round_stochastically(jax.random.key(0)))
      >>> params = jnp.ones(1000, jnp.bfloat16)
      >>> updates, state = tx.update(jnp.ones(1000), tx.init(params), params)
      >>> stochastic = optax.apply_updates(params, updates)
      >>> values, counts = jnp.unique(stochastic, return_counts=True)
      >>> print(values, counts)
      [0.996094 1] [235 765]
      >>> plain = optax.apply_updates(params, jnp.full(1000, -1e-3))
      >>> print(plain.min(), plain.max())
      1 1

    References:
      Gupta et al., `Deep Learning with Limited Numerical Precision
      <https://arxiv.org/abs/1502.02551>`_, 2015, Section 3.
    """

    def init_fn(params):
        del params
        return StochasticRoundingState(zero())

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        check_has_params(params, "round_stochastically")
        present = jax.tree.map(
            lambda u, p: p if has_gradient(u) else None, updates, params, is_leaf=is_none
        )
        check_storable(present, "round_stochastically", "optax.masked around it")
        check_match("updates", updates, present)
        (count,) = state
        leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
        keys = _keys(jax.random.fold_in(key, count), len(leaves))
        rounded = [
            _round(u, p, k) if has_gradient(u) and not _is_wide(p) else u
            for u, p, k in zip(leaves, treedef.flatten_up_to(params), keys, strict=True)
        ]
        return treedef.unflatten(rounded), StochasticRoundingState(wrapping_count(count))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _is_wide(p: Any) -> bool:
    return jnp.finfo(jnp.result_type(p)).bits >= 32


def _keys(key: jax.Array, count: int) -> jax.Array:
    """A key for each leaf, all derived at once: one by one they would be two kernels each."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, np.arange(count, dtype=np.uint32))


@jax.jit  # so that leaves of a shape share one trace
def _round(u: jax.Array, p: jax.Array, key: jax.Array) -> jax.Array:
    """The float32 update from `p` to the nearest or the second nearest number to `p + u`."""
    dtype, u, p = p.dtype, cast(u, jnp.dtype("float32")), p.astype(jnp.float32)
    nearest = round_to(p + u, dtype)
    rest = u - (nearest - p)  # exact where u is small, unlike the sum
    second = _neighbour(nearest, rest, dtype)
    chance = rest / (second - nearest)  # 0 where the second one is infinite
    draw = jax.random.uniform(key, u.shape)
    # The way to the second one is a constant: derivatives go straight through either rounding.
    rounded = nearest + jnp.where(draw < chance, jax.lax.stop_gradient(second - nearest), 0)
    return jnp.where(jnp.isfinite(nearest), rounded - p, u)


def _neighbour(x: jax.Array, direction: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The next number of `dtype` after `x`, which is one, in the direction of a sign.

    As integers, the magnitudes of floating-point numbers are in a row, subnormal ones included.
    """
    outwards = jnp.where(x == 0, direction, x)
    integer = jax.lax.bitcast_convert_type(jnp.abs(x).astype(dtype), jnp.uint16)
    integer = jnp.where((direction > 0) == (outwards > 0), integer + 1, integer - 1)
    magnitude = jax.lax.bitcast_convert_type(integer.astype(jnp.uint16), dtype)
    return jnp.copysign(magnitude.astype(jnp.float32), outwards)
