"""Moments in 8 bits."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import KeyPath

from lion_jax._core.counters import wrapping_count, zero
from lion_jax._core.dtypes import at_least_float32, cast
from lion_jax._core.inner import update
from lion_jax._core.kinds import TRANSFORMATION, integer, one_of
from lion_jax._core.leaves import is_number, is_weight
from lion_jax._core.rule import combinator
from lion_jax._core.types import PyTree
from lion_jax.precision._codes import Code, decode, encode, shared_exponents
from lion_jax.precision._thresholds import threshold_at

# Second moments: never negative, and square gradients. In the states of these types nu is none.
_SQUARES = frozenset({"nu", "nu_max", "n", "sum_of_squares", "e_g", "e_x", "exp_avg_sq"})
_SIGNED_NU = ("ScaleBySM3State", "SophiaState")
# Weights, sums and statistics, of which each digit counts.
_KEPT = frozenset(
    {
        *("slow_params", "average", "gradient_sum", "acc_grads", "grad_acc", "grad_sum"),
        *("update_mean", "update_spread", "update_min", "update_max", "step_sizes", "projector"),
        *("params", "params0", "init_params", "init_particles", "cache", "x0", "z"),
        *("cumulative_gradients", "grad_sum_sq", "reward", "s", "subgradients"),
        *("diff_params_memory", "diff_updates_memory"),
    }
)
_LEAST_AXIS = 8
_NONE = -1  # in place of an axis: a leaf that stays as it is


class Quantized(NamedTuple):
    """A moment as `with_quantized_state` stores it.

    Attributes:
      codes: the integers, a tree like the parameters, each leaf of its parameter's shape, int8 (or
        int4); a small leaf as it was.
      exponents: the groups' exponents, a tree like the parameters, int8: each leaf has its
        parameter's rank, and ceil(length / group_size) in place of the length of the grouped axis;
        false, of the parameter's shape, for a small one.
    """

    codes: PyTree
    exponents: PyTree


class QuantizedState(NamedTuple):
    """State of `with_quantized_state`.

    Attributes:
      quantization_count: updates so far, int32 of shape (); it wraps around.
      inner_state: state of the inner transformation, with a `Quantized` in place of each moment.
      group_size: a dictionary of one entry, whose key is the group size and whose value, false of
        shape (), says nothing. Exponents do not tell it, as 40 rows are two groups of 32 or of 20;
        a key is part of the tree, so that `update` and checkpoints see it without its value.
    """

    quantization_count: jax.Array
    inner_state: optax.OptState
    group_size: dict[str, jax.Array]


@combinator(inner=TRANSFORMATION, bits=one_of(8, 4), group_size=integer(), min_size=integer(0))
def with_quantized_state(
    inner: optax.GradientTransformation,
    *,
    bits: int = 8,
    group_size: int = 32,
    min_size: int = 4096,
) -> optax.GradientTransformationExtraArgs:
    r"""Stores the moments of any optimizer in 8 bits, and computes with them in float32.

    Every leaf of the inner state that is shaped like a parameter is kept as an integer per entry
    and a shared exponent e per group: :math:`2^e` is the least power of two that no entry
    :math:`x` of the group exceeds, and with :math:`z = |x| / 2^e`

    .. math::

      q = L \, \tfrac12 \log_2 \left(1 + 3 z^{1/r}\right), \qquad
      |x| = 2^e \left(\frac{4^{q / L} - 1}{3}\right)^r

    with L = 127 and r = 2 for first moments, stored with their sign, and L = 253 and r = 4 for
    second moments, which are squares.

    Combinators that keep weights or sums, such as lookahead or accumulation, that keep the
    parameters in 16 bits (:func:`with_master_weights`), or that skip steps belong outside of it.
    For ``jax.shard_map`` over split parameters, make the state outside, by ``jax.jit``.

    Args:
      inner: the transformation whose state is to be stored.
      bits: 8, or 4 as an experiment: 7 magnitudes for first moments and 14 for second ones. Lion
        loses little accuracy by it, Adam much: see the page on precision in the documentation.
      group_size: how many neighbouring entries share an exponent, >= 1, along the last axis but
        one (which a TPU can do without extra traffic), or the longest if that has less than 8
        entries. It need not divide the axis. Smaller groups are more accurate for small entries
        beside large ones, and cost 1 / ``group_size`` bytes per entry.
      min_size: leaves with fewer entries, >= 0, are not quantized, nor are arrays of another shape
        than their parameter's, such as factors.

    Returns:
      The inner transformation, with the same updates up to the error of the integers. Its state is
      a :class:`QuantizedState`. It gets moments and gradients in float32, or wider; complex moments
      are not quantized. An infinite first moment becomes the largest number of its group, an
      infinite second moment stays infinite, NaN stays NaN, each in its entry alone. A finite entry
      that is larger than its neighbours by ten orders of magnitude rounds their first moments to 0
      until it has decayed.

    Raises:
      ValueError: ``bits`` that do not exist, ``group_size`` or ``min_size`` out of range; at
        ``init``, an ``inner`` with a quantized state in it; at ``update``, a state of other
        ``bits`` or another ``group_size``, or a shard of one whose groups cross shards.
      TypeError: an ``inner`` that is no transformation; another argument that is no integer; at
        ``init``, an ``inner`` whose state does not show which leaves are moments, such as
        ``optax.lbfgs`` and other line searches, or ``optax.flatten``.

    Notes:
      Second moments are not rounded to 0 unless they are 0: nothing is divided by 0 that was not
      before. First moments may be, beside second ones. Where there are no second ones, Lion reads
      their signs only. Then the least integer keeps the sign of a moment that is smaller, and is
      read as a share of its magnitude that walks from step to step. A sign is kept while gradients
      are 0, and one that turns round is followed within 377 steps, however large its neighbours
      are.

      A number becomes the integer below or above, by the share of the way between the two numbers
      that they mean, and by a threshold that walks from step to step (a Weyl sequence). Rounded to
      the nearest, a moment that changes by a thousandth per step, as a second moment does with
      b2 = 0.999, would stay for ever where it is.

      The integers have the parameter's shape. The exponents have its rank; along one axis they have
      an entry per group. So a parameter's ``PartitionSpec`` is right for both, as
      ``optax.tree_utils.tree_map_params`` maps it. No shard needs data of another if the length of
      a shard along that axis is a multiple of ``group_size``; else they get what they need, with
      the same bits, on Auto and Explicit meshes.

      The sizes that ``init`` sees decide which leaves get integers: within ``jax.shard_map`` those
      of a shard, within ``jax.pmap`` or :func:`lion_jax.distributed.sign_gather` those of the
      whole.

      Each update asks the inner one twice, for the exponents and for the integers, which costs a
      TPU less traffic than to keep the moments.

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
    inner = optax.with_extra_args_support(inner)
    store = _Store(inner, bits, group_size, min_size)

    def init_fn(params):
        state = inner.init(params)
        _check_not_quantized(state)
        # XLA would compute the integers of constant moments while it compiles, for minutes.
        state = jax.tree.map(_as_another, state)
        count = zero()
        stored = store.write(state, state, count, count, params=params)
        return QuantizedState(count, stored, {str(group_size): jnp.zeros((), bool)})

    def update_fn(updates, state, params=None, **extra_args):
        count, stored, groups = state
        _check_group_size(groups, group_size)
        # Twice: XLA:TPU would write out a moment that both the exponents and the integers read.
        likes = _updates_of(inner, updates, params, **extra_args)
        updates = jax.tree.map(_widen, updates)
        _, ahead = update(inner, updates, store.read(stored, count), params, **extra_args)
        stored = jax.tree.map(_with_other_codes, stored, is_leaf=_is_moment)
        updates, new = update(inner, updates, store.read(stored, count), params, **extra_args)
        updates = _cast_like(updates, likes)
        new_count = wrapping_count(count)
        stored = store.write(new, ahead, new_count, count, stored)
        return updates, QuantizedState(new_count, stored, groups)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class _Store(NamedTuple):
    """Writes a state as integers, and reads it back."""

    inner: optax.GradientTransformationExtraArgs
    bits: int
    group_size: int
    min_size: int

    def write(
        self,
        state: optax.OptState,
        ahead: optax.OptState,
        count: jax.Array,
        last_count: jax.Array,
        stored: optax.OptState | None = None,
        params: optax.Params | None = None,
    ) -> PyTree:
        """A state with its moments as integers; the exponents are those of `ahead`, an equal.

        What has integers, and where their groups are, is decided by `params`, once; then it is as
        in `stored`, which may be a shard: with less entries, and an axis shorter, than those of the
        whole on which that was decided.
        """
        marked = self._mark(state)
        squares = _squares(marked)
        at = threshold_at(count), threshold_at(last_count)
        shapes = {
            path: getattr(p, "shape", ()) for path, p in jax.tree_util.tree_leaves_with_path(params)
        }

        def quantize(path, moment, ahead, *stored):
            if not isinstance(moment, _Moment):
                return moment
            code = self._code(path, squares)
            if code is None:
                return moment.tree
            leaves, treedef = jax.tree_util.tree_flatten_with_path(moment.tree)
            if stored:
                held = zip(*map(treedef.flatten_up_to, stored[0]), strict=True)
                plan = [(self._stored_axis(code, q, e), e) for q, e in held]
            else:
                plan = [self._planned(x, shapes.get(path)) for path, x in leaves]
            codes, exponents = [], []
            for (_, x), y, (axis, e) in zip(
                leaves, treedef.flatten_up_to(ahead.tree), plan, strict=True
            ):
                e = e if axis == _NONE else shared_exponents(y, axis, self.group_size)
                exponents.append(e)
                codes.append(x if axis == _NONE else encode(code, x, e, *at, axis, self.group_size))
            return Quantized(treedef.unflatten(codes), treedef.unflatten(exponents))

        others = [self._mark(ahead), *([] if stored is None else [stored])]
        return jax.tree_util.tree_map_with_path(quantize, marked, *others)

    def read(self, state: optax.OptState, count: jax.Array) -> PyTree:
        """The state whose moments were stored in this one at a count."""
        squares = _squares(state)
        at = threshold_at(count)

        def dequantize(path, moment):
            code = self._code(path, squares)
            if not isinstance(moment, Quantized) or code is None:
                return moment
            codes, treedef = jax.tree.flatten(moment.codes)
            moments = []
            for q, e in zip(codes, treedef.flatten_up_to(moment.exponents), strict=True):
                axis = self._stored_axis(code, q, e)
                moments.append(
                    q if axis == _NONE else decode(code, q, e, at, axis, self.group_size)
                )
            return treedef.unflatten(moments)

        return jax.tree_util.tree_map_with_path(dequantize, state, is_leaf=_is_moment)

    def _code(self, path: KeyPath, squares: "_Squares") -> Code | None:
        """The code of the moment at a path; None if it is not quantized."""
        name = _field(path)
        if name in _KEPT:
            return None
        if name in squares.names:
            return Code(self.bits, root=4, is_signed=False, may_vanish=False)
        return Code(self.bits, root=2, is_signed=True, may_vanish=squares.are_there)

    def _planned(self, x: Any, shape: tuple[int, ...] | None) -> tuple[int, jax.Array | None]:
        """The axis of a moment to group along, and a placeholder for exponents if there is none.

        Only what has its parameter's shape is a moment of it: a history has an axis more, a factor
        one less.
        """
        if not is_weight(x):
            return _NONE, jnp.zeros(jnp.shape(x) if isinstance(x, jax.Array) else (), bool)
        x = jnp.asarray(x)
        if x.shape != shape:
            return _NONE, jnp.zeros((1,) * x.ndim, bool)
        is_real = jnp.issubdtype(x.dtype, jnp.floating)
        if is_real and x.ndim > 0 and x.size >= self.min_size:
            return _longest_or_rows(x.shape), None
        return _NONE, jnp.zeros_like(x, bool)

    def _stored_axis(self, code: Code, codes: jax.Array, exponents: jax.Array) -> int:
        """The axis of the groups: where exponents are fewer; if nowhere, each entry has its own."""
        if exponents.dtype == bool:
            return _NONE
        if codes.dtype != code.dtype:
            raise ValueError(
                f"bits must be those of the state; got bits={self.bits} for integers of "
                f"{codes.dtype}. Try bits={8 if codes.dtype == jnp.int8 else 4}, or "
                "tx.init(params), which starts anew."
            )
        axes = [axis for axis in range(codes.ndim) if codes.shape[axis] != exponents.shape[axis]]
        groups = [math.ceil(codes.shape[axis] / self.group_size) for axis in axes]
        if [exponents.shape[axis] for axis in axes] != groups or len(axes) > 1:
            raise ValueError(
                f"with_quantized_state needs an exponent for each group of {self.group_size}; got "
                f"integers of shape {codes.shape} with exponents of shape {exponents.shape}. "
                "Within jax.shard_map groups must not cross shards: try a group_size that divides "
                "a shard's rows, and distributed.zero_sharding, which tells what does not divide."
            )
        return axes[0] if axes else 0

    def _mark(self, state: optax.OptState) -> PyTree:
        """The state with a leaf in place of each tree like the parameters."""
        try:
            return optax.tree_utils.tree_map_params(
                self.inner, _Moment, state, is_leaf=lambda _: True
            )
        except Exception as error:  # of an init that takes no placeholder, which raises what it may
            raise TypeError(
                "inner must tell its moments from the rest of its state, by an init that takes "
                f"optax's placeholder for parameters; got the state of {_names_in(state)}, whose "
                f"init raises {type(error).__name__}: {str(error).partition(chr(10))[0]}. Try "
                "with_quantized_state around the links of the chain that keep moments only."
            ) from error


