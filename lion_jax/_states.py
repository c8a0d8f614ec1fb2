"""What readers of states look for."""

from typing import Any

import jax
import optax


def the_only(state: optax.OptState, field: str, owner: str, *holders: str) -> Any:
    """The field of the only state of these types within `state`, at any depth."""
    found = optax.tree_utils.tree_get_all_with_path(
        state, field, filtering=lambda path, _: getattr(path[-1], "tuple_name", "") in holders
    )
    if not found:
        raise ValueError(
            f"state must hold the state of one {owner}; found 0 in this {type(state).__name__}. "
            "Try the state that the init of a transformation made with one returns."
        )
    if len(found) > 1:
        where = ", ".join(jax.tree_util.keystr(path) for path, _ in found)
        raise ValueError(
            f"state must hold the state of one {owner}; found {len(found)} ({where}). "
            "Try the state of the part that you mean."
        )
    return found[0][1]


def bare(value: Any) -> jax.Array:
    """An array without what flax nnx wraps around each in an optimizer's state."""
    return jax.tree.leaves(value)[0]
