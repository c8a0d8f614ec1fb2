"""Full-precision weights without a second copy."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import KeyPath

from lion_jax._core.checks import check_has_params, check_real
from lion_jax._core.counters import wrapping_count, zero
from lion_jax._core.dtypes import mark_of_dtypes, round_to, widen_abstract
from lion_jax._core.inner import update
from lion_jax._core.kinds import TRANSFORMATION, one_of
from lion_jax._core.leaves import is_array, is_none, is_weight, matching, numbers_of
from lion_jax._core.one_pass import beside_moments
from lion_jax._core.paths import Names, is_covered, names_of
from lion_jax._core.rule import combinator
from lion_jax._core.states import is_absent, located, replaced, unwrapped
from lion_jax._core.types import PyTree
from lion_jax.precision._thresholds import round_at, threshold_at
from lion_jax.precision.quantized_state import QuantizedState


class MasterWeightsState(NamedTuple):
    """State of `with_master_weights`.

    Attributes:
      correction: the master weights minus the stored ones, in grains: a tree like the parameters,
        each leaf of its parameter's shape, int8 or int16; None for functions and keys.
      correction_count: updates so far, int32 of shape (); the smallest follows the largest.
      correction_of: 0, of shape () and the parameters' dtype, to whose grains the correction
        belongs; float32 where they have both.
      inner_state: state of the inner transformation, which sees float32 parameters.
    """

    correction: PyTree
    correction_count: jax.Array
    correction_of: jax.Array
    inner_state: optax.OptState


@combinator(inner=TRANSFORMATION, correction_bits=one_of(8, 16))
def with_master_weights(
    inner: optax.GradientTransformation, *, correction_bits: int = 8
) -> optax.GradientTransformationExtraArgs:
    r"""Gives any optimizer full-precision weights while the parameters have 16 bits.

    .. math::

      w &= \theta_{t-1} + c_{t-1} \, \gamma(\theta_{t-1}), \qquad
        w' = w + \operatorname{inner}(g_t, s_{t-1}, w) \\
      \theta_t &= \operatorname{round}(w'), \qquad
        c_t = (w' - \theta_t) / \gamma(\theta_t) \text{, an integer of } k \text{ bits} \\
      \gamma(\theta) &= 2^{1-k} \cdot \text{half the distance from } \theta \text{ to its neighbour}

    instead of a second copy of the weights in float32. The parameters :math:`\theta` are the
    master weights :math:`w` rounded to the nearest, ties to the even, exactly and always. Of
    bfloat16 parameters, w has 16 significant bits with k = 8 and as many as float32 with k = 16.

    Wrap it around everything that changes updates or keeps weights. Only transformations that leave
    updates alone or skip whole steps, such as :func:`lion_jax.with_finite_guard`, may wrap it;
    :func:`lion_jax.lookahead`, :func:`lion_jax.scout` and :func:`lion_jax.with_parameter_average`
    raise an error if they do.

    Args:
      inner: the transformation, its learning rate included. It is initialized with float32
        parameters, and gets float32 gradients and w as its parameters: weight decay and trust
        ratios see full precision.
      correction_bits: k, 8 or 16, the bits of c for each parameter.

    Returns:
      A transformation from gradients of any floating dtype to float32 updates, which
      ``optax.apply_updates`` adds in float32 to store exactly :math:`\theta_t`. Its state is a
      :class:`MasterWeightsState`, read by :func:`master_params` and set by
      :func:`set_master_params`.

    Raises:
      ValueError: ``correction_bits`` that do not exist; at ``update``, missing parameters.
      TypeError: an ``inner`` that is no transformation; at ``init`` and ``update``, a parameter
        that is neither bfloat16 nor float16, by its path.

    Notes:
      The largest c, :math:`\pm(2^{k-1} - 1)`, stands for the last float32 number that rounds to
      :math:`\theta`, so that the next one beyond it is the neighbour's. c is rounded against a
      threshold that walks from step to step (a Weyl sequence), so that steps of less than
      :math:`\gamma` are not lost either: 10,000 equal ones add up within a few :math:`\gamma`.
      Steps below half of the last bit of a float32 weight are lost, as with float32 weights.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from lion_jax.precision import master_params, with_master_weights
      >>> params = jnp.ones(2, jnp.bfloat16)
      >>> tx = with_master_weights(optax.sgd(1e-4))
      >>> state = tx.init(params)
      >>> for _ in range(30):
      ...     updates, state = tx.update(jnp.array([1.0, -1.0]), state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> print(params, [f"{w:.4f}" for w in master_params(params, state)])
      [0.996094 1] ['0.9970', '1.0030']

    References:
      Micikevicius et al., `Mixed Precision Training <https://arxiv.org/abs/1710.03740>`_, 2018,
      Section 3.1, for the master copy; Zamirai et al., `Revisiting BFloat16 Training
      <https://arxiv.org/abs/2010.06192>`_, 2020, for what bfloat16 weights lose without one.
    """
    dtype = jnp.dtype(f"int{correction_bits}")
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        params = numbers_of(params)
        _check_narrow(params)
        return MasterWeightsState(
            correction=jax.tree.map(lambda p: jnp.zeros_like(p, dtype), params),
            correction_count=zero(),
            correction_of=mark_of_dtypes(params),
            inner_state=inner.init(jax.tree.map(widen_abstract, params)),
        )

    def update_fn(updates, state, params=None, **extra_args):
        check_has_params(params, "with_master_weights")
        correction, count, mark, inner_state = state
        params, gradients = matching(correction, params), matching(correction, updates)
        _check_narrow(params)
        check_real(gradients, "with_master_weights")
        master = jax.tree.map(_join, params, correction)
        gradients = jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), gradients)
        steps, inner_state = update(inner, gradients, inner_state, master, **extra_args)
        count = wrapping_count(count)
        steps, correction = _move_leaves(
            steps, correction, params, master, threshold_at(count), _has_integers(inner_state)
        )
        steps = beside_moments(steps, inner_state)
        return steps, MasterWeightsState(correction, count, mark, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def master_params(params: optax.Params, state: optax.OptState) -> optax.Params:
    """The full-precision weights of 16-bit parameters under :func:`with_master_weights`.

    Args:
      params: the parameters, as stored.
      state: the optimizer state that holds one :class:`MasterWeightsState`, at any depth.

    Returns:
      A tree like the parameters, float32: to save, to evaluate, or to train on without this
      combinator. Parameters that ``optax.masked`` or ``optax.partition`` hide from it are only
      widened.

    Raises:
      ValueError: none in the state, or several; parameters of other leaves or shapes.
      TypeError: parameters that are neither bfloat16 nor float16.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from lion_jax.precision import master_params, with_master_weights
      >>> params = jnp.ones(1, jnp.bfloat16)
      >>> tx = with_master_weights(optax.sgd(1e-3), correction_bits=16)
      >>> updates, state = tx.update(jnp.ones(1), tx.init(params), params)
      >>> params = optax.apply_updates(params, updates)
      >>> print(params, f"{master_params(params, state)[0]:.6f}")
      [1] 0.999000
    """
    _, correction = _correction(state)
    bare = unwrapped(params)
    _check_params(bare, correction)
    weights = [
        _join(p, c) if c is not None else jnp.asarray(p, jnp.float32) if is_weight(p) else p
        for _, p, c in _with_corrections(bare, correction)
    ]
    return jax.tree.structure(params).unflatten(weights)


def set_master_params(
    master: optax.Params, params: optax.Params, state: optax.OptState
) -> tuple[optax.Params, optax.OptState]:
    r"""Splits full-precision weights, e.g. of a checkpoint, into 16-bit parameters and state.

    Args:
      master: the weights, a tree like the parameters, of any floating dtype.
      params: the parameters, for their dtypes.
      state: the optimizer state that holds one :class:`MasterWeightsState`, at any depth. Nothing
        else in it changes.

    Returns:
      The weights rounded to the parameters' dtypes, and the state with the corrections to them:
      :func:`master_params` of both is ``master`` within one :math:`\gamma`, which with 16 bits
      for bfloat16 parameters is about float32's own precision.

    Raises:
      ValueError: no such state, or several; trees of other leaves or shapes.
      TypeError: parameters that are neither bfloat16 nor float16.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from lion_jax.precision import master_params, set_master_params, with_master_weights
      >>> checkpoint = {"kernel": jnp.array([0.1, 0.2])}
      >>> params = {"kernel": jnp.zeros(2, jnp.bfloat16)}
      >>> tx = with_master_weights(optax.adamw(1e-3))
      >>> params, state = set_master_params(checkpoint, params, tx.init(params))
      >>> print(params["kernel"], [f"{w:.5f}" for w in master_params(params, state)["kernel"]])
      [0.100098 0.200195] ['0.10000', '0.20000']
    """
    where, correction = _correction(state)
    bare, weights = unwrapped(params), unwrapped(master)
    _check_like("master", weights, bare, "the checkpoint of this model")
    _check_params(bare, correction)
    goals, stored, corrections = _by_names(weights), [], {}
    for keys, p, c in _with_corrections(bare, correction):
        if not is_array(p):
            stored.append(p)
            continue
        w = jnp.asarray(goals[names_of(keys)][1], p.dtype if c is None else jnp.float32)
        stored.append(w if c is None else _stored(w, p))
        if c is not None:
            corrections[names_of(keys)] = _correct(c, w, p, threshold=0.5)
    new = jax.tree_util.tree_map_with_path(lambda keys, _: corrections[names_of(keys)], correction)
    return jax.tree.structure(params).unflatten(stored), replaced(state, where, new)


def _correction(state: optax.OptState) -> tuple[KeyPath, PyTree]:
    """The path of the only correction in a state, and the correction."""
    return located(state, "correction", "with_master_weights", MasterWeightsState.__name__)


def _with_corrections(params: PyTree, correction: PyTree) -> Iterator[tuple[KeyPath, Any, Any]]:
    """The leaves of `params` by path, with the correction of each; None where it has none."""
    corrections = _by_names(correction)
    for keys, p in jax.tree_util.tree_leaves_with_path(params):
        _, c = corrections.get(names_of(keys), (keys, None))
        yield keys, p, c if is_array(c) else None


def _by_names(tree: PyTree) -> dict[Names, tuple[KeyPath, Any]]:
    """The leaves and placeholders by name, in words that do not depend on the types of nodes."""
    below = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_absent)
    return {names_of(keys): (keys, leaf) for keys, leaf in below}


@jax.jit
def _join(p: jax.Array, correction: jax.Array) -> jax.Array:
    """The master weight: 8 or 11 bits and the next 8 or 16."""
    stored, most = p.astype(jnp.float32), jnp.iinfo(correction.dtype).max
    grains = correction.astype(jnp.float32)
    last = jnp.copysign(_last(p, correction.dtype), grains)
    grains = jnp.where(jnp.abs(grains) == most, last, grains)
    return stored + grains * _grain(stored, p.dtype, correction.dtype)


@jax.jit
def _stored(w: jax.Array, p: jax.Array) -> jax.Array:
    """A weight in its stored dtype."""
    return round_to(jnp.asarray(w, jnp.float32), p.dtype).astype(p.dtype)


def _has_integers(state: optax.OptState) -> bool:
    def is_quantized(node):
        return isinstance(node, QuantizedState)

    return any(map(is_quantized, jax.tree.leaves(state, is_leaf=is_quantized)))


def _move_leaves(
    steps: PyTree,
    correction: PyTree,
    params: PyTree,
    master: PyTree,
    threshold: jax.Array,
    is_of_integers: bool,
) -> tuple[PyTree, PyTree]:
    """Steps of the stored parameters and new corrections; unchanged where there is no step."""
    corrections, treedef = jax.tree.flatten(correction, is_leaf=is_none)
    columns = (corrections, *(treedef.flatten_up_to(tree) for tree in (params, master)))
    moved = [
        (u, row[0]) if u is None else _move(u, *row, threshold, is_of_integers)
        for u, *row in zip(treedef.flatten_up_to(steps), *columns, strict=True)
    ]
    return treedef.unflatten([u for u, _ in moved]), treedef.unflatten([c for _, c in moved])


@functools.partial(jax.jit, static_argnums=5)
def _move(
    step: jax.Array,
    correction: jax.Array,
    p: jax.Array,
    w: jax.Array,
    threshold: jax.Array,
    is_of_integers: bool,
) -> tuple[jax.Array, jax.Array]:
    """The step of the stored number, exact since all that cancels is on a grid, and correction.

    Of a step made of moments in integers, or of others.
    """
    step = jnp.asarray(step, w.dtype)
    u = round_to(w + step, p.dtype) - p.astype(w.dtype)
    if is_of_integers:
        p, correction = jax.lax.platform_dependent(
            p, correction, tpu=_as_others, default=lambda *pair: pair
        )
        w = _join(p, correction)
    correction = _correct(correction, w + step, p, threshold)
    # Never as small as that; but what depends on it XLA:TPU makes in the same pass.
    return jnp.where(correction != jnp.iinfo(correction.dtype).min, u, jnp.nan), correction


def _as_others(p: jax.Array, correction: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same arrays, which the compiler takes for others.

    Behind moments in integers XLA:TPU writes out the weight that both roundings would share.
    """
    return jax.lax.optimization_barrier((p, correction))


@jax.jit
def _correct(
    correction: jax.Array, goal: jax.Array, p: jax.Array, threshold: jax.Array | float
) -> jax.Array:
    """The distance to the goal from the number stored for it, in grains.

    From the last but one on, the next is the last that rounds to the stored number, further away.
    """
    landed = round_to(goal, p.dtype)
    grain = _grain(landed, p.dtype, correction.dtype)
    grains = jnp.where(grain > 0, (goal - landed) / jnp.where(grain > 0, grain, 1), 0)
    most = jnp.iinfo(correction.dtype).max
    inner = most - 1
    last = _last(landed.astype(p.dtype), correction.dtype)
    outer = jnp.copysign((jnp.abs(grains) - inner) / (last - inner), grains)
    grains = jnp.where(jnp.abs(grains) > inner, jnp.copysign(inner, grains) + outer, grains)
    return jnp.clip(round_at(grains, threshold), -most, most).astype(correction.dtype)


def _last(p: jax.Array, correction_dtype: jnp.dtype) -> jax.Array:
    """The distance to the last float32 number that rounds to a stored one, in grains.

    It is the border to the neighbour for those whose last bit is 0, to which ties go, and the
    number before it for others.
    """
    bits = jnp.iinfo(correction_dtype).bits
    before = min(2.0 ** (jnp.finfo(p.dtype).nmant + bits - jnp.finfo(jnp.float32).nmant), 1.0)
    is_odd = (jax.lax.bitcast_convert_type(p, jnp.uint16) & 1) == 1
    return 2.0 ** (bits - 1) - jnp.where(is_odd, before, 0.0)


def _grain(stored: jax.Array, dtype: jnp.dtype, correction_dtype: jnp.dtype) -> jax.Array:
    """The unit of the correction: half the distance to the next stored number in 128 or 32768.

    Where it would not be a normal number it is 0; so it is for what is not finite.
    """
    exponent_bits = jax.lax.bitcast_convert_type(stored, jnp.int32) & 0x7F800000
    power = jax.lax.bitcast_convert_type(exponent_bits, jnp.float32)  # 2^floor(log2 |stored|)
    if dtype == jnp.float16:
        power = jnp.maximum(power, 2.0**-14)  # below, all are equally far apart
    else:
        power = jnp.where(power < 2.0**-100, 0, power)
    power = jnp.where(jnp.isfinite(power), power, 0)
    half_distance = jnp.finfo(dtype).eps / 2
    return power * (float(half_distance) / 2.0 ** (jnp.iinfo(correction_dtype).bits - 1))


def _check_params(params: PyTree, correction: PyTree) -> None:
    """Refuses parameters that do not belong to a correction."""
    _check_like("params", params, correction, "the parameters that belong to this state")
    for keys, p, c in _with_corrections(params, correction):
        if c is not None:
            _check_is_narrow(keys, p)


def _check_like(name: str, tree: PyTree, like: PyTree, remedy: str) -> None:
    """Refuses a tree of other leaves or other shapes, naming the first leaf by its path.

    Where `like` has no array, because it is masked or a function, anything will do.
    """
    likes, leaves = _by_names(like), _by_names(tree)
    absent = {names for names, (_, x) in likes.items() if not is_array(x)}
    for names, (keys, leaf) in [*likes.items(), *leaves.items()]:
        if is_covered(names, absent) or not (names in likes or is_array(leaf)):
            continue
        got, expected = (_shape(trees.get(names, (keys, None))[1]) for trees in (leaves, likes))
        if got != expected:
            raise ValueError(
                f"{name} must have the leaves and shapes of the weights; got {got} for {expected} "
                f"at {jax.tree_util.keystr(keys) or 'the root'}. Try {remedy}."
            )


def _shape(leaf: Any) -> tuple[int, ...] | str:
    return jnp.shape(leaf) if is_array(leaf) else "no leaf"


def _check_narrow(params: PyTree) -> None:
    """Refuses parameters that are not 16 bits wide."""
    for keys, p in jax.tree_util.tree_leaves_with_path(params):
        _check_is_narrow(keys, p)


def _check_is_narrow(keys: KeyPath, p: Any) -> None:
    dtype = jnp.result_type(p)
    if dtype not in (jnp.bfloat16, jnp.float16):
        raise TypeError(
            "with_master_weights needs bfloat16 or float16 parameters; got "
            f"{dtype} at {jax.tree_util.keystr(keys) or 'the root'}. Try "
            "jax.tree.map(lambda p: p.astype(jnp.bfloat16), params), or optax.partition with "
            "the plain inner transformation for parameters that shall stay wide."
        )
