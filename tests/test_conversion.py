"""From AdamW to Lion: what is divided, what is multiplied, and what stays."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lion_jax
from lion_jax import from_adamw


@pytest.mark.parametrize(
    ("adamw", "lion"),
    [((1e-3, 1.0), (1e-4, 10.0)), ((3e-4, 0.01), (3e-5, 0.1))],
    ids=["vit", "diffusion"],
)
def test_a_factor_of_ten_gives_the_published_pairs(adamw, lion):
    converted = from_adamw(*adamw, factor=10.0)
    np.testing.assert_allclose((converted.learning_rate, converted.weight_decay), lion)


def test_the_product_of_learning_rate_and_weight_decay_stays():
    converted = from_adamw(1e-3, 0.02)
    np.testing.assert_allclose(converted.learning_rate * converted.weight_decay, 2e-5)
    for lr, wd in zip(
        converted.learning_rate_range, reversed(converted.weight_decay_range), strict=True
    ):
        np.testing.assert_allclose(lr * wd, 2e-5)


def test_the_default_lies_within_the_published_range():
    converted = from_adamw(3e-3, 0.01)
    low, high = converted.learning_rate_range
    np.testing.assert_allclose((low, high), (3e-4, 1e-3))
    assert low < converted.learning_rate < high
    low, high = converted.weight_decay_range
    np.testing.assert_allclose((low, high), (0.03, 0.1))
    assert low < converted.weight_decay < high


def test_a_schedule_is_divided_as_a_whole():
    schedule = optax.warmup_cosine_decay_schedule(1e-4, 1e-3, 10, 100, 1e-5)
    converted = from_adamw(schedule, 0.1, factor=4.0)
    at = jax.jit(converted.learning_rate)
    for count in (0, 5, 10, 50, 100, 1000):
        np.testing.assert_allclose(at(count), schedule(count) / 4, rtol=1e-6)
        low, high = (bound(count) for bound in converted.learning_rate_range)
        np.testing.assert_allclose((low, high), (schedule(count) / 10, schedule(count) / 3))


def test_arguments_go_into_lion():
    converted = from_adamw(optax.constant_schedule(0.5), lambda count: 0.02 + 0.0 * count)
    tx = lion_jax.lion(**converted.arguments)
    params = jnp.array([2.0])
    updates, _ = jax.jit(tx.update)(jnp.array([1.0]), tx.init(params), params)
    np.testing.assert_allclose(updates, -0.1 * (1 + 0.1 * params), rtol=1e-6)


@pytest.mark.parametrize(
    ("b2", "betas"), [(0.999, (0.9, 0.99)), (0.99, (0.95, 0.98)), (0.95, (0.95, 0.98))]
)
def test_a_short_memory_of_adamw_is_one_of_lion(b2, betas):
    converted = from_adamw(1e-3, 0.1, b2)
    assert (converted.b1, converted.b2) == betas


def test_a_traced_learning_rate_passes():
    np.testing.assert_allclose(jax.jit(lambda lr: from_adamw(lr, 0.1).learning_rate)(1e-3), 2e-4)


def test_prints_in_a_few_readable_lines():
    lines = str(from_adamw(1e-3, 0.01)).splitlines()
    assert lines[:3] == [
        "learning_rate: 0.0002 (search 0.0001 to 0.000333)",
        "weight_decay: 0.05 (search 0.03 to 0.1)",
        "b1: 0.9, b2: 0.99",
    ]
    assert len(lines) < 10
    assert all(line.startswith("- ") and line.endswith(")") for line in lines[3:-1])
    assert max(map(len, lines)) < 200
    assert str(from_adamw(jnp.float32(1e-3), 0.01)) == "\n".join(lines)


def test_schedules_print_what_happens_to_them():
    lines = str(from_adamw(optax.constant_schedule(1e-3), lambda count: 0.1, factor=4)).splitlines()
    assert lines[0] == "learning_rate: the schedule / 4 (search / 10 to / 3)"
    assert lines[1] == "weight_decay: the schedule * 4 (search * 3 to * 10)"


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"learning_rate": -1e-3}, ValueError, "learning_rate"),
        ({"learning_rate": "1e-3"}, TypeError, "learning_rate"),
        ({"weight_decay": float("nan")}, ValueError, "weight_decay"),
        ({"weight_decay": None}, TypeError, "weight_decay"),
        ({"b2": 1.0}, ValueError, "b2"),
        ({"b2": lambda count: 0.9}, TypeError, "b2"),
        ({"factor": 0.0}, ValueError, "factor"),
        ({"factor": "5"}, TypeError, "factor"),
        ({"factor": jnp.ones(2)}, ValueError, "factor"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, error, name):
    with pytest.raises(error, match=rf"^{name} must be .*got "):
        from_adamw(**{"learning_rate": 1e-3, "weight_decay": 0.1} | arguments)
