"""Tasks of one's own: what trains as a plain loop would, what is recorded, what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from lab import oracle

from lion_jax import lab
from lion_jax.lab.trainer import train

SGD = lab.Rule("sgd", optax.sgd, (0.1, 0.1))
WEIGHTS = np.array([1.0, -2.0, 3.0], np.float32)
X = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
PAIR = (X, X @ WEIGHTS)


def trained(task, batch_size=6):
    """The outcome of two seeds at one learning rate."""
    outcome, _ = train(
        task,
        SGD,
        {"learning_rate": np.array([0.1])},
        steps=4,
        seeds=2,
        batch_size=batch_size,
        schedule="constant",
        on_step=lambda t: None,
    )
    return outcome


def square(w, batch, key):
    """A loss of pairs."""
    del key
    return jnp.mean((batch[0] @ w - batch[1]) ** 2)


def task_of(**changes):
    """A task of pairs with something else in it."""
    parts = {"init": lambda key: jnp.zeros(3), "loss": square}
    return lab.Task(**parts | {"train": PAIR, "validation": PAIR, "test": PAIR} | changes)


@pytest.mark.slow
def test_a_regression_without_labels_trains_as_a_plain_loop(line):
    outcome = trained(line)
    for seed in range(2):
        batches = oracle.batches_of(line, seed, 4, 6)
        w, _, losses = oracle.run(line, SGD, 0.1, seed, batches)
        np.testing.assert_allclose(outcome.curve[0, seed], losses, rtol=1e-4)
        for split, found in [
            (line.train, outcome.train_loss),
            (line.validation, outcome.validation["loss"]),
            (line.test, outcome.test["loss"]),
        ]:
            expected = np.mean((split["x"] @ np.asarray(w) - split["y"]) ** 2)
            np.testing.assert_allclose(found[0, seed], expected, rtol=1e-4)


@pytest.mark.slow
def test_state_is_carried_from_step_to_step_and_not_trained():
    """A running mean, which the metric reads."""

    def init(key):
        return jax.random.normal(key, (3,)), jnp.zeros(3)

    def loss(w, mean, batch, key):
        x, y = batch
        mean = 0.5 * mean + 0.5 * x.mean(0)
        return square(w, (x - mean[None], y), key), mean

    def first(w, mean, split):
        del w, split
        return mean[0]

    metrics = {"first": ("down", first)}
    task = task_of(init=init, loss=loss, has_state=True, metrics=metrics)
    outcome = trained(task)
    for seed in range(2):
        batches = oracle.batches_of(task, seed, 4, 6)
        mean = np.zeros(3)
        for x, _ in batches:
            mean = 0.5 * mean + 0.5 * x.mean(0)
        w, state, losses = oracle.run(task, SGD, 0.1, seed, batches)
        np.testing.assert_allclose(state, mean, rtol=1e-4)
        np.testing.assert_allclose(outcome.test["first"][0, seed], mean[0], rtol=1e-4)
        np.testing.assert_allclose(outcome.curve[0, seed], losses, rtol=1e-4)
        np.testing.assert_allclose(
            outcome.train_loss[0, seed], loss(w, mean, PAIR, jax.random.key(0))[0], rtol=1e-4
        )


def test_the_loss_of_a_task_with_state_is_a_metric_too():
    def loss(w, count, batch, key):
        return square(w, batch, key), count + 1

    task = task_of(init=lambda key: (jnp.zeros(3), 0), loss=loss, has_state=True)
    found = task.metrics["loss"].function(WEIGHTS, 0, PAIR)
    np.testing.assert_allclose(found, 0, atol=1e-10)


@pytest.mark.slow
def test_noise_in_the_loss_is_fresh_in_each_step_and_the_seed_s_own():
    """Dropout, for example, leaves some inputs out."""

    def loss(w, batch, key):
        kept = jax.random.bernoulli(key, 0.5, batch[0].shape)
        return square(w, (2 * kept * batch[0], batch[1]), key)

    task = task_of(loss=loss, init=lambda key: jnp.ones(3))
    outcome = trained(task, batch_size=40)
    for seed in range(2):
        batches = oracle.batches_of(task, seed, 4, 40)
        _, _, losses = oracle.run(task, SGD, 0.1, seed, batches)
        np.testing.assert_allclose(outcome.curve[0, seed], losses, rtol=1e-4)


def with_jax(step):
    x = jax.random.normal(jax.random.key(step), (6, 3))
    return x, x @ WEIGHTS


def with_numpy(step):
    x = np.random.default_rng(step).standard_normal((6, 3)).astype(np.float32)
    return x, x @ WEIGHTS


@pytest.mark.sampled
@pytest.mark.parametrize("stream", [with_jax, with_numpy])
def test_a_stream_trains_each_seed_on_steps_of_its_own(stream):
    task = task_of(train=stream)
    assert task.is_stream
    assert task.examples == {"validation": 40, "test": 40}
    outcome = trained(task)
    for seed in range(2):
        batches = [stream(seed * 4 + step) for step in range(4)]
        w, _, losses = oracle.run(task, SGD, 0.1, seed, batches)
        np.testing.assert_allclose(outcome.curve[0, seed], losses, rtol=1e-4)
        np.testing.assert_allclose(outcome.test["loss"][0, seed], square(w, PAIR, None), rtol=1e-4)
        np.testing.assert_allclose(
            outcome.train_loss[0, seed], square(w, batches[0], None), rtol=1e-4
        )


def test_the_first_metric_decides_in_its_direction(instant):
    """Two metrics have the same figures here."""

    def loss(w, split):
        return square(w, split, None)

    asked = {"rules": "sgd", "steps": 3, "seeds": 1, "learning_rates": 6}
    most, least = (
        lab.compare(task_of(metrics={first: (first, loss), other: (other, loss)}), **asked).best
        for first, other in (("up", "down"), ("down", "up"))
    )
    assert instant == ["sgd", "sgd"]
    assert (most.metric, least.metric) == ("up", "down")
    figures = most.outcome.validation["down"].mean(axis=1)
    assert (most.best, least.best) == (figures.argmax(), figures.argmin())
    assert most.test == pytest.approx(float(most.outcome.test["up"][most.best].mean()))


@pytest.mark.slow
def test_float64_data_train_where_float64_is_on(x64):
    del x64
    data = X.astype(float), X @ WEIGHTS.astype(float)
    task = task_of(train=data, validation=data, test=data)
    assert np.isfinite(trained(task).train_loss).all()


def test_a_task_stored_in_bfloat16_has_state_and_indices_as_they_were():
    def init(key):
        del key
        return {"w": jnp.ones(3)}, {"third": jnp.float32(1 / 3), "indices": jnp.arange(3)}

    def loss(params, state, batch, key):
        assert params["w"].dtype == jnp.float32
        return square(params["w"], batch, key) + state["third"], state

    task = task_of(init=init, loss=loss, has_state=True).stored_in(jnp.bfloat16)
    params, state = task.init(jax.random.key(0))
    assert params["w"].dtype == jnp.bfloat16
    assert state["indices"].dtype == jnp.int32
    assert state["third"].dtype == jnp.float32
    assert task.metrics["loss"].function(params, state, PAIR).dtype == jnp.float32
    assert task_of().stored_in(None).stored_in(jnp.float16).init(None).dtype == jnp.float16


def test_a_split_is_disjoint_and_covers_all_examples():
    data = {"x": np.arange(100), "y": jnp.arange(100) * 2}
    parts = lab.split(data)
    assert [len(part["x"]) for part in parts] == [60, 20, 20]
    assert sorted(np.concatenate([part["x"] for part in parts])) == list(range(100))
    for part in parts:
        np.testing.assert_array_equal(2 * part["x"], part["y"])
    assert (np.diff(parts.train["x"]) != 1).any()


def test_a_split_is_decided_by_its_seed_and_leaves_out_what_shares_leave():
    first, again, other = (lab.split(X, (0.5, 0.1, 0.2), seed) for seed in (0, 0, 1))
    assert [len(part) for part in first] == [20, 4, 8]
    for part, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(part, same)
    assert (first.train != other.train).any()
    assert len(np.unique(np.concatenate(first), axis=0)) == 32


@pytest.mark.parametrize(
    ("data", "shares", "message"),
    [
        (X[:2], (0.6, 0.2, 0.2), "each split must have an example; got 2 examples in all"),
        (X, (0.98, 0.01, 0.01), "each split must have an example; got 40 examples in all"),
        (X, (0.6, 0.4), "shares must be three numbers > 0, at most 1 in all; got"),
        (X, (0.6, 0.4, 0.0), "shares must be three numbers > 0, at most 1 in all; got"),
        (X, (0.6, 0.4, 0.2), "shares must be three numbers > 0, at most 1 in all; got"),
        (X, (0.6, float("nan"), 0.2), "shares must be three numbers > 0, at most 1 in all; got"),
        ((X, X[1:]), (0.6, 0.2, 0.2), "the arrays of data must have one leading axis"),
        ([1, 2, 3], (0.6, 0.2, 0.2), "data must be a tree of arrays with a leading axis"),
        ({}, (0.6, 0.2, 0.2), "data must be a tree of arrays with a leading axis"),
    ],
)
def test_what_cannot_be_split_is_refused(data, shares, message):
    refused(lambda: lab.split(data, shares), message)


def test_a_task_describes_its_data_by_sizes_directions_and_hashes_that_are_always_the_same():
    task = task_of(
        train=np.arange(10, dtype=np.int32),
        validation=np.arange(4, dtype=np.int32),
        test=np.arange(5, dtype=np.int32),
        init=lambda key: jnp.zeros(()),
        loss=lambda w, batch, key: jnp.mean(batch * w),
        metrics={"accuracy": ("up", lambda w, split: w), "loss": ("down", lambda w, split: w, 0.1)},
        name="numbers",
        description="ten numbers",
        loss_unit="nats",
    )
    described = task.described()
    hashes = described.pop("sha256")
    assert len(described.pop("program")) == 16
    assert described == {
        "name": "numbers",
        "description": "ten numbers",
        "examples": {"train": 10, "validation": 4, "test": 5},
        "metrics": {"accuracy": "up", "loss": "down"},
        "loss_unit": "nats",
    }
    assert hashes["test"] == "87371cd440087f37410d7147c428709406f064f00c3da4ed8ed1c36d1e530ffa"


@pytest.mark.parametrize(
    "other",
    [
        (X + np.float32(1e-6) * (np.arange(40) == 39)[:, None], PAIR[1]),
        (X[:39], PAIR[1][:39]),
        (X[::-1], PAIR[1][::-1]),
        (X.astype(np.float64), PAIR[1]),
        [X, PAIR[1], PAIR[1]],
        {"x": X, "y": PAIR[1]},
    ],
    ids=["an entry", "a row less", "another order", "another dtype", "one more", "names"],
)
def test_a_hash_changes_with_the_data(other):
    def hash_of(train):
        splits = {"train": train, "validation": train, "test": train}
        task = task_of(**splits, loss=lambda w, batch, key: jnp.sum(w))
        return task.described()["sha256"]["train"]

    assert hash_of(other) != hash_of(PAIR)
    assert hash_of(PAIR) == hash_of((X.copy(order="F"), jnp.asarray(PAIR[1])))


def refused(make, message):
    """Checks that something is refused with one line, which the message begins."""
    with pytest.raises(lab.RequestError) as error:
        make()
    assert str(error.value).startswith(message), str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss": lambda w, batch, key: (batch[0] @ w - batch[1]) ** 2},
            "loss(params, batch, key) must be a real scalar, of shape (); got ",
        ),
        (
            {"loss": lambda w, batch, key: (square(w, batch, key), {})},
            "loss(params, batch, key) must be a real scalar, of shape (); got ",
        ),
        (
            {"loss": lambda w, batch, key: jnp.sum(w) * 1j},
            "loss(params, batch, key) must be a real scalar, of shape (); got ",
        ),
        (
            {"loss": lambda w, batch, key: None},
            "loss(params, batch, key) must be a real scalar, of shape (); got ",
        ),
        (
            {"has_state": True, "init": lambda key: (jnp.zeros(3), 0), "loss": lambda *_: 0.0},
            "loss(params, state, batch, key) must give (loss, state); got ",
        ),
        (
            {
                "has_state": True,
                "init": lambda key: (jnp.zeros(3), 0),
                "loss": lambda w, state, batch, key: (w, state),
            },
            "loss(params, state, batch, key) must be a real scalar, of shape (); got ",
        ),
        (
            {"validation": {"x": X, "y": PAIR[1]}},
            "the splits must have the same structure; an example of train is ",
        ),
        ({"test": (X[:, :2], PAIR[1])}, "the splits must have the same structure; an example of "),
        ({"test": (X.astype(int), PAIR[1])}, "the splits must have the same structure; an "),
        (
            {"train": lambda step: {"x": X, "y": PAIR[1]}},
            "the splits must have the same structure; ",
        ),
        (
            {"train": (X, PAIR[1][:39])},
            "the arrays of train must have one leading axis of examples, of one length > 0; got ",
        ),
        (
            {"validation": (X[:0], PAIR[1][:0])},
            "the arrays of validation must have one leading axis of examples, of one length > 0",
        ),
        (
            {"test": (X, PAIR[1].tolist())},
            "test must be a tree of arrays with a leading axis of examples; got ",
        ),
        (
            {"train": (X, np.float32(1.0))},
            "train must be a tree of arrays with a leading axis of examples, or a function step ->",
        ),
        ({"train": None}, "train must be a tree of arrays with a leading axis of examples, or a"),
        ({"metrics": {}}, "metrics must have at least one; got none. Try metrics="),
        (
            {"metrics": {"loss": lambda w, split: jnp.sum(w)}},
            'the metric \'loss\' must have a direction, "up" or "down", and a function; got ',
        ),
        (
            {"metrics": {"loss": ("smaller", lambda w, split: jnp.sum(w))}},
            'the metric \'loss\' must have a direction, "up" or "down", and a function; got ',
        ),
        (
            {"metrics": {"loss": ("down", 3)}},
            'the metric \'loss\' must have a direction, "up" or "down", and a function; got ',
        ),
        (
            {"metrics": {"each": ("down", lambda w, split: w)}},
            "the metric 'each' must be a real scalar, of shape (); got ",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_with_a_remedy(changes, message):
    refused(lambda: task_of(**changes), message)


def test_a_task_can_be_changed_and_is_checked_again(line):
    renamed = dataclasses.replace(line, name="renamed")
    assert renamed.described() == line.described() | {"name": "renamed"}
    refused(lambda: dataclasses.replace(line, test=PAIR), "the splits must have the same structure")


@pytest.mark.slow
def test_figures_in_bfloat16_are_recorded_in_float32():
    def narrow(w, split):
        return square(w, split, None).astype(jnp.bfloat16)

    outcome = trained(task_of(metrics={"narrow": ("down", narrow)}))
    assert outcome.test["narrow"].dtype == outcome.validation["narrow"].dtype == np.float32


def test_a_fingerprint_is_that_of_what_is_computed():
    one = task_of().described()["program"]
    assert task_of(loss=lambda w, b, key: square(w, b, key)).described()["program"] == one
    assert task_of(loss=lambda w, b, key: 2 * square(w, b, key)).described()["program"] != one
    assert task_of(init=lambda key: jnp.ones(3)).described()["program"] != one


@pytest.mark.slow
def test_a_stream_of_numpy_may_have_numbers_of_64_bits():
    def stream(step):
        rng = np.random.default_rng(int(step))
        x = rng.normal(size=(6, 3))
        return x, (x @ WEIGHTS + rng.integers(0, 1, 6)).astype(np.float64)

    task = task_of(train=stream, validation=stream(98), test=stream(99))
    assert np.isfinite(trained(task).train_loss).all()
    kinds = task_of(
        init=lambda key: jnp.zeros(()),
        loss=lambda w, batch, key: jnp.mean((w - batch) ** 2),
        train=lambda step: np.random.default_rng(int(step)).integers(0, 9, 6),
        validation=np.arange(6),
        test=np.arange(6),
    )
    assert np.isfinite(trained(kinds).train_loss).all()


def test_a_module_in_the_place_of_parameters_is_told_of_task_of():
    from flax import nnx

    with pytest.raises(lab.RequestError, match=r"got a module of flax nnx. Try lab.task_of"):
        task_of(init=lambda key: nnx.Linear(3, 1, rngs=nnx.Rngs(key)))


@pytest.mark.slow
def test_a_linen_model_with_batch_statistics_has_a_loss_to_measure():
    import flax.linen as nn

    def loss(model, batch, key):
        del key
        return jnp.mean((model(batch[0])[:, 0] - batch[1]) ** 2)

    net = nn.Sequential([nn.BatchNorm(use_running_average=False), nn.Dense(1)])
    task = lab.task_of(net, loss, lab.Data(PAIR, PAIR, PAIR))
    assert np.isfinite(trained(task).test["loss"]).all()


@pytest.mark.parametrize("data", [PAIR, {"x": X}, X], ids=["a pair", "a dict", "an array"])
def test_data_that_are_no_splits_are_refused(data):
    with pytest.raises(lab.RequestError, match=r"data must be three splits.* Try lab\.split\(data"):
        lab.classification(lambda key: jnp.zeros(3), lambda w, x: x @ w, data)


def test_labels_that_are_no_integers_are_refused():
    with pytest.raises(lab.RequestError, match=r"labels y integers.*Try y\.argmax"):
        lab.classification(lambda key: jnp.zeros(3), lambda w, x: x @ w, lab.split(PAIR))
