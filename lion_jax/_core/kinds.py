"""Kinds of arguments: the values that each allows, and the message for others.

Every message names the argument, the allowed values, the value received and one to try. A factory
names the kind of each of its arguments in its decorator; see :mod:`lion_jax._core.rule`.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

from lion_jax._core.leaves import is_function, is_real, is_transformation
from lion_jax._core.types import Leaf

_NO_DEFAULT = inspect.Parameter.empty


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """The values that an argument may have.

    Attributes:
      remedy: Python code of a value to try; empty for the argument's own default.
      why: a remark on the remedy.
      is_optional: whether None is allowed too.
    """

    remedy: str = ""
    why: str = ""
    is_optional: bool = False

    def check(self, name: str, value: object, default: object = _NO_DEFAULT) -> None:
        """Refuses a value that is not of this kind.

        Args:
          name: of the argument.
          value: the value received.
          default: the argument's own default.

        Raises:
          TypeError: another type of value.
          ValueError: the right type, but out of range.
        """
        if value is not None or not self.is_optional:
            self.refuse(name, value, self.advice(name, default))

    def refuse(self, name: str, value: object, advice: str) -> None:
        """Raises for a value that is not of this kind."""
        raise NotImplementedError

    def advice(self, name: str, default: object = _NO_DEFAULT) -> str:
        """The end of a message: a value that is allowed, if one is known."""
        if not self.remedy and default is _NO_DEFAULT:
            return ""
        why = f", {self.why}" if self.why else ""
        return f"Try {name}={self.remedy or _quoted(default)}{why}."

    def trying(self, remedy: str, why: str = "") -> Self:
        """The same kind with a remedy of its own."""
        return dataclasses.replace(self, remedy=remedy, why=why)

    def or_none(self) -> Self:
        """The same kind, or None."""
        return dataclasses.replace(self, is_optional=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Number(Kind):
    """A number in a range, a traced scalar, or a schedule of such numbers.

    Schedules pass unchecked, and so do the values of jax arrays: traced ones have none yet, and
    what an injected or scheduled one holds must not decide whether a step runs eagerly or jitted.

    Attributes:
      allowed: the range in words.
      contains: whether a number is in it.
      takes_schedule: whether schedules are allowed.
      other: a class whose instances are allowed too.
    """

    allowed: str
    contains: Callable[[float], bool]
    takes_schedule: bool = True
    other: type | None = None

    def check(self, name: str, value: object, default: object = _NO_DEFAULT) -> None:
        """Refuses other values; of a jax array only another shape or dtype."""
        is_other = self.other is not None and isinstance(value, self.other)
        if is_other or (self.takes_schedule and callable(value)):
            return
        super().check(name, value, default)

    def refuse(self, name: str, value: object, advice: str) -> None:
        """Raises for a value that is no real scalar, or outside the range."""
        if not is_real(value):
            other = "schedule" if self.takes_schedule else self.other and self.other.__name__
            kinds = f"a number or a {other}" if other else "a number"
            raise TypeError(
                f"{name} must be {kinds}, {self.allowed}; got {value!r} of type "
                f"{type(value).__name__}. {advice}"
            )
        if np.ndim(value) != 0:
            raise ValueError(
                f"{name} must be a scalar, {self.allowed}; got an array of shape "
                f"{np.shape(value)}. To sweep over values, map the factory over them with jax.vmap."
            )
        if not isinstance(value, jax.Array) and not self.contains(_to_float(value)):
            raise ValueError(f"{name} must be {self.allowed}; got {value}. {advice}")

    def constant(self) -> Self:
        """The same numbers, without schedules."""
        return dataclasses.replace(self, takes_schedule=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Numbers(Kind):
    """A tuple of numbers, each of a kind of its own: PyTorch's `betas`.

    Attributes:
      kinds: the kind of each entry.
    """

    kinds: tuple[Number, ...]

    def check(self, name: str, value: object, default: object = _NO_DEFAULT) -> None:
        """Refuses another count of numbers, and an entry that is not of its kind, by its place."""
        values = tuple(value) if isinstance(value, Iterable) else ()
        count = len(self.kinds)
        if len(values) != count:
            error = ValueError if isinstance(value, Iterable) else TypeError
            allowed = f"{count} numbers in [0, 1)"
            raise error(f"{name} must be {allowed}; got {value!r}. {self.advice(name, default)}")
        defaults = default if isinstance(default, tuple) else [_NO_DEFAULT] * count
        for i, (kind, entry) in enumerate(zip(self.kinds, values, strict=True)):
            kind.check(f"{name}[{i}]", entry, defaults[i])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Static(Kind):
    """Anything but numbers, refused by a function.

    Attributes:
      refusal: raises for a bad value: `(name, value, advice) -> None`.
    """

    refusal: Callable[[str, object, str], None]

    def refuse(self, name: str, value: object, advice: str) -> None:
        """Raises for a value that is not of this kind."""
        self.refusal(name, value, advice)


FINITE = Number(allowed="finite", contains=math.isfinite)
NON_NEGATIVE = Number(allowed="finite and >= 0", contains=lambda x: 0 <= x < math.inf)
POSITIVE = Number(allowed="finite and > 0", contains=lambda x: 0 < x < math.inf)
FRACTION = Number(allowed="in [0, 1]", contains=lambda x: 0 <= x <= 1)
DECAY_RATE = Number(allowed="in [0, 1)", contains=lambda x: 0 <= x < 1)


def betas(*kinds: Number) -> Numbers:
    """Decay rates in a tuple, as PyTorch has them: numbers, no schedules."""
    return Numbers(kinds=tuple(kind.constant() for kind in kinds))


def integer(least: int = 1, *, is_traced: bool = True) -> Kind:
    """Integers from `least` to the largest int32.

    Args:
      least: the smallest one.
      is_traced: whether a jax array of shape () is allowed; of its value nothing is checked.
    """

    def refuse(name: str, value: object, advice: str) -> None:
        if isinstance(value, jax.Array) and not is_traced:
            raise TypeError(
                f"{name} must be a Python integer >= {least}, known before tracing; got the array "
                f'{value!r}. {advice[:-1]}, and static_args=("{name}",) for '
                "optax.inject_hyperparams."
            )
        message = f"{name} must be an integer >= {least} and < 2**31; got {value!r}. {advice}"
        dtype = getattr(value, "dtype", type(value))
        if not is_real(value) or not jnp.issubdtype(dtype, jnp.integer):
            raise TypeError(message)
        if np.ndim(value) != 0 or not (isinstance(value, jax.Array) or least <= value < 2**31):
            raise ValueError(message)

    return Static(refusal=refuse)


def choice(*choices: str | bool | None) -> Kind:
    """One of a few strings, or of the constants among them."""

    def refuse(name: str, value: object, advice: str) -> None:
        value = bool(value) if isinstance(value, np.bool_) else value
        if not any(value is one or (isinstance(one, str) and value == one) for one in choices):
            allowed = " or ".join(_quoted(one) for one in choices)
            raise ValueError(f"{name} must be {allowed}; got {value!r}. {advice}")

    return Static(refusal=refuse)


def one_of(*choices: int) -> Kind:
    """One of a few integers."""

    def refuse(name: str, value: object, advice: str) -> None:
        is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not is_integer or value not in choices:
            allowed = " or ".join(map(str, choices))
            raise ValueError(f"{name} must be {allowed}; got {value!r}. {advice}")

    return Static(refusal=refuse)


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _refuse_flag(name: str, value: object, advice: str) -> None:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(
            f"{name} must be True or False; got {value!r} of type {type(value).__name__}. {advice}"
        )


def _refuse_dtype(name: str, value: Leaf, advice: str) -> None:
    try:
        is_floating = not hasattr(value, "shape") and jnp.issubdtype(jnp.dtype(value), jnp.floating)
    except TypeError:
        is_floating = False
    if not is_floating:
        raise TypeError(f"{name} must be None or a floating-point dtype; got {value!r}. {advice}")


def _refuse_bounds(name: str, value: object, advice: str) -> None:
    allowed = f"{name} must be None or a pair of numbers with 0 <= low <= high"
    if not isinstance(value, tuple | list) or not all(is_real(bound) for bound in value):
        raise TypeError(f"{allowed}; got {value!r} of type {type(value).__name__}. {advice}")
    if any(np.ndim(bound) != 0 for bound in value):
        raise ValueError(f"{allowed}; got an array among {value!r}. {advice}")
    numbers = [_to_float(bound) for bound in value if not isinstance(bound, jax.Array)]
    if len(value) != 2 or numbers != sorted(numbers) or not all(x >= 0 for x in numbers):
        raise ValueError(f"{allowed}; got {value!r}. {advice}")


def _refuse_axis(name: str, value: object, advice: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(
            f"{name} must be an integer; got {value!r} of type {type(value).__name__}. {advice}"
        )


def _refuse_transformation(name: str, value: Leaf, advice: str) -> None:
    if not is_transformation(value):
        hint = (
            f"; did you mean to call it, as in {value.__name__}(1e-3)?"
            if hasattr(value, "__name__")
            else f". {advice}"
        )
        raise TypeError(
            f"{name} must be an optax.GradientTransformation, a pair of init and update; "
            f"got {value!r} of type {type(value).__name__}{hint}"
        )


def _refuse_axis_name(name: str, value: object, advice: str) -> None:
    names = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(one, str) for one in names):
        raise TypeError(
            f"{name} must be the name of a mapped axis or a tuple of names; got {value!r}. {advice}"
        )
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{name} must have at least one name, each once; got {value!r}. {advice}")


def _refuse_summed_axes(name: str, value: object, advice: str) -> None:
    _refuse_axis_name(name, tuple(value) if isinstance(value, list) else value, advice)


def _refuse_mask(name: str, value: object, advice: str) -> None:
    if is_function(value):
        return
    _refuse_injected(name, value)
    wrong = [leaf for leaf in jax.tree.leaves(value) if not isinstance(leaf, bool | np.bool_)]
    if wrong:
        raise TypeError(
            f"{name} must be None, a tree of booleans (or a prefix of one), or a function from "
            f"parameters to such a tree; got the leaf {wrong[0]!r} of type "
            f"{type(wrong[0]).__name__}. {advice}"
        )


def _refuse_shares(name: str, value: object, advice: str) -> None:
    if is_function(value):
        return
    is_share = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating)
    if not is_share:  # of all leaves
        _refuse_injected(name, value)
    for leaf in jax.tree.leaves(value):
        if isinstance(leaf, bool | np.bool_):
            continue
        message = (
            f"{name} must be None, a tree of booleans or of finite numbers >= 0 (or a prefix of "
            "one), or a function from parameters to such a tree; got the leaf "
            f"{leaf!r} of type {type(leaf).__name__}. {advice}"
        )
        if not is_real(leaf):
            raise TypeError(message)
        if np.ndim(leaf) != 0 or not (
            isinstance(leaf, jax.Array) or 0 <= _to_float(leaf) < math.inf
        ):
            raise ValueError(message)


def _refuse_injected(name: str, value: object) -> None:
    """Refuses one array in the place of a mask, such as a schedule's value."""
    if isinstance(value, jax.Array):
        raise TypeError(
            f"{name} must be a tree like the parameters, or a function to one; got {value!r}. "
            "optax.inject_hyperparams takes a function for a schedule and hands on what it makes "
            f'of the step count. Try to add static_args=("{name}",) to its arguments.'
        )


