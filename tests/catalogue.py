"""Every optimizer, primitive and combinator, one line each: all contract tests run over this list.

`hyperparameters` are numbers that may each be swept, scheduled and injected; `numbers` may be swept
and injected but not scheduled; `static` is never traced; `least` are the lower ends of ranges that
do not begin at 0. The `slow` ones wait for the run of all tests: they are much like another entry,
part of one, or stand on a shelf of their own.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import lion_jax
from lion_jax import compat, experimental, groups, precision, primitives
from lion_jax.primitives import signs

INNER = lion_jax.lion(1e-2, weight_decay=0.1)
MOMENTUM = {"b1": 0.75, "b2": 0.875}
ADAM = {**MOMENTUM, "eps": 1e-3}
ADAMW = {"learning_rate": 1e-2, **ADAM, "weight_decay": 0.1}
ADAN = {**ADAM, "b3": 0.9375}
SGD = {"momentum": 0.5, "weight_decay": 0.1}
PROJECTION = {"delta": 0.5, "wd_ratio": 0.25}
LION = {"learning_rate": 1e-2, **MOMENTUM, "weight_decay": 0.1}
SIGNUM = {"learning_rate": 1e-2, "b1": 0.75, "weight_decay": 0.1}
MARS = {"b1": 0.75, "gamma": 0.25, "max_norm": 0.5}
# name, factory, scheduled hyperparameters, static arguments, least values
SHAPES = [
    ("sign", signs.sign, {}, {}, {}),
    ("lp_sign", signs.lp_sign, {"p": 1.5}, {}, {"p": 1.0}),
    ("tanh", signs.tanh, {"scale": 8.0}, {}, {}),
    ("huber", signs.huber, {"threshold": 0.5}, {}, {}),
    ("l2_normalize", signs.l2_normalize, {}, {"axis": None}, {}),
    ("l2_normalize_rows", signs.l2_normalize, {}, {"axis": -1}, {}),
    ("top_k_sign", signs.top_k_sign, {}, {"k": 0.25}, {}),
    ("by_shape", signs.scale_by_shape, {}, {}, {}),
]
BETAS = (0.75, 0.875)
PEER = {"eps": 1e-3, "weight_decay": 0.1}
HEAVY_BALL = {"momentum": 0.5, "dampening": 0.25, "weight_decay": 0.1}
# name, scheduled hyperparameters, other numbers, static arguments
TORCH = [
    ("sgd", {"lr": 1e-2}, HEAVY_BALL, {"nesterov": False}),
    ("adam", {"lr": 1e-2}, PEER, {"betas": BETAS, "amsgrad": True}),
    ("adamw", {"lr": 1e-2}, PEER, {"betas": BETAS, "amsgrad": False}),
    ("rmsprop", {"lr": 1e-2}, PEER | {"alpha": 0.5, "momentum": 0.5}, {"centered": False}),
    ("adagrad", {"lr": 1e-2}, PEER | {"lr_decay": 0.1}, {"initial_accumulator_value": 0.5}),
    ("adadelta", {"lr": 1e-2}, PEER | {"rho": 0.5}),
]
HOLOCRON = [
    ("adabelief", {"lr": 1e-2}, PEER, {"betas": BETAS, "amsgrad": True}),
    ("adamp", {"lr": 1e-2}, PEER | {"delta": 0.5}, {"betas": BETAS, "amsgrad": False}),
    ("adan", {"lr": 1e-2}, PEER, {"betas": (*BETAS, 0.9375), "amsgrad": True}),
    ("ademamix", {"lr": 1e-2}, PEER | {"alpha": 2.0}, {"betas": (*BETAS, 0.9375)}),
    ("lamb", {"lr": 1e-2}, PEER, {"betas": BETAS, "scale_clip": (0.5, 2.0)}),
    ("lars", {"lr": 1e-2}, HEAVY_BALL, {"nesterov": False}),
    ("ralars", {"lr": 1e-2}, PEER, {"betas": BETAS, "force_adaptive_momentum": False}),
    ("tadam", {"lr": 1e-2}, PEER | {"dof": 3.0}, {"betas": BETAS, "amsgrad": True}),
]


def stacked(leaf):
    """Takes the first axis of matrices for layers."""
    return int(jnp.ndim(leaf) > 1)


def guarded_from_spikes(inner, window=128, factor=6.0, axis_name=None):
    """The guard under a loss of 1 for those who give none."""
    guard = lion_jax.with_spike_guard(inner, window, factor, axis_name=axis_name)

    def update(updates, state, params=None, *, value=1.0, **extra_args):
        return guard.update(updates, state, params, value=value, **extra_args)

    return optax.GradientTransformationExtraArgs(guard.init, update)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A factory and arguments to call it with."""

    name: str
    factory: Callable[..., optax.GradientTransformationExtraArgs]
    hyperparameters: dict[str, float]
    numbers: dict[str, float] = dataclasses.field(default_factory=dict)
    static: dict[str, Any] = dataclasses.field(default_factory=dict)
    least: dict[str, float] = dataclasses.field(default_factory=dict)
    slow: bool = False

    @property
    def scalars(self) -> dict[str, float]:
        """Everything that may be traced."""
        return self.hyperparameters | self.numbers

    def part(self, name: str, fraction: float) -> float:
        """A fraction of a scalar, but no less than its range allows."""
        return max(fraction * self.scalars[name], self.least.get(name, 0.0))

    def make(self, **overrides: Any) -> optax.GradientTransformationExtraArgs:
        """The transformation, with some arguments replaced."""
        return self.factory(**self.scalars | self.static | overrides)

    def inject(self, **overrides: Any) -> optax.GradientTransformationExtraArgs:
        """The transformation with every number and schedule injected."""
        factory = optax.inject_hyperparams(self.factory, static_args=tuple(self.static))
        return factory(**self.scalars | self.static | overrides)


