"""Trees of parameters, some of them hidden from a transformation."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.leaves import is_array, is_none, is_weight
from lion_jax._core.types import PyTree


class Frozen(NamedTuple):
    """The frozen parameters, and the trees in which they are hidden.

    Attributes:
      leaves: the parameters, None where there is none.
      treedef: of their tree, in which None is a leaf.
      flags: for each whether it is frozen.
    """

    leaves: list[Any]
    treedef: Any
    flags: list[bool]

    @classmethod
    def of(cls, params: optax.Params, is_frozen: Callable[[optax.Params], PyTree]) -> "Frozen":
        """Chooses the frozen ones by a function from parameters to a tree of booleans."""
        leaves, treedef = jax.tree.flatten(params, is_leaf=is_none)
        chosen = iter(jax.tree.leaves(is_frozen(params)))
        return cls(leaves, treedef, [x is not None and next(chosen) for x in leaves])

    @property
    def labels(self) -> PyTree:
        """A tree of the labels "train" and "freeze", without the rest."""
        return self._tree(
            None if x is None or self._is_rest(i) else "freeze" if self.flags[i] else "train"
            for i, x in enumerate(self.leaves)
        )

    def without_rest(self, tree: PyTree) -> PyTree:
        """A tree without the frozen leaves of which there are no gradients, as of a function."""
        parts = self.treedef.flatten_up_to(tree)
        return self._tree(None if self._is_rest(i) else x for i, x in enumerate(parts))

    def with_rest(self, updates: optax.Updates, gradients: optax.Updates) -> optax.Updates:
        """Updates for these too: 0, or None for what can have none."""
        parts = zip(
            self.leaves, *map(self.treedef.flatten_up_to, (updates, gradients)), strict=True
        )
        return self._tree(
            _zero(x, g) if self._is_rest(i) else u for i, (x, u, g) in enumerate(parts)
        )

    def hidden_in(self, extra_args: dict[str, Any], params: optax.Params | None) -> dict[str, Any]:
        """Extra arguments for a transformation that does not see the frozen parameters.

        Trees like the parameters lose their frozen leaves. Functions of parameters get those that
        they were written for: with the frozen ones.
        """
        alike = {name: x for name, x in extra_args.items() if self._is_like(x)}
        hidden = extra_args | {name: self._masked(x) for name, x in alike.items()}
        for name, x in extra_args.items():
            if name not in alike and callable(x) and params is not None:
                hidden[name] = self._on_all(x, alike)
        return hidden

    def _on_all(self, function: Callable[..., Any], alike: dict[str, Any]) -> Callable[..., Any]:
        masked = jax.tree.structure(self._masked(self._tree(self.leaves)))

        def filled(tree):
            if jax.tree.structure(tree) != masked:
                return tree
            parts = self.treedef.flatten_up_to(tree)
            return self._tree(
                x if flag else part
                for x, part, flag in zip(self.leaves, parts, self.flags, strict=True)
            )

        @functools.wraps(function)  # a line search looks for the names of its arguments
        def on_all(*args, **kwargs):
            as_given = {name: alike.get(name, x) for name, x in kwargs.items()}
            return function(*map(filled, args), **as_given)

        return on_all

    def _masked(self, tree: PyTree) -> PyTree:
        parts = zip(self.treedef.flatten_up_to(tree), self.flags, strict=True)
        return self._tree(
            part if not flag else None if self._is_rest(i) else optax.MaskedNode()
            for i, (part, flag) in enumerate(parts)
        )

    def _is_like(self, tree: PyTree) -> bool:
        """Tells whether it has an array of the same shape, or None, for every parameter."""
        try:
            parts = self.treedef.flatten_up_to(tree)
        except ValueError:
            return False
        return any(part is not None for part in parts) and all(
            part is None or (is_array(part) and jnp.shape(part) == jnp.shape(x))
            for x, part in zip(self.leaves, parts, strict=True)
            if is_weight(x)
        )

    def _is_rest(self, i: int) -> bool:
        return self.flags[i] and not is_weight(self.leaves[i])

    def _tree(self, leaves: Iterable[Any]) -> PyTree:
        return self.treedef.unflatten(leaves)


def _zero(x: Any, gradient: Any) -> jax.Array | None:
    is_number = is_array(x) and not jnp.issubdtype(jnp.result_type(x), jax.dtypes.extended)
    return jnp.zeros_like(x) if is_number and gradient is not None else None
