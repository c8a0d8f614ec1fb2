"""Converts hyperparameters from AdamW to Lion, and from one batch size to another."""

from typing import Any, NamedTuple

import optax

from lion_jax._core.kinds import DECAY_RATE, NON_NEGATIVE, POSITIVE
from lion_jax._core.rule import takes
from lion_jax._core.types import Scalar

__all__ = ["LionHyperparameters", "beta_for_batch", "from_adamw"]
__dir__ = __all__.copy  # TAB offers no more

_LEAST, _MOST = 3.0, 10.0  # the published range of the factor
_ADVICE = (
    "Search the learning rate; let its product with the weight decay stay as it was. "
    "(Chen et al. 2023, Section 5)",
    "The authors' examples divide by 10; lion-pytorch's author saw 3 do better than 10. "
    "(READMEs of google/automl and lion-pytorch)",
    "Initial, peak and final learning rate change by one factor; warm-up, shape and clipping stay. "
    "(README of google/automl)",
    "b1=0.95, b2=0.98 where AdamW ran with b2=0.99 for stability, as in language modelling. "
    "(README of google/automl)",
    "Batches of 64 at least, and large ones better: ViT-B/16 did best at 4096, with AdamW at 256. "
    "(READMEs of lion-pytorch and google/automl)",
    "eps has no counterpart. mu_dtype=jnp.bfloat16 halves the bytes of the one moment.",
)


