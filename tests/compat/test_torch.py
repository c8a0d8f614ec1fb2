"""torch.optim's rules: recorded runs, loops for what was not recorded, and optax's own."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import recordings
from trees import assert_close, run, specs, tree

import lion_jax
from lion_jax import compat

FACTORIES = {
    "torch.optim.SGD": compat.torch.sgd,
    "torch.optim.Adam": compat.torch.adam,
    "torch.optim.AdamW": compat.torch.adamw,
    "torch.optim.RMSprop": compat.torch.rmsprop,
    "torch.optim.Adagrad": compat.torch.adagrad,
    "torch.optim.Adadelta": compat.torch.adadelta,
}
REPLAYED = [
    name
    for name, case in recordings.CASES.items()
    if case["peer"] == "torch" and case["cls"] in FACTORIES
]
EVERY_LINK = [
    (compat.torch.sgd, {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}, ("nesterov",)),
    (compat.torch.sgd, {"momentum": 0.9, "nesterov": True}, ("nesterov",)),
    (compat.torch.adam, {"weight_decay": 0.1}, ("betas", "amsgrad")),
    (compat.torch.adamw, {"amsgrad": True}, ("betas", "amsgrad")),
    (compat.torch.rmsprop, {"momentum": 0.9, "weight_decay": 0.1}, ("centered",)),
    (compat.torch.rmsprop, {"centered": True}, ("centered",)),
    (compat.torch.adagrad, {"lr_decay": 0.1, "initial_accumulator_value": 0.5}, ()),
    (compat.torch.adadelta, {"weight_decay": 0.1}, ()),
]
GRADIENTS = [tree(seed=seed) for seed in range(1, 5)]

every_link = pytest.mark.parametrize(("factory", "kwargs", "static"), EVERY_LINK)


def make(name):
    """The transformation that a recording calls for."""
    case, lr = recordings.CASES[name], recordings.schedule(name)
    factory, kwargs = FACTORIES[case["cls"]], case["kwargs"]
    if every := case.get("accum"):
        return lion_jax.with_accumulation(factory(lr, **kwargs), every)
    if groups := case.get("groups"):
        leaves = recordings.trajectory(name)
        parts = {leaf: group_of(factory, case, lr, groups.get(leaf, {})) for leaf in leaves}
        return optax.partition(parts, {leaf: leaf for leaf in leaves})
    if clip := case.get("clip"):
        clipping = (
            compat.torch.clip_grad_norm if "max_norm" in clip else compat.torch.clip_grad_value
        )
        return optax.chain(clipping(**clip), factory(lr, **kwargs))
    return factory(lr, **kwargs)


def group_of(factory, case, lr, group):
    """A parameter group: its own arguments, and a share of the schedule."""
    share = group.get("lr", case["base_lr"]) / case["base_lr"]
    return factory(**case["kwargs"] | group | {"lr": lambda count: share * lr(count)})


@recordings.replays(*REPLAYED, slow=[np.float32, np.float64])
def test_replays_torch(name, dtype):
    recordings.assert_replays(name, lambda: make(name), dtype)


def amsgrad_loop(p, gradients, rates, weight_decay, decoupled, b1=0.9, b2=0.999, eps=1e-8):
    m, v, largest = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), start=1):
        if decoupled:
            p = p * (1 - lr * weight_decay)
        else:
            g = g + weight_decay * p
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        largest = np.maximum(largest, v)
        p = p - lr / (1 - b1**t) * m / (np.sqrt(largest) / np.sqrt(1 - b2**t) + eps)
    return p


def adagrad_loop(p, gradients, rates, lr_decay, initial_accumulator_value, eps=1e-10):
    total = np.full_like(p, initial_accumulator_value)
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True)):
        total = total + g**2
        p = p - lr / (1 + t * lr_decay) * g / (np.sqrt(total) + eps)
    return p


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("factory", "loop", "kwargs", "loop_kwargs"),
    [
        (compat.torch.adam, amsgrad_loop, {"amsgrad": True}, {"decoupled": False}),
        (compat.torch.adamw, amsgrad_loop, {"amsgrad": True}, {"decoupled": True}),
        (compat.torch.adagrad, adagrad_loop, {"lr_decay": 0.2}, {"lr_decay": 0.2}),
    ],
)
def test_what_was_not_recorded_equals_the_loop(factory, loop, kwargs, loop_kwargs):
    rng = np.random.default_rng(0)
    shared = {"initial_accumulator_value": 0.3} if loop is adagrad_loop else {"weight_decay": 0.1}
    p, gradients = rng.standard_normal(50), rng.standard_normal((20, 50))
    gradients *= np.linspace(10.0, 0.1, 20)[:, None]  # so that the largest is not the last
    rates = np.linspace(0.1, 0.0, 20)
    tx = factory(lambda t: jnp.asarray(rates)[t], **shared, **kwargs)
    params, _ = run(tx, jnp.asarray(p), jnp.asarray(gradients))
    expected = loop(p, gradients, rates, **shared, **loop_kwargs)
    np.testing.assert_allclose(params, expected, rtol=1e-12)


@every_link
def test_a_schedule_equals_its_values_one_by_one(factory, kwargs, static):
    rates, params = jnp.array([0.1, 0.05, 0.2]), jnp.array([1.0, -2.0])
    scheduled = factory(lambda count: rates[count], **kwargs)
    state, by_hand = scheduled.init(params), factory(rates[0], **kwargs).init(params)
    for rate in rates:
        actual, state = scheduled.update(jnp.sin(rate + params), state, params)
        tx = factory(rate, **kwargs)
        expected, by_hand = tx.update(jnp.sin(rate + params), by_hand, params)
        assert_close(actual, expected)


@pytest.mark.sampled
@every_link
def test_injected_equals_given(factory, kwargs, static):
    """Zero decay, momentum and dampening included, which are links once they are traced."""
    tx, injected = (
        factory(**kwargs),
        optax.inject_hyperparams(factory, static_args=static)(**kwargs),
    )
    actual, state = run(injected, tree(), GRADIENTS)
    assert_close(actual, run(tx, tree(), GRADIENTS)[0], atol=1e-6)
    assert specs(state) == specs(injected.init(tree()))


@every_link
def test_a_missing_gradient_moves_nothing(factory, kwargs, static):
    params, tx = {"a": jnp.ones(2), "b": jnp.ones(3)}, factory(**kwargs)
    _, state = tx.update(params, tx.init(params), params)
    updates, after = tx.update({"a": jnp.ones(2), "b": None}, state, params)
    assert updates["b"] is None
    assert specs(after) == specs(tx.init(params))
    moments = [
        jax.tree.leaves(s.inner_state, is_leaf=lambda x: isinstance(x, dict))
        for s in (state, after)
    ]
    for old, new in zip(*moments, strict=True):
        if isinstance(old, dict):
            chex.assert_trees_all_equal(old["b"], new["b"])


@pytest.mark.slow
def test_betas_can_be_swept():
    def after(b1, b2):
        tx = compat.torch.adamw(betas=(b1, b2), amsgrad=True)
        return run(tx, jnp.ones(3), jnp.array([[4.0, -2.0, 0.5], [0.1, -2.0, 0.0]]))[0]

    swept = jax.vmap(after)(jnp.array([0.0, 0.9]), jnp.array([0.5, 0.99]))
    assert_close(swept, jnp.stack([after(0.0, 0.5), after(0.9, 0.99)]))


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_traced_momentum_dampens_as_its_number_does(momentum):
    traced, _ = run(compat.torch.sgd(0.1, jnp.asarray(momentum), 0.5), tree(), GRADIENTS)
    assert_close(traced, run(compat.torch.sgd(0.1, momentum, 0.5), tree(), GRADIENTS)[0])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_adamw_is_optax_adamw():
    schedule = optax.cosine_decay_schedule(1e-2, 10)
    params, gradients = tree(jnp.float64), [tree(jnp.float64, seed=s) for s in range(1, 6)]
    ours, _ = run(compat.torch.adamw(schedule), params, gradients)
    theirs, _ = run(optax.adamw(schedule, weight_decay=1e-2), params, gradients)
    assert_close(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (compat.torch.adagrad, optax.adagrad),
        (
            lambda lr: compat.torch.rmsprop(lr, momentum=0.9),
            lambda lr: optax.rmsprop(lr, 0.99, eps_in_sqrt=False, momentum=0.9),
        ),
        (
            lambda lr: compat.torch.adamw(lr, amsgrad=True, weight_decay=0),
            optax.amsgrad,
        ),
    ],
    ids=["adagrad", "rmsprop", "amsgrad"],
)
def test_what_optax_computes_otherwise(ours, theirs):
    schedule = optax.linear_schedule(0.1, 0.0, 4)
    params, gradients = jnp.ones(3), [jnp.array([1.0, -2.0, 0.5]) * 0.5**t for t in range(4)]
    assert not np.allclose(
        run(ours(schedule), params, gradients)[0],
        run(theirs(schedule), params, gradients)[0],
        rtol=1e-3,
    )


@pytest.mark.parametrize("factory", list(FACTORIES.values())[1:])
def test_complex_leaves_are_refused_where_they_are_squared(factory):
    with pytest.raises(TypeError, match=r"complex64 at.*split_real_and_imaginary"):
        factory().init({"w": jnp.ones(2, jnp.complex64)})


@pytest.mark.parametrize(
    ("factory", "kwargs", "message"),
    [
        (compat.torch.sgd, {"lr": -1.0}, r"lr must be finite and >= 0; got -1.0. Try lr="),
        (compat.torch.sgd, {"momentum": 1.0}, r"momentum must be in \[0, 1\); got 1.0"),
        (compat.torch.sgd, {"nesterov": True}, r"nesterov must be False without a momentum"),
        (
            compat.torch.sgd,
            {"nesterov": True, "momentum": 0.9, "dampening": 0.5},
            r"nesterov must be False with dampening",
        ),
        (compat.torch.adam, {"betas": (1.5, 0.9)}, r"betas\[0\] must be in \[0, 1\); got 1.5. Try"),
        (compat.torch.adamw, {"betas": (0.9, 1.0)}, r"betas\[1\] must be in \[0, 1\); got 1.0"),
        (compat.torch.adamw, {"betas": (0.9,)}, r"betas must be 2 numbers in .* got \(0.9,\). Try"),
        (compat.torch.rmsprop, {"alpha": 1.0}, r"alpha must be in \[0, 1\); got 1.0. Try alpha="),
        (compat.torch.adagrad, {"lr_decay": -1.0}, r"lr_decay must be finite and >= 0; got -1.0"),
        (compat.torch.adadelta, {"rho": float("nan")}, r"rho must be in \[0, 1\); got nan"),
    ],
)
def test_bad_arguments_are_refused_under_their_own_names(factory, kwargs, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        factory(**kwargs)


@pytest.mark.parametrize("kwargs", [{"betas": 0.9}, {"betas": ("a", "b")}, {"amsgrad": 1}])
def test_arguments_of_the_wrong_type_are_refused(kwargs):
    with pytest.raises(TypeError, match=r"^(betas|betas\[0\]|amsgrad) must be .* got"):
        compat.torch.adam(**kwargs)
