"""Decorators that every factory of this library shares: argument checks, schedules, dtypes.

`@primitive` and `@optimizer` turn a factory for wide arrays and plain numbers into the function
that users call: they check its arguments, accept a schedule for any number, compute in at least
float32, and skip leaves without a gradient. `@combinator` and `@takes` only check the arguments.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.calls import bind
from lion_jax._core.checks import check_match
from lion_jax._core.counters import next_count, zero
from lion_jax._core.dtypes import are_narrow, cast, have_one_width, widen, widen_abstract
from lion_jax._core.hyperparameters import HyperparametersState, hidden, hidden_names, shown
from lion_jax._core.inner import as_before
from lion_jax._core.kinds import Kind, Number, Numbers
from lion_jax._core.leaves import map_present, weights_of
from lion_jax._core.missing import gradients_of_weights, put_back, update_present
from lion_jax._core.one_pass import beside_moments
from lion_jax._core.types import Leaf, Scalar

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


class Factory(Protocol[P, R]):
    """A function with checked arguments.

    Attributes:
      static_args: its arguments that are no numbers: the `static_args` that
        `optax.inject_hyperparams` needs.
    """

    static_args: tuple[str, ...]

    # Editors show the function's own docstring where there is none here.
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...


class Surround(Protocol):
    """A decorator of functions that make transformations; it does not change their arguments."""

    def __call__(
        self, function: Callable[P, optax.GradientTransformation]
    ) -> Factory[P, optax.GradientTransformationExtraArgs]:
        """Decorates the function."""
        ...


class ScheduledState(NamedTuple):
    """State of a primitive or combinator with a schedule among its hyperparameters.

    Attributes:
      schedule_count: updates so far, int32 of shape ().
      inner_state: state of the transformation itself.
    """

    schedule_count: jax.Array
    inner_state: optax.OptState


def primitive(**kinds: Kind) -> Surround:
    """Surrounds a published equation.

    Args:
      **kinds: what each argument may be, by its name. Numbers may also be traced or schedules, all
        others are static. A state has a counter of updates only if a schedule reads it.
    """
    return _decorator(kinds, lambda function, bound: _surround(function, bound.arguments, kinds))


def optimizer(weight_bound: Callable[..., Scalar] | None = None, /, **kinds: Kind) -> Surround:
    """Surrounds a named algorithm, whose state shows the hyperparameters of the last update.

    Every update writes all of them anew, so that a restored state shows the numbers of this run and
    not those of the one that saved it. There is always a counter: a state outlives the change from
    a number to a schedule.

    Args:
      weight_bound: from the numbers, by name, to the size at which the decay balances a step; only
        for rules whose updates are signs, which its presence tells.
      **kinds: as of `primitive`.
    """
    names = [name for name, kind in kinds.items() if isinstance(kind, Number | Numbers)]

    def show(arguments):
        return shown({name: arguments[name] for name in names}, weight_bound)

    return _decorator(
        kinds, lambda function, bound: _surround(function, bound.arguments, kinds, show)
    )


def combinator(**kinds: Kind) -> Surround:
    """Checks the arguments of a wrapper, any number of which may be a schedule.

    Args:
      **kinds: as of `primitive`.
    """
    return _decorator(kinds, lambda function, bound: _follow(function, bound.arguments, kinds))


def takes(**kinds: Kind) -> Callable[[Callable[P, R]], Factory[P, R]]:
    """Checks the arguments of any function, and hands them on unchanged.

    Args:
      **kinds: what each argument may be, by its name.
    """
    return _decorator(kinds, lambda function, bound: function(*bound.args, **bound.kwargs))


def number(hyperparameter: optax.ScalarOrSchedule) -> Scalar:
    """A hyperparameter as the number that the surround has made of it, for type checkers."""
    return typing.cast(Scalar, hyperparameter)


def chain(*links: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """`optax.chain` of links that share the surround of the rule that they make up."""
    return optax.chain(*(getattr(link, "inside", link) for link in links))


def _decorator(
    kinds: Mapping[str, Kind], made_of: Callable[[Callable[..., Any], inspect.BoundArguments], Any]
) -> Any:
    def decorate(function):
        signature = inspect.signature(function)
        advice = {
            name: kind.advice(name, signature.parameters[name].default)
            for name, kind in kinds.items()
        }

        @functools.wraps(function)
        def checked(*args, **kwargs):
            bound = bind(checked, signature, args, kwargs, advice)
            for name, kind in kinds.items():
                kind.check(name, bound.arguments[name], signature.parameters[name].default)
            return made_of(function, bound)

        static = (n for n in signature.parameters if not isinstance(kinds.get(n), Number))
        setattr(checked, "static_args", tuple(static))  # noqa: B010  pyright knows no attributes
        return checked

    return decorate


class _Surrounded(optax.GradientTransformationExtraArgs):
    """A transformation that knows what is inside its surround."""

    inside: optax.GradientTransformation


def _surround(
    function: Callable[..., optax.GradientTransformation],
    arguments: dict[str, Any],
    kinds: Mapping[str, Kind],
    show: Callable[[dict[str, Any]], dict[str, jax.Array]] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The one surround, of a rule that computes with wide arrays and plain numbers.

    The state starts from widened parameters, so accumulators are at least float32. A chain in
    bfloat16 would round at every link, and lose a weight decay of 0.1 * 0.02 beside a sign of 1.
    Leaves that are no weights (integers, booleans, random keys, functions) have no state, and their
    updates are 0, or None like their gradients. Without parameters, updates have the gradients'
    dtype.
    """
    schedules, rule_at = _following(function, arguments, kinds)
    is_counting = bool(schedules or show)

    def state_of(values, count, inner_state, hides):
        if show:
            return HyperparametersState(hidden(show(values), hides), count, inner_state)
        return ScheduledState(count, inner_state) if is_counting else inner_state

    def init_fn(params):
        count = zero()
        rule, values = rule_at(count)
        inner_state = rule.init(jax.tree.map(widen_abstract, weights_of(params)))
        hides = frozenset(name for name, x in arguments.items() if isinstance(x, jax.Array))
        return state_of(values, count, inner_state, hides)

    def update_fn(updates, state, params=None, **extra_args):
        gradients, weights = _widened(updates, params)
        *_, count, inner_state = state if is_counting else (None, state)
        rule, values = rule_at(count)
        wide, inner_state = update_present(rule, gradients, inner_state, weights, **extra_args)
        new_updates = _rounded(wide, updates, params)
        if are_narrow(new_updates):
            new_updates = beside_moments(new_updates, inner_state)
        new_state = state_of(
            values, count if count is None else next_count(count), inner_state, hidden_names(state)
        )
        return put_back(new_updates, updates, params), as_before(new_state, state)

    surrounded = _Surrounded(init_fn, update_fn)
    if not is_counting:
        surrounded.inside = rule_at(None)[0]
    return surrounded


