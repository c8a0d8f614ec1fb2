"""Argument checks: each message names the argument, what is allowed, what came and a remedy."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lion_jax._dtypes import dtypes_of

_NON_NEGATIVE = ("finite and >= 0", lambda x: 0 <= x < math.inf)
_FINITE = ("finite", math.isfinite)
_POSITIVE = ("finite and > 0", lambda x: 0 < x < math.inf)
_DECAY_RATE = ("in [0, 1)", lambda x: 0 <= x < 1)
_FRACTION = ("in [0, 1]", lambda x: 0 <= x <= 1)
_STORABLE = {jnp.dtype(name) for name in ("float16", "bfloat16", "float32", "float64")}

# argument: ((allowed range, predicate), what to try)
_RANGES = {
    "learning_rate": (_NON_NEGATIVE, "1e-4, or a third to a tenth of AdamW's"),
    "initial_learning_rate": (_POSITIVE, "the schedule's peak, e.g. 1e-4"),
    "b1": (_DECAY_RATE, "0.9"),
    "b2": (_DECAY_RATE, "0.99"),
    "b3": (_DECAY_RATE, "0.9999"),
    "student_t_b1": (("in [0.5, 1)", lambda x: 0.5 <= x < 1), "0.9"),
    "keras_b1": (("in (0, 1)", lambda x: 0 < x < 1), "0.9; Keras has no Lion without it"),
    "warmup_rate": (("in (0, 1) with warmup_steps", lambda x: 0 < x < 1), "0.9"),
    "momentum": (_DECAY_RATE, "0.9"),
    "dampening": (_FRACTION, "0.0"),
    "eps": (_NON_NEGATIVE, "1e-8"),
    "alpha": (_NON_NEGATIVE, "5.0"),
    "delta": (_NON_NEGATIVE, "0.1"),
    "wd_ratio": (_NON_NEGATIVE, "0.1"),
    "dof": (_POSITIVE, "None, which is the number of entries of each leaf"),
    "trust_coefficient": (_NON_NEGATIVE, "0.001"),
    "min_slow_step_size": (_FRACTION, "0.5"),
    "weight_decay": (_NON_NEGATIVE, "0.1, or three to ten times AdamW's; 0 turns it off"),
    "max_norm": (_POSITIVE, "1.0"),
    "clip": (_NON_NEGATIVE, "1.0; None or 0 clips nothing"),
    "average_decay": (_DECAY_RATE, "0.99"),
    "ema_momentum": (_FRACTION, "0.99"),
    "loss_scale": (
        ("in [2**-126, 2**126]", lambda x: 2.0**-126 <= x <= 2.0**126),
        "32768.0, a power of two",
    ),
    "multiplier": (_FINITE, "1.0, which leaves the weight decay as it is"),
    "slow_step_size": (_FRACTION, "0.5"),
    "gamma": (_NON_NEGATIVE, "0.1"),
    "gamma_per_step": (_POSITIVE, "0.99"),
    "eta_min": (_NON_NEGATIVE, "0.0"),
    "pct_start": (_FRACTION, "0.3"),
    "div_factor": (_POSITIVE, "25.0"),
    "final_div_factor": (_POSITIVE, "1e4"),
    "plateau_factor": (_DECAY_RATE, "0.1"),
    "threshold": (_NON_NEGATIVE, "1e-4"),
    "min_lr": (_NON_NEGATIVE, "0.0"),
    "share": (_NON_NEGATIVE, "1.0, which leaves its leaves as they are"),
    "factor": (_POSITIVE, "5.0, in the published range of 3 to 10"),
}


def check_scalars(**hyperparameters: Any) -> None:
    """Refuses hyperparameters outside the ranges known for their names.

    Schedules pass unchecked, and so do the values of jax arrays: traced ones have none yet, and
    what an injected or scheduled one holds must not decide whether a step runs eagerly or jitted.

    Args:
      **hyperparameters: values by argument name, each a number, a jax scalar or a schedule.

    Raises:
      TypeError: neither a real number nor a schedule.
      ValueError: a number outside the range, NaN included, or an array that is no scalar.
    """
    for name, value in hyperparameters.items():
        if not callable(value):
            check_number(name, value, kinds="a number or a schedule")


def check_peer(**hyperparameters: tuple[str, Any]) -> None:
    """As `check_scalars`, for arguments that a peer package calls by names of its own.

    Args:
      **hyperparameters: by our name, which has the range: the peer's name and the value.
    """
    for name, (alias, value) in hyperparameters.items():
        if not callable(value):
            check_number(name, value, kinds="a number or a schedule", alias=alias)


def check_number(
    name: str, value: Any, kinds: str = "a number", *, alias: str | None = None
) -> None:
    """Refuses one number outside the range known for its name; a jax array only by its shape."""
    (allowed, is_allowed), remedy = _RANGES[name]
    name = alias or name
    if not _is_real(value):
        raise TypeError(
            f"{name} must be {kinds}, {allowed}; got {value!r} of type {type(value).__name__}. "
            f"Try {name}={remedy}."
        )
    if np.ndim(value) != 0:
        raise ValueError(
            f"{name} must be a scalar, {allowed}; got an array of shape {np.shape(value)}. "
            "To sweep over values, map the factory over them with jax.vmap."
        )
    if not isinstance(value, jax.Array) and not is_allowed(_to_float(value)):
        raise ValueError(f"{name} must be {allowed}; got {value}. Try {name}={remedy}.")


def check_positive_integer(
    name: str, value: Any, remedy: int, least: int = 1, *, static: bool = False
) -> None:
    """Refuses what is no integer from `least` to the largest int32; jax arrays only by kind.

    Args:
      name: of the argument.
      value: a Python or NumPy integer, or a jax array of shape ().
      remedy: an integer to try.
      least: the smallest integer allowed.
      static: refuses jax arrays, where a step's program depends on the number.
    """
    if static and isinstance(value, jax.Array):
        raise TypeError(
            f"{name} must be a Python integer >= {least}, known before tracing; got the array "
            f'{value!r}. Try {name}={remedy}, and static_args=("{name}",) for '
            "optax.inject_hyperparams."
        )
    message = (
        f"{name} must be an integer >= {least} and < 2**31; got {value!r}. Try {name}={remedy}."
    )
    if not _is_real(value) or not jnp.issubdtype(getattr(value, "dtype", type(value)), jnp.integer):
        raise TypeError(message)
    if np.ndim(value) != 0 or not (isinstance(value, jax.Array) or least <= value < 2**31):
        raise ValueError(message)


def check_scale_clip(name: str, value: Any) -> None:
    """Refuses anything but None or a pair of numbers 0 <= low <= high; jax arrays only by shape."""
    allowed = f"{name} must be None or a pair of numbers with 0 <= low <= high"
    remedy = f"Try {name}=(0.0, 10.0)."
    if value is None:
        return
    if not isinstance(value, tuple | list) or not all(_is_real(bound) for bound in value):
        raise TypeError(f"{allowed}; got {value!r} of type {type(value).__name__}. {remedy}")
    if any(np.ndim(bound) != 0 for bound in value):
        raise ValueError(f"{allowed}; got an array among {value!r}. {remedy}")
    numbers = [_to_float(bound) for bound in value if not isinstance(bound, jax.Array)]
    if len(value) != 2 or numbers != sorted(numbers) or not all(x >= 0 for x in numbers):
        raise ValueError(f"{allowed}; got {value!r}. {remedy}")


def check_channel_axis(name: str, value: Any, params: Any = None) -> None:
    """Refuses anything but an integer, and one that a matrix or a larger leaf has no axis for."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(
            f"{name} must be an integer; got {value!r} of type {type(value).__name__}. "
            f"Try {name}=-1, the last axis."
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        rank = len(jnp.shape(leaf))
        if rank > 1 and not -rank <= value < rank:
            raise ValueError(
                f"{name} must be an axis of every leaf of rank 2 or more; got {value} for the leaf "
                f"at {jax.tree_util.keystr(path) or 'the root'} of shape {jnp.shape(leaf)}. "
                f"Try {name}=-1, the last axis."
            )