class _Squares(NamedTuple):
    """The fields of a state that hold second moments, and whether it has any."""

    names: frozenset[str]
    are_there: bool


def _squares(state: optax.OptState) -> _Squares:
    """The second moments of a state in which moments are marked, or integers."""
    is_signed = any(optax.tree_utils.tree_get_all_with_path(state, name) for name in _SIGNED_NU)
    names = _SQUARES - {"nu"} if is_signed else _SQUARES
    leaves = jax.tree_util.tree_leaves_with_path(state, is_leaf=_is_moment)
    fields = {_field(path) for path, leaf in leaves if _is_moment(leaf)}
    return _Squares(names, are_there=not names.isdisjoint(fields))


def _field(path: KeyPath) -> str:
    """The name at a path: a field, or the key of a dictionary."""
    return str(getattr(path[-1], "name", getattr(path[-1], "key", ""))) if path else ""


def _names_in(state: optax.OptState) -> str:
    """The types of the states in a state."""
    types = []

    def note(x):
        if hasattr(x, "_fields"):
            types.append(type(x).__name__)
            jax.tree.map(note, list(x), is_leaf=lambda y: hasattr(y, "_fields"))

    jax.tree.map(note, state, is_leaf=lambda x: hasattr(x, "_fields"))
    return ", ".join(dict.fromkeys(types)) or type(state).__name__


