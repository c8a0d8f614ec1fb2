"""Masks, labels and multipliers for the leaves whose paths match a pattern."""

import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lion_jax._core import inner as _inner
from lion_jax._core.kinds import NON_NEGATIVE, TRANSFORMATION
from lion_jax._core.leaves import map_present
from lion_jax._core.paths import Pattern, first_match, present_paths
from lion_jax._core.rule import primitive, takes
from lion_jax._core.shares import map_shares, spread
from lion_jax._core.types import Mask, PyTree, Scalar
from lion_jax.groups._frozen import Frozen

SHARE = NON_NEGATIVE.constant().trying("1.0", "which does not change its leaves")
FromParams = Callable[[optax.Params], PyTree]

_BIAS_OR_SCALE = re.compile(r"(?i)(^|_)(bias(es)?|scale|gamma|beta|offset)$")
_NORM = re.compile(r"(?i)(norm(s|alization)?|(^|_)(ln|bn|gn))(_?\d+|_[a-z]+)?$")


def paths(params: optax.Params) -> list[str]:
    """The path of each leaf, in the order of the leaves: the strings that patterns match.

    Args:
      params: any tree.

    Returns:
      A list of strings; the path of a tree that is a single leaf is empty.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import groups
      >>> groups.paths({"blocks": [{"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}]})
      ['blocks/0/bias', 'blocks/0/kernel']
    """
    return present_paths(params)


