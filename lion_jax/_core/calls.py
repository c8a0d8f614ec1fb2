"""Binds the arguments of a call; its messages translate the words of other libraries."""

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_SAME = (
    ("learning_rate", "lr", "base_lr", "eta"),
    ("initial_learning_rate", "initial_lr"),
    ("b1", "beta1", "beta_1", "betas", "beta", "momentum"),
    ("b2", "beta2", "beta_2", "betas"),
    ("b3", "beta3", "beta_3", "betas"),
    ("eps", "epsilon"),
    ("weight_decay", "wd", "weight_decay_rate"),
    ("mask", "weight_decay_mask", "decay_mask", "exclude_from_weight_decay"),
    ("mu_dtype", "momentum_dtype", "state_dtype", "accumulator_dtype"),
    ("inner", "optimizer", "base_optimizer", "inner_optimizer", "fast_optimizer", "tx", "opt"),
    ("sync_period", "k", "la_steps"),
    ("slow_step_size", "alpha", "sync_rate", "la_alpha"),
    ("every", "k", "every_k_schedule", "gradient_accumulation_steps", "accumulation_steps"),
    ("decay", "ema_momentum", "ema_decay"),
    ("overwrite_every", "ema_overwrite_frequency"),
    ("max_consecutive", "max_consecutive_errors"),
    ("loss_scale", "loss_scale_factor", "init_scale", "initial_scale"),
    ("max_norm", "clipnorm", "global_clipnorm", "clip_norm", "max_grad_norm"),
    ("clip_value", "clipvalue", "max_delta"),
    ("steps", "ns_steps"),
    ("axis_name", "axis_names"),
)
"""Words for one argument, in this library and in others."""

_ELSEWHERE = {
    "params": "they go to init: tx.init(params)",
    "clipnorm": "chain lion_jax.primitives.clip_by_leaf_norm before it",
    "global_clipnorm": "chain lion_jax.primitives.clip_by_global_norm before it",
    "max_grad_norm": "chain lion_jax.primitives.clip_by_global_norm before it",
    "clipvalue": "chain optax.clip before it",
    "use_ema": "wrap it in lion_jax.with_parameter_average",
    "ema_momentum": "wrap it in lion_jax.with_parameter_average",
    "gradient_accumulation_steps": "wrap it in lion_jax.with_accumulation",
    "loss_scale_factor": "wrap it in lion_jax.with_loss_scale",
    "maximize": "chain optax.scale(-1.0) before it",
    "foreach": "jax needs none",
    "fused": "jax needs none",
    "capturable": "jax needs none",
    "jit_compile": "use jax.jit",
}
"""Remedies for arguments of other libraries that no argument here stands for."""


_RATES = ("learning_rate", "lr")
_INIT = "The parameters go to init, as in state = tx.init(params)."


def bind(
    function: Callable[..., object],
    signature: inspect.Signature,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    advice: Mapping[str, str],
) -> inspect.BoundArguments:
    """Binds the arguments of a call to their names, and fills in defaults.

    Args:
      function: the function that is called, for messages.
      signature: its signature.
      args: its positional arguments.
      kwargs: its named arguments.
      advice: for some arguments, the end of a message: a value to try.

    Raises:
      TypeError: the arguments do not fit the signature, or parameters stand in the place of a
        learning rate. The message translates words of PyTorch, Keras and optax.
    """
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        raise TypeError(_misfit(function, signature.parameters, args, kwargs, advice)) from None
    bound.apply_defaults()
    for name in _RATES:
        if _are_parameters(bound.arguments.get(name)):
            message = f"{function.__name__}() takes no parameters. {_INIT} {advice.get(name, '')}"
            raise TypeError(message.rstrip())
    return bound


def _misfit(
    function: Callable[..., object],
    parameters: Mapping[str, inspect.Parameter],
    args: Sequence[object],
    kwargs: Mapping[str, object],
    advice: Mapping[str, str],
) -> str:
    name = f"{function.__name__}()"
    by_place = [each for each, p in parameters.items() if p.kind is not p.KEYWORD_ONLY]
    placed = by_place[: len(args)]
    if unknown := [word for word in kwargs if word not in parameters]:
        is_like_torch = next(iter(parameters), "") in _RATES and any(map(_are_parameters, args[:1]))
        return _no_such(function, parameters, unknown) + (f" {_INIT}" if is_like_torch else "")
    if twice := [each for each in placed if each in kwargs]:
        return f"{name} got {twice[0]!r} twice, by position and by name."
    if len(args) > len(by_place):
        count = f"{len(by_place)} positional argument{'s' if len(by_place) != 1 else ''}"
        listed = f": {', '.join(by_place)}" if by_place else ""
        named = [each for each in parameters if each not in by_place]
        rest = f" Name the others: {', '.join(named)}." if named else ""
        return f"{name} takes at most {count}{listed}; got {len(args)}.{rest}"
    given = {*placed, *kwargs}
    missing = next(n for n, p in parameters.items() if p.default is p.empty and n not in given)
    return f"{name} needs the argument {missing!r}. {advice.get(missing, '')}".rstrip()


def _are_parameters(value: object) -> bool:
    """Tells whether a value may be a model's parameters, which PyTorch's optimizers take first."""
    if isinstance(value, list | tuple):  # one of numbers alone is rather a list of rates
        return not all(isinstance(each, int | float) for each in value)
    return isinstance(value, Mapping | Iterator)


def _no_such(
    function: Callable[..., object], parameters: Iterable[str], unknown: Sequence[str]
) -> str:
    hints = {word: _hint(word, parameters) for word in unknown}
    words = [f"{word!r}{f' ({hint})' if hint else ''}" for word, hint in hints.items()]
    message = f"{function.__name__}() has no argument {' and no argument '.join(words)}."
    if not all(hints.values()):
        allowed = ", ".join(parameters)
        message += f" Its arguments are {allowed}." if allowed else " It takes none."
    namesake = _namesake(function, unknown)
    return message + (f" {namesake} takes {' and '.join(unknown)}." if namesake else "")


def _hint(word: str, parameters: Iterable[str]) -> str:
    same = {other for row in _SAME if word in row for other in row}
    here = [name for name in parameters if name in same]
    if here:
        return f"here: {' and '.join(map(repr, here))}"
    if word in _ELSEWHERE:
        return _ELSEWHERE[word]
    close = difflib.get_close_matches(word, [*parameters], n=1)
    return f"did you mean {close[0]!r}?" if close else ""


def _namesake(function: Callable[..., object], words: Iterable[str]) -> str | None:
    """Finds a function of the same name elsewhere that takes all the words.

    Only a message needs the packages above this one, so they are imported here.
    """
    compat = importlib.import_module("lion_jax.compat")
    peers = [f"{compat.__name__}.{peer}" for peer in compat.__all__]
    for module in ("lion_jax", *peers, "optax"):
        other = getattr(importlib.import_module(module), function.__name__, None)
        if other is None or other is function:
            continue
        if {*words} <= {*inspect.signature(other).parameters}:
            return f"{module}.{function.__name__}"
    return None
