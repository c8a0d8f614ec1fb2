"""Every optimizer, primitive and combinator, one line each: all contract tests run over this list.

`hyperparameters` are numbers that may each be swept, scheduled and injected; `numbers` may be swept
and injected but not scheduled; `static` is never traced.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import optax

import lion_jax
from lion_jax import primitives

INNER = lion_jax.lion(1e-2, weight_decay=0.1)
MOMENTUM = {"b1": 0.75, "b2": 0.875}
LION = {"learning_rate": 1e-2, **MOMENTUM, "weight_decay": 0.1}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A factory and arguments to call it with."""

    name: str
    factory: Callable[..., optax.GradientTransformationExtraArgs]
    hyperparameters: dict[str, float]
    numbers: dict[str, float] = dataclasses.field(default_factory=dict)
    static: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def scalars(self) -> dict[str, float]:
        """Everything that may be traced."""
        return self.hyperparameters | self.numbers

    def make(self, **overrides: Any) -> optax.GradientTransformationExtraArgs:
        """The transformation, with some arguments replaced."""
        return self.factory(**self.scalars | self.static | overrides)

    def inject(self, **overrides: Any) -> optax.GradientTransformationExtraArgs:
        """The transformation with every number and schedule injected."""
        factory = optax.inject_hyperparams(self.factory, static_args=tuple(self.static))
        return factory(**self.scalars | self.static | overrides)


CATALOGUE = [
    Entry("interpolate_momentum", primitives.interpolate_momentum, MOMENTUM),
    Entry("scale_by_sign_momentum", primitives.scale_by_sign_momentum, MOMENTUM),
    Entry(
        "scale_by_sign_momentum_bf16",
        primitives.scale_by_sign_momentum,
        MOMENTUM,
        static={"mu_dtype": "bfloat16"},
    ),
    Entry("clip_by_global_norm", primitives.clip_by_global_norm, {"max_norm": 0.5}),
    Entry(
        "add_decoupled_weight_decay",
        primitives.add_decoupled_weight_decay,
        {"weight_decay": 0.1, "multiplier": 2.0},
    ),
    Entry(
        "add_decoupled_weight_decay_cautious",
        primitives.add_decoupled_weight_decay,
        {"weight_decay": 0.1},
        static={"cautious": True},
    ),
    Entry("lion", lion_jax.lion, LION),
    Entry("decoupled_lion", lion_jax.decoupled_lion, LION, {"initial_learning_rate": 2e-2}),
    Entry(
        "lookahead",
        lion_jax.lookahead,
        {"slow_step_size": 0.5},
        static={"inner": INNER, "sync_period": 2},
    ),
    Entry(
        "lookahead_reset",
        lion_jax.lookahead,
        {"slow_step_size": 0.5},
        static={"inner": INNER, "sync_period": 2, "reset_inner": True},
    ),
]
COMBINATORS: dict[str, Callable[[Any], optax.GradientTransformationExtraArgs]] = {
    "lookahead": functools.partial(lion_jax.lookahead, sync_period=2),
}
