"""A task: parameters to train, their loss, data in three splits, and metrics."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lion_jax.lab.errors import RequestError
from lion_jax.lab.fingerprints import fingerprint
from lion_jax.lab.tasks.data import row_of, sha256, shown

_NNX_MODULE = "flax.nnx.module.Module"
_TRY_METRICS = 'Try metrics={"accuracy": ("up", accuracy)}, a function of params and a split.'


class Metric(NamedTuple):
    """A figure that a task measures on a split.

    Attributes:
      direction: ``"up"`` if larger is better, as of an accuracy; ``"down"`` if smaller is.
      function: `(params, split) -> scalar`.
      good_within: a learning rate is good where the figure is this close to the rule's best; None
        is a hundredth of the best.
    """

    direction: Literal["up", "down"]
    function: Callable[..., jax.Array]
    good_within: float | None = None


@dataclasses.dataclass(frozen=True, repr=False)
class Task:
    """A model to train, its loss, and data in three splits that never mix.

    Attributes:
      init: `key -> params`, fresh parameters, a tree of arrays.
      loss: `(params, batch, key) -> loss`, of shape (); the key is fresh in each step, for dropout
        and the like.
      train: a tree of arrays with a leading axis of examples, of which a batch has some rows; or a
        function `step -> batch` for a stream, whose seeds see different steps of it.
      validation: a tree of the same structure. It chooses the learning rate.
      test: a tree of the same structure. The reported figures come from it.
      metrics: by name, a direction and a function: ``{"accuracy": ("up", accuracy)}``. The first
        decides which learning rate and which rule is best. None is the loss alone, downwards.
      name: what tables and pictures call it.
      description: one line on data and model.
      has_state: whether something is carried beside the parameters and not trained, such as batch
        statistics. Then `init` gives `(params, state)`, `loss(params, state, batch, key)` gives
        `(loss, state)`, and a metric is a function of `(params, state, split)`.
      loss_unit: unit of the loss, such as nats; empty where it has none.
      guess_loss: loss of a constant guess. A run that exploded and ends there has diverged.

    Raises:
      RequestError: splits of different structure or length, a metric without a direction, a loss
        that is no real scalar; a ``ValueError``.

    Example:
      >>> from lion_jax import lab
      >>> x = jax.random.normal(jax.random.key(0), (1000, 3))
      >>> data = lab.split((x, x @ jnp.array([1.0, -2.0, 3.0])))
      >>> def loss(w, batch, key):
      ...     return jnp.mean((batch[0] @ w - batch[1]) ** 2)
      >>> task = lab.Task(lambda key: jnp.zeros(3), loss, *data, name="line")
      >>> lab.compare(task, "sgd", steps=50, seeds=1, learning_rates=3).best.best_learning_rate
      0.0948...
    """

    init: Callable[[jax.Array], Any]
    loss: Callable[..., Any]
    train: Any
    validation: Any
    test: Any
    metrics: Mapping[str, Any] | None = None
    name: str = "task"
    description: str = ""
    has_state: bool = False
    loss_unit: str = ""
    guess_loss: float = float("inf")

    def __post_init__(self):
        """Refuses what cannot be trained, before anything is."""
        metrics = {"loss": ("down", self._whole_loss)} if self.metrics is None else self.metrics
        if not isinstance(metrics, Mapping):
            raise RequestError(f"metrics must be a dict; got {metrics!r}. {_TRY_METRICS}")
        object.__setattr__(self, "metrics", {n: _metric(n, m) for n, m in dict(metrics).items()})
        if not self.metrics:
            raise RequestError(f"metrics must have at least one; got none. {_TRY_METRICS}")
        splits = {"validation": self.validation, "test": self.test}
        train = self._checked_batch() if self.is_stream else self.train
        splits = {"train": train, **splits}
        (first, expected), *others = ((name, row_of(name, split)) for name, split in splits.items())
        for name, row in others:
            if row != expected:
                raise RequestError(
                    f"the splits must have the same structure; an example of {first} is "
                    f"{shown(expected)}, one of {name} is {shown(row)}. Try lab.split(data)"
                )
        self._check_loss()

    @property
    def is_stream(self) -> bool:
        """Tells whether training data are a function of the step."""
        return callable(self.train)

    @property
    def deciding(self) -> tuple[str, Metric]:
        """The first metric, which decides."""
        return next(iter((self.metrics or {}).items()))

    @property
    def examples(self) -> dict[str, int]:
        """The number of examples in each split that has one."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {
            n: len(jax.tree.leaves(split)[0]) for n, split in splits.items() if not callable(split)
        }

    def batch(self, size: int = 1) -> Any:
        """The first examples, or the first batch of a stream."""
        if self.is_stream:
            return self.train(np.int32(0))
        return jax.tree.map(lambda x: jnp.asarray(x[:size]), self.train)

    def start(self, key: jax.Array) -> tuple[Any, Any]:
        """Fresh parameters, and the state beside them: an empty one where there is none."""
        return self.init(key) if self.has_state else (self.init(key), ())

    def step(self, params: Any, state: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, Any]:
        """The loss of a batch, and the state after it."""
        if self.has_state:
            return self.loss(params, state, batch, key)
        return self.loss(params, batch, key), state

    def measure(self, params: Any, state: Any, split: Any) -> dict[str, jax.Array]:
        """Each metric on some examples, of shape ()."""
        beside = (state,) if self.has_state else ()
        return {n: m.function(params, *beside, split) for n, m in (self.metrics or {}).items()}

    def stored_in(self, dtype: Any) -> "Task":
        """The same task with its parameters, and so their gradients, in another dtype.

        The model computes in float32 all the same: a difference is the optimizer's and the
        storage's, not the model's. None leaves the task as it is.
        """
        if dtype is None:
            return self

        def init(key):
            params, state = self.start(key)
            params = _cast(params, dtype)
            return (params, state) if self.has_state else params

        def in_float32(function):
            return lambda params, *rest: function(_cast(params, jnp.float32), *rest)

        metrics = {
            name: metric._replace(function=in_float32(metric.function))
            for name, metric in (self.metrics or {}).items()
        }
        return dataclasses.replace(self, init=init, loss=in_float32(self.loss), metrics=metrics)

    def described(self) -> dict[str, Any]:
        """The task in plain data: names, sizes, directions, and hashes of the data."""
        return {
            "name": self.name,
            "description": self.description,
            "examples": self.examples,
            "metrics": {n: m.direction for n, m in (self.metrics or {}).items()},
            "loss_unit": self.loss_unit,
            "program": self._program(),
            "sha256": {
                "train": sha256(self.batch() if self.is_stream else self.train),
                "validation": sha256(self.validation),
                "test": sha256(self.test),
            },
        }

    def _program(self) -> str:
        """A fingerprint of the initial parameters, the loss and the metrics."""

        def program(key, batch, split):
            params, state = self.start(key)
            return self.step(params, state, batch, key), self.measure(params, state, split)

        return fingerprint(program, jax.random.key(0), self.batch(2), self.validation)

    def _whole_loss(self, params: Any, *state_and_split: Any) -> jax.Array:
        found = self.loss(params, *state_and_split, jax.random.key(0))
        return found[0] if self.has_state else found

    def _checked_batch(self) -> Any:
        """The first batch of a stream, which has to be the same each time."""
        first, again = self.train(np.int32(0)), self.train(np.int32(0))
        if sha256(first) != sha256(again):
            raise RequestError(
                "train must be a function step -> batch that gives the same batch for the same "
                "step, so that all rules see the same data; got another one the second time. "
                "Try np.random.default_rng(step), or an array of all examples"
            )
        return first

    def _checked_start(self, key: Any) -> tuple[Any, Any]:
        """Abstract parameters and state; refuses a model in the place of its parameters."""
        try:
            params, state = jax.eval_shape(self.start, key)
        except TypeError as error:
            raise _no_params(f"({str(error).partition(chr(10))[0]})") from error
        kinds = [f"{of.__module__}.{of.__name__}" for of in type(params).__mro__]
        if _NNX_MODULE in kinds:
            raise _no_params("a module of flax nnx")
        leaves = jax.tree.leaves(params)
        if not leaves or not all(jnp.issubdtype(x.dtype, jnp.inexact) for x in leaves):
            raise _no_params(str(jax.tree.map(lambda x: str(x.dtype), params))[:200])
        return params, state

    def __repr__(self) -> str:
        """Name, sizes and metrics, rather than all data."""
        return f"Task({self.name!r}, {self.examples}, {', '.join(self.metrics or {})})"

    def _check_loss(self) -> None:
        """Refuses a loss or a metric that is no real scalar."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        batch = jax.eval_shape(self.batch) if not self.is_stream else self.batch()
        start = self._checked_start(key)
        called = f"loss(params, {'state, ' * self.has_state}batch, key)"
        if self.has_state:
            found = jax.eval_shape(self.loss, *start, batch, key)
            if not isinstance(found, tuple) or len(found) != 2:
                raise RequestError(f"{called} must give (loss, state); got {shown(found)}")
            found = found[0]
        else:
            found = jax.eval_shape(self.loss, start[0], batch, key)
        _check_scalar(called, found)
        split = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, self.validation))
        for name, value in jax.eval_shape(self.measure, *start, split).items():
            _check_scalar(f"the metric {name!r}", value)


def _metric(name: str, metric: Any) -> Metric:
    has_direction = isinstance(metric, tuple) and len(metric) in (2, 3)
    if not has_direction or metric[0] not in ("up", "down") or not callable(metric[1]):
        raise RequestError(
            f'the metric {name!r} must have a direction, "up" or "down", and a function; '
            f"got {metric!r}. {_TRY_METRICS}"
        )
    return Metric(*metric)


def _check_scalar(what: str, found: Any) -> None:
    is_real = jnp.issubdtype(getattr(found, "dtype", None) or jnp.int32, jnp.floating)
    if getattr(found, "shape", None) != () or not is_real:
        raise RequestError(
            f"{what} must be a real scalar, of shape (); got {found}. Try a mean over the examples"
            ", and leave out what comes beside it"
        )


def _no_params(got: str) -> RequestError:
    return RequestError(
        f"init(key) must give params, a tree of floating-point arrays to train; got {got}. Try "
        "lab.task_of(model, loss, data), which takes a module of flax or equinox apart "
        "(nnx.split, eqx.partition)"
    )


def _cast(tree: Any, dtype: Any) -> Any:
    def cast(x):
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(cast, tree)
