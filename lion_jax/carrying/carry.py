"""Carries an optimizer state over to a changed chain, by the names of its fields."""

import collections
import dataclasses
import re
from collections.abc import Iterable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.tree_util import KeyPath

from lion_jax._core.dtypes import cast
from lion_jax._core.kinds import TRANSFORMATION
from lion_jax._core.leaves import arrays_of
from lion_jax._core.paths import (
    Names,
    Pattern,
    first_match,
    is_covered,
    name_of,
    names_below,
)
from lion_jax._core.rule import takes
from lion_jax._core.states import is_absent, unwrapped
from lion_jax._core.types import PyTree
from lion_jax.carrying._links import (
    Leaf,
    Link,
    Reader,
    leaves_of,
    match,
    shape_of,
    unit_of,
)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class CarryReport:
    """The report of :func:`carry_state`; ``print`` shows it by field, in a few lines.

    Attributes:
      carried: paths in the new state whose values come from the old one.
      dropped: paths in the old state that have no place in the new one.
      created: paths in the new state that start anew.
      lines: the lines that ``print`` shows: the fate of each field, casts between dtypes, and
        hyperparameters that differ from those of the new transformation.
    """

    carried: tuple[str, ...]
    dropped: tuple[str, ...]
    created: tuple[str, ...]
    lines: tuple[str, ...]

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Prints it for IPython."""
        del cycle
        printer.text(str(self))

    def __str__(self) -> str:
        """A line for each field."""
        return "\n".join(self.lines)


@takes(new_transformation=TRANSFORMATION)
def carry_state(
    old_state: PyTree,
    new_transformation: optax.GradientTransformation,
    params: optax.Params,
    *,
    fresh: str | Iterable[Pattern] = (),
) -> tuple[optax.OptState, CarryReport]:
    """Moves an optimizer state to a changed chain: fields that fit are kept, the rest starts anew.

    You may add or remove clipping, :func:`lookahead`, an average, accumulation, a guard or a loss
    scale, replace a number by a schedule, or change from ``optax.lion`` to :func:`lion` and from
    AdamW to Lion, which drops ``nu``. From Lion to AdamW the moments start anew.

    A schedule goes on at the count of the old state, so a warm-up is not repeated; with
    ``fresh="schedule_count"`` it starts at 0. If the old state has no count of that name, the
    report lists ``schedule_count`` as created, and the schedule starts at 0.

    Fields are matched by name, not by meaning. Numbers held by ``optax.inject_hyperparams`` keep
    their old values, and the report says where they differ from the new ones. The ``trace`` of SGD
    is in units of gradients, that of LARS in units of steps: start it anew with ``fresh``.

    Args:
      old_state: the state to go on with, of any transformation: arrays, or plain dicts and lists of
        them, as a checkpoint restored without a target has, or wrapped by flax nnx, such as
        ``optimizer.opt_state``. It is not changed, but the new state shares its buffers: donate
        either, and the other is gone.
      new_transformation: the transformation to continue with.
      params: the current parameters: any tree, ``nnx.state(model, nnx.Param)`` too. New fields,
        such as slow weights, start from them. Leaves that are no arrays, such as the functions of a
        module, count as None.
      fresh: fields that start anew even if they fit: one or several patterns for paths in either
        state, as in :func:`lion_jax.groups.select`. ``"hyperparams/"`` takes the numbers of the new
        transformation instead of those last used; ``"mu/head/"`` restarts one part of the
        parameters.

    Returns:
      The state, like ``new_transformation.init(params)`` in structure, shapes and dtypes, and a
      :class:`CarryReport`. Carried leaves keep their bits, or are cast if the dtype differs, and
      stay on their devices. Any argument may hold ``jax.ShapeDtypeStruct``, and the function works
      under ``jax.eval_shape`` and ``jax.jit``. To load the state into an ``nnx.Optimizer`` made
      with the new transformation, call ``nnx.update(optimizer.opt_state, nnx.state(state))``.

    Raises:
      ValueError: the state belongs to other parameters (a field of both states differs in its paths
        or in a shape, and neither side is masked there); nothing in the state fits; integers have
        another width, another ``group_size`` or, under ``with_master_weights``, belong to
        parameters of another dtype; a pattern matches no path.
      TypeError: ``new_transformation`` is not a transformation.

    Notes:
      Leaves belong together by the name of the field and the path of the parameter, such as ``mu``
      and ``layer/kernel``; positions in chains and wrappers do not matter. Moments stored by
      ``with_quantized_state`` are matched by the same names, integers together with exponents.
      Integers that would be read as other numbers are refused.

      In a state of another type, a moment is kept only if all moments and counts beside it are.
      From Lion to AdamW, ``mu`` would meet a ``nu`` of zero and a bias correction that suits
      neither, so Adam starts anew. Among several similar states, the one with most fields in common
      is taken, then the one under the same names (labels of ``optax.partition``), then the one at
      the same place. Only counts are carried more than once: into each part of a state that
      ``optax.partition`` splits, and into every schedule. Where labels merge into one, the first
      count is kept. Unfrozen parameters get new moments, but share the count of the others.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> import lion_jax
      >>> params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
      >>> state = optax.lion(1e-4).init(params)
      >>> clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.lion(1e-4))
      >>> state, report = lion_jax.carry_state(state, lion_jax.lookahead(clipped), params)
      >>> print(report)
      carried  count (1 leaf)
      carried  mu (2 leaves)
      created  slow_params (2 leaves)
      created  steps_since_sync (1 leaf)
    """
    params = arrays_of(params)
    new_state = new_transformation.init(params)
    names = {names for names, leaf in names_below(unwrapped(params)) if not is_absent(leaf)}
    new = Reader(names).read(unwrapped(new_state))
    old = Reader(names, new).read(unwrapped(old_state))
    both = {leaf.path: leaf.value for leaf in (*leaves_of(old), *leaves_of(new))}
    fresh = (fresh,) if isinstance(fresh, str) else fresh
    is_fresh = first_match(((pattern, True) for pattern in fresh), default=False)(both)
    for link in (*old, *new):
        link.fresh = {key for key, leaf in link.leaves.items() if is_fresh[leaf.path]}
    _check_stored_alike(old, new)
    _check_same_parameters(old, new)
    sources = match(old, new)
    _check_units(sources, old, new)
    if not sources and any(leaves_of(old)) and any(leaves_of(new)) and not any(is_fresh.values()):
        raise ValueError(
            "old_state must have something in common with new_transformation's state; got "
            f"{next(leaves_of(old)).path} as its first leaf, which fits nowhere, like all others. "
            "Try the optimizer state of the run that goes on, or new_transformation.init(params) "
            "to start anew."
        )
    values = _carry(sources, new)
    below = jax.tree_util.tree_leaves_with_path(unwrapped(new_state))
    state = jax.tree.structure(new_state).unflatten([values[keys] for keys, _ in below])
    return state, _report(sources, old, new)


def _check_stored_alike(old: list[Link], new: list[Link]) -> None:
    """Refuses to let step counts go on beside moments that would start anew."""
    are_codes = [
        any(leaf.field == "quantization_count" for leaf in leaves_of(links)) for links in (old, new)
    ]
    if are_codes[0] != are_codes[1]:
        words = ["with" if are else "without" for are in are_codes]
        raise ValueError(
            "old_state must store its moments as new_transformation does; got one "
            f"{words[0]} for one {words[1]} with_quantized_state. Try "
            "new_transformation.init(params), which starts anew."
        )


def _check_units(sources: dict[Leaf, Leaf], old: list[Link], new: list[Link]) -> None:
    """Refuses to carry integers that would be read in units that they are not in."""
    parts = {link.leaves[key] for link in new for key in link.wholes}
    are_moving = {
        "group_size": not parts.isdisjoint(sources),
        "correction_of": any(leaf.field == "correction" for leaf in sources),
    }
    for field in (field for field, is_moving in are_moving.items() if is_moving):
        theirs, ours = (
            {link.names: link.units()[field] for link in links if field in link.units()}
            for links in (old, new)
        )
        known = {unit_of(leaf) for leaf in theirs.values()}
        for names, leaf in ours.items():
            is_known = unit_of(leaf) in known
            other = theirs.get(names, leaf if is_known else next(iter(theirs.values()), leaf))
            if unit_of(other) != unit_of(leaf):
                _refuse_units(field, other, leaf)


def _refuse_units(field: str, old: Leaf, new: Leaf) -> NoReturn:
    got, needed = unit_of(old), unit_of(new)
    if field == "group_size":
        raise ValueError(
            f"old_state must have groups as large as new_transformation's; got group_size={got} "
            f"at {old.path}, where with_quantized_state has group_size={needed}. "
            f"Try group_size={got}, or new_transformation.init(params), which starts anew."
        )
    was, is_now = ("of both 16-bit dtypes" if x == "float32" else x for x in (got, needed))
    raise ValueError(
        "old_state must have corrections to parameters of the dtype of params; got those to "
        f"{was} at {old.path}, where params are {is_now}. Try the parameters of the run that "
        'saved it; or fresh="correction" and then set_master_params(master_params(old_params, '
        "old_state), params, state)."
    )


def _check_same_parameters(old: list[Link], new: list[Link]) -> None:
    """Refuses a state in which a field that both have is a tree like other parameters."""
    new_absent, old_absent = _absent(new), _absent(old)
    for field in {field: None for link in new for field in sorted(link.moments)}:
        ours, theirs = _moment(new, field), _moment(old, field)
        if not theirs:
            continue
        for key, leaf in theirs.items():
            if key not in ours and not is_covered(key, new_absent):
                _refuse(leaf, None)
        for key, leaf in ours.items():
            if key not in theirs and not is_covered(key, old_absent):
                _refuse(None, leaf)


def _refuse(old: Leaf | None, new: Leaf | None) -> NoReturn:
    """Names a leaf that differs between the states."""
    leaf = new if old is None else old
    path = "" if leaf is None else leaf.path
    kinds = [
        "none" if x is None else " of shape ".join(map(str, _kind(x.value))) for x in (old, new)
    ]
    are_codes = all(x is not None and _is_code(x.value) for x in (old, new))
    raise ValueError(
        f"old_state must be of the same parameters as params; got {kinds[0]} at {path}, "
        f"where params need {kinds[1]}. Try the "
        f"{'bits and min_size' if are_codes else 'parameters'} of the run that saved it, or "
        f'fresh="{re.escape(path)}" (any pattern) if that part changed on purpose.'
    )


def _carry(sources: dict[Leaf, Leaf], new: list[Link]) -> dict[KeyPath, Any]:
    """The leaves of the new state by their keys."""
    values, used = {}, set()
    for leaf in leaves_of(new):
        source = sources.get(leaf)
        if source is None:
            values[leaf.keys] = leaf.value
            continue
        if _kind(source.value) != _kind(leaf.value):
            _refuse(source, leaf)
        value = _move(source.value, leaf.value)
        if id(value) in used and isinstance(value, jax.Array):
            value = value.copy()  # a buffer can be donated only once
        used.add(id(value))
        values[leaf.keys] = value
    return values


def _move(value: Any, like: Any) -> Any:
    dtype = _dtype(like)
    if isinstance(value, jax.ShapeDtypeStruct):
        return value.update(dtype=dtype)
    if isinstance(value, jax.Array):
        return cast(value, dtype)
    is_placed = isinstance(like, jax.Array) and not isinstance(like, Tracer)
    return jax.device_put(np.asarray(value, dtype), like.sharding if is_placed else None)


def _report(sources: dict[Leaf, Leaf], old: list[Link], new: list[Link]) -> CarryReport:
    used = set(sources.values())
    fates = {leaf: "carried" if leaf in sources else "created" for leaf in leaves_of(new)}
    fates |= {leaf: "dropped" for leaf in leaves_of(old) if leaf not in used}
    types = collections.defaultdict(set)
    for link in (*old, *new):
        for field in link.fields():
            types[field].add(link.type_name)
    scheduled = {link.names[-1] for link in new if link.names[-2:-1] == ("hyperparams_states",)}
    notes = collections.defaultdict(list)
    for link in (*new, *old):
        for leaf in link.leaves.values():
            if leaf in fates:
                is_told_apart = leaf.field in link.moments or len(types[leaf.field] - {""}) < 2
                of = "" if is_told_apart or not link.type_name else f" of {link.type_name}"
                notes[fates[leaf], leaf.field + of].append(
                    _note(sources.get(leaf), leaf, scheduled)
                )
    order = ("carried", "dropped", "created")
    return CarryReport(
        *(tuple(leaf.path for leaf, fate in fates.items() if fate == word) for word in order),
        lines=tuple(
            f"{fate}  {field or 'params'} ({_summary(about)})"
            for (fate, field), about in sorted(notes.items(), key=lambda x: order.index(x[0][0]))
        ),
    )


def _summary(notes: list[str]) -> str:
    count = "1 leaf" if len(notes) == 1 else f"{len(notes)} leaves"
    return ", ".join([count, *dict.fromkeys(filter(None, notes))])


def _note(source: Leaf | None, leaf: Leaf, scheduled: set[str]) -> str:
    """A remark on a leaf that is carried, where something should not pass unnoticed."""
    if source is None:
        return ""
    before, after = source.value, leaf.value
    if _dtype(before) != _dtype(after):
        return f"{_dtype(before)} to {_dtype(after)}"
    if leaf.field == "hyperparameters":
        return "of the last update; the next shows the new transformation's"
    if leaf.field == "schedule_count" and _is_number(before):
        return f"schedules go on at update {np.asarray(before).item()}"
    name = name_of(leaf.keys[-1])
    is_set = leaf.field == "hyperparams" and name not in scheduled  # what is scheduled moves on
    if is_set and _is_number(before) and _is_number(after):
        before, after = (f"{np.asarray(x).item():.6g}" for x in (before, after))
        if before != after:
            return f'{name} stays {before}, not {after}; fresh="hyperparams/" takes the new'
    return ""


def _is_number(value: Any) -> bool:
    """Tells whether it is one number of a known value: neither traced nor abstract."""
    return not isinstance(value, Tracer | jax.ShapeDtypeStruct) and shape_of(value) == ()


def _is_code(value: Any) -> bool:
    """Tells whether it has integers, or a stand-in, in place of numbers of a parameter."""
    return bool(shape_of(value)) and not jnp.issubdtype(_dtype(value), jnp.inexact)


def _moment(links: list[Link], field: str) -> dict[Names, Leaf]:
    """The leaves of a field that is a tree like some parameters."""
    return {
        key: leaf
        for link in links
        for key, leaf in link.leaves.items()
        if leaf.field == field
        and key not in link.fresh
        and (field in link.moments or shape_of(leaf.value))
    }


def _absent(links: Iterable[Link]) -> set[Names]:
    return {key for link in links for key in (*link.absent, *link.fresh)}


def _kind(value: Any) -> tuple[str, tuple[int, ...]]:
    """The kind and shape, which have to agree: numbers may be cast, but only within a kind.

    Integers of a parameter are codes, which mean something else at another width.
    """
    dtype, shape = _dtype(value), shape_of(value)
    kinds = {"float": jnp.floating, "complex": jnp.complexfloating}
    if not shape:
        kinds["int"] = jnp.integer
    numbers = (name for name, kind in kinds.items() if jnp.issubdtype(dtype, kind))
    return next(numbers, str(dtype)), shape


def _dtype(value: Any) -> jnp.dtype:
    return value.dtype if hasattr(value, "dtype") else jnp.result_type(value)
