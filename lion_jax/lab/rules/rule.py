"""An update rule: how to make it from a learning rate, and which rates are worth trying."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats.qmc

from lion_jax._core.leaves import is_transformation
from lion_jax.lab.errors import RequestError
from lion_jax.lab.fingerprints import fingerprint

REPLICAS = "replicas"
"""The axis along which the replicas of a rule exchange what they need."""
_TRY = 'Try lab.Rule("adam", optax.adam, learning_rates=(1e-4, 1e-1)).'


class PeakSchedule:
    """A schedule of the learning rate that also knows its peak.

    Attributes:
      peak: the peak, as a traced scalar, for rules that need to know it.
      was_read: whether anybody has asked for a learning rate or for the peak.
    """

    def __init__(self, peak: Any, schedule: optax.Schedule):
        """A schedule, of which nothing was read yet."""
        self._peak, self._schedule, self.was_read = peak, schedule, False

    @property
    def peak(self) -> Any:
        """The peak."""
        self.was_read = True
        return self._peak

    def __call__(self, count: Any) -> Any:
        """The learning rate of a step."""
        self.was_read = True
        return self._schedule(count)


@dataclasses.dataclass(frozen=True)
class Rule:
    """An update rule, with its learning rate and what else is tuned left open.

    Attributes:
      name: what tables and pictures call it.
      make: `(learning_rate, **fixed, **tuned) -> transformation`, such as ``optax.adam``; the
        learning rate is a schedule that also has a `peak`. A factory that takes numbers only goes
        into ``optax.inject_hyperparams``.
      learning_rates: the smallest and largest peak to try, both finite and > 0.
      tuned: the smallest and largest value of each further argument to tune; on a logarithmic scale
        where the smallest is > 0. Every rule gets equally many trials, whatever it tunes.
      fixed: further arguments, which stay as they are.
      tunable: the smallest and largest value of each argument that only ``lab.sweep`` tunes. If
        there is none beside those in `tuned`, give ``{}``: a sweep refuses None.
      description: one line on what is fixed; by default the call.
      moves_by_rate: whether each entry moves by about the learning rate, as with Lion and Adam,
        rather than by a multiple of its gradient or its leaf's norm.
      params_dtype: what the parameters, and so their gradients, are stored in; the model computes
        in float32 all the same. None leaves them as the task makes them: float32.
      replicas: among how many the batch is shared, each with a gradient and a state of its own;
        the rule exchanges what it needs along the axis ``"replicas"``. With 1 there is no axis.

    Raises:
      RequestError: a range with a wrong end, a `make` that cannot be called; a ``ValueError``.

    Example:
      >>> import optax
      >>> from lion_jax import lab
      >>> lab.Rule("radam", optax.radam, (1e-4, 1e-1), fixed={"b1": 0.95}).description
      'optax.radam(learning_rate, b1=0.95)'
    """

    name: str
    make: Callable[..., optax.GradientTransformation]
    learning_rates: tuple[float, float]
    tuned: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    description: str = ""
    moves_by_rate: bool = False
    params_dtype: Any = None
    replicas: int = 1
    tunable: Mapping[str, tuple[float, float]] | None = None

    def __post_init__(self):
        """Checks the ranges."""
        if not callable(self.make):
            raise RequestError(
                f"make must be a function of a learning rate; got {self.make!r}. {_TRY}"
            )
        if not _is_range(self.learning_rates) or self.learning_rates[0] <= 0:
            raise RequestError(
                f"learning_rates must be a smallest and a largest rate, finite and > 0; "
                f"got {self.learning_rates}. Try learning_rates=(1e-4, 1e-1)."
            )
        for kind, ranges in (("tuned", self.tuned), ("tunable", self.tunable or {})):
            for name, values in ranges.items():
                if not _is_range(values):
                    raise RequestError(
                        f"{kind}[{name!r}] must be a smallest and a largest value, finite; got "
                        f'{values!r}. Try {kind}={{"{name}": (1e-3, 1.0)}}.'
                    )
        if not self.description:
            object.__setattr__(self, "description", self._call())

    def transformation(self, peak: Any, shape: optax.Schedule, **tuned: Any) -> Any:
        """The transformation of one trial, which takes any extra argument."""
        return self.on(PeakSchedule(peak, lambda count: peak * shape(count)), **tuned)

    def on(self, schedule: Any, **tuned: Any) -> optax.GradientTransformationExtraArgs:
        """The transformation on a schedule of the learning rate.

        Raises:
          RequestError: `make` gives no transformation.
        """
        tx = self.make(schedule, **self.fixed, **tuned)
        if not is_transformation(tx):
            raise RequestError(
                f"the rule {self.name!r} must make a transformation, a pair of init and update; "
                f"got {type(tx).__name__}. {_TRY}"
            )
        return optax.with_extra_args_support(tx)

    def check(self, params: Any) -> None:
        """Refuses a rule that cannot step some abstract parameters, or ignores its learning rate.

        Raises:
          RequestError: says which.
        """
        try:
            for end in (0, 1):  # as numbers, of which a factory checks the range
                self.on(PeakSchedule(1e-3, lambda count: 1e-3), **self._ends(end))
            step, arguments, schedules = self._step(params)
            jax.eval_shape(step, *arguments)
        except RequestError:
            raise
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            if PeakSchedule.__name__ in reason:
                reason += ": a factory that takes numbers only goes into optax.inject_hyperparams"
            raise RequestError(f"the rule {self.name!r} cannot be made: {reason}") from error
        if not schedules[-1].was_read:
            raise RequestError(
                f"the rule {self.name!r} must use the learning rate that it gets; its factory "
                "never reads it. Try make=lambda learning_rate: optax.adam(learning_rate)"
            )

    def program(self, params: Any) -> str:
        """A fingerprint of a step on some abstract parameters."""
        step, arguments, _ = self._step(params)
        return fingerprint(step, *arguments)

    def _step(self, params: Any) -> tuple[Callable[..., Any], Any, list[PeakSchedule]]:
        """A first step, its arguments, and the schedules that it was made with."""
        schedules = []

        def step(peak, tuned, params, gradients):
            schedules.append(PeakSchedule(peak, lambda count: peak))
            tx = self.on(schedules[-1], **tuned)
            extra = {"value": peak, "grad": gradients, "value_fn": lambda params: peak}
            return tx.update(gradients, tx.init(params), params, **extra)

        rest = jnp.float32(1e-3), jax.tree.map(jnp.float32, self._ends(1)), params
        if self.replicas == 1:
            return step, (*rest, params), schedules
        on_all = jax.vmap(step, (None, None, None, 0), axis_name=REPLICAS)
        of_each = jax.tree.map(
            lambda p: jax.ShapeDtypeStruct((self.replicas, *p.shape), p.dtype), params
        )
        return on_all, (*rest, of_each), schedules

    def _ends(self, end: int) -> dict[str, float]:
        """The smallest or the largest value of what is tuned."""
        return {name: float(values[end]) for name, values in self.tuned.items()}

    @property
    def middle(self) -> dict[str, float]:
        """The middle of each range, by argument: a geometric mean where the smallest is > 0."""
        ranges = {"learning_rate": self.learning_rates, **self.tuned}
        return {
            name: math.sqrt(low * high) if low > 0 else (low + high) / 2
            for name, (low, high) in ranges.items()
        }

    def trials(self, count: int) -> dict[str, np.ndarray]:
        """Values to try: the learning rate alone evenly, several arguments quasi-randomly.

        Returns:
          Arrays of shape (trials,) by argument, the learning rate first.
        """
        if count == 1:
            return {name: np.array([value]) for name, value in self.middle.items()}
        if not self.tuned:
            return {"learning_rate": np.geomspace(*self.learning_rates, count)}
        points = scipy.stats.qmc.Halton(1 + len(self.tuned), scramble=False)
        return self._at(points.random(count + 1)[1:])

    def studies(self, studies: int, trials: int, first: int = 0) -> dict[str, np.ndarray]:
        """Values for several studies, quasi-random in the logarithm.

        Together they are one Halton sequence, of which each study has a piece; it is shifted by
        an amount of its own for each `first` (Cranley and Patterson 1976), the same for all rules.

        Returns:
          Arrays of shape (trials, studies) by argument, the learning rate first.
        """
        points = scipy.stats.qmc.Halton(1 + len(self.tuned), scramble=False)
        shift = np.random.default_rng(first).random(points.d)
        points = (points.random(studies * trials) + shift) % 1
        return self._at(points.reshape(studies, trials, -1).swapaxes(0, 1))

    def _at(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """The values, by argument, at points of the unit cube: of shape (..., arguments)."""
        ranges = {"learning_rate": self.learning_rates, **self.tuned}
        return {
            name: low * (high / low) ** x if low > 0 else low + (high - low) * x
            for (name, (low, high)), x in zip(
                ranges.items(), np.moveaxis(points, -1, 0), strict=True
            )
        }

    def wholly_tuned(self) -> "Rule":
        """The rule with everything tuned that it declares.

        Raises:
          RequestError: it declares nothing but its learning rate.
        """
        if self.tunable is None and not self.tuned:
            raise RequestError(
                f"the rule {self.name!r} must say what to tune beside its learning rate: give it a "
                f"range, such as '{self.name}(weight_decay=(0.001,1.0))', or "
                "lab.Rule(..., tunable={}) where there is nothing"
            )
        ranges = {**(self.tunable or {}), **self.tuned}
        fixed = {name: value for name, value in self.fixed.items() if name not in ranges}
        said = ", ".join(f"{n} from {low:g} to {high:g}" for n, (low, high) in ranges.items())
        return dataclasses.replace(
            self,
            tuned=ranges,
            fixed=fixed,
            description=f"{self.description}, but {said}" if said else self.description,
        )

    def widened(self, edges: Mapping[str, int]) -> "Rule":
        """The rule with some ranges ten times as wide: by argument, 1 widens the upper end."""
        ranges = {"learning_rate": self.learning_rates, **self.tuned}
        for name, end in edges.items():
            low, high = ranges[name]
            ranges[name] = (low, high * 10) if end > 0 else (low / 10, high)
        return dataclasses.replace(self, learning_rates=ranges.pop("learning_rate"), tuned=ranges)

    def described(self) -> dict[str, Any]:
        """The rule in plain data: everything that decides its figures."""
        return {
            "name": self.name,
            "description": self.description,
            "learning_rates": list(self.learning_rates),
            "tuned": {name: list(values) for name, values in self.tuned.items()},
            "fixed": {
                n: v if isinstance(v, int | float) else repr(v) for n, v in self.fixed.items()
            },
            "moves_by_rate": self.moves_by_rate,
            "params_dtype": None
            if self.params_dtype is None
            else jnp.dtype(self.params_dtype).name,
            "replicas": self.replicas,
        }

    def _call(self) -> str:
        module = getattr(self.make, "__module__", None) or ""
        public = {"optax", "contrib", "lion_jax", "experimental"}
        package = "".join(f"{part}." for part in module.split(".") if part in public)
        arguments = ["learning_rate", *(f"{n}={v}" for n, v in self.fixed.items())]
        arguments += [f"{n}={low:g} to {high:g}" for n, (low, high) in self.tuned.items()]
        return f"{package}{getattr(self.make, '__name__', 'make')}({', '.join(arguments)})"


def _is_range(values: Any) -> bool:
    try:
        low, high = values
        return -math.inf < low <= high < math.inf
    except (TypeError, ValueError):
        return False
