"""The lines of the table of costs: every optimizer and combinator, and what people combine.

Each is an expression over :func:`names`. `cost_table.py` counts them; `test_lines.py` holds those
that matter, and sees to it that nothing of the catalogue is forgotten.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from catalogue import guarded_from_spikes, stacked

import lion_jax
from lion_jax import compat, experimental, groups, precision, primitives
from lion_jax.lab.cost.figures import PodCost
from lion_jax.lab.cost.models import abstract_params
from lion_jax.lab.cost.run import pod_cost
from lion_jax.primitives import signs

DEVICES = {"v5e": "v5e:1x1", "h100": "h100"}
RATE, DECAY = 1e-3, 0.1


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
      step: the expression of the transformation.
      optax: that of optax's own, where it has one.
      weights: dtype of parameters and gradients.
      period: steps of which one takes the dearest branch, and all others the cheapest; 0 is
        unknown.
    """

    step: str
    optax: str = ""
    weights: str = "float32"
    period: int = 0

    @property
    def title(self) -> str:
        """The name in the table."""
        return f"`{self.step}`" + ("" if self.weights == "float32" else f", {self.weights} weights")


def _lion(more: str = "") -> str:
    return f"optax.lion({RATE}, weight_decay={DECAY}{more})"


_ADAMW = f"optax.adamw({RATE}, weight_decay={DECAY})"
_NARROW = ", mu_dtype='bfloat16'"
RULES = [
    Line("lion", _lion()),
    Line("lion_bf16", _lion(_NARROW)),
    Line("lion", _lion(", mu_dtype='float32'"), "bfloat16"),
    Line("lion_bf16", _lion(), "bfloat16"),
    Line("decoupled_lion"),
    Line("lion_k(huber)"),
    Line("lion_k(lp_sign)"),
    Line("lion_k(l2_normalize)"),
    Line("signum"),
    Line("tiger"),
    Line("cautious_lion"),
    Line("mars_lion"),
    Line("mars_adamw"),
    Line("lion_muon", period=2),
    Line("olion"),
    Line("soft_signum"),
    Line("scale_free_soft_signum"),
    Line("stochastic_signum"),
    Line("adabelief", f"optax.adabelief({RATE})"),
    Line("adan", f"optax.adan({RATE}, weight_decay={DECAY})"),
    Line("ademamix", f"optax.contrib.ademamix({RATE}, weight_decay={DECAY})"),
    Line("tadam"),
    Line("lars", f"optax.lars({RATE}, weight_decay={DECAY})"),
    Line("lamb", f"optax.lamb({RATE}, weight_decay={DECAY})"),
    Line("ralars"),
    Line("adamp"),
    Line("torch.sgd", f"optax.chain(optax.add_decayed_weights({DECAY}), optax.sgd({RATE}, 0.9))"),
    Line("torch.adam", f"optax.chain(optax.add_decayed_weights({DECAY}), optax.amsgrad({RATE}))"),
    Line("torch.adamw", _ADAMW),
    Line(
        "torch.rmsprop",
        f"optax.chain(optax.add_decayed_weights({DECAY}), optax.rmsprop({RATE}, momentum=0.9))",
    ),
    Line(
        "torch.adagrad",
        f"optax.chain(optax.add_decayed_weights({DECAY}), optax.adagrad({RATE}))",
    ),
    Line(
        "torch.adadelta",
        f"optax.chain(optax.add_decayed_weights({DECAY}), optax.adadelta({RATE}))",
    ),
    Line("adamw"),
]
COMBINATORS = [
    Line("chain(clip, lion)", f"optax.chain(optax.clip_by_global_norm(1.0), {_lion()})"),
    Line("chain(clip, adamw)", f"optax.chain(optax.clip_by_global_norm(1.0), {_ADAMW})"),
    Line("chain(clip_by_leaf_norm(1.0), lion)"),
    Line("lookahead(lion, 5)", period=5),
    Line("lookahead(lion, 5, reset_inner=True)", period=5),
    Line("lookahead(adamw, 5)", period=5),
    Line("scout(lion, 6)", period=6),
    Line("cautious(lion)"),
    Line("freeze(lion, 'wte')"),
    Line("with_parameter_average(lion)"),
    Line("with_parameter_average(lion, overwrite_every=100)", period=100),
    Line(
        "with_accumulation(lion, 4)",
        f"optax.MultiSteps({_lion()}, 4).gradient_transformation()",
        period=4,
    ),
    Line("with_loss_scale(lion, 1024.0)"),
    Line("with_loss_scale(lion, DynamicLossScale())"),
    Line("with_finite_guard(lion)", f"optax.apply_if_finite({_lion()}, 5)"),
    Line("with_finite_guard(adamw)", f"optax.apply_if_finite({_ADAMW}, 5)"),
    Line("with_spike_guard(lion)"),
    Line("hyperball(signs_of_momentum)"),
    Line("per_layer(lamb)"),
    Line("with_metrics(lion)"),
    Line("with_metrics(adamw)"),
    Line("with_metrics(chain(clip, lion))"),
    Line("with_metrics(lion, sign_flips=True)"),
    Line("with_metrics(lion, every=100)", period=100),
    Line("with_finite_guard(lookahead(lion, 5))", period=5),
    Line("with_accumulation(lookahead(lion, 5), 4)", period=20),
    Line("with_metrics(with_finite_guard(chain(clip, lion)))"),
]
FEWER_BYTES = [
    Line("with_quantized_state(lion)"),
    Line("with_quantized_state(adamw)"),
    Line("with_quantized_state(lion)", weights="bfloat16"),
    Line("with_quantized_state(adamw)", weights="bfloat16"),
    Line("with_master_weights(lion)", weights="bfloat16"),
    Line("with_master_weights(adamw)", weights="bfloat16"),
    Line("with_master_weights(with_quantized_state(lion))", weights="bfloat16"),
    Line("with_master_weights(with_quantized_state(adamw))", weights="bfloat16"),
    Line("chain(lion, round_stochastically)", weights="bfloat16"),
    Line("chain(adamw, round_stochastically)", weights="bfloat16"),
]
LINES = [*RULES, *COMBINATORS, *FEWER_BYTES]