class LionHyperparameters(NamedTuple):
    """Lion's hyperparameters as :func:`from_adamw` makes them; ``print`` shows them in a few lines.

    Attributes:
      learning_rate: AdamW's divided by the factor; a schedule stays a schedule.
      weight_decay: AdamW's times the factor; a schedule stays a schedule.
      b1: weight of the momentum in the update.
      b2: decay rate of the momentum.
      learning_rate_range: the lowest and the highest to search, each like ``learning_rate``.
      weight_decay_range: the same of ``weight_decay``; the decay that belongs to the highest
        learning rate is first.
      factor: the number by which the learning rate was divided.
      advice: remarks on other settings to change or to keep, each with its source.
    """

    learning_rate: optax.ScalarOrSchedule
    weight_decay: optax.ScalarOrSchedule
    b1: float
    b2: float
    learning_rate_range: tuple[optax.ScalarOrSchedule, optax.ScalarOrSchedule]
    weight_decay_range: tuple[optax.ScalarOrSchedule, optax.ScalarOrSchedule]
    factor: float
    advice: tuple[str, ...]

    @property
    def arguments(self) -> dict[str, optax.ScalarOrSchedule]:
        """The first four, by the names that :func:`lion_jax.lion` knows them by."""
        return {name: getattr(self, name) for name in ("learning_rate", "weight_decay", "b1", "b2")}

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Prints it for IPython."""
        del cycle
        printer.text(str(self))

    def __str__(self) -> str:
        """One line for each number, with the range to search, and one for each advice."""
        lr = _line(
            self.learning_rate, self.learning_rate_range, f"/ {self.factor:.3g}", "/ 10 to / 3"
        )
        wd = _line(
            self.weight_decay, self.weight_decay_range, f"* {self.factor:.3g}", "* 3 to * 10"
        )
        return "\n".join(
            [
                f"learning_rate: {lr}",
                f"weight_decay: {wd}",
                f"b1: {self.b1}, b2: {self.b2}",
                *(f"- {advice}" for advice in self.advice),
            ]
        )


@takes(
    learning_rate=NON_NEGATIVE.trying("1e-3"),
    weight_decay=NON_NEGATIVE.trying("0.01"),
    b2=DECAY_RATE.constant(),
    factor=POSITIVE.constant().trying("5.0", "in the published range of 3 to 10"),
)
def from_adamw(
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: optax.ScalarOrSchedule,
    b2: float = 0.999,
    *,
    factor: float = 5.0,
) -> LionHyperparameters:
    r"""Converts AdamW's hyperparameters to a start for Lion.

    .. math::

      \eta_\text{Lion} = \eta / f, \qquad \lambda_\text{Lion} = f \lambda

    Every entry of Lion's update is 1 in magnitude, mostly larger than AdamW's, so the learning rate
    must be smaller. The product :math:`\eta \lambda`, by which a step shrinks the weights, stays
    the same. The published range of :math:`f` is 3 to 10; no value of it is further from 5 than by
    a factor of 2, so one doubling and one halving search it.

    AdamW's ``b1`` does not matter: the authors used 0.9 with both choices for Lion.

    Args:
      learning_rate: AdamW's :math:`\eta` >= 0. A schedule is divided as a whole.
      weight_decay: AdamW's decoupled :math:`\lambda` >= 0. Mind the default of the code that you
        come from: 0.01 in PyTorch, 1e-4 in optax.
      b2: AdamW's decay rate of the second moment, in [0, 1). At 0.99 and below, which people choose
        for stability, Lion gets b1=0.95, b2=0.98; otherwise its defaults, 0.9 and 0.99.
      factor: :math:`f` > 0.

    Returns:
      :class:`LionHyperparameters`, whose ``arguments`` go into :func:`lion_jax.lion`.

    Raises:
      ValueError: a number out of range.
      TypeError: a number of the wrong type.

    Example:
      >>> import lion_jax, optax
      >>> print(lion_jax.from_adamw(1e-3, 0.01))
      learning_rate: 0.0002 (search 0.0001 to 0.000333)
      weight_decay: 0.05 (search 0.03 to 0.1)
      b1: 0.9, b2: 0.99
      - Search the learning rate; let its product with the weight decay stay as it was. ...
      >>> schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-3, 100, 1000)
      >>> converted = lion_jax.from_adamw(schedule, weight_decay=0.1)
      >>> tx = lion_jax.lion(**converted.arguments)
      >>> print(f"{converted.learning_rate(100):.4f}")
      0.0002

    References:
      Chen et al., `Symbolic Discovery of Optimization Algorithms
      <https://arxiv.org/abs/2302.06675>`_, 2023, Section 5; the READMEs of `google/automl
      <https://github.com/google/automl/tree/master/lion>`_ and `lion-pytorch
      <https://github.com/lucidrains/lion-pytorch>`_.
    """
    b1, b2 = (0.95, 0.98) if b2 <= 0.99 else (0.9, 0.99)
    return LionHyperparameters(
        learning_rate=_times(learning_rate, 1 / factor),
        weight_decay=_times(weight_decay, factor),
        b1=b1,
        b2=b2,
        learning_rate_range=(
            _times(learning_rate, 1 / _MOST),
            _times(learning_rate, 1 / _LEAST),
        ),
        weight_decay_range=(_times(weight_decay, _LEAST), _times(weight_decay, _MOST)),
        factor=factor,
        advice=_ADVICE,
    )


def _times(value: optax.ScalarOrSchedule, factor: float) -> optax.ScalarOrSchedule:
    if callable(value):
        return lambda count: value(count) * factor
    return value * factor


def _line(value: Any, bounds: tuple[Any, Any], change: str, changes: str) -> str:
    if callable(value):
        return f"the schedule {change} (search {changes})"
    low, high = bounds
    return f"{value:.3g} (search {low:.3g} to {high:.3g})"


@takes(b=DECAY_RATE.constant(), from_batch=POSITIVE.constant(), to_batch=POSITIVE.constant())
def beta_for_batch(b: Scalar, from_batch: Scalar, to_batch: Scalar) -> Scalar:
    r"""A decay rate for another batch size, with the same half-life in examples.

    .. math::

      \beta' = \beta^{B' / B}

    A momentum forgets half of a gradient after :math:`\ln 2 / \ln(1 / \beta)` steps, so with larger
    batches the same rate remembers more examples. Use it for ``b1`` and for ``b2``.

    Args:
      b: :math:`\beta` in [0, 1), which did well at the old batch size.
      from_batch: :math:`B` > 0, that batch size, in examples or tokens.
      to_batch: :math:`B'` > 0, the new one, in the same unit.

    Returns:
      :math:`\beta'`, a number like ``b``.

    Raises:
      ValueError, TypeError: an argument out of range or no number.

    Example:
      >>> import lion_jax
      >>> print(f"{lion_jax.beta_for_batch(0.99, 256, 1024):.4f}")
      0.9606

    References:
      Marek et al., `Small Batch Size Training for Language Models
      <https://arxiv.org/abs/2507.07101>`_, 2025.
    """
    return b ** (to_batch / from_batch)
