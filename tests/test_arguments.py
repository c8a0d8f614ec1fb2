"""Arguments: which are static, and what the message for a bad one says."""

import dataclasses
import inspect
import re

import jax
import jax.numpy as jnp
import optax
import pytest
from catalogue import CATALOGUE, INNER
from trees import assert_close, run, small

import lion_jax
from lion_jax import distributed, groups, precision
from lion_jax.primitives import signs

GRADIENTS = [small(seed=seed) for seed in range(1, 4)]
# What needs no catalogue line of its own, with arguments to call it with.
OTHERS = {
    precision.with_master_weights: {"inner": INNER},
    distributed.majority_vote: {"axis_name": "data"},
    distributed.sign_gather: {"inner": INNER, "axis_name": "data"},
    lion_jax.compat.torch.reduce_lr_on_plateau: {"lr": 0.1},
    lion_jax.compat.holocron.lookahead: {"inner": INNER},
    lion_jax.compat.holocron.scout: {"inner": INNER},
    lion_jax.compat.torch.step_lr: {"lr": 0.1, "step_size": 30},
    lion_jax.compat.torch.exponential_lr: {"lr": 0.1, "gamma": 0.9},
    lion_jax.compat.torch.cosine_annealing_lr: {"lr": 0.1, "T_max": 100},
    lion_jax.compat.torch.one_cycle_lr: {"max_lr": 0.1, "total_steps": 100},
    lion_jax.compat.torch.one_cycle_momentum: {"total_steps": 100},
    lion_jax.from_adamw: {"learning_rate": 1e-3, "weight_decay": 0.1},
}
# Trees that are looked at leaf by leaf, and are refused by other messages.
BY_LEAF = {"by_pattern"}
MESSAGE = re.compile(r"(?s)^(\w+) must be (.*?); (?:got|did) (.*)\. Try \1=(.*)\.$")


@dataclasses.dataclass(frozen=True)
class Thing:
    """No number, no mask, no name."""

    def __repr__(self) -> str:
        """Its name in messages."""
        return "a thing"


FACTORIES = {
    entry.factory: entry.scalars | entry.static
    for entry in reversed(CATALOGUE)
    if hasattr(entry.factory, "static_args")
} | OTHERS
FACTORIES[lion_jax.compat.keras.lion] = {}  # at most one kind of clipping
CASES = [
    pytest.param(factory, argument, id=f"{factory.__module__}.{factory.__name__}-{argument}")
    for factory in FACTORIES
    for argument in inspect.signature(factory).parameters
    if argument not in BY_LEAF
]


def message(factory, argument, value):
    """The parts of the message for a bad value of one argument."""
    with pytest.raises((TypeError, ValueError)) as caught:
        factory(**FACTORIES[factory] | {argument: value})
    match = MESSAGE.match(str(caught.value))
    assert match, caught.value
    return match.groups()


def value_of(code):
    """The value of a remedy; what there is to say of it comes after a comma."""
    names = {
        "jax": jax,
        "jnp": jnp,
        "optax": optax,
        "lion_jax": lion_jax,
        "groups": groups,
        "signs": signs,
        "mesh": jax.make_mesh((1,), ("data",)),
    }
    parts = code.split(",")
    for end in range(len(parts), 0, -1):
        try:
            return eval(",".join(parts[:end]), names)
        except SyntaxError:
            continue
    raise AssertionError(f"no Python in {code!r}")


@pytest.mark.parametrize(("factory", "argument"), CASES)
def test_every_remedy_is_accepted(factory, argument):
    _, _, _, remedy = message(factory, argument, Thing())
    factory(**FACTORIES[factory] | {argument: value_of(remedy)})


def test_a_bad_number_names_argument_range_value_and_remedy():
    """The table of all messages; `pytest -s -n 0` shows it."""
    rows = []
    for factory in FACTORIES:
        for argument in inspect.signature(factory).parameters:
            if argument not in BY_LEAF:
                is_static = argument in factory.static_args
                value = Thing() if is_static else float("nan")
                name = f"{factory.__module__.removeprefix('lion_jax.')}.{factory.__name__}"
                rows.append((name, *message(factory, argument, value)))
    for name, argument, allowed, value, remedy in rows:
        print(f"{name:45} {argument:25} {allowed[:40]:40} {value[:24]:24} {remedy}")
        assert all((name, argument, allowed, value, remedy))
    assert len(rows) > 200


def test_a_remedy_is_the_default_of_the_rule_itself():
    assert message(lion_jax.adan, "b3", 1.5)[-1] == "0.99"
    assert message(lion_jax.ademamix, "b3", 1.5)[-1] == "0.9999"


def test_static_args_are_what_is_no_number():
    assert lion_jax.lion.static_args == ("mu_dtype", "mask")
    assert lion_jax.adan.static_args == ("mask", "proximal")
    assert lion_jax.lookahead.static_args == ("inner", "sync_period", "reset_inner")
    assert lion_jax.compat.torch.adam.static_args == ("betas", "amsgrad")


@pytest.mark.parametrize(
    "entry",
    [pytest.param(entry, id=entry.name) for entry in CATALOGUE if entry.factory in FACTORIES],
)
def test_no_number_is_static(entry):
    assert {*entry.factory.static_args}.isdisjoint(entry.scalars)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "factory",
    [pytest.param(factory, id=factory.__name__) for factory in FACTORIES if factory not in OTHERS],
)
def test_factories_can_be_injected_by_their_static_args(factory):
    arguments = FACTORIES[factory]
    inject = optax.inject_hyperparams(factory, static_args=factory.static_args)
    assert_close(
        run(inject(**arguments), small(), GRADIENTS)[0],
        run(factory(**arguments), small(), GRADIENTS)[0],
    )


def test_static_args_are_those_that_optax_needs():
    factory = lion_jax.lion
    inject = optax.inject_hyperparams(factory, static_args=factory.static_args)
    mask = groups.multipliers({lambda path, leaf: leaf.ndim > 1: 0.5})
    params, _ = run(inject(1e-2, weight_decay=0.1, mask=mask), small(), GRADIENTS)
    assert_close(params, run(factory(1e-2, weight_decay=0.1, mask=mask), small(), GRADIENTS)[0])


def test_signatures_are_those_of_the_functions():
    """For `help` and editors."""
    assert list(inspect.signature(lion_jax.lion).parameters) == [
        *("learning_rate", "b1", "b2", "mu_dtype", "weight_decay", "mask")
    ]


@pytest.mark.parametrize("axis_name", [3, ["data", 1], ()])
def test_axis_names_are_checked_wherever_they_are_taken(axis_name):
    for wrap in (
        lion_jax.with_finite_guard,
        lion_jax.with_metrics,
        lambda inner, **names: lion_jax.with_loss_scale(inner, 2.0, **names),
    ):
        with pytest.raises((TypeError, ValueError), match=r"^axis_name must .*got .*Try axis_name"):
            wrap(INNER, axis_name=axis_name)
