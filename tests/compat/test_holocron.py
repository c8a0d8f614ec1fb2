"""compat.holocron: the recorded runs of pylocron."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import recordings
from trees import run

from lion_jax import compat

RULES = ["adabelief", "adamp", "adan", "ademamix", "lamb", "lars", "ralars", "tadam"]
WRAPPERS = ["lookahead", "scout"]


@recordings.replays(*(f"holocron_{rule}_" for rule in RULES), slow=[np.float32, np.float64])
def test_replays_the_rules(name, dtype):
    rule = getattr(compat.holocron, name.split("_")[1])
    kwargs = _tuples(recordings.CASES[name]["kwargs"])
    recordings.assert_replays(name, lambda: rule(recordings.schedule(name), **kwargs), dtype)


@recordings.replays(
    *(f"holocron_{wrapper}_" for wrapper in WRAPPERS), slow=[np.float32, np.float64]
)
def test_replays_the_wrappers(name, dtype):
    case = recordings.CASES[name]
    wrapper = getattr(compat.holocron, name.split("_")[1])
    inner = compat.torch.adamw if "adamw" in name else compat.torch.sgd

    def make():
        rule = inner(recordings.schedule(name), **_tuples(case["kwargs"]))
        return wrapper(rule, **case["wrap_kwargs"])

    recordings.assert_replays(name, make, dtype)


def _tuples(kwargs):
    return {k: tuple(v) if isinstance(v, list) else v for k, v in kwargs.items()}


@pytest.mark.parametrize("rule", RULES)
def test_no_gradient_and_no_weights_give_finite_steps(rule):
    zero = {"w": jnp.zeros((2, 1)), "one": jnp.zeros(())}
    gradients = [zero, {"w": jnp.ones((2, 1)), "one": jnp.ones(())}, zero]
    params, _ = run(getattr(compat.holocron, rule)(0.1), zero, gradients)
    assert all(np.all(np.isfinite(p)) for p in params.values())


def test_scout_returns_to_the_slow_weights_if_one_entry_stands_still():
    params, moving = jnp.zeros(2), jnp.array([1.0, 0.0])
    tx = compat.holocron.scout(optax.sgd(1.0), sync_period=3)
    np.testing.assert_array_equal(run(tx, params, [moving, 2 * moving, moving])[0], params)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: compat.holocron.lamb(-1.0), r"^lr must be finite and >= 0; got -1.0"),
        (lambda: compat.holocron.tadam(betas=(0.3, 0.9)), r"^betas\[0\] must be in \[0.5, 1\)"),
        (lambda: compat.holocron.adan(betas=(0.9, 0.9)), r"^betas must be 3 numbers"),
        (lambda: compat.holocron.lars(nesterov=True), r"^nesterov must be False without"),
        (
            lambda: compat.holocron.lars(momentum=0.9, dampening=0.1, nesterov=True),
            r"^nesterov must be False with dampening",
        ),
        (lambda: compat.holocron.lamb(scale_clip=(2.0, 1.0)), r"^scale_clip must be None or"),
        (lambda: compat.holocron.scout(optax.sgd(1.0), sync_rate=2.0), r"^sync_rate must be in"),
        (lambda: compat.holocron.lookahead(optax.sgd(1.0), 0.5, 0), r"^sync_period must be"),
    ],
)
def test_refuses_by_the_names_of_the_peer(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda schedule: compat.holocron.adamp(eps=schedule), "eps"),
        (lambda schedule: compat.holocron.lars(momentum=schedule), "momentum"),
        (lambda schedule: compat.holocron.scout(optax.sgd(1.0), schedule), "sync_rate"),
    ],
)
def test_refuses_schedules_of_anything_but_lr(make, name):
    with pytest.raises(TypeError, match=rf"^{name} must be a number"):
        make(lambda count: 0.5)


@pytest.mark.parametrize("rule", ["adabelief", "adamp", "adan", "lamb"])
def test_refuses_complex_leaves(rule):
    with pytest.raises(TypeError, match=rf"^holocron\.{rule} needs real leaves"):
        getattr(compat.holocron, rule)(0.1).init(jnp.ones(2, "complex64"))