def _is_moment(x: Any) -> bool:
    return isinstance(x, Quantized | _Moment)


class _Moment:
    """A tree like the parameters, as a leaf."""

    def __init__(self, tree: PyTree):
        self.tree = tree


def _updates_of(
    inner: optax.GradientTransformationExtraArgs,
    updates: optax.Updates,
    params: optax.Params | None,
    **extra_args: Any,
) -> list[jax.ShapeDtypeStruct | None]:
    """The dtypes of the updates that the inner transformation gives by itself; None of no array."""
    leaves, treedef = jax.tree.flatten((updates, params))
    arrays = {i: x for i, x in enumerate(leaves) if is_weight(x)}

    def alone(arrays):
        updates, params = treedef.unflatten([arrays.get(i, x) for i, x in enumerate(leaves)])
        likes = updates if params is None else params
        # A function among the leaves of a module has no moment.
        state = inner.init(jax.tree.map(lambda p: p if is_number(p) else None, likes))
        updates, _ = update(inner, updates, state, params, **extra_args)
        return [u if is_weight(u) else None for u in jax.tree.leaves(updates)]

    return jax.eval_shape(alone, arrays)


def _cast_like(updates: optax.Updates, likes: list[jax.ShapeDtypeStruct | None]) -> optax.Updates:
    """Updates in these dtypes."""
    leaves, treedef = jax.tree.flatten(updates)
    pairs = zip(leaves, likes, strict=True)
    return treedef.unflatten([u if like is None else cast(u, like.dtype) for u, like in pairs])


