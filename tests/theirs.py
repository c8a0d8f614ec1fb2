"""Every optimizer of optax and optax.contrib that its defaults, or a rate, can build."""

import functools
import warnings
from collections.abc import Callable

import optax
import optax.contrib

_RATE = 0.1
# What needs other arguments than a rate.
_FURTHER = {
    "adafactor_factored": lambda: optax.adafactor(_RATE, min_dim_size_to_factor=2, momentum=0.9),
    "adaptive_grad_clip": lambda: optax.adaptive_grad_clip(_RATE),
    "backtracking": lambda: optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(3, store_grad=True)
    ),
    "conditionally_transform": lambda: optax.conditionally_transform(
        optax.adam(_RATE), lambda count: count < 2
    ),
    "flatten": lambda: optax.flatten(optax.adam(_RATE)),
    "mechanize": lambda: optax.contrib.mechanize(optax.adam(_RATE)),
    "multi_steps": lambda: optax.MultiSteps(optax.adam(_RATE), 2),
    "sam": lambda: optax.contrib.sam(
        optax.sgd(_RATE), optax.chain(optax.contrib.normalize(), optax.sgd(_RATE))
    ),
    "schedule_free": lambda: optax.contrib.schedule_free(optax.sgd(_RATE), _RATE),
    "split_complex": lambda: optax.contrib.split_real_and_imaginary(optax.adam(_RATE)),
    "zoom": lambda: optax.chain(optax.sgd(1.0), optax.scale_by_zoom_linesearch(3)),
}
if hasattr(optax.contrib, "galore"):
    _FURTHER["galore"] = lambda: optax.contrib.galore(_RATE, rank=1)
# What needs a gradient per example, or a function of the parameters; or steps matrices alone.
_OTHER_CALLS = {
    *("dpsgd", "hutchinson_estimator_diag_hessian", "sophia", "scale_by_muon"),
    *("scale_by_schedule", "split_real_and_imaginary", "stateless", "stateless_with_tree_map"),
    "scale_by_distance_over_gradients",  # which broadcasts between ranks
}


def _built() -> dict[str, Callable[[], optax.GradientTransformation]]:
    found = {}
    for module in (optax, optax.contrib):
        for name in sorted(vars(module)):
            factory = getattr(module, name)
            if name.startswith("_") or not callable(factory) or isinstance(factory, type):
                continue
            for args in ((), (_RATE,)):
                try:
                    is_one = isinstance(_quietly(factory, *args), optax.GradientTransformation)
                except Exception:  # of any kind: these are not its arguments
                    continue
                if is_one and name not in _OTHER_CALLS:
                    found[name] = functools.partial(_quietly, factory, *args)
                    break
    return found


def _quietly(factory, *args):
    """What is on its way out of optax says so; it still works."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return factory(*args)


OPTAX = _built() | _FURTHER
# The ones whose states are not trees like the parameters, and a plain one.
PECULIAR = ("adam", "lbfgs", "backtracking", "sm3", "flatten", "galore", "adafactor_factored")


def update(tx, gradients, state, params):
    """An update with the extra arguments that one of them may need."""
    arguments = {"value": 1.0, "grad": gradients, "value_fn": _square}
    tx = optax.with_extra_args_support(tx)
    for names in ((), ("value",), ("value", "grad", "value_fn")):
        try:
            extra = {name: arguments[name] for name in names}
            return tx.update(gradients, state, params, **extra)
        except TypeError as error:
            refused = error
    raise refused


def _square(params):
    return 0.5 * optax.tree_utils.tree_norm(params, squared=True)
