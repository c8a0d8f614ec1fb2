"""The hyperparameters in force, in the state of every named optimizer."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp
import optax

from lion_jax._schedules import read, schedules_among
from lion_jax._states import the_only

P = ParamSpec("P")


class HyperparametersState(NamedTuple):
    """State of an optimizer: what was in force at its last update, and what its rule keeps.

    Attributes:
      hyperparameters: by name, the number in force at the last update (before the first: at the
        first), each of shape () in JAX's default float dtype.
      schedule_count: updates so far, int32 of shape (): what schedules are read at.
      inner_state: state of the chain.
    """

    hyperparameters: dict[str, jax.Array]
    schedule_count: jax.Array
    inner_state: optax.OptState


def hyperparameters(state: optax.OptState) -> dict[str, jax.Array]:
    r"""The numbers that an optimizer of this package used at its last update, schedules included.

    The names are the same for all: ``learning_rate``, ``weight_decay``, ``b1``, ``b2``, ``b3``,
    ``momentum``, and what else a rule has under the name of its argument; ``lr`` and ``betas`` of
    :mod:`lion_jax.compat` are shown under these too. What is None is not shown.

    Rules whose updates are signs also show ``weight_bound``, the size at which the weight decay
    balances a step, so that no weight that decays in full grows beyond it:
    :math:`1 / \lambda` for :func:`lion`, :math:`\eta_0 / \lambda` for :func:`decoupled_lion`,
    the largest float without a decay.

    ``optax.tree_utils.tree_get(state, "learning_rate")`` reads a single one. Under
    ``optax.inject_hyperparams`` it finds optax's own, the number of the next update: what comes to
    ``init`` as a jax array is shown here alone.

    Args:
      state: the optimizer state that holds one :class:`~lion_jax.optimizers.HyperparametersState`,
        at any depth: in a chain, in a combinator, under ``optax.inject_hyperparams`` and the like.

    Returns:
      The numbers by name, in alphabetical order, each an array of shape () in JAX's default float
      dtype. Before the first update they are those of the first; where a combinator skips updates,
      those of the last one taken.

    Raises:
      ValueError: no optimizer of this package in the state, or several.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> import lion_jax
      >>> tx = lion_jax.lion(optax.linear_schedule(1e-3, 0.0, 4), weight_decay=0.5)
      >>> params = jnp.ones(2)
      >>> state = tx.init(params)
      >>> for _ in range(3):
      ...     updates, state = tx.update(jnp.ones(2), state, params)
      >>> for name, value in lion_jax.hyperparameters(state).items():
      ...     print(f"{name} {value:.4g}")
      b1 0.9
      b2 0.99
      learning_rate 0.0005
      weight_bound 2
      weight_decay 0.5
    """
    owner = "optimizer of lion_jax"
    shown = the_only(state, "hyperparameters", owner, HyperparametersState.__name__)
    return by_name(shown)


def by_name(shown: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers that a state shows, by the names of their arguments, in alphabetical order."""
    return dict(sorted(shown.items()))  # as JAX sorts dictionaries


def shows_hyperparameters(*names: str, weight_bound: Callable[..., Any] | None = None):
    """Lets named hyperparameters of a factory be schedules, and keeps in its state what they were.

    Schedules are read once per update, and the factory builds the chain of that update from their
    numbers: what is shown is what was used. All other arguments reach it as they came. It also gets
    to see the schedules themselves, once, at construction, for its checks.

    Every update writes all values anew, so that a restored state shows the numbers of this run and
    not those of the one that saved it. There is always a counter: a state outlives the change from
    a number to a schedule.

    Args:
      *names: arguments that are numbers, schedules or, not to be shown, None; `betas` are several.
      weight_bound: from what is shown, by name, to the size at which the decay balances a step;
        only for rules whose updates are signs, which its presence tells.
    """

    def decorate(
        factory: Callable[P, optax.GradientTransformation],
    ) -> Callable[P, optax.GradientTransformationExtraArgs]:
        @functools.wraps(factory)
        def showing(*args: P.args, **kwargs: P.kwargs) -> optax.GradientTransformationExtraArgs:
            factory(*args, **kwargs)  # refuses here, rather than at init, what makes no sense
            bound = inspect.signature(factory).bind(*args, **kwargs)
            bound.apply_defaults()
            return _show(factory, bound.arguments, names, weight_bound)

        return showing

    return decorate


def _show(
    factory: Callable[..., optax.GradientTransformation],
    arguments: dict[str, Any],
    names: tuple[str, ...],
    weight_bound: Callable[..., Any] | None,
) -> optax.GradientTransformationExtraArgs:
    schedules = schedules_among(arguments, names)
    arrays = frozenset(name for name in names if isinstance(arguments[name], jax.Array))

    def at(count):
        values = arguments | read(schedules, count)
        shown = _shown({name: values[name] for name in names}, weight_bound)
        return optax.with_extra_args_support(factory(**values)), shown

    def init_fn(params):
        count = jnp.zeros((), jnp.int32)
        tx, shown = at(count)
        return HyperparametersState(_hidden(shown, arrays), count, tx.init(params))

    def update_fn(updates, state, params=None, **extra_args):
        before, count, inner_state = state
        tx, shown = at(count)
        updates, inner_state = tx.update(updates, inner_state, params, **extra_args)
        count = jnp.asarray(optax.safe_increment(count))
        if isinstance(before, _Hidden):  # as it has been since `init`
            shown = _hidden(shown, before.names)
        return updates, HyperparametersState(shown, count, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


@jax.tree_util.register_pytree_with_keys_class
class _Hidden(dict[str, Any]):
    """A dictionary that does not tell of some of its names.

    `optax.inject_hyperparams` has these numbers under the same names, and optax's `tree_get` takes
    no name that is in two dictionaries.
    """

    names: frozenset[str] = frozenset()

    def __contains__(self, name: object) -> bool:
        return name not in self.names and super().__contains__(name)

    def tree_flatten_with_keys(self) -> Any:
        """The values by key, as of any dictionary."""
        order = tuple(sorted(self))
        children = [(jax.tree_util.DictKey(name), self[name]) for name in order]
        return children, (order, self.names)

    @classmethod
    def tree_unflatten(cls, aux: Any, values: Any) -> "_Hidden":
        """The same names, hidden and not."""
        order, names = aux
        return _hidden(dict(zip(order, values, strict=True)), names)


def _hidden(shown: dict[str, Any], names: frozenset[str]) -> Any:
    """The numbers shown, some of them under names that only `hyperparameters` finds."""
    if not names:
        return shown
    hidden = _Hidden(shown)
    hidden.names = names
    return hidden


def _shown(
    values: Mapping[str, Any], weight_bound: Callable[..., Any] | None
) -> dict[str, jax.Array]:
    shown = {name: _as_float(value) for name, value in _by_our_names(values)}
    if weight_bound is not None:
        largest = float(jnp.finfo(jnp.result_type(float)).max)
        bound = weight_bound(**shown)
        is_number = isinstance(bound, float)
        shown["weight_bound"] = _as_float(
            min(bound, largest) if is_number else jnp.minimum(bound, largest)
        )
    return shown


def _by_our_names(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if name == "betas":
            yield from ((f"b{i}", beta) for i, beta in enumerate(value, start=1))
        elif value is not None:
            yield "learning_rate" if name == "lr" else name, value


def _as_float(value: Any) -> jax.Array:
    """A buffer of its own: the state may be donated, the caller's array may not."""
    return jnp.array(value, jnp.result_type(float))
