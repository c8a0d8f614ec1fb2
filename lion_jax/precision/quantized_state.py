"""Moments in 8 bits."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._checks import check_number_of, check_positive_integer, check_transformation
from lion_jax.combinators._inner import update
from lion_jax.precision._codes import Code, decode, encode, shared_exponents
from lion_jax.precision._thresholds import threshold

SQUARES = frozenset({"nu", "nu_max", "n", "sum_of_squares", "e_g", "e_x", "exp_avg_sq"})
"""Fields of states that hold second moments: never negative, and square gradients."""
KEPT = frozenset({"slow_params", "average", "gradient_sum", "acc_grads", "ema", "params", "z"})
"""Fields of states that hold weights or sums: each of their digits counts."""
_LEAST_AXIS = 8


class Quantized(NamedTuple):
    """A moment as `with_quantized_state` stores it.

    Attributes:
      codes: the integers, a tree like the parameters, each leaf of its parameter's shape, int8 (or
        int4); a small leaf as it was.
      exponents: the groups' exponents, a tree like the parameters, int8: each leaf has its
        parameter's rank, and ceil(length / group_size) in place of the length of the grouped axis;
        false, of the parameter's shape, for a small one.
    """

    codes: Any
    exponents: Any


class QuantizedState(NamedTuple):
    """State of `with_quantized_state`.

    Attributes:
      quantization_count: updates so far, int32 of shape ().
      inner_state: state of the inner transformation, with a `Quantized` in place of each moment.
    """

    quantization_count: jax.Array
    inner_state: optax.OptState


def with_quantized_state(
    inner: optax.GradientTransformation,
    *,
    bits: int = 8,
    group_size: int = 32,
    min_size: int = 4096,
) -> optax.GradientTransformationExtraArgs:
    r"""Stores the moments of any optimizer in 8 bits, and computes with them in float32.

    Every leaf of the inner state that is shaped like a parameter is kept as an integer per entry
    and a shared exponent e per group: :math:`2^e` is the least power of two above all entries
    :math:`x` of the group, and with :math:`z = |x| / 2^e`

    .. math::

      q = L \, \tfrac12 \log_2 \left(1 + 3 z^{1/r}\right), \qquad
      |x| = 2^e \left(\frac{4^{q / L} - 1}{3}\right)^r

    with L = 127 and r = 2 for first moments, stored with their sign, and L = 254 and r = 4 for
    second moments, which are squares. Neither is ever rounded to 0 unless it is 0: no sign is lost,
    and nothing is divided by 0 that was not before. Which integer, the one below or above, depends
    on the share of the way between the two numbers that they mean, and on a threshold that walks
    from step to step (a Weyl sequence): a moment that changes by a thousandth per step, as a second
    moment does with b2 = 0.999, would stay for ever where it is if rounded to the nearest.

    The integers have the parameter's shape. The exponents have its rank; along one axis they have
    an entry per group. So a parameter's ``PartitionSpec`` is right for both, as
    ``optax.tree_utils.tree_map_params`` maps it, and no shard needs data of another, if the length
    of a shard along that axis is a multiple of ``group_size``.

    Weights and sums in the inner state, such as the slow weights of a lookahead or accumulated
    gradients, stay as they are. Put such combinators outside, and what keeps the parameters in
    16 bits, :func:`with_master_weights`, as well.

    Args:
      inner: the transformation whose state is to be stored.
      bits: 8, or 4 as an experiment: 7 magnitudes for first moments and 14 for second ones. Lion
        loses a little by it, Adam much: see the page on precision in the documentation.
      group_size: how many neighbouring entries share an exponent, >= 1, along the last axis but
        one (which a TPU can do without extra traffic), or the longest if that has less than 8
        entries. It need not divide the axis. Smaller groups keep small entries beside large ones
        better, for 1 / ``group_size`` bytes each.
      min_size: leaves with fewer entries, >= 0, stay as they are.
        ``static_args`` for ``optax.inject_hyperparams``:
        ``("inner", "bits", "group_size", "min_size")``.

    Returns:
      The inner transformation with the same updates, but for what the integers lose. Its state is a
      :class:`QuantizedState`. Moments are given to it in float32 (float64 as well; what is neither,
      such as a complex moment, stays as it is). An infinity becomes the largest number of its
      group's range, 2^e; NaN stays NaN, in its entry alone.

    Raises:
      ValueError: ``bits`` that do not exist, ``group_size`` or ``min_size`` out of range.
      TypeError: an ``inner`` that is no transformation; another argument that is no integer; at
        ``init``, ``optax.sm3`` within.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import lion_jax
      >>> from lion_jax.precision import with_quantized_state
      >>> params = {"kernel": jnp.ones((256, 256)), "bias": jnp.ones(256)}
      >>> tx = with_quantized_state(lion_jax.lion(1e-3))
      >>> for leaf in jax.tree.leaves(tx.init(params)):
      ...     if leaf.ndim:
      ...         print(leaf.dtype, leaf.shape)
      float32 (256,)
      int8 (256, 256)
      bool (256,)
      int8 (8, 256)

    References:
      Dettmers et al., `8-bit Optimizers via Block-wise Quantization
      <https://arxiv.org/abs/2110.02861>`_, 2022, for groups with a scale of their own;
      Rouhani et al., `Microscaling Data Formats for Deep Learning
      <https://arxiv.org/abs/2310.10537>`_, 2023, for shared exponents of groups of 32.
    """
    check_transformation("inner", inner)
    check_number_of("bits", bits, 8, 4)
    check_positive_integer("group_size", group_size, remedy=32)
    check_positive_integer("min_size", min_size, remedy=4096, least=0)
    inner = optax.with_extra_args_support(inner)
    store = _Store(inner, bits, group_size, min_size)

    def init_fn(params):
        state = inner.init(params)
        _check_names(state)
        # XLA would compute the integers of constant moments while it compiles, for minutes.
        state = jax.tree.map(_as_another, state)
        count = jnp.zeros((), jnp.int32)
        return QuantizedState(count, store.write(state, state, threshold(count)))

    def update_fn(updates, state, params=None, **extra_args):
        count, stored = state
        # Twice: XLA:TPU would write out a moment that both the exponents and the integers read.
        _, ahead = update(inner, updates, store.read(stored), params, **extra_args)
        stored = jax.tree.map(_as_another, stored)
        updates, new = update(inner, updates, store.read(stored), params, **extra_args)
        count = jnp.asarray(optax.safe_increment(count))
        return updates, QuantizedState(count, store.write(new, ahead, threshold(count)))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class _Store(NamedTuple):
    """From a state to what is kept of it, and back."""

    inner: optax.GradientTransformationExtraArgs
    bits: int
    group_size: int
    min_size: int

    def write(self, state: Any, ahead: Any, threshold: jax.Array) -> Any:
        """A state with its moments as integers; the exponents are those of `ahead`, an equal."""

        def quantize(path, moment, ahead):
            if not isinstance(moment, _Moment):
                return moment
            code = self._code(path)
            if code is None:
                return moment.tree
            exponents = jax.tree.map(self._exponents, ahead.tree)
            codes = jax.tree.map(
                lambda x, e: (
                    encode(code, x, e, threshold, _axis(x.shape), self.group_size)
                    if self._is_large(x)
                    else x
                ),
                moment.tree,
                exponents,
            )
            return Quantized(codes, exponents)

        return jax.tree_util.tree_map_with_path(quantize, self._mark(state), self._mark(ahead))

    def read(self, state: Any) -> Any:
        """The state whose moments are stored in this one."""

        def dequantize(path, moment):
            if not isinstance(moment, Quantized):
                return moment
            code = self._code(path)
            return jax.tree.map(
                lambda q, e: (
                    q if e.dtype == bool else decode(code, q, e, _axis(q.shape), self.group_size)
                ),
                moment.codes,
                moment.exponents,
            )

        return jax.tree_util.tree_map_with_path(
            dequantize, state, is_leaf=lambda x: isinstance(x, Quantized)
        )

    def _code(self, path: Any) -> Code | None:
        """How the moment at a path is stored; None as it is."""
        name = str(getattr(path[-1], "name", getattr(path[-1], "key", ""))) if path else ""
        if name in KEPT:
            return None
        return Code(self.bits, 4, False) if name in SQUARES else Code(self.bits, 2, True)

    def _exponents(self, x: jax.Array) -> jax.Array:
        if self._is_large(x):
            return shared_exponents(x, _axis(x.shape), self.group_size)
        return jnp.zeros_like(x, bool)

    def _is_large(self, x: jax.Array) -> bool:
        return jnp.issubdtype(x.dtype, jnp.floating) and x.ndim > 0 and x.size >= self.min_size

    def _mark(self, state: Any) -> Any:
        """The state with a leaf in place of each tree like the parameters."""
        return optax.tree_utils.tree_map_params(self.inner, _Moment, state, is_leaf=lambda _: True)


class _Moment:
    """A tree like the parameters, as a leaf."""

    def __init__(self, tree: Any):
        self.tree = tree


def _check_names(state: Any) -> None:
    """Refuses the one state whose `nu` is a momentum, and would lose its signs."""
    if optax.tree_utils.tree_get_all_with_path(state, "ScaleBySM3State"):
        raise TypeError(
            "inner must not be optax.sm3, whose state is small as it is; its momentum, called nu, "
            "would be taken for a second moment. Try it without with_quantized_state."
        )


def _axis(shape: tuple[int, ...]) -> int:
    """Which axis has the groups: the last but one, which suits TPUs, unless it is short."""
    if len(shape) > 1 and shape[-2] >= _LEAST_AXIS:
        return len(shape) - 2
    return shape.index(max(shape))


def _as_another(x: jax.Array) -> jax.Array:
    """The same array, which the compiler takes for one it knows nothing of."""
    return jax.lax.optimization_barrier(x)
