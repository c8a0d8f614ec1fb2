"""The numbers in force, as every named optimizer shows them in its state."""

import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from catalogue import CATALOGUE
from trees import run, specs

import lion_jax
from lion_jax import compat

tree_get = optax.tree_utils.tree_get
OPTIMIZERS = [
    entry
    for entry in CATALOGUE
    if {"lr", "learning_rate"} & entry.hyperparameters.keys()
    and not {"primitives", "combinators"} & set(entry.factory.__module__.split("."))
]
OUR_NAMES = {
    "lr": "learning_rate",
    "beta_1": "b1",
    "beta_2": "b2",
    "initial_lr": "initial_learning_rate",
}
# Integers, what is not the rule's, what only the start of a state reads, and torch's decay of the
# learning rate, which is in the learning rate.
NOT_SHOWN = {
    "channel_axis",
    "warmup_steps",
    "sign_steps",
    "period",
    "steps",
    "transition_steps",
    "gradient_accumulation_steps",
    "clipnorm",
    "global_clipnorm",
    "ema_momentum",
    "loss_scale_factor",
    "initial_accumulator_value",
    "lr_decay",
}
SIGNS = {
    "lion",
    "lion_multipliers",
    "decoupled_lion",
    "signum",
    "mars_lion",
    "keras_lion",
    "keras_lion_scaled",
    "lion_pytorch",
    "llm_foundry",
    "wiki_lion",
}
# So that every call is an update, at the learning rate given.
PLAIN = {"keras_lion": {"gradient_accumulation_steps": None}, "torch_adagrad": {"lr_decay": 0.0}}
every_optimizer = pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, marks=[pytest.mark.slow] if entry.slow else [], id=entry.name)
        for entry in OPTIMIZERS
    ],
)
PARAMS, GRADIENT = jnp.array([3.0, -4.0]), jnp.array([8.0, 6.0])


def shown(state):
    """What is shown, less the bound."""
    values = lion_jax.hyperparameters(state)
    return {name: value for name, value in values.items() if name != "weight_bound"}


def given(entry):
    """The rule's numbers, defaults included, under our names; Keras's None is a decay of 0."""
    parameters = inspect.signature(entry.factory).parameters.items()
    arguments = {name: p.default for name, p in parameters} | entry.scalars | entry.static
    if arguments.get("weight_decay", 0.0) is None:
        arguments["weight_decay"] = 0.0
    for i, beta in enumerate(arguments.pop("betas", ()), start=1):
        arguments[f"b{i}"] = beta
    return {
        OUR_NAMES.get(name, name): value
        for name, value in arguments.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in NOT_SHOWN
    }


def after(tx, updates, params=PARAMS, state=None):
    """The state after so many updates, each under jit."""
    step, state = jax.jit(tx.update), tx.init(params) if state is None else state
    for _ in range(updates):
        _, state = step(GRADIENT, state, params)
    return state


@every_optimizer
def test_shows_what_was_given(entry):
    tx = entry.make(**PLAIN.get(entry.name, {}))
    expected = {name: np.float32(value) for name, value in given(entry).items()}
    assert shown(tx.init(PARAMS)) == expected
    assert shown(after(tx, 1)) == expected


@every_optimizer
def test_shows_the_schedules_of_the_last_update(entry):
    fractions = (0.25, 1.0, 0.5)
    tables = {
        name: np.float32([entry.part(name, fraction) for fraction in fractions])
        for name in entry.hyperparameters
    }
    schedules = {
        name: lambda count, table=table: jnp.asarray(table)[count] for name, table in tables.items()
    }
    tx = entry.make(**schedules | PLAIN.get(entry.name, {}))
    state, update = tx.init(PARAMS), jax.jit(tx.update)
    others = {name: np.float32(value) for name, value in given(entry).items()}
    for count in (0, 0, 1, 2):  # the state before the first update shows what that will use
        at_count = {OUR_NAMES.get(name, name): table[count] for name, table in tables.items()}
        assert shown(state) == others | at_count
        state = update(GRADIENT, state, PARAMS)[1] if count < 2 else state


