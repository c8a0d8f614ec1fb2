"""Schedules in the place of any hyperparameter."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp
import optax

P = ParamSpec("P")


class ScheduledState(NamedTuple):
    """State of a transformation with a schedule among its hyperparameters.

    Attributes:
      schedule_count: updates so far, int32 of shape ().
      inner_state: state of the transformation itself.
    """

    schedule_count: jax.Array
    inner_state: optax.OptState


def accepts_schedules(*names: str):
    """Lets the named hyperparameters of a factory be schedules, functions of the update count.

    The factory itself only ever sees numbers. Where no schedule is given nothing is added, so the
    state has a counter only if something reads it.
    """

    def decorate(
        factory: Callable[P, optax.GradientTransformation],
    ) -> Callable[P, optax.GradientTransformationExtraArgs]:
        @functools.wraps(factory)
        def scheduled(*args: P.args, **kwargs: P.kwargs) -> optax.GradientTransformationExtraArgs:
            arguments = inspect.signature(factory).bind(*args, **kwargs).arguments
            schedules = schedules_among(arguments, names)
            if not schedules:
                return optax.with_extra_args_support(factory(*args, **kwargs))
            return _follow(factory, arguments, schedules)

        return scheduled

    return decorate


def schedules_among(
    arguments: Mapping[str, Any], names: Iterable[str]
) -> dict[str, optax.Schedule]:
    """Those of the named arguments that are schedules."""
    return {name: arguments[name] for name in names if callable(arguments.get(name))}


def read(schedules: Mapping[str, optax.Schedule], count: jax.Array) -> dict[str, jax.Array]:
    """The schedules' numbers at a count of updates."""
    return {name: jnp.asarray(schedule(count)) for name, schedule in schedules.items()}


def _follow(
    factory: Callable[..., optax.GradientTransformation],
    arguments: dict[str, Any],
    schedules: dict[str, optax.Schedule],
) -> optax.GradientTransformationExtraArgs:
    def at(count: jax.Array) -> optax.GradientTransformationExtraArgs:
        return optax.with_extra_args_support(factory(**arguments | read(schedules, count)))

    def init_fn(params):
        count = jnp.zeros((), jnp.int32)
        return ScheduledState(count, at(count).init(params))

    def update_fn(updates, state, params=None, **extra_args):
        count, inner_state = state
        updates, inner_state = at(count).update(updates, inner_state, params, **extra_args)
        return updates, ScheduledState(jnp.asarray(optax.safe_increment(count)), inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
