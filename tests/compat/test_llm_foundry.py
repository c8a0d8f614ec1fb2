"""DecoupledLionW: recorded runs of llm-foundry and of zeta's copy."""

import optax
import pytest
import recordings
from trees import assert_close, run, tree

from lion_jax import compat

GRADIENTS = [tree(seed=seed) for seed in range(1, 5)]


@recordings.replays("foundry", "zeta")
def test_decoupled_lionw_replays_its_originals(name, dtype):
    case = recordings.CASES[name]
    recordings.assert_replays(
        name,
        lambda: compat.llm_foundry.decoupled_lionw(
            recordings.schedule(name), **case["kwargs"], initial_lr=case["lr"][0]
        ),
        dtype,
    )


def test_a_constant_rate_is_the_initial_one():
    rule, schedule = compat.llm_foundry.decoupled_lionw, optax.constant_schedule(1e-2)
    constant, _ = run(rule(1e-2, weight_decay=0.1), tree(), GRADIENTS)
    scheduled, _ = run(rule(schedule, weight_decay=0.1, initial_lr=1e-2), tree(), GRADIENTS)
    assert_close(constant, scheduled)


def test_an_injected_rate_is_one_too():
    inject = optax.inject_hyperparams(compat.llm_foundry.decoupled_lionw, static_args=("betas",))
    injected, _ = run(inject(1e-2, weight_decay=0.1), tree(), GRADIENTS)
    given = compat.llm_foundry.decoupled_lionw(1e-2, weight_decay=0.1)
    assert_close(injected, run(given, tree(), GRADIENTS)[0])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"lr": optax.constant_schedule(1.0)}, r"initial_lr must be .* got None.*Try initial_lr="),
        ({"initial_lr": 0.0}, r"initial_lr must be finite and > 0; got 0.0. Try initial_lr="),
        ({"betas": (1.0, 0.9)}, r"betas\[0\] must be in \[0, 1\); got 1.0. Try betas\[0\]="),
    ],
)
def test_bad_arguments_are_refused_under_their_own_names(kwargs, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        compat.llm_foundry.decoupled_lionw(**kwargs)