@every_optimizer
def test_only_rules_whose_updates_are_signs_have_a_bound(entry):
    values = lion_jax.hyperparameters(entry.make().init(PARAMS))
    assert ("weight_bound" in values) == (entry.name in SIGNS)


@pytest.mark.sampled
@every_optimizer
def test_a_number_may_become_a_schedule_in_the_middle(entry):
    """The state keeps its structure, and the schedule is read from its count on."""
    name = next(iter({"lr", "learning_rate"} & entry.hyperparameters.keys()))
    plain = PLAIN.get(entry.name, {})
    before = after(entry.make(**plain), 3)
    tx = entry.make(**plain | {name: optax.linear_schedule(0.0, 1e-2, 8)})
    assert specs(tx.init(PARAMS)) == specs(before)
    by_hand = entry.make(**plain | {name: 3 / 8 * 1e-2})
    expected = jax.jit(by_hand.update)(GRADIENT, before, PARAMS)
    chex.assert_trees_all_close(jax.jit(tx.update)(GRADIENT, before, PARAMS), expected, rtol=1e-6)


def test_a_restored_state_shows_the_numbers_of_this_run():
    saved = after(lion_jax.lion(1e-3, weight_decay=0.5), 2)
    state = after(lion_jax.lion(5e-4, b2=0.75), 1, state=saved)
    assert shown(state) == {
        "learning_rate": np.float32(5e-4),
        "b1": np.float32(0.9),
        "b2": 0.75,
        "weight_decay": 0,
    }
    assert lion_jax.hyperparameters(state)["weight_bound"] == jnp.finfo(jnp.float32).max


def test_a_schedule_is_evaluated_once_per_update():
    calls = []

    def schedule(count):
        calls.append(count)
        return 0.1

    tx = lion_jax.adan(schedule, weight_decay=0.1)  # its decay has a learning rate too
    state = tx.init(PARAMS)
    calls.clear()
    tx.update(GRADIENT, state, PARAMS)
    assert len(calls) == 1


def test_adagrads_learning_rate_is_the_decayed_one():
    state = after(compat.torch.adagrad(0.5, lr_decay=0.25), 3)
    assert lion_jax.hyperparameters(state)["learning_rate"] == np.float32(0.5 / 1.5)


def constant(count):
    return 0.1 + 0.0 * count


@pytest.mark.parametrize(
    ("tx", "bound"),
    [
        (lion_jax.lion(0.1, weight_decay=0.5), 2.0),
        (lion_jax.lion(constant, weight_decay=lambda count: 0.5), 2.0),
        (compat.keras.lion(0.1, weight_decay=0.5), 2.0),
        (compat.lion_pytorch.lion(0.1, weight_decay=0.5), 2.0),
        (lion_jax.decoupled_lion(0.1, weight_decay=0.05), 2.0),
        (lion_jax.decoupled_lion(constant, weight_decay=0.1, initial_learning_rate=0.2), 2.0),
        (compat.llm_foundry.decoupled_lionw(0.1, weight_decay=0.05), 2.0),
        (compat.lion_pytorch.lion(0.1, (0.9, 0.99), 0.05, True), 2.0),
    ],
)
def test_weights_run_into_the_bound(tx, bound):
    def step(carry, gradient):
        params, state = carry
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    params = jnp.array([0.0, 0.0, 8.0])
    gradients = jnp.tile(jnp.array([-1.0, 1.0, -1.0]), (400, 1))
    (params, state), _ = jax.lax.scan(step, (params, tx.init(params)), gradients)
    shown_bound = lion_jax.hyperparameters(state)["weight_bound"]
    np.testing.assert_allclose(shown_bound, bound, rtol=1e-6)
    np.testing.assert_allclose(params, bound * np.array([1, -1, 1]), rtol=1e-5)


@pytest.mark.parametrize(
    "tx",
    [
        lion_jax.lion(0.1),
        lion_jax.lion(0.1, weight_decay=optax.constant_schedule(0.0)),
        lion_jax.decoupled_lion(0.1),
        lion_jax.decoupled_lion(0.1, initial_learning_rate=jnp.float32(0.0), weight_decay=0.1),
        compat.keras.lion(0.1),
        compat.wiki.lion(0.1, weight_decay=0.5),
    ],
)
def test_without_a_decay_outside_of_the_sign_there_is_no_bound(tx):
    assert lion_jax.hyperparameters(tx.init(PARAMS))["weight_bound"] == jnp.finfo(jnp.float32).max


