"""torch's schedules: recorded runs, and what torch leaves undefined."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from torch_schedulers import BASE_LR, CASES, TOLERANCE, recorded
from trees import run

from lion_jax import compat
from lion_jax.compat.torch import (
    cosine_annealing_lr,
    exponential_lr,
    lambda_lr,
    multi_step_lr,
    one_cycle_lr,
    one_cycle_momentum,
    step_lr,
)


def warmup(count):
    return jnp.minimum((count + 1) / 5, 1.0)


FACTORIES = {
    "StepLR": functools.partial(step_lr, BASE_LR),
    "MultiStepLR": functools.partial(multi_step_lr, BASE_LR),
    "ExponentialLR": functools.partial(exponential_lr, BASE_LR),
    "CosineAnnealingLR": functools.partial(cosine_annealing_lr, BASE_LR),
    "OneCycleLR": one_cycle_lr,
    "LambdaLR": lambda lr_lambda: lambda_lr(BASE_LR, {"warmup": warmup}[lr_lambda]),
}
NO_MOMENTUM = ("max_lr", "div_factor", "final_div_factor")
FROM_LR = {
    "step": lambda lr: step_lr(lr, 10),
    "multi_step": lambda lr: multi_step_lr(lr, [5, 10, 10]),
    "exponential": lambda lr: exponential_lr(lr, 0.9),
    "cosine": lambda lr: cosine_annealing_lr(lr, 12, 0.01),
    "one_cycle": lambda lr: one_cycle_lr(lr, 20),
    "lambda": lambda lr: lambda_lr(lr, warmup),
}

by_name = pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case["cls"] in FACTORIES]
)
by_dtype = pytest.mark.parametrize("dtype", [np.float64, np.float32])
from_lr = pytest.mark.parametrize("make", FROM_LR.values(), ids=FROM_LR.keys())


def schedules(name):
    """Our schedule of each thing that was recorded."""
    case = CASES[name]
    ours = {"lr": FACTORIES[case["cls"]](**case["kwargs"])}
    if case["cls"] == "OneCycleLR":
        shape = {k: v for k, v in case["kwargs"].items() if k not in NO_MOMENTUM}
        ours["momentum"] = one_cycle_momentum(**shape)
    return ours


def assert_rates(actual, expected, dtype):
    assert all(rate.dtype == dtype for rate in actual)
    np.testing.assert_allclose(np.array(actual), expected, rtol=TOLERANCE[np.dtype(dtype)])


@by_name
@by_dtype
def test_replays_torch(name, dtype):
    expected = recorded(name)
    with jax.enable_x64(dtype == np.float64):
        for key, schedule in schedules(name).items():
            at = jax.jit(schedule)
            assert_rates([at(jnp.int32(t)) for t in range(60)], expected.pop(key), dtype)
    assert not expected


@pytest.mark.sampled
@by_name
@by_dtype
def test_replays_torch_mapped_over_counts(name, dtype):
    expected = recorded(name)
    with jax.enable_x64(dtype == np.float64):
        counts = jnp.arange(60, dtype=jnp.int32)
        for key, schedule in schedules(name).items():
            assert_rates(jax.jit(jax.vmap(schedule))(counts), expected[key], dtype)


@pytest.mark.sampled
@from_lr
@by_dtype
def test_a_rate_is_a_scalar_as_wide_as_floats_go(make, dtype):
    with jax.enable_x64(dtype == np.float64):
        for lr in (1, 0.5, np.float32(0.5), jnp.bfloat16(0.5)):
            for count in (3, np.int64(3), jnp.int32(3)):
                rate = make(lr)(count)
                assert (rate.dtype, rate.shape, rate.weak_type) == (dtype, (), False)


@pytest.mark.slow
@from_lr
@pytest.mark.usefixtures("x64")
def test_a_traced_learning_rate_can_be_swept(make):
    rates, count = jnp.array([0.0, 0.1, 0.2]), jnp.int32(11)
    swept = jax.jit(jax.vmap(lambda lr: make(lr)(count)))(rates)
    np.testing.assert_allclose(swept, [make(float(lr))(count) for lr in rates], rtol=1e-12)


@pytest.mark.sampled
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("make", "numbers"),
    [
        (lambda gamma: step_lr(0.1, 10, gamma), (0.5,)),
        (lambda gamma: multi_step_lr(0.1, [3, 9], gamma), (0.5,)),
        (lambda gamma: exponential_lr(0.1, gamma), (0.9,)),
        (lambda eta_min: cosine_annealing_lr(0.1, 20, eta_min), (0.01,)),
        (lambda p, d, f: one_cycle_lr(1, 20, pct_start=p, div_factor=d, final_div_factor=f),
         (0.3, 10.0, 100.0)),
        (lambda p, b, m: one_cycle_momentum(20, pct_start=p, base_momentum=b, max_momentum=m),
         (0.3, 0.5, 0.75)),
    ],
)  # fmt: skip
def test_every_number_can_be_traced(make, numbers):
    counts = jnp.arange(25)
    traced = jax.jit(lambda *numbers: make(*numbers)(counts))(*map(jnp.asarray, numbers))
    np.testing.assert_allclose(traced, make(*numbers)(counts), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_cosine_annealing_rises_and_falls_forever():
    schedule = cosine_annealing_lr(0.3, T_max=7, eta_min=0.1)
    period = schedule(jnp.arange(14))
    np.testing.assert_allclose(period[::7], [0.3, 0.1], rtol=1e-15)
    np.testing.assert_allclose(period[1:], period[:0:-1], rtol=1e-12)
    np.testing.assert_allclose(schedule(14 * 1000 + jnp.arange(14)), period, rtol=1e-12)


@pytest.mark.sampled
@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("three_phase", [False, True])
def test_one_cycle_keeps_its_last_value(strategy, three_phase):
    kwargs = {"anneal_strategy": strategy, "three_phase": three_phase}
    after = jnp.array([19, 20, 21, 10**6])
    rates = one_cycle_lr(1.0, 20, final_div_factor=8.0, **kwargs)(after)
    np.testing.assert_allclose(rates, 1 / 25 / 8, rtol=1e-6)
    np.testing.assert_allclose(one_cycle_momentum(20, **kwargs)(after), 0.95, rtol=1e-6)


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("pct_start", "peak"), [(0.0, None), (0.1, 0), (0.25, None), (0.3, 2), (1.0, 9)]
)
def test_one_cycle_peaks_a_step_before_its_share_is_over(pct_start, peak):
    """Exactly, where that is a whole number; torch divides by zero where it is 0."""
    rates = one_cycle_lr(1.0, 10, pct_start=pct_start)(jnp.arange(10))
    assert jnp.all((rates > 0) & (rates <= 1))
    assert (rates.tolist().index(1.0) if 1.0 in rates else None) == peak


@pytest.mark.slow
def test_total_steps_go_before_epochs():
    counts = jnp.arange(12)
    both = one_cycle_lr(1.0, 10, epochs=3, steps_per_epoch=4)(counts)
    np.testing.assert_array_equal(both, one_cycle_lr(1.0, 10)(counts))
    product = one_cycle_lr(1.0, epochs=3, steps_per_epoch=4)(counts)
    np.testing.assert_array_equal(product, one_cycle_lr(1.0, 12)(counts))


def test_a_long_exponential_is_right_in_float32():
    rates = exponential_lr(0.1, 0.9999)(jnp.array([10**4, 10**5]))
    np.testing.assert_allclose(rates, 0.1 * 0.9999 ** np.array([10**4, 10**5]), rtol=2e-6)


LATE = np.array([0, 1, 2, 999, 2**24 + 1, 2**30, 2**31 - 2, 2**31 - 1])


@pytest.mark.sampled
@pytest.mark.parametrize("T", [1, 3, 1000, 2**30, 2**31 - 1])
def test_cosine_annealing_is_right_at_all_counts(T):  # noqa: N803  torch's own name
    distance = np.abs(T - LATE % (2 * T))
    expected = (1 - np.cos(np.pi * distance / T)) / 2
    counts = jnp.asarray(LATE, jnp.int32)
    for schedule in (cosine_annealing_lr(1.0, T), cosine_annealing_lr(1.0, np.int64(T))):
        np.testing.assert_allclose(schedule(counts), expected, rtol=1e-5, atol=1e-6)
        one_by_one = [jax.jit(schedule)(count) for count in counts]
        np.testing.assert_allclose(one_by_one, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 3, 2**20, 2**30, 2**31 - 1])
def test_steps_are_counted_right_at_all_counts(steps):
    counts = jnp.asarray(LATE, jnp.int32)
    gamma = 0.9999999
    expected = gamma ** (LATE // steps).astype(np.float64)
    np.testing.assert_allclose(step_lr(1.0, steps, gamma)(counts), expected, 2e-5, 1e-30)
    expected = gamma ** (steps <= LATE).astype(np.float64)
    np.testing.assert_allclose(multi_step_lr(1.0, [steps], gamma)(counts), expected, rtol=1e-6)
    expected = gamma ** LATE.astype(np.float64)
    np.testing.assert_allclose(exponential_lr(1.0, gamma)(counts), expected, 2e-5, 1e-30)


def test_counts_may_be_narrow_integers():
    count = jnp.int8(100)
    assert_close = np.testing.assert_allclose
    assert_close(cosine_annealing_lr(1.0, 1000)(count), (1 + math.cos(math.pi / 10)) / 2, rtol=1e-6)
    assert step_lr(1.0, 1000, 0.5)(count) == multi_step_lr(1.0, [1000], 0.5)(count) == 1


def test_no_milestones_and_no_decay_leave_the_rate():
    counts = jnp.arange(3)
    np.testing.assert_array_equal(multi_step_lr(0.5, [])(counts), [0.5] * 3)
    np.testing.assert_array_equal(multi_step_lr(0.5, (2,), gamma=0)(counts), [0.5, 0.5, 0.0])


def test_a_lambda_gets_an_integer_that_it_may_index_with():
    table = jnp.array([1.0, 0.5, 0.25])
    np.testing.assert_array_equal(lambda_lr(2.0, lambda t: table[t])(jnp.int32(2)), 0.5)
    np.testing.assert_array_equal(lambda_lr(2.0, lambda t: 0.5)(jnp.int32(2)), 1.0)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_sgd_follows_one_cycle_of_learning_rate_and_momentum():
    """SGD as torch has it, by hand, at the recorded learning rates and momenta."""
    cycle, gradients = recorded("onecycle"), np.random.default_rng(0).standard_normal((60, 5))
    p, buffer = np.ones(5), np.zeros(5)
    for lr, momentum, g in zip(cycle["lr"], cycle["momentum"], gradients, strict=True):
        buffer = momentum * buffer + g
        p = p - lr * buffer
    tx = optax.inject_hyperparams(compat.torch.sgd, static_args=("nesterov",))(
        lr=one_cycle_lr(0.1, total_steps=60), momentum=one_cycle_momentum(total_steps=60)
    )
    params, _ = run(tx, jnp.ones(5), jnp.asarray(gradients))
    np.testing.assert_allclose(params, p, rtol=1e-9)


NAN = math.nan
BAD_VALUES = [
    (lambda: step_lr(-0.1, 10), r"lr must be finite and >= 0; got -0\.1\. Try lr="),
    (lambda: step_lr(0.1, 0), r"step_size must be an integer >= 1 .*got 0\. Try step_size=30"),
    (lambda: step_lr(0.1, 10, -1.0), r"gamma must be finite and >= 0; got -1\.0\. Try gamma=0\.1"),
    (lambda: multi_step_lr(NAN, [3]), r"lr must be finite and >= 0; got nan"),
    (lambda: multi_step_lr(0.1, [3, -1]), r"milestones\[1\] must be an integer >= 0 .*got -1\."),
    (lambda: multi_step_lr(0.1, [3], NAN), r"gamma must be finite and >= 0; got nan"),
    (lambda: exponential_lr(math.inf, 0.9), r"lr must be finite and >= 0; got inf"),
    (lambda: exponential_lr(0.1, 0.0), r"gamma must be finite and > 0; got 0\.0\. Try gamma=0\.99"),
    (lambda: cosine_annealing_lr(-1.0, 5), r"lr must be finite and >= 0; got -1\.0"),
    (lambda: cosine_annealing_lr(0.1, 0), r"T_max must be an integer >= 1 .*got 0\. Try T_max="),
    (lambda: cosine_annealing_lr(0.1, 5, -0.1), r"eta_min must be finite and >= 0; got -0\.1\."),
    (lambda: one_cycle_lr(-0.1, 10), r"max_lr must be finite and >= 0; got -0\.1\. Try max_lr="),
    (lambda: one_cycle_lr(0.1), r"total_steps must be .*epochs=None and .*Try total_steps=1000"),
    (lambda: one_cycle_lr(0.1, epochs=3), r"total_steps must be .*epochs=3 and steps_per_epoch=N"),
    (lambda: one_cycle_lr(0.1, 0), r"total_steps must be an integer >= 1 .*got 0\. Try"),
    (lambda: one_cycle_lr(0.1, epochs=0, steps_per_epoch=1), r"epochs must be an integer .*got 0"),
    (lambda: one_cycle_lr(0.1, epochs=1, steps_per_epoch=0), r"steps_per_epoch must be .*got 0"),
    (lambda: one_cycle_lr(0.1, epochs=2**20, steps_per_epoch=2**12),
     r"epochs \* steps_per_epoch must be an integer .*got 1048576 \* 4096 = 4294967296\. Try"),
    (lambda: one_cycle_momentum(epochs=np.int32(2**20), steps_per_epoch=np.int32(2**12)),
     r"epochs \* steps_per_epoch must be .*= 4294967296\. Try total_steps="),
    (lambda: one_cycle_lr(0.1, 9, pct_start=1.5), r"pct_start must be in \[0, 1\]; got 1\.5\. Try"),
    (lambda: one_cycle_lr(0.1, 9, div_factor=0.0), r"div_factor must be finite and > 0; got 0\.0"),
    (lambda: one_cycle_lr(0.1, 9, final_div_factor=0), r"final_div_factor must be .*> 0; got 0\."),
    (lambda: one_cycle_lr(0.1, 9, anneal_strategy="cosine"),
     r"anneal_strategy must be \"cos\" or \"linear\"; got 'cosine'\. Try anneal_strategy=\"cos\""),
    (lambda: one_cycle_momentum(9, base_momentum=1.0), r"base_momentum must be in \[0, 1\); got 1"),
    (lambda: one_cycle_momentum(9, max_momentum=-0.1), r"max_momentum must be in \[0, 1\); got -0"),
    (lambda: one_cycle_momentum(0), r"total_steps must be an integer >= 1 .*got 0\. Try"),
    (lambda: lambda_lr(-0.1, warmup), r"lr must be finite and >= 0; got -0\.1\. Try"),
]  # fmt: skip
BAD_TYPES = [
    (lambda: step_lr("0.1", 10), r"lr must be a number, .*got '0\.1' of type str\. Try lr="),
    (lambda: step_lr(warmup, 10), r"lr must be a number, .*of type function\. Try lr="),
    (lambda: step_lr(0.1, 2.5), r"step_size must be an integer .*got 2\.5\. Try step_size="),
    (lambda: multi_step_lr(0.1, 30), r"milestones must be a list of integers >= 0; got 30 .*Try"),
    (lambda: multi_step_lr(0.1, [2.5]), r"milestones\[0\] must be an integer .*got 2\.5\. Try"),
    (lambda: cosine_annealing_lr(0.1, 5.0), r"T_max must be an integer .*got 5\.0\. Try T_max="),
    (lambda: one_cycle_lr(0.1, 10, three_phase=1), r"three_phase must be True or False; got 1"),
    (lambda: one_cycle_momentum(10, three_phase="no"), r"three_phase must be True or .*got 'no'"),
    (lambda: lambda_lr(0.1, 0.95), r"lr_lambda must be a function .*got 0\.95 of type float\. Try"),
    (lambda: lambda_lr(0.1, [warmup]), r"lr_lambda must be a function .*of type list\. Try"),
]


@pytest.mark.parametrize(("make", "message"), BAD_VALUES)
def test_bad_values_are_refused_under_torchs_own_names(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


@pytest.mark.parametrize(("make", "message"), BAD_TYPES)
def test_arguments_of_the_wrong_type_are_refused(make, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        make()