CATALOGUE = [
    Entry("interpolate_momentum", primitives.interpolate_momentum, MOMENTUM, slow=True),
    Entry("scale_by_sign_momentum", primitives.scale_by_sign_momentum, MOMENTUM, slow=True),
    Entry(
        "scale_by_sign_momentum_bf16",
        primitives.scale_by_sign_momentum,
        MOMENTUM,
        static={"mu_dtype": "bfloat16"},
        slow=True,
    ),
    Entry("clip_by_global_norm", primitives.clip_by_global_norm, {"max_norm": 0.5}),
    Entry(
        "scale_by_group",
        groups.scale_by_group,
        {},
        {"default": 0.5},
        static={"by_pattern": {lambda path, leaf: leaf.ndim > 1: 2.0}},
    ),
    Entry("clip_by_leaf_norm", primitives.clip_by_leaf_norm, {"max_norm": 0.5}, slow=True),
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
        slow=True,
    ),
    *(
        Entry(
            f"add_decoupled_weight_decay_{form}",
            primitives.add_decoupled_weight_decay,
            {"weight_decay": 0.1},
            static={"cautious": form},
            slow=True,
        )
        for form in (">", "sign_bits")
    ),
    Entry(
        "apply_proximal_weight_decay",
        primitives.apply_proximal_weight_decay,
        {"learning_rate": 0.5, "weight_decay": 0.1},
        slow=True,
    ),
    Entry("scale_by_nesterov_adam", primitives.scale_by_nesterov_adam, ADAM, slow=True),
    Entry("scale_by_rectified_adam", primitives.scale_by_rectified_adam, ADAM, slow=True),
    Entry(
        "scale_by_student_t",
        primitives.scale_by_student_t,
        ADAM | {"dof": 3.0},
        static={"amsgrad": True},
        least={"b1": 0.5},
        slow=True,
    ),
    Entry("scale_by_adan", primitives.scale_by_adan, ADAN, slow=True),
    Entry("scale_by_ademamix", primitives.scale_by_ademamix, ADAN | {"alpha": 2.0}, slow=True),
    Entry(
        "scale_by_trust_ratio",
        primitives.scale_by_trust_ratio,
        {},
        static={"scale_clip": (0.5, 2)},
        slow=True,
    ),
    Entry(
        "scale_by_lars_ratio",
        primitives.scale_by_lars_ratio,
        {"trust_coefficient": 0.1, "weight_decay": 0.1},
        slow=True,
    ),
    Entry(
        "project_to_tangent",
        primitives.project_to_tangent,
        PROJECTION | {"eps": 1e-3, "weight_decay": 0.1},
        static={"inner": optax.trace(0.5), "channel_axis": -1},
        slow=True,
    ),
    Entry("lion", lion_jax.lion, LION),
    Entry(
        "lion_multipliers",
        lion_jax.lion,
        LION,
        static={"mask": groups.multipliers({lambda path, leaf: leaf.ndim > 1: 0.5}, 0.25)},
        slow=True,
    ),
    Entry(
        "decoupled_lion",
        lion_jax.decoupled_lion,
        LION,
        {"initial_learning_rate": 2e-2},
        slow=True,
    ),
    *(
        Entry(f"shape_{name}", factory, numbers, static=static, least=least, slow=True)
        for name, factory, numbers, static, least in SHAPES
    ),
    Entry(
        "orthogonalize",
        primitives.orthogonalize,
        {},
        {"eps": 1e-3},
        # A convergent iteration: Muon's makes noise of small singular values.
        {"steps": 1, "coefficients": (1.5, -0.5, 0.0), "scale": "rms"},
        slow=True,
    ),
    Entry("variance_reduced_gradient", primitives.variance_reduced_gradient, MARS, slow=True),
    Entry(
        "scale_by_parameter_rms", primitives.scale_by_parameter_rms, {"min_rms": 1e-3}, slow=True
    ),
    Entry("lion_k", lion_jax.lion_k, LION, static={"shape": signs.huber(0.5)}),
    Entry(
        "lion_k_function",
        lion_jax.lion_k,
        LION,
        static={"shape": lambda c: c / (1 + abs(c))},
        slow=True,
    ),
    Entry("signum", lion_jax.signum, SIGNUM, static={"nesterov": True}, slow=True),
    Entry("signum_scaled", lion_jax.signum, SIGNUM, static={"shape_scaled": True}, slow=True),
    Entry("tiger", lion_jax.tiger, SIGNUM | {"min_rms": 1e-3}, slow=True),
    Entry("cautious_lion", lion_jax.cautious_lion, LION, static={"rescale": "mean"}, slow=True),
    Entry("mars_lion", lion_jax.mars_lion, SIGNUM | MARS, slow=True),
    Entry("mars_adamw", lion_jax.mars_adamw, ADAMW | MARS, slow=True),
    Entry(
        "scale_by_lion_muon",
        primitives.scale_by_lion_muon,
        MOMENTUM,
        static={"period": 2, "steps": 1},
        slow=True,
    ),
    Entry(
        "scale_by_alternating_rate",
        primitives.scale_by_alternating_rate,
        {"learning_rate": 1e-2, "sign_learning_rate": 1e-3},
        static={"period": 2},
        slow=True,
    ),
    Entry(
        "lion_muon",
        lion_jax.lion_muon,
        LION | {"sign_learning_rate": 1e-3},
        static={"period": 2, "steps": 1},
        slow=True,
    ),
    Entry("olion", experimental.olion, LION, slow=True),
    Entry(
        "soft_signum",
        experimental.soft_signum,
        SIGNUM,
        {"eps": 1e-3, "max_temperature": 4.0},
        static={"sign_steps": 1, "transition_steps": 2},
        slow=True,
    ),
    Entry(
        "scale_free_soft_signum",
        experimental.scale_free_soft_signum,
        SIGNUM,
        {"eps": 1e-3},
        static={"sign_steps": 1, "transition_steps": 2},
        slow=True,
    ),
    Entry(
        "stochastic_signum",
        experimental.stochastic_signum,
        SIGNUM,
        static={"key": jax.random.key(0)},
        slow=True,
    ),
    Entry("adabelief", lion_jax.adabelief, ADAMW, slow=True),
    Entry("adan", lion_jax.adan, ADAMW | ADAN, slow=True),
    Entry("adan_decoupled", lion_jax.adan, ADAMW | ADAN, static={"proximal": False}, slow=True),
    Entry(
        "ademamix",
        lion_jax.ademamix,
        ADAMW | ADAN | {"alpha": 2.0},
        static={"warmup_steps": 3},
        slow=True,
    ),
    Entry("tadam", lion_jax.tadam, ADAMW, static={"dof": None}, least={"b1": 0.5}, slow=True),
    Entry(
        "lars",
        lion_jax.lars,
        SGD | {"learning_rate": 1e-2, "trust_coefficient": 0.1},
        static={"nesterov": True},
    ),
    Entry("lamb", lion_jax.lamb, ADAMW, slow=True),
    Entry("ralars", lion_jax.ralars, ADAMW, static={"force_adaptive_momentum": True}, slow=True),
    Entry(
        "adamp",
        lion_jax.adamp,
        ADAMW | PROJECTION,
        static={"nesterov": True, "channel_axis": 0},
        slow=True,
    ),
    Entry(
        "scout",
        lion_jax.scout,
        {"min_slow_step_size": 0.5},
        static={"inner": INNER, "sync_period": 2},
        slow=True,
    ),
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
        slow=True,
    ),
    *(
        Entry(
            f"cautious_{rescale}",
            lion_jax.cautious,
            {"factor": 0.25},
            static={"inner": INNER, "rescale": rescale},
            slow=rescale != "count",
        )
        for rescale in ("count", "sign_bits")  # the two ways to count; the others scale otherwise
    ),
    Entry("freeze", lambda inner: groups.freeze(inner), {}, static={"inner": INNER}, slow=True),
    Entry(
        "with_parameter_average",
        lion_jax.with_parameter_average,
        {"decay": 0.5},
        static={"inner": INNER, "overwrite_every": 2},
        slow=True,
    ),
    Entry(
        "with_accumulation",
        lion_jax.with_accumulation,
        {},
        static={"inner": INNER, "every": 2},
    ),
    Entry(
        "with_loss_scale",
        lion_jax.with_loss_scale,
        {},
        {"loss_scale": 4.0},
        static={"inner": INNER},
        slow=True,
    ),
    Entry(
        "with_loss_scale_dynamic",
        lion_jax.with_loss_scale,
        {},
        static={"inner": INNER, "loss_scale": lion_jax.DynamicLossScale(4.0, 2)},
        slow=True,
    ),
    Entry(
        "with_finite_guard",
        lion_jax.with_finite_guard,
        {},
        static={"inner": INNER, "max_consecutive": 2},
    ),
    Entry(
        "hyperball",
        lion_jax.hyperball,
        {"learning_rate": 1e-2},
        static={"inner": lion_jax.scale_by_sign_momentum(0.75, 0.875), "where": None},
        slow=True,
    ),
    Entry(
        "per_layer",
        lambda inner: lion_jax.per_layer(inner, lambda params: jax.tree.map(stacked, params)),
        {},
        static={"inner": lion_jax.lamb(1e-2, weight_decay=0.1)},
        slow=True,
    ),
    Entry(
        "with_spike_guard",
        guarded_from_spikes,
        {"factor": 6.0},
        static={"inner": INNER, "window": 128},
        slow=True,
    ),
    Entry(
        "with_metrics", lion_jax.with_metrics, {}, static={"inner": INNER, "every": 1}, slow=True
    ),
    Entry(
        "with_quantized_state",
        precision.with_quantized_state,
        {},
        static={"inner": INNER, "bits": 8, "group_size": 1, "min_size": 0},
        slow=True,
    ),
    *(
        Entry(f"torch_{name}", getattr(compat.torch, name), *rest, slow=True)
        for name, *rest in TORCH
    ),
    Entry("torch_clip_grad_norm", compat.torch.clip_grad_norm, {}, {"max_norm": 0.5}, slow=True),
    Entry(
        "torch_clip_grad_value", compat.torch.clip_grad_value, {}, {"clip_value": 0.5}, slow=True
    ),
    Entry(
        "keras_lion",
        compat.keras.lion,
        {"learning_rate": 1e-2},
        {"beta_1": 0.75, "beta_2": 0.875, "clipnorm": 0.5, "ema_momentum": 0.5},
        {"weight_decay": 0.1, "use_ema": True, "gradient_accumulation_steps": 2},
        slow=True,
    ),
    Entry(
        "keras_lion_scaled",
        compat.keras.lion,
        {"learning_rate": 1e-2},
        {
            "beta_1": 0.75,
            "beta_2": 0.875,
            "global_clipnorm": 0.5,
            "ema_momentum": 0.5,
            "loss_scale_factor": 4.0,
        },
        slow=True,
    ),
    Entry(
        "keras_loss_scale_optimizer",
        compat.keras.loss_scale_optimizer,
        {},
        static={"inner": INNER, "initial_scale": 4.0, "dynamic_growth_steps": 2},
        slow=True,
    ),
    *(
        Entry(f"holocron_{name}", getattr(compat.holocron, name), *rest, slow=True)
        for name, *rest in HOLOCRON
    ),
    Entry(
        "lion_pytorch",
        compat.lion_pytorch.lion,
        {"lr": 1e-2},
        {"weight_decay": 0.1},
        {"betas": BETAS},
        slow=True,
    ),
    Entry(
        "llm_foundry",
        compat.llm_foundry.decoupled_lionw,
        {"lr": 1e-2},
        {"weight_decay": 0.1, "initial_lr": 1e-2},
        {"betas": BETAS},
        slow=True,
    ),
    Entry(
        "wiki_lion",
        compat.wiki.lion,
        {"lr": 1e-2},
        {"weight_decay": 0.1},
        {"betas": BETAS},
        slow=True,
    ),
    Entry(
        "wiki_lion_formula",
        compat.wiki.lion_formula,
        {"lr": 1e-2},
        {"gamma": 0.1, "eps": 1e-3},
        {"betas": BETAS, "sqrt_mode": "abs"},
        slow=True,
    ),
]
COMBINATORS: dict[str, Callable[[Any], optax.GradientTransformationExtraArgs]] = {
    "lookahead": functools.partial(lion_jax.lookahead, sync_period=2),
    "scout": functools.partial(lion_jax.scout, sync_period=2),
    "cautious": lion_jax.cautious,
    "with_parameter_average": functools.partial(
        lion_jax.with_parameter_average, decay=0.5, overwrite_every=2
    ),
    "with_accumulation": functools.partial(lion_jax.with_accumulation, every=2),
    "with_loss_scale": functools.partial(lion_jax.with_loss_scale, loss_scale=4.0),
    "with_loss_scale_dynamic": functools.partial(
        lion_jax.with_loss_scale, loss_scale=lion_jax.DynamicLossScale(4.0, 2)
    ),
    "with_finite_guard": lion_jax.with_finite_guard,
    "with_metrics": functools.partial(lion_jax.with_metrics, sign_flips=True),
    "with_quantized_state": functools.partial(precision.with_quantized_state, min_size=0),
    "freeze": groups.freeze,
}