NUMBERS = [
    0.5,
    np.float64(0.5),
    jnp.float32(0.5),
    jnp.bfloat16(0.5),
    jnp.asarray(0.5),
    optax.constant_schedule(0.5),
    lambda count: jnp.bfloat16(0.5),
]


def check_shape_and_dtype(number, dtype):
    tx = lion_jax.lion(number, 0.5, number, weight_decay=number)
    params = jnp.ones(2, jnp.float32)
    for state in (tx.init(params), jax.jit(tx.update)(params, tx.init(params), params)[1]):
        for value in state.hyperparameters.values():
            assert (value.shape, value.dtype, value.weak_type) == ((), dtype, False)
            assert value in (0.5, 2.0)
        assert state.schedule_count.dtype == jnp.int32


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_of_every_kind_are_shown_alike(number):
    check_shape_and_dtype(number, jnp.float32)


@pytest.mark.parametrize("number", [0.5, np.float32(0.5), optax.constant_schedule(0.5)])
@pytest.mark.usefixtures("x64")
def test_numbers_are_shown_as_wide_as_floats_are(number):
    check_shape_and_dtype(number, jnp.float64)


def test_a_donated_state_shares_no_buffer_with_itself_or_the_caller():
    number = jnp.float32(0.5)
    tx = lion_jax.lion(number, number, number, weight_decay=number)
    state = tx.init(PARAMS)
    states = [state, tx.update(GRADIENT, state, PARAMS)[1]]
    for state in states:
        buffers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves((number, state))]
        assert len(set(buffers)) == len(buffers)
    jax.jit(lambda state: jax.tree.map(jnp.negative, state), donate_argnums=0)(state)
    assert number == 0.5


def test_a_schedule_leaves_the_checks_of_construction_in_place():
    with pytest.raises(ValueError, match=r"^b1 must be in \[0, 1\); got 1\.5"):
        lion_jax.lion(optax.constant_schedule(1e-3), b1=1.5)


def test_refuses_a_schedule_of_arrays():
    tx = lion_jax.lion(lambda count: jnp.full(3, 1e-3))
    with pytest.raises(ValueError, match=r"^learning_rate must be a scalar.*\(3,\)"):
        tx.init(PARAMS)


def test_tree_get_reads_a_single_one():
    state = optax.chain(optax.clip(1.0), lion_jax.lion(0.5)).init(PARAMS)
    assert tree_get(state, "learning_rate") == 0.5
    assert tree_get(state, "weight_bound") == jnp.finfo(jnp.float32).max


def test_what_is_returned_is_a_copy():
    state = lion_jax.lion(0.5).init(PARAMS)
    lion_jax.hyperparameters(state).clear()
    assert lion_jax.hyperparameters(state)["learning_rate"] == 0.5


def test_reads_what_an_injected_rule_used():
    tx = optax.inject_hyperparams(lion_jax.lion, static_args=("mu_dtype", "mask"))(0.5)
    state = after(tx, 1)
    state.hyperparams["learning_rate"] = jnp.float32(0.25)
    assert lion_jax.hyperparameters(state)["learning_rate"] == 0.5  # the last update's
    assert lion_jax.hyperparameters(after(tx, 1, state=state))["learning_rate"] == 0.25
    assert tree_get(state, "learning_rate") == 0.25  # the next update's


def test_an_injected_number_may_be_set_in_both_places_and_donated():
    tx = optax.inject_hyperparams(lion_jax.lion, static_args=("mu_dtype", "mask"))(0.5)
    state = optax.tree_utils.tree_set(tx.init(PARAMS), learning_rate=jnp.float32(0.25))
    step = jax.jit(tx.update, donate_argnums=1)
    updates, state = step(GRADIENT, state, PARAMS)
    np.testing.assert_array_equal(updates, [-0.25, -0.25])
    assert lion_jax.hyperparameters(state)["learning_rate"] == 0.25


