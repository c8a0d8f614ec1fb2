"""The hyperparameters in force, in the state of every named optimizer."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.states import the_only
from lion_jax._core.types import Scalar


class HyperparametersState(NamedTuple):
    """State of an optimizer: the hyperparameters of its last update, and the state of its rule.

    Attributes:
      hyperparameters: by name, the number in force at the last update (before the first: at the
        first), each of shape () in JAX's default float dtype.
      schedule_count: updates so far, int32 of shape (), at which schedules are read.
      inner_state: state of the chain.
    """

    hyperparameters: dict[str, jax.Array]
    schedule_count: jax.Array
    inner_state: optax.OptState


def hyperparameters(state: optax.OptState) -> dict[str, jax.Array]:
    r"""The numbers that an optimizer of this package used at its last update, schedules included.

    The names are the same for all rules: ``learning_rate``, ``weight_decay``, ``b1``, ``b2``,
    ``b3``, ``momentum``; other numbers have the name of their argument. ``lr`` and ``betas`` of
    :mod:`lion_jax.compat` are shown under these names too. Arguments that are None are not shown.

    Rules whose updates are signs also show ``weight_bound``, the size at which the weight decay
    balances a step, so that no weight that decays in full grows beyond it:
    :math:`1 / \lambda` for :func:`lion`, :math:`\eta_0 / \lambda` for :func:`decoupled_lion`,
    the largest float without a decay.

    ``optax.tree_utils.tree_get(state, "learning_rate")`` reads a single one. Under
    ``optax.inject_hyperparams`` it finds optax's own entry, the number of the next update: a number
    that ``init`` gets as a jax array is shown by this function alone.

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
      >>> import jax.numpy as jnp, lion_jax, optax
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
    return by_name(the_only(state, "hyperparameters", owner, HyperparametersState.__name__))


def by_name(shown: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The numbers that a state shows, by the names of their arguments, in alphabetical order."""
    return dict(sorted(shown.items()))  # as JAX sorts dictionaries


def shown(
    arguments: Mapping[str, Any], weight_bound: Callable[..., Scalar] | None
) -> dict[str, jax.Array]:
    """The numbers among the arguments of a rule, by our names for them.

    Args:
      arguments: numbers by name; of those that are None nothing is shown, and `betas` are several.
      weight_bound: from what is shown, by name, to the size at which the decay balances a step;
        only for rules whose updates are signs, which its presence tells.
    """
    numbers = {name: _as_float(value) for name, value in _by_our_names(arguments)}
    if weight_bound is not None:
        largest = float(jnp.finfo(jnp.result_type(float)).max)
        bound = weight_bound(**numbers)
        is_number = isinstance(bound, float)
        numbers["weight_bound"] = _as_float(
            min(bound, largest) if is_number else jnp.minimum(bound, largest)
        )
    return numbers


def hidden_names(state: optax.OptState) -> frozenset[str]:
    """The names that a state hides from optax's `tree_get`."""
    return getattr(getattr(state, "hyperparameters", None), "names", frozenset())


@jax.tree_util.register_pytree_with_keys_class
class _Hidden(dict[str, jax.Array]):
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
    def tree_unflatten(cls, aux: Any, values: Iterable[jax.Array]) -> dict[str, jax.Array]:
        """The same names, hidden and not."""
        order, names = aux
        return hidden(dict(zip(order, values, strict=True)), names)


def hidden(numbers: dict[str, jax.Array], names: frozenset[str]) -> dict[str, jax.Array]:
    """The numbers, some of them under names that only :func:`hyperparameters` finds."""
    if not names:
        return numbers
    partly = _Hidden(numbers)
    partly.names = names
    return partly


def _by_our_names(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if name == "betas":
            yield from ((f"b{i}", beta) for i, beta in enumerate(value, start=1))
        elif value is not None:
            yield "learning_rate" if name == "lr" else name, value


def _as_float(value: Scalar) -> jax.Array:
    """A buffer of its own: the state may be donated, the caller's array may not."""
    return jnp.array(value, jnp.result_type(float))
