"""Signs in bytes and back."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trees import tree

from lion_jax.distributed._packing import pack, pack_tree, signs_of, unpack, unpack_tree


@pytest.mark.sampled
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_every_combination_of_signs_comes_back_from_its_byte(n):
    signs = [
        jnp.array(s, jnp.int8) for s in np.array(list(itertools.product((-1, 0, 1), repeat=n))).T
    ]
    code = pack(signs)
    assert code.dtype == jnp.uint8
    assert len(np.unique(code)) == 3**n
    for sign, back in zip(signs, unpack(code, n), strict=True):
        np.testing.assert_array_equal(sign, back)


def test_nan_has_no_sign_and_infinities_do():
    signs = signs_of(jnp.array([jnp.nan, jnp.inf, -jnp.inf, 0.0, -0.0, 1e-45, -1e-45]))
    np.testing.assert_array_equal(signs[:5], [0, 1, -1, 0, 0])


SHAPES = [(97, 13), (5,), (), (0, 3), (3, 0), (2, 50, 7), (1000,), (48, 4), (40, 1), (39, 2)]


@pytest.mark.sampled
@pytest.mark.parametrize("n", [1, 5])
def test_a_tree_comes_back_as_signs_in_its_shapes_and_dtypes(n):
    rng = np.random.default_rng(0)
    leaves = {str(s): jnp.asarray(rng.integers(-1, 2, s), jnp.bfloat16) for s in SHAPES}
    leaves["tree"] = jax.tree.map(jnp.sign, tree())
    back = jax.jit(lambda x: unpack_tree(pack_tree(x, n), x, n))(leaves)
    assert jax.tree.structure(back) == jax.tree.structure(leaves)
    for a, b in zip(jax.tree.leaves(leaves), jax.tree.leaves(back), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a, np.float32), np.asarray(b, np.float32))


def test_five_signs_take_a_byte():
    count = 768 * 3072 + 3072 + 50257 * 8
    leaves = [jnp.ones((768, 3072)), jnp.ones(3072), jnp.ones((50257, 8))]
    code = jax.eval_shape(lambda x: pack_tree(x, 5), leaves)
    assert code.shape == (-(-count // 5),)
    assert code.dtype == jnp.uint8
