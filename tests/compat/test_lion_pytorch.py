"""lion-pytorch's Lion: recorded runs, and agreement with the core."""

import chex
import optax
import pytest
import recordings
from trees import assert_close, run, tree

import lion_jax
from lion_jax import compat

GRADIENTS = [tree(seed=seed) for seed in range(1, 5)]


@recordings.replays("lionpytorch")
def test_lion_replays_lion_pytorch(name, dtype):
    case = recordings.CASES[name]
    recordings.assert_replays(
        name,
        lambda: compat.lion_pytorch.lion(
            recordings.schedule(name), **case["kwargs"], initial_lr=case["lr"][0]
        ),
        dtype,
    )


def test_lion_is_the_core_lion():
    expected, _ = run(lion_jax.lion(1e-4, 0.9, 0.99, weight_decay=0.1), tree(), GRADIENTS)
    actual, _ = run(compat.lion_pytorch.lion(weight_decay=0.1), tree(), GRADIENTS)
    chex.assert_trees_all_equal(actual, expected)


def test_decoupled_decay_is_divided_by_the_initial_rate():
    """The only place that reads `initial_lr`."""
    plain = compat.lion_pytorch.lion(0.01, weight_decay=0.5)
    decoupled = compat.lion_pytorch.lion(
        0.01, weight_decay=0.1, decoupled_weight_decay=True, initial_lr=0.2
    )
    assert_close(run(decoupled, tree(), GRADIENTS)[0], run(plain, tree(), GRADIENTS)[0])


def test_decoupled_decay_under_a_schedule_needs_the_initial_rate():
    schedule = optax.constant_schedule(1e-3)
    with pytest.raises(ValueError, match=r"^initial_lr must be.*got None.*Try initial_lr="):
        compat.lion_pytorch.lion(schedule, decoupled_weight_decay=True)
    compat.lion_pytorch.lion(schedule)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"lr": -1.0}, r"lr must be finite and >= 0; got -1.0"),
        ({"betas": (0.9, 1.5)}, r"betas\[1\] must be in \[0, 1\); got 1.5"),
        ({"weight_decay": -0.1}, r"weight_decay must be finite and >= 0; got -0.1"),
        ({"lr": 0.0, "decoupled_weight_decay": True}, r"initial_lr must be finite and > 0; got 0"),
    ],
)
def test_bad_arguments_are_refused_under_their_own_names(kwargs, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        compat.lion_pytorch.lion(**kwargs)
