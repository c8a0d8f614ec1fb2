"""`lion-jax cost`: the bytes of a step on TPUs or GPUs, counted without having one.

The folder has the name of its function, so ``lab.cost(...)`` calls it: see
:func:`lion_jax.lab.cost.run.cost`.
"""

import sys
import types
from typing import Any


class _Callable(types.ModuleType):
    def __call__(self, *arguments: Any, **words: Any) -> Any:
        """Calls the function."""
        from lion_jax.lab.cost.run import cost

        return cost(*arguments, **words)


sys.modules[__name__].__class__ = _Callable
