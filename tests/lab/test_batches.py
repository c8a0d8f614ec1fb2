"""The batches of a run: fresh permutations in each epoch, the steps of a stream, and their size."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lab import oracle

from lion_jax import lab
from lion_jax.lab.tasks.batches import batches, choose_batch_size
from lion_jax.lab.training import seeded

WEIGHTS = np.array([1.0, -2.0, 3.0], np.float32)
LENGTH = 200


def numbered(examples):
    """A task whose examples are their own numbers."""
    x = np.arange(examples, dtype=np.int32)

    def loss(w, batch, key):
        del key
        return jnp.mean(batch["x"] * w)

    return lab.Task(lambda key: jnp.zeros(()), loss, {"x": x}, {"x": x}, {"x": x})


def streaming(stream):
    """A task of a stream of pairs."""
    x = np.ones((4, 3), np.float32)

    def loss(w, batch, key):
        del key
        return jnp.mean((batch[0] @ w - batch[1]) ** 2)

    return lab.Task(lambda key: jnp.zeros(3), loss, stream, (x, x @ WEIGHTS), (x, x @ WEIGHTS))


def fed(task, seeds, steps, size):
    """The batches of all seeds, a list of steps."""
    feed = batches(task, jnp.arange(seeds), steps, size)
    place, advance, found = feed.start(seeded(jnp.arange(seeds)).order), jax.jit(feed.next), []
    for _ in range(steps):
        place, batch = advance(place)
        found.append(jax.tree.map(np.asarray, batch))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("examples", "size", "steps"),
    [(12, 4, 7), (10, 4, 11), (10, 10, 4), (10, 9, 21), (1, 1, 3)],
)
def test_each_epoch_is_a_fresh_permutation_of_the_examples(examples, size, steps):
    found = fed(numbered(examples), 3, steps, size)
    for seed in range(3):
        rows = np.stack([batch["x"][seed] for batch in found])
        np.testing.assert_array_equal(rows, oracle.rows_of(seed, examples, steps, size))
        for epoch in range(steps * size // examples):
            shown = rows.ravel()[epoch * examples : (epoch + 1) * examples]
            assert sorted(shown) == list(range(examples))


@pytest.mark.slow
def test_one_step_of_a_part_of_the_examples_is_an_epoch_that_never_ends():
    (batch,) = fed(numbered(10), 1, 1, 4)
    np.testing.assert_array_equal(batch["x"], oracle.rows_of(0, 10, 1, 4))


def with_jax(step):
    x = jax.random.normal(jax.random.key(step), (4, 3))
    return x, x @ WEIGHTS


def by_seed(step):
    x = np.random.default_rng(step).standard_normal((4, 3)).astype(np.float32)
    return x, x @ WEIGHTS


def by_branch(step):
    x = np.full((4, 3), step if step % 2 else -step, np.float32)
    return x, x @ WEIGHTS


def by_slice(step):
    x = np.arange(LENGTH * 3, dtype=np.float32).reshape(LENGTH, 3)[step * 4 : step * 4 + 4]
    return x, x @ WEIGHTS


def by_list(step):
    x = [np.full((4, 3), i, np.float32) for i in range(LENGTH)][step]
    return x, x @ WEIGHTS


@pytest.mark.sampled
@pytest.mark.parametrize("stream", [with_jax, by_seed, by_branch, by_slice, by_list])
def test_seeds_see_different_steps_of_a_stream(stream):
    """One written in jax, and several that jax cannot trace."""
    found = fed(streaming(stream), 3, 5, 4)
    for seed, step in itertools.product(range(3), range(5)):
        expected = stream(seed * 5 + step)
        for got, wanted in zip(found[step], expected, strict=True):
            np.testing.assert_allclose(got[seed], wanted, rtol=1e-6)


def test_a_stream_may_read_a_file_named_by_the_step(tmp_path):
    for step in range(6):
        np.save(tmp_path / f"{step}.npy", np.full((4, 3), step, np.float32))

    def stream(step):
        x = np.load(tmp_path / f"{step}.npy")
        return x, x @ WEIGHTS

    found = fed(streaming(stream), 2, 3, 4)
    assert [[int(x[0, 0]) for x in batch[0]] for batch in found] == [[0, 3], [1, 4], [2, 5]]


def test_a_stream_that_takes_no_notice_of_the_step_is_refused():
    """An iterator, for example: every rule and seed would find it elsewhere."""
    iterator = iter(range(100))

    def stream(step):
        del step
        x = np.full((4, 3), next(iterator), np.float32)
        return x, x @ WEIGHTS

    with pytest.raises(lab.RequestError, match="step"):
        streaming(stream)


@pytest.mark.parametrize(("examples", "size"), [(10, 10), (64, 64), (65, 64), (1000, 64)])
def test_a_batch_has_64_examples_or_all_if_they_are_fewer(examples, size):
    assert choose_batch_size(numbered(examples), None) == size


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, "batch_size must be from 1 to 10, the training split of task; got 0"),
        (11, "batch_size must be from 1 to 10, the training split of task; got 11"),
        (2.0, "batch_size must be a whole number; got 2.0"),
        (True, "batch_size must be a whole number; got True"),
    ],
)
def test_a_size_that_cannot_be_is_refused(size, message):
    with pytest.raises(lab.RequestError) as error:
        choose_batch_size(numbered(10), size)
    assert str(error.value) == message


def test_the_batches_of_a_stream_have_their_own_size():
    assert choose_batch_size(streaming(with_jax), None) == 4
    with pytest.raises(lab.RequestError, match="batch_size must be left out: task is a stream"):
        choose_batch_size(streaming(with_jax), 4)
