"""Update rules to compare, each with the learning rates worth trying."""

import dataclasses
from collections.abc import Callable

import jax
import optax

from lion_jax.combinators.lookahead import lookahead
from lion_jax.optimizers.lion import decoupled_lion, lion


@dataclasses.dataclass(frozen=True)
class Rule:
    """An update rule with everything fixed but its learning rate.

    Attributes:
      name: what the command line calls it.
      description: one line on what is fixed.
      make: `(schedule, peak) -> transformation`: the schedule of the learning rate, and its peak as
        a traced scalar for rules that need to know it.
      learning_rates: the smallest and largest peak to try.
    """

    name: str
    description: str
    make: Callable[[optax.Schedule, jax.Array], optax.GradientTransformation]
    learning_rates: tuple[float, float]


LION = (1e-4, 1e-1)  # every range spans three decades

_RULES = [
    Rule(
        "lion",
        "lion_jax.lion, b1=0.9, b2=0.99, weight_decay=0.1",
        lambda schedule, peak: lion(schedule, weight_decay=0.1),
        LION,
    ),
    Rule(
        "decoupled_lion",
        "lion_jax.decoupled_lion, b1=0.9, b2=0.99, weight_decay=1e-4",
        lambda schedule, peak: decoupled_lion(
            schedule, weight_decay=1e-4, initial_learning_rate=peak
        ),
        LION,
    ),
    Rule(
        "lookahead_lion",
        "lion_jax.lookahead around lion, sync_period=6, slow_step_size=0.5",
        lambda schedule, peak: lookahead(lion(schedule, weight_decay=0.1)),
        LION,
    ),
    Rule(
        "adamw",
        "optax.adamw, b1=0.9, b2=0.999, weight_decay=0.01",
        lambda schedule, peak: optax.adamw(schedule, weight_decay=0.01),
        (1e-3, 1e0),
    ),
    Rule(
        "sgd",
        "optax.sgd, momentum=0.9, Nesterov",
        lambda schedule, peak: optax.sgd(schedule, momentum=0.9, nesterov=True),
        (3e-3, 3e0),
    ),
]
RULES: dict[str, Rule] = {rule.name: rule for rule in _RULES}