def halving(count):
    return 0.5 ** (1.0 + count)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "wrap",
    [
        lion_jax.lookahead,
        lion_jax.scout,
        lion_jax.with_parameter_average,
        lion_jax.with_finite_guard,
        lambda tx: optax.masked(tx, True),
        lambda tx: optax.chain(optax.clip(1.0), tx),
        lambda tx: lion_jax.with_loss_scale(tx, 2.0),
        lambda tx: optax.partition({"all": tx}, "all"),
    ],
)
def test_reads_through_wrappers(wrap):
    state = after(wrap(lion_jax.lion(halving)), 3)
    assert lion_jax.hyperparameters(state)["learning_rate"] == 0.125


def test_micro_steps_keep_the_numbers_of_the_last_real_step():
    tx = lion_jax.with_accumulation(lion_jax.lion(halving), 2)
    rates = [
        float(lion_jax.hyperparameters(after(tx, calls))["learning_rate"]) for calls in range(6)
    ]
    assert rates == [0.5, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_skipped_steps_keep_the_numbers_of_the_last_one_taken():
    tx = lion_jax.with_finite_guard(lion_jax.lion(halving))
    _, state = run(tx, PARAMS, [GRADIENT, GRADIENT, jnp.full(2, jnp.nan)])
    assert lion_jax.hyperparameters(state)["learning_rate"] == 0.25


def test_a_sweep_shows_each_run_its_own():
    rates = jnp.array([1e-4, 3e-4, 1e-3])

    @jax.vmap
    def show(rate):
        tx = lion_jax.lion(rate, weight_decay=100 * rate)
        _, state = tx.update(GRADIENT, tx.init(PARAMS), PARAMS)
        return lion_jax.hyperparameters(state)

    values = show(rates)
    np.testing.assert_array_equal(values["learning_rate"], rates)
    np.testing.assert_allclose(values["weight_bound"], 1 / (100 * rates), rtol=1e-6)
    np.testing.assert_array_equal(values["b1"], jnp.full(3, 0.9))


def test_refuses_a_state_of_no_optimizer():
    with pytest.raises(
        ValueError, match=r"one optimizer of lion_jax; found 0 in this tuple.*made with"
    ):
        lion_jax.hyperparameters(optax.adam(1e-3).init(PARAMS))


def test_refuses_several_and_reads_each():
    parts = {"a": lion_jax.lion(0.5), "b": lion_jax.adan(0.25)}
    state = optax.partition(parts, {"a": "a", "b": "b"}).init({"a": PARAMS, "b": PARAMS})
    with pytest.raises(ValueError, match=r"found 2 \(.*'a'.*'b'.*the part that you mean") as caught:
        lion_jax.hyperparameters(state)
    assert "hyperparameters" in str(caught.value)
    rates = [
        float(lion_jax.hyperparameters(part)["learning_rate"])
        for part in state.inner_states.values()
    ]
    assert rates == [0.5, 0.25]


@pytest.mark.parametrize(
    "factory",
    [
        lambda learning_rate: lion_jax.lion(learning_rate),
        lambda learning_rate: optax.chain(optax.clip(1.0), lion_jax.decoupled_lion(learning_rate)),
        lambda learning_rate: lion_jax.lookahead(lion_jax.compat.keras.lion(learning_rate)),
        lambda learning_rate: lion_jax.adan(learning_rate, weight_decay=0.1),
    ],
    ids=["lion", "decoupled_lion", "keras_lion", "adan"],
)
def test_tree_get_finds_one_injected_rate_whatever_is_injected(factory):
    tx = optax.inject_hyperparams(factory)(0.5)
    for state in (tx.init(PARAMS), after(tx, 2)):
        assert tree_get(state, "learning_rate") == 0.5
        assert tree_get(state, "b1") is not None
        assert lion_jax.hyperparameters(state)["learning_rate"] == 0.5


def test_a_traced_rate_changes_no_structure():
    """A step within a scan may make the optimizer anew from an array."""
    state = lion_jax.lion(0.5).init(PARAMS)

    def step(state, rate):
        return lion_jax.lion(rate).update(GRADIENT, state, PARAMS)[1], None

    state, _ = jax.lax.scan(step, state, jnp.array([0.25, 0.125]))
    assert tree_get(state, "learning_rate") == 0.125