def check_nesterov(nesterov: Any, momentum: Any, dampening: Any = 0.0) -> None:
    """Refuses Nesterov momentum without a momentum, or with dampening."""
    check_flag("nesterov", nesterov)
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


def check_numbers(**hyperparameters: Any) -> None:
    """As `check_scalars`, for arguments that cannot be schedules."""
    for name, value in hyperparameters.items():
        check_number(name, value)


def is_off(value: Any) -> bool:
    """Whether it is the number 0; what is traced, scheduled or injected may become anything."""
    return not isinstance(value, jax.Array) and not callable(value) and value == 0


def check_flag(name: str, value: Any) -> None:
    """Refuses anything but True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(
            f"{name} must be True or False; got {value!r} of type {type(value).__name__}. "
            f"Try {name}=True."
        )


def check_choice(name: str, value: Any, *choices: str) -> None:
    """Refuses anything but one of a few strings."""
    if value not in choices:
        allowed = " or ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f'{name} must be {allowed}; got {value!r}. Try {name}="{choices[0]}".')


def check_number_of(name: str, value: Any, *choices: int) -> None:
    """Refuses anything but one of a few integers."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value not in choices:
        allowed = " or ".join(map(str, choices))
        raise ValueError(f"{name} must be {allowed}; got {value!r}. Try {name}={choices[0]}.")