@functools.cache
def names() -> dict[str, Any]:
    """The words of the expressions; rules have a learning rate and a weight decay."""
    rate, decay = RATE, DECAY
    torch = {
        "sgd": compat.torch.sgd(rate, 0.9, weight_decay=decay),
        "adam": compat.torch.adam(rate, weight_decay=decay, amsgrad=True),
        "adamw": compat.torch.adamw(rate, weight_decay=decay),
        "rmsprop": compat.torch.rmsprop(rate, momentum=0.9, weight_decay=decay),
        "adagrad": compat.torch.adagrad(rate, weight_decay=decay),
        "adadelta": compat.torch.adadelta(rate, weight_decay=decay),
    }
    lion = functools.partial(lion_jax.lion, rate, weight_decay=decay)
    usual = (
        *("signum", "tiger", "cautious_lion", "mars_lion", "mars_adamw", "lion_muon", "adabelief"),
        *("adan", "ademamix", "tadam", "lars", "lamb", "ralars", "adamp"),
    )
    wraps = (
        *("lookahead", "scout", "cautious", "with_parameter_average", "with_accumulation"),
        *("with_loss_scale", "DynamicLossScale", "with_finite_guard", "with_metrics"),
    )
    scheduled = {"sign_steps": 9000, "transition_steps": 1000}
    return {
        **{name: getattr(lion_jax, name)(rate, weight_decay=decay) for name in usual},
        **{name: getattr(lion_jax, name) for name in wraps},
        "lion": lion(),
        "lion_bf16": lion(mu_dtype="bfloat16"),
        "decoupled_lion": lion_jax.decoupled_lion(
            rate, weight_decay=decay, initial_learning_rate=rate
        ),
        "lion_k": lambda shape: lion_jax.lion_k(rate, shape=shape, weight_decay=decay),
        "huber": signs.huber(1e-3),
        "lp_sign": signs.lp_sign(1.5),
        "l2_normalize": signs.l2_normalize(axis=None),
        "olion": experimental.olion(rate, weight_decay=decay),
        "soft_signum": experimental.soft_signum(rate, weight_decay=decay, **scheduled),
        "scale_free_soft_signum": experimental.scale_free_soft_signum(
            rate, weight_decay=decay, **scheduled
        ),
        "stochastic_signum": experimental.stochastic_signum(
            rate, jax.random.key(0), weight_decay=decay
        ),
        "adamw": optax.adamw(rate, weight_decay=decay),
        "torch": type("torch", (), torch),
        "optax": optax,
        "chain": optax.chain,
        "clip": primitives.clip_by_global_norm(1.0),
        "clip_by_leaf_norm": primitives.clip_by_leaf_norm,
        "freeze": groups.freeze,
        "with_spike_guard": guarded_from_spikes,
        "hyperball": lambda inner: lion_jax.hyperball(inner, rate),
        "signs_of_momentum": lion_jax.scale_by_sign_momentum(),
        "per_layer": lambda inner: lion_jax.per_layer(
            inner, lambda params: jax.tree.map(stacked, params)
        ),
        "with_quantized_state": precision.with_quantized_state,
        "with_master_weights": precision.with_master_weights,
        "round_stochastically": precision.round_stochastically(jax.random.key(0)),
    }


def counted(step: str, weights: str, device: str, model: Any = "gpt2") -> PodCost:
    """The cost of a step on one chip, as the compiler makes it."""
    tx = eval(step, names())
    params = abstract_params(model, jnp.dtype(weights))
    return pod_cost(tx, params, DEVICES[device], "single", on_progress=lambda _: None)