def _refuse_key(name: str, key: object, advice: str) -> None:
    """Refuses anything but one typed key or one older key of the default implementation."""
    if isinstance(key, jax.Array | np.ndarray):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            is_one = key.shape == ()
        else:
            older = jax.eval_shape(jax.random.PRNGKey, 0)
            is_one = (key.shape, key.dtype) == (older.shape, older.dtype)
        got = f"an array of shape {key.shape} and dtype {key.dtype}"
    else:
        is_one, got = False, f"{key!r} of type {type(key).__name__}"
    if not is_one:
        raise TypeError(f"{name} must be one key of jax.random; got {got}. {advice}")


FLAG = Static(refusal=_refuse_flag)
DTYPE = Static(refusal=_refuse_dtype, is_optional=True).trying(
    "jnp.bfloat16", "which halves the moment's bytes"
)
BOUNDS = Static(refusal=_refuse_bounds, is_optional=True)
KEY = Static(refusal=_refuse_key).trying("jax.random.key(0)")
CHANNEL_AXIS = Static(refusal=_refuse_axis).trying("-1", "the last axis")
TRANSFORMATION = Static(refusal=_refuse_transformation).trying(
    "lion_jax.lion(1e-4)", "or optax.adamw(1e-3)"
)
_AXIS = ('"data"', 'or ("x", "y") for two axes')
AXIS_NAME = Static(refusal=_refuse_axis_name).trying(*_AXIS)
SUMMED_AXES = Static(refusal=_refuse_summed_axes, is_optional=True).trying(*_AXIS)
MASK = Static(refusal=_refuse_mask).trying(
    "lambda params: jax.tree.map(lambda p: p.ndim > 1, params)"
)
SHARES = Static(refusal=_refuse_shares).trying(
    'groups.multipliers({"bias|norm": 0.0})', "with lion_jax.groups"
)


def is_off(value: object) -> bool:
    """Tells whether a value is the number 0; a traced or scheduled one may become anything."""
    return not isinstance(value, jax.Array) and not callable(value) and value == 0


def check_nesterov(nesterov: bool, momentum: object, dampening: object = 0.0) -> None:
    """Refuses Nesterov momentum without a momentum, or with dampening."""
    if not nesterov:
        return
    if is_off(momentum):
        raise ValueError(
            "nesterov must be False without a momentum; got nesterov=True and "
            f"momentum={momentum}. Try momentum=0.9."
        )
    if not isinstance(dampening, jax.Array) and not is_off(dampening):
        raise ValueError(
            "nesterov must be False with dampening; got nesterov=True and "
            f"dampening={dampening}. Try dampening=0.0."
        )


def _to_float(value: float | jax.Array) -> float:
    try:
        return float(value)
    except OverflowError:  # a Python integer may be larger than any float
        return math.inf
