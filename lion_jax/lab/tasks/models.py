"""Tasks of whole models: a module of flax nnx, flax linen or equinox, and a loss of it."""

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax

from lion_jax.lab.errors import RequestError
from lion_jax.lab.tasks.data import Data, splits_of
from lion_jax.lab.tasks.task import Task

_Init = Callable[[jax.Array], tuple[Any, Any]]
"""`key -> (params, state)`."""
_Run = Callable[[Callable[..., Any], bool], Callable[..., tuple[Any, Any]]]
"""A function of a module, and whether it trains, to `(params, state, key, *arguments)`."""


def task_of(
    model: Any,
    loss: Callable[..., Any],
    data: Data,
    *,
    metrics: Mapping[str, tuple[str, Callable[..., jax.Array]]] | None = None,
    name: str = "task",
    description: str = "",
) -> Task:
    """A task of a whole model, with its batch statistics and its dropout.

    Args:
      model: a function `key -> module`, so that each seed has parameters of its own, such as
        ``lambda key: Net(rngs=nnx.Rngs(key))``; or a module, with which all seeds begin. It is of
        flax ``nnx``, flax ``linen`` or ``equinox``. A linen module is initialized by its loss, with
        each seed's key. An equinox module with state comes from a function
        `key -> (module, state)`, such as ``eqx.nn.make_with_state(Net)``.
      loss: `(model, batch, key) -> loss`, of shape (). An nnx model is in training mode. The key is
        fresh in each step; a linen model draws its dropout from it, an nnx model has its own. With
        a state of equinox it is `(model, state, batch, key) -> (loss, state)`.
      data: in three splits, such as ``lab.split((x, y))`` makes; the first may be a stream.
      metrics: by name, a direction and a function of `(model, split)`, which gets an nnx or
        equinox model in evaluation mode; with a state of equinox it is one of
        `(model, state, split)`. The first decides. None is the loss, downwards.
      name: what tables and pictures call it.
      description: one line on data and model.

    Returns:
      A :class:`~lion_jax.lab.Task`. Its parameters are what the framework calls so: ``nnx.Param``,
      the collection ``params``, the floating-point arrays of an equinox module.

    Raises:
      RequestError: a model of another kind; and as :class:`~lion_jax.lab.Task`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> from lion_jax import lab
      >>> x = jax.random.normal(jax.random.key(0), (500, 3))
      >>> def loss(model, batch, key):
      ...     return jnp.mean((model(batch[0]) - batch[1]) ** 2)
      >>> task = lab.task_of(
      ...     lambda key: nnx.Linear(3, 1, rngs=nnx.Rngs(key)), loss, lab.split((x, x[:, :1]))
      ... )
      >>> task
      Task('task', {'train': 300, 'validation': 100, 'test': 100}, loss)
    """
    data = splits_of(data)
    batch = data.train(0) if callable(data.train) else jax.tree.map(lambda x: x[:2], data.train)
    init, run = _pure(model, loss, batch)

    def evaluated_loss(*arguments):
        found = loss(*arguments, jax.random.key(0))
        return found[0] if isinstance(found, tuple) else found

    def measured(metric):
        if not isinstance(metric, tuple) or len(metric) < 2 or not callable(metric[1]):
            return metric  # which Task refuses
        of_params = run(metric[1], False)

        def function(params, state, split):
            return of_params(params, state, jax.random.key(0), split)[0]

        return metric[0], function, *metric[2:]

    trained = run(loss, True)
    metrics = {"loss": ("down", evaluated_loss)} if metrics is None else metrics
    return Task(
        init=init,
        loss=lambda params, state, batch, key: trained(params, state, key, batch, key),
        train=data.train,
        validation=data.validation,
        test=data.test,
        metrics={name: measured(metric) for name, metric in metrics.items()},
        name=name,
        description=description or f"a model of {_framework(model) or 'its own'}",
        has_state=True,
    )


def _pure(model: Any, loss: Callable[..., Any], batch: Any) -> tuple[_Init, _Run]:
    """A module as pure functions."""
    is_module = _framework(model) is not None
    if not is_module and not callable(model):
        raise _no_module(model)
    make = (lambda key: model) if is_module else model
    made = make(jax.random.key(0))
    module = made[0] if isinstance(made, tuple) else made
    framework = _framework(module)
    if framework is None:
        raise _no_module(module)
    if framework == "flax.linen":
        return _of_linen(module, loss, batch)
    return (_of_nnx if framework == "flax.nnx" else _of_equinox)(make)


def _framework(module: Any) -> str | None:
    """The package whose module something is."""
    for package in ("flax.nnx", "flax.linen", "equinox"):
        if package in sys.modules and isinstance(module, sys.modules[package].Module):
            return package
    return None


def _no_module(got: Any) -> RequestError:
    return RequestError(
        "model must be a module of flax nnx, flax linen or equinox, or a function key -> module; "
        f"got {got!r}. Try lambda key: Net(rngs=nnx.Rngs(key)), or lab.Task for anything else"
    )


def _of_nnx(make: Callable[[jax.Array], Any]) -> tuple[_Init, _Run]:
    from flax import nnx

    graph = nnx.split(make(jax.random.key(0)), nnx.Param, ...)[0]
    # flax 0.11 has no such argument, and copies.
    copied = {"copy": True} if "copy" in inspect.signature(nnx.merge).parameters else {}

    def init(key):
        _, params, state = nnx.split(make(key), nnx.Param, ...)
        return params, state

    def run(function, training):
        def pure(params, state, key, *arguments):
            module = nnx.merge(graph, params, state, **copied)
            module.train() if training else module.eval()
            value = function(module, *arguments)
            return value, nnx.split(module, nnx.Param, ...)[2]

        return pure

    return init, run


def _of_linen(module: Any, loss: Callable[..., Any], batch: Any) -> tuple[_Init, _Run]:
    import flax.linen as nn

    def init(key):
        variables = dict(nn.init(loss, module)({"params": key}, batch, key))
        return variables.pop("params"), variables

    def run(function, training):
        def pure(params, state, key, *arguments):
            apply = nn.apply(function, module, mutable=list(state))
            variables = {"params": params, **state}
            value, after = apply(variables, *arguments, rngs={"params": key})
            return value, after if training else state

        return pure

    return init, run


def _of_equinox(make: Callable[[jax.Array], Any]) -> tuple[_Init, _Run]:
    import equinox as eqx

    def parts(key):
        made = make(key)
        module, state = made if isinstance(made, tuple) else (made, None)
        return *eqx.partition(module, eqx.is_inexact_array), state

    _, static, first_state = parts(jax.random.key(0))

    def init(key):
        params, _, state = parts(key)
        return params, state

    def run(function, training):
        def pure(params, state, key, *arguments):
            module = eqx.combine(params, static)
            module = module if training else eqx.nn.inference_mode(module)
            if first_state is None:
                return function(module, *arguments), state
            found = function(module, state, *arguments)
            return found if training else (found, state)

        return pure

    return init, run