def _follow(
    function: Callable[..., optax.GradientTransformation],
    arguments: dict[str, Any],
    kinds: Mapping[str, Kind],
) -> optax.GradientTransformationExtraArgs:
    schedules, rule_at = _following(function, arguments, kinds)
    if not schedules:
        return rule_at(None)[0]

    def init_fn(params):
        count = zero()
        return ScheduledState(count, rule_at(count)[0].init(params))

    def update_fn(updates, state, params=None, **extra_args):
        count, inner_state = state
        rule, _ = rule_at(count)
        updates, inner_state = rule.update(updates, inner_state, params, **extra_args)
        return updates, ScheduledState(next_count(count), inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _following(
    function: Callable[..., optax.GradientTransformation],
    arguments: dict[str, Any],
    kinds: Mapping[str, Kind],
) -> tuple[dict[str, optax.Schedule], Callable[..., Any]]:
    """The schedules among the arguments, and a function from a count to the rule and its arguments.

    The rule is made here once, which refuses arguments that make no sense together, and made anew
    only where a schedule has a new number for it.
    """
    schedules = {
        name: arguments[name]
        for name, kind in kinds.items()
        if isinstance(kind, Number) and kind.takes_schedule and callable(arguments[name])
    }
    made = optax.with_extra_args_support(function(**arguments))

    def rule_at(count):
        if not schedules:
            return made, arguments
        read = {name: jnp.asarray(schedule(count)) for name, schedule in schedules.items()}
        for name, value in read.items():
            kinds[name].check(name, value)
        values = arguments | read
        return optax.with_extra_args_support(function(**values)), values

    return schedules, rule_at


def _widened(
    updates: optax.Updates, params: optax.Params | None
) -> tuple[optax.Updates, optax.Params | None]:
    """Gradients and parameters in at least float32; None for leaves without a gradient."""
    gradients, weights = gradients_of_weights(updates, params)
    if weights is None:
        return map_present(widen, gradients, gradients), None
    check_match("gradients", gradients, weights)
    if have_one_width((gradients, weights)):
        return gradients, weights
    return map_present(widen, gradients, weights), map_present(widen, weights, gradients)


def _rounded(
    wide: optax.Updates, updates: optax.Updates, params: optax.Params | None
) -> optax.Updates:
    """Updates in the parameters' dtypes, or without parameters in the gradients'."""
    return map_present(_round_like, wide, updates if params is None else params)


def _round_like(update: Leaf, like: Leaf) -> jax.Array:
    dtype = jnp.result_type(like)
    update = jnp.asarray(update)
    return cast(update, dtype) if jnp.issubdtype(dtype, jnp.inexact) else update