def check_metric(value: Any, needed_by: str) -> None:
    """Refuses an update without a metric where the rule reads one, and what is no single number."""
    remedy = "Try update(grads, state, params, value=loss)."
    if value is None:
        raise ValueError(f"{needed_by} reads a metric; got value=None. {remedy}")
    if not _is_real(value):
        raise TypeError(
            f"value must be a number; got {value!r} of type {type(value).__name__}. {remedy}"
        )
    if np.ndim(value) != 0:
        raise ValueError(
            f"value must be a scalar; got an array of shape {np.shape(value)}. "
            "Try value=loss.mean()."
        )


def check_transformation(name: str, value: Any) -> None:
    """Refuses anything without optax's `init` and `update`."""
    if not (callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))):
        hint = (
            f"; did you mean to call it, as in {value.__name__}(1e-3)?"
            if hasattr(value, "__name__")
            else ". Try optax.adamw(1e-3) or lion_jax.lion(1e-4)."
        )
        raise TypeError(
            f"{name} must be an optax.GradientTransformation, a pair of init and update; "
            f"got {value!r} of type {type(value).__name__}{hint}"
        )


def check_dtype(name: str, value: Any) -> None:
    """Refuses anything but None or a floating-point dtype."""
    try:
        is_floating = value is None or (
            not hasattr(value, "shape") and jnp.issubdtype(jnp.dtype(value), jnp.floating)
        )
    except TypeError:
        is_floating = False
    if not is_floating:
        raise TypeError(
            f"{name} must be None or a floating-point dtype; got {value!r}. "
            f"Try {name}=jnp.bfloat16, which halves the moment's bytes."
        )


def check_mask(name: str, value: Any) -> None:
    """Refuses anything but None, a function of the parameters, or a tree of booleans."""
    if is_function(value):
        return
    _refuse_injected(name, value)
    wrong = [leaf for leaf in jax.tree.leaves(value) if not isinstance(leaf, bool | np.bool_)]
    if wrong:
        raise TypeError(
            f"{name} must be None, a tree of booleans (or a prefix of one), or a function from "
            f"parameters to such a tree; got the leaf {wrong[0]!r} of type "
            f"{type(wrong[0]).__name__}. "
            f"Try {name}=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)."
        )


def check_shares(name: str, value: Any) -> None:
    """As `check_mask`, but numbers may stand for booleans; jax arrays only by kind and shape."""
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
            f"{leaf!r} of type {type(leaf).__name__}. "
            f'Try {name}=groups.multipliers({{"bias|norm": 0.0}}) with lion_jax.groups.'
        )
        if not _is_real(leaf):
            raise TypeError(message)
        if np.ndim(leaf) != 0 or not (
            isinstance(leaf, jax.Array) or 0 <= _to_float(leaf) < math.inf
        ):
            raise ValueError(message)


def _refuse_injected(name: str, value: Any) -> None:
    """Refuses one array in the place of a mask, such as a schedule's value."""
    if isinstance(value, jax.Array):
        raise TypeError(
            f"{name} must be a tree like the parameters, or a function to one; got {value!r}. "
            "optax.inject_hyperparams takes a function for a schedule and hands on what it makes "
            f'of the step count. Try to add static_args=("{name}",) to its arguments.'
        )


def is_function(mask: Any) -> bool:
    """Whether it is a function, not a tree that can be called too, like a module of equinox."""
    return callable(mask) and jax.tree_util.all_leaves([mask])


def check_has_params(params: optax.Params | None, needed_by: str) -> None:
    """Refuses an update without parameters where the rule reads them."""
    if params is None:
        raise ValueError(
            f"{needed_by} reads the parameters; got params=None. "
            "Try update(grads, state, params), with the parameters as third argument."
        )


def check_real(tree: Any, needed_by: str) -> None:
    """Refuses complex leaves, naming the first by its path."""
    if not any(jnp.issubdtype(dtype, jnp.complexfloating) for dtype in dtypes_of(tree)):
        return
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating):
            raise TypeError(
                f"{needed_by} needs real leaves; got {jnp.result_type(leaf)} at "
                f"{jax.tree_util.keystr(path) or 'the root'}. "
                "Try optax.contrib.split_real_and_imaginary around the transformation."
            )


def check_storable(tree: Any, needed_by: str, remedy: str) -> None:
    """Refuses leaves of other dtypes than parameters have, naming the first by its path."""
    if dtypes_of(tree) <= _STORABLE:
        return
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.result_type(leaf) not in _STORABLE:
            raise TypeError(
                f"{needed_by} needs leaves of float16, bfloat16, float32 or float64; got "
                f"{jnp.result_type(leaf)} at {jax.tree_util.keystr(path) or 'the root'}. "
                f"Try {remedy}."
            )


def _to_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # a Python integer may be larger than any float
        return math.inf


def _is_real(value: Any) -> bool:
    """Whether `value` is an integer or a floating-point number, or an array of them."""
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return jnp.issubdtype(value.dtype, jnp.integer) or jnp.issubdtype(value.dtype, jnp.floating)
    return isinstance(value, int | float) and not isinstance(value, bool)
