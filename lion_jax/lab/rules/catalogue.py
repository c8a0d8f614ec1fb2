"""The rules that come with the lab, each with the learning rates worth trying."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lion_jax.combinators.hyperball import hyperball
from lion_jax.combinators.lookahead import lookahead
from lion_jax.combinators.scout import scout
from lion_jax.distributed.majority_vote import majority_vote
from lion_jax.experimental.olion import olion
from lion_jax.lab.rules.rule import REPLICAS, Rule
from lion_jax.optimizers.adaptive import adabelief, adan, ademamix, tadam
from lion_jax.optimizers.layerwise import adamp, lamb, lars, ralars
from lion_jax.optimizers.lion import decoupled_lion, lion
from lion_jax.optimizers.lion_k import cautious_lion, lion_k, signum
from lion_jax.optimizers.lion_muon import lion_muon
from lion_jax.optimizers.mars import mars_adamw, mars_lion
from lion_jax.optimizers.tiger import tiger
from lion_jax.precision.master_weights import with_master_weights
from lion_jax.precision.quantized_state import with_quantized_state
from lion_jax.precision.stochastic_rounding import round_stochastically
from lion_jax.primitives import signs
from lion_jax.primitives.decay import add_decoupled_weight_decay
from lion_jax.primitives.momentum import scale_by_sign_momentum
from lion_jax.primitives.orthogonal import orthogonalize

# Every range spans three decades.
_LION, _ADAM, _SGD = (1e-4, 1e-1), (1e-3, 1e0), (3e-3, 3e0)
_LARS = (3e-1, 3e2)
# Ranges of weight decay, for where it is tuned too: three decades as well, whose product with the
# learning rate is the same for the Lions as for the Adams.
_LION_DECAY, _ADAM_DECAY, _SGD_DECAY, _LARS_DECAY = (
    (1e-2, 1e1),
    (1e-3, 1e0),
    (1e-4, 1e-1),
    (1e-5, 1e-2),
)


def _rule(
    name: str,
    make: Callable[..., optax.GradientTransformation],
    learning_rates: tuple[float, float],
    *,
    decays: tuple[float, float] | None = None,
    moves_by_rate: bool = True,
    description: str = "",
    **fixed: Any,
) -> Rule:
    """A rule whose weight decay, if it has any, has a range that suits its learning rates."""
    if decays is None:
        decays = _LION_DECAY if learning_rates is _LION else _ADAM_DECAY
    return Rule(
        name,
        make,
        learning_rates,
        fixed=fixed,
        description=description,
        moves_by_rate=moves_by_rate,
        tunable={"weight_decay": decays},
    )


def _shaped(
    name: str,
    call: str,
    shape: optax.GradientTransformation,
    learning_rates: tuple[float, float],
    **rates: float,
) -> Rule:
    """Lion with another shape in the place of its sign."""

    def make(learning_rate, **fixed):
        return lion_k(learning_rate, shape, **fixed)

    fixed: dict[str, Any] = {**(rates or _LION_DEFAULTS), "weight_decay": 0.1}
    arguments = "".join(f", {name}={value}" for name, value in fixed.items())
    call = f"lion_jax.lion_k(learning_rate, {call}{arguments})"
    return _rule(name, make, learning_rates, moves_by_rate=False, description=call, **fixed)


def _held(name: str, call: str, inner: optax.GradientTransformation) -> Rule:
    """A direction whose matrices keep their norms; vectors take a tenth of the rate."""

    def make(learning_rate):
        tenth = optax.scale_by_learning_rate(lambda count: learning_rate(count) / 10)
        return optax.partition(
            {True: hyperball(inner, learning_rate), False: optax.chain(inner, tenth)},
            lambda params: jax.tree.map(lambda p: jnp.ndim(p) > 1, params),
        )

    call = f"lion_jax.hyperball({call}, learning_rate), vectors at a tenth of it"
    return Rule(name, make, _ADAM, description=call, tunable={})


def _sgd(learning_rate, weight_decay=None, **fixed):
    """SGD; the weight decay, where it is tuned, is coupled: part of the gradient."""
    sgd = optax.sgd(learning_rate, **fixed)
    if weight_decay is None:
        return sgd
    return optax.chain(optax.add_decayed_weights(weight_decay), sgd)


def _decoupled_lion(learning_rate, **fixed):
    return decoupled_lion(learning_rate, **fixed, initial_learning_rate=learning_rate.peak)


def _around(name: str, call: str, wrap: Callable[..., Any]) -> Rule:
    """Lion within a combinator."""

    def make(learning_rate, **fixed):
        return wrap(lion(learning_rate, **fixed))

    call = f"lion_jax.{call.format(_LION_RULE.description)}"
    return _rule(name, make, _LION, description=call, **_LION_RULE.fixed)


_LION_DEFAULTS: dict[str, Any] = {"b1": 0.9, "b2": 0.99}
_MUON_RATES = {"b1": 0.9025, "b2": 0.95}
_LION_RULE = _rule("lion", lion, _LION, **_LION_DEFAULTS, weight_decay=0.1)

_RULES = [
    _LION_RULE,
    _rule(
        "decoupled_lion",
        _decoupled_lion,
        _LION,
        description="lion_jax.decoupled_lion(learning_rate, b1=0.9, b2=0.99, weight_decay=0.0001)",
        decays=_LARS_DECAY,
        **_LION_DEFAULTS,
        weight_decay=1e-4,
    ),
    _around(
        "lookahead_lion",
        "lookahead({}, sync_period=6, slow_step_size=0.5)",
        lambda inner: lookahead(inner, 6, 0.5),
    ),
    _around(
        "scout_lion",
        "scout({}, sync_period=6, min_slow_step_size=0.5)",
        lambda inner: scout(inner, 6, 0.5),
    ),
    _rule("signum", signum, _LION, b1=0.9, weight_decay=0.1),
    _rule("tiger", tiger, _LION, moves_by_rate=False, b1=0.965, weight_decay=0.01, min_rms=1e-2),
    _rule("cautious_lion", cautious_lion, _LION, b1=0.95, b2=0.98, weight_decay=0.1),
    _rule("mars_lion", mars_lion, _LION, b1=0.95, weight_decay=0.1, gamma=0.025),
    _shaped("lion_tanh", "signs.tanh(1e3)", signs.tanh(1e3), _LION),
    _shaped("lion_l15", "signs.lp_sign(1.5)", signs.lp_sign(1.5), _ADAM),
    _shaped("lion_rows", "signs.l2_normalize(-1)", signs.l2_normalize(-1), _ADAM),
    _shaped("lion_top", "signs.top_k_sign(0.25)", signs.top_k_sign(0.25), _LION),
    _shaped(
        "lion_polar", 'orthogonalize(scale="rms")', orthogonalize(scale="rms"), _ADAM, **_MUON_RATES
    ),
    _rule("lion_muon", lion_muon, _ADAM, b1=0.95, b2=0.99, weight_decay=0.1, period=2),
    _held("lionh", "lion_jax.scale_by_sign_momentum()", scale_by_sign_momentum()),
    _held("adamh", "optax.scale_by_adam()", optax.scale_by_adam()),
    _rule("olion", olion, _ADAM, b1=0.95, b2=0.98, weight_decay=0.1),
    _rule("mars_adamw", mars_adamw, _ADAM, b1=0.95, b2=0.99, weight_decay=0.01, gamma=0.025),
    _rule("adamw", optax.adamw, _ADAM, b1=0.9, b2=0.999, weight_decay=0.01),
    _rule("adabelief", adabelief, _ADAM, b1=0.9, b2=0.999, weight_decay=0.01),
    _rule("adamp", adamp, _ADAM, b1=0.9, b2=0.999, weight_decay=0.01),
    _rule("adan", adan, _ADAM, b1=0.98, b2=0.92, b3=0.99, weight_decay=0.01),
    _rule("ademamix", ademamix, _ADAM, b1=0.9, b2=0.999, b3=0.9999, alpha=5.0, weight_decay=0.01),
    _rule("tadam", tadam, _ADAM, b1=0.9, b2=0.999),
    _rule("lamb", lamb, _ADAM, moves_by_rate=False, b1=0.9, b2=0.999, weight_decay=0.01),
    _rule("ralars", ralars, _ADAM, moves_by_rate=False, b1=0.9, b2=0.999, weight_decay=0.01),
    _rule(
        "lars",
        lars,
        _LARS,
        decays=_LARS_DECAY,
        moves_by_rate=False,
        momentum=0.9,
        weight_decay=1e-4,
    ),
    _rule(
        "sgd",
        _sgd,
        _SGD,
        decays=_SGD_DECAY,
        moves_by_rate=False,
        description="optax.sgd(learning_rate, momentum=0.9, nesterov=True)",
        momentum=0.9,
        nesterov=True,
    ),
]


class _Format(NamedTuple):
    """A format in which a rule's parameters and state are stored.

    Attributes:
      description: a template for the rule's description, filled with the rule's name.
      wrap: `transformation -> transformation`.
      params_dtype: dtype of the parameters; None leaves them in float32.
    """

    description: str
    wrap: Callable[[optax.GradientTransformation], optax.GradientTransformation]
    params_dtype: Any = None


_FORMATS = {
    "bf16": _Format("{}", lambda rule: rule, jnp.bfloat16),
    "stochastic": _Format(
        "optax.chain({}, precision.round_stochastically(jax.random.key(0)))",
        lambda rule: optax.chain(rule, round_stochastically(jax.random.key(0))),
        jnp.bfloat16,
    ),
    "master": _Format(
        "precision.with_master_weights({}, correction_bits=8)",
        lambda rule: with_master_weights(rule, correction_bits=8),
        jnp.bfloat16,
    ),
    "int8": _Format(
        "precision.with_quantized_state({}, min_size=0)",
        lambda rule: with_quantized_state(rule, min_size=0),
    ),
    "small": _Format(
        "precision.with_master_weights(precision.with_quantized_state({}, min_size=0), "
        "correction_bits=8)",
        lambda rule: with_master_weights(with_quantized_state(rule, min_size=0), correction_bits=8),
        jnp.bfloat16,
    ),
    "int4": _Format(
        "precision.with_quantized_state({}, bits=4, min_size=0), experimental",
        lambda rule: with_quantized_state(rule, bits=4, min_size=0),
    ),
}


def _in_format(rule: Rule, name: str, stored: _Format) -> Rule:
    """The rule with its parameters and state stored in a format."""

    def make(learning_rate, **arguments):
        return stored.wrap(rule.make(learning_rate, **arguments))

    return dataclasses.replace(
        rule,
        name=f"{rule.name}_{name}",
        description=stored.description.format(rule.name)
        + (", bfloat16 parameters" if stored.params_dtype == jnp.bfloat16 else ""),
        make=make,
        params_dtype=stored.params_dtype,
    )


def _by_vote(replicas: int, *, average: bool = False) -> Rule:
    """Lion with votes of replicas, each with its part of the batch, instead of a mean gradient."""

    def make(learning_rate, weight_decay=0.1):
        return optax.chain(
            scale_by_sign_momentum(**_LION_DEFAULTS),
            majority_vote(REPLICAS, average=average),
            add_decoupled_weight_decay(weight_decay),
            optax.scale_by_learning_rate(learning_rate),
        )

    vote = f'majority_vote("{REPLICAS}"{", average=True" if average else ""})'
    return Rule(
        f"lion_{'average' if average else 'vote'}_{replicas}",
        make,
        _LION,
        description=f"lion among {replicas} replicas, distributed.{vote} behind its momentum",
        moves_by_rate=True,
        replicas=replicas,
        tunable={"weight_decay": _LION_DECAY},
    )


IN_FLOAT32: dict[str, Rule] = {rule.name: rule for rule in _RULES}
IN_FEWER_BYTES: dict[str, Rule] = {
    f"{rule}_{name}": _in_format(IN_FLOAT32[rule], name, stored)
    for rule in ("lion", "adamw")
    for name, stored in _FORMATS.items()
}
AMONG_REPLICAS: dict[str, Rule] = {
    rule.name: rule
    for average in (False, True)
    for replicas in (2, 8, 32)
    for rule in [_by_vote(replicas, average=average)]
}
RULES: dict[str, Rule] = IN_FLOAT32 | IN_FEWER_BYTES
