"""Parameter groups by path: decay masks, multipliers, labels and freezing.

A leaf's path is its keys joined by slashes: ``layer/kernel``, ``blocks/0/attn/w``. The key
``value``, which flax nnx puts below each variable, is left out. A pattern is a regular expression,
searched for anywhere in the path, or a function ``(path, leaf) -> bool``. The function may read
only the leaf's shape and dtype, since the leaf may be traced or abstract. A regular expression that
matches no leaf raises an error at ``init``, which lists the paths that it nearly matches.

The ``mask`` of a rule is a tree like the parameters or a prefix of one, or a function from
parameters to such a tree. Its leaves are booleans, or shares of the weight decay: finite numbers
>= 0. None is all leaves. The functions here make such masks.
"""

from lion_jax.groups.by_path import (
    describe,
    exclude,
    exclude_biases_and_norms,
    freeze,
    labels,
    multipliers,
    paths,
    scale_by_group,
    select,
)

__all__ = [
    "describe",
    "exclude",
    "exclude_biases_and_norms",
    "freeze",
    "labels",
    "multipliers",
    "paths",
    "scale_by_group",
    "select",
]
__dir__ = __all__.copy  # TAB offers no more