def _check_not_quantized(state: optax.OptState) -> None:
    """Refuses to store integers as integers: which of the two an exponent belongs to is lost."""
    nodes = jax.tree.leaves(state, is_leaf=_is_quantized)
    if any(map(_is_quantized, nodes)):
        raise ValueError(
            "with_quantized_state must not be around another; got an inner transformation with a "
            "QuantizedState in it. Try one of the two."
        )


def _is_quantized(node: Any) -> bool:
    return isinstance(node, QuantizedState)


def _check_group_size(groups: dict[str, jax.Array], group_size: int) -> None:
    """Refuses a state whose groups are of another size, which may have as many exponents."""
    if set(groups) != {str(group_size)}:
        theirs = ", ".join(groups)
        raise ValueError(
            f"group_size must be that of the state; got group_size={group_size} for a state of "
            f"groups of {theirs}. Try group_size={theirs}, or tx.init(params), which starts anew."
        )


def _widen(g: Any) -> Any:
    return jnp.asarray(g, at_least_float32(g)) if is_weight(g) else g


def _longest_or_rows(shape: tuple[int, ...]) -> int:
    """The axis of the groups: the last but one, which suits TPUs, unless it is short."""
    if len(shape) > 1 and shape[-2] >= _LEAST_AXIS:
        return len(shape) - 2
    return shape.index(max(shape))


def _with_other_codes(x: Any) -> Any:
    """A moment with other integers, or another array; the exponents are kept.

    XLA:TPU writes out what is spread over rows that groups do not divide.
    """
    if not isinstance(x, Quantized):
        return _as_another(x)
    return Quantized(jax.tree.map(_as_another, x.codes), x.exponents)


def _as_another(x: Any) -> Any:
    """The same array, which the compiler takes for one it knows nothing of."""
    return jax.lax.optimization_barrier(x) if isinstance(x, jax.Array) else x