def describe(params: optax.Params, **of_each: Mask) -> str:
    """A table of the group, mask or multiplier of each leaf, to check before a long run.

    Args:
      params: the parameters.
      **of_each: by heading, a tree like the parameters or a function to one: what the functions of
        this module return, or ``exclude_biases_and_norms``.

    Returns:
      A line for each leaf with its path and shape, under a line of headings.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import groups
      >>> params = {"embed": jnp.ones((5, 2)), "head": {"bias": jnp.ones(5)}}
      >>> print(
      ...     groups.describe(
      ...         params,
      ...         decay=groups.exclude_biases_and_norms,
      ...         learning_rate=groups.multipliers({"^embed": 0.1}),
      ...     )
      ... )
      path       shape   decay  learning_rate
      embed      (5, 2)  True   0.1
      head/bias  (5,)    False  1.0
    """
    trees = [spread(tree, params) for tree in of_each.values()]
    rows = [
        ("path", "shape", *of_each),
        *zip(
            paths(params),
            (str(jnp.shape(leaf)) for leaf in jax.tree.leaves(params)),
            *(map(str, jax.tree.leaves(tree)) for tree in trees),
            strict=True,
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def select(*patterns: Pattern) -> FromParams:
    """A mask that is True where any of the patterns matches.

    Args:
      *patterns: regular expressions or functions ``(path, leaf) -> bool``.

    Returns:
      A function from parameters to a tree of booleans like them: for the ``mask`` of any
      transformation here or in optax, for ``optax.masked`` and the like.

    Raises:
      ValueError: no valid regular expression; at use, one that matches no leaf.
      TypeError: neither a string nor a function; at use, a step count in place of parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import groups
      >>> groups.select("kernel$")({"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)})
      {'bias': False, 'kernel': True}
    """
    return first_match(((pattern, True) for pattern in patterns), default=False)


def exclude(*patterns: Pattern) -> FromParams:
    """A mask that is False where any of the patterns matches.

    Arguments, errors and uses are those of :func:`select`.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import groups
      >>> groups.exclude("bias|norm")({"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)})
      {'bias': False, 'kernel': True}
    """
    return first_match(((pattern, False) for pattern in patterns), default=True)


def exclude_biases_and_norms(params: optax.Params) -> PyTree:
    """The usual mask for weight decay: False for biases, scales and normalization layers.

    It is False, whatever the case of letters, for

    - leaves of rank 0 and 1;
    - leaves called ``bias``, ``biases``, ``scale``, ``gamma``, ``beta`` or ``offset``, alone or
      after an underscore, as in ``layer_scale``: layers stacked for ``jax.lax.scan`` and attention
      by heads have biases of rank 2;
    - leaves that are, or are directly below, a name that ends in ``norm``, ``norms`` or
      ``normalization``, or is ``ln``, ``bn`` or ``gn``, alone or after an underscore; a number or a
      suffix may follow, as in ``LayerNorm_0``, ``norm1`` and ``ln_f``.

    A matrix called ``b`` decays: it may be half of a low-rank adapter.

    Args:
      params: the parameters. Pass the function itself as a mask.

    Returns:
      A tree of booleans like the parameters.

    Raises:
      TypeError: a step count in place of parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> import lion_jax
      >>> from lion_jax import groups
      >>> tx = lion_jax.lion(1e-4, weight_decay=0.1, mask=groups.exclude_biases_and_norms)
      >>> groups.exclude_biases_and_norms(
      ...     {"ln_1": {"g": jnp.ones((12, 64))}, "mlp": {"w": jnp.ones((12, 64, 64))}}
      ... )
      {'ln_1': {'g': False}, 'mlp': {'w': True}}
    """
    return exclude(_is_bias_or_norm)(params)


def labels(by_pattern: Mapping[Pattern, Hashable], default: Hashable) -> FromParams:
    """Labels for ``optax.partition``, to give groups different transformations.

    For groups that differ in learning rate or weight decay alone, :func:`scale_by_group` and
    :func:`multipliers` read each leaf once, however many groups there are.

    Args:
      by_pattern: the label of each pattern; if several match a leaf, the first decides.
      default: the label of leaves that match no pattern.

    Returns:
      A function from parameters to a tree of labels like them.

    Raises:
      ValueError, TypeError: as in :func:`select`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> import lion_jax
      >>> from lion_jax import groups
      >>> tx = optax.partition(
      ...     {"lion": lion_jax.lion(1e-4), "adam": optax.adam(1e-3)},
      ...     groups.labels({"embed": "adam", "bias$": "adam"}, default="lion"),
      ... )
      >>> state = tx.init({"embed": jnp.ones((5, 2)), "kernel": jnp.ones(2), "bias": jnp.ones(2)})
    """
    return first_match(_items(by_pattern), default)


@takes(default=SHARE)
def multipliers(by_pattern: Mapping[Pattern, Scalar], default: Scalar = 1.0) -> FromParams:
    """A mask of numbers, by which the weight decay of each leaf is multiplied.

    Args:
      by_pattern: a number >= 0 for each pattern; if several patterns match a leaf, the first
        decides.
      default: the number of leaves that match no pattern.

    Returns:
      A function from parameters to a tree of numbers like them, for the ``mask`` of every
      transformation here that has one. Groups then differ in weight decay, in one pass over the
      leaves; the decay does not read leaves with 0.

    Raises:
      ValueError, TypeError: as in :func:`select`; a number out of range or no number.

    Example:
      >>> import jax.numpy as jnp
      >>> import lion_jax
      >>> from lion_jax import groups
      >>> mask = groups.multipliers({"bias|norm": 0.0, "embed": 0.5})
      >>> tx = lion_jax.lion(1.0, weight_decay=0.1, mask=mask)
      >>> params = {"bias": jnp.array([8.0]), "embed": jnp.array([8.0]), "norm": jnp.ones(1)}
      >>> updates, _ = tx.update({k: jnp.zeros(1) for k in params}, tx.init(params), params)
      >>> print(updates["bias"], updates["embed"])
      [-0.] [-0.4]
    """
    by_pattern = dict(_items(by_pattern))
    for pattern, share in by_pattern.items():
        SHARE.check(f"by_pattern[{pattern!r}]", share)
    return first_match(by_pattern.items(), default)


@primitive(default=SHARE)
def scale_by_group(
    by_pattern: Mapping[Pattern, Scalar], default: Scalar = 1.0
) -> optax.GradientTransformationExtraArgs:
    r"""Multiplies the updates of each group: learning rates by group.

    .. math::

      u \leftarrow r u

    with a number :math:`r` for each leaf. Chained after an optimizer, it multiplies the leaf's
    learning rate, also in its weight decay, as parameter groups in PyTorch do. Narrow updates are
    rounded once more.

    Args:
      by_pattern: :math:`r` >= 0 for each pattern; if several patterns match a leaf, the first
        decides. 0 stops a leaf, but keeps its state: see :func:`freeze`.
      default: :math:`r` of leaves that match no pattern.

    Returns:
      A transformation of updates that keeps shapes, units and dtypes, and does not touch leaves
      with the number 1. It has no state.

    Raises:
      ValueError, TypeError: as in :func:`multipliers`, a pattern that matches no leaf at ``init``.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> import lion_jax
      >>> from lion_jax import groups
      >>> tx = optax.chain(lion_jax.lion(1e-2), groups.scale_by_group({"backbone/": 0.1}))
      >>> params = {"backbone": {"w": jnp.ones(1)}, "head": {"w": jnp.ones(1)}}
      >>> updates, _ = tx.update(params, tx.init(params), params)
      >>> print(updates["backbone"]["w"], updates["head"]["w"])
      [-0.001] [-0.01]
    """
    rates_of = multipliers(by_pattern, default)

    def init_fn(params):
        rates_of(params)
        return optax.EmptyState()

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        rates = rates_of(updates if params is None else params)
        return map_shares(_scale, updates, (), rates, idle=1), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


@takes(inner=TRANSFORMATION)
def freeze(
    inner: optax.GradientTransformation, *patterns: Pattern
) -> optax.GradientTransformationExtraArgs:
    """Freezes the matching parameters: updates of 0, and no state.

    Args:
      inner: the transformation of the other leaves. It does not see the frozen ones: they are not
        part of a global norm, nor of extra arguments like the parameters, such as the ``grad`` of a
        line search. Functions among these, such as its ``value_fn``, get all parameters. An average
        of all parameters belongs outside this wrapper, ``optax.inject_hyperparams`` inside, around
        ``inner``.
      *patterns: the leaves to freeze, as in :func:`select`.

    Returns:
      A transformation whose updates are 0 for the frozen leaves. The state is that of
      ``optax.partition`` with the labels ``"train"`` and ``"freeze"``: the inner one has
      ``optax.MaskedNode`` in the place of frozen leaves, and None for those that are no
      floating-point numbers.

    Raises:
      ValueError, TypeError: as in :func:`select`, a pattern that matches no leaf at ``init``; an
        ``inner`` that is no transformation.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> import lion_jax
      >>> from lion_jax import groups
      >>> params = {"backbone": {"w": jnp.ones((512, 512))}, "head": {"w": jnp.ones(2)}}
      >>> tx = groups.freeze(lion_jax.lion(1e-4), "^backbone/")
      >>> state = tx.init(params)
      >>> print(sum(m.size for m in jax.tree.leaves(optax.tree_utils.tree_get(state, "mu"))))
      2
    """
    is_frozen = first_match(((pattern, True) for pattern in patterns), default=False)

    def partition(frozen):
        # A function gives the labels, since a tree may be callable, a module say.
        transformations: dict[Hashable, optax.GradientTransformation] = {
            "train": inner,
            "freeze": optax.stateless(_zero),
        }
        return optax.partition(transformations, lambda _: frozen.labels)

    def init_fn(params):
        frozen = Frozen.of(params, is_frozen)
        return partition(frozen).init(frozen.without_rest(params))

    def update_fn(updates, state, params=None, **extra_args):
        frozen = Frozen.of(updates if params is None else params, is_frozen)
        trained = None if params is None else frozen.without_rest(params)
        new_updates, state = _inner.update(
            partition(frozen),
            frozen.without_rest(updates),
            state,
            trained,
            **frozen.hidden_in(extra_args, params),
        )
        return frozen.with_rest(new_updates, updates), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _zero(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
    """Updates of 0 in the parameters' dtype, which `optax.set_to_zero` does not have."""
    likes = updates if params is None else params
    return map_present(lambda _, like: jnp.zeros_like(like), updates, likes)


def _scale(u, rate):
    return (rate * u,)


def _is_bias_or_norm(path: str, leaf: Any) -> bool:
    *_, module, name = ("", *path.split("/"))
    return (
        len(jnp.shape(leaf)) < 2
        or _BIAS_OR_SCALE.search(name) is not None
        or _NORM.search(name) is not None
        or _NORM.search(module) is not None
    )


def _items(by_pattern: Any) -> Iterable[tuple[Pattern, Any]]:
    if not isinstance(by_pattern, Mapping):
        raise TypeError(
            f"by_pattern must be a mapping from patterns; got {by_pattern!r} of type "
            f'{type(by_pattern).__name__}. Try {{"bias|norm": ...}}.'
        )
    return by_pattern.items()
