"""Both combinators around one rule: bytes, devices, checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from trees import run

import lion_jax
from lion_jax import checkpoints
from lion_jax.distributed import sign_gather, state_sharding
from lion_jax.precision import with_master_weights, with_quantized_state

pytestmark = pytest.mark.usefixtures("optimized")

RULES = {
    "lion": lambda: lion_jax.lion(1e-3, weight_decay=0.1),
    "adamw": lambda: optax.adamw(1e-3, weight_decay=0.1),
}
every_rule = pytest.mark.parametrize("rule", RULES)
lion_soon = pytest.mark.parametrize("rule", ["lion", pytest.param("adamw", marks=pytest.mark.slow)])


def small(rule, **options):
    return with_master_weights(with_quantized_state(RULES[rule](), **options))


def gpt2():
    """The shapes of GPT-2's 124 million parameters."""

    def leaf(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.bfloat16)

    def norm():
        return {"scale": leaf(768), "bias": leaf(768)}

    def dense(inputs, outputs):
        return {"kernel": leaf(inputs, outputs), "bias": leaf(outputs)}

    block = {
        "ln_1": norm(),
        "attention": [dense(768, 2304), dense(768, 768)],
        "ln_2": norm(),
        "mlp": [dense(768, 3072), dense(3072, 768)],
    }
    return {
        "wte": leaf(50257, 768),
        "wpe": leaf(1024, 768),
        "blocks": [block] * 12,
        "ln_f": norm(),
    }


def size(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def stored_bytes(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(("rule", "most"), [("lion", 4.15), ("adamw", 5.25)])
def test_bytes_stored_for_gpt2(rule, most):
    params = gpt2()
    assert size(params) == 124_439_808
    stored = stored_bytes((params, jax.eval_shape(small(rule).init, params)))
    assert stored / size(params) <= most


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("rule", "axis", "kind"),
    [
        ("lion", 0, AxisType.Auto),
        ("adamw", 1, AxisType.Explicit),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ("lion", 1, AxisType.Auto),
                ("lion", 0, AxisType.Explicit),
                ("lion", 1, AxisType.Explicit),
                ("adamw", 0, AxisType.Auto),
                ("adamw", 1, AxisType.Auto),
                ("adamw", 0, AxisType.Explicit),
            ]
        ),
    ],
    ids=str,
)
def test_eight_devices_equal_one_bit_for_bit(rule, axis, kind):
    rng = np.random.default_rng(0)
    shapes = {"kernel": (512, 64), "embedding": (256, 128)}
    params = {
        k: jnp.asarray(0.02 * rng.standard_normal(s), jnp.bfloat16) for k, s in shapes.items()
    }
    gradients = [
        {k: jnp.asarray(rng.standard_normal(s), jnp.bfloat16) for k, s in shapes.items()}
        for _ in range(5)
    ]
    tx = small(rule)
    expected = run(tx, params, gradients)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    sharding = NamedSharding(mesh, PartitionSpec(*["data" if i == axis else None for i in (0, 1)]))
    with jax.set_mesh(mesh):
        actual = run(tx, *jax.device_put((params, gradients), sharding))
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(e))
        assert a.ndim < 2 or a.sharding.is_equivalent_to(sharding, 2)


@lion_soon
@pytest.mark.slow
def test_groups_that_cross_shards_give_the_same(rule):
    """They need data of another shard, which jit fetches; 40 rows in groups of 32 on 8 devices."""
    rng = np.random.default_rng(0)
    params = jnp.asarray(0.02 * rng.standard_normal((40, 16)), jnp.bfloat16)
    gradients = [jnp.asarray(rng.standard_normal((40, 16)), jnp.bfloat16) for _ in range(5)]
    tx = small(rule, min_size=0)
    expected = run(tx, params, gradients)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    actual = run(tx, *jax.device_put((params, gradients), sharding))
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(e))


EXPLICIT = [
    ((40, 16), PartitionSpec("a"), (8,)),
    ((80, 16), PartitionSpec(("a", "b")), (2, 4)),
    ((250, 16), PartitionSpec("a", "b"), (2, 4)),
    ((4, 40, 16), PartitionSpec(None, "b", "a"), (2, 4)),
    ((240, 16), PartitionSpec("a"), (8,)),  # as many exponents as devices, in other places
]


@pytest.mark.parametrize("bits", [8, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("shape", "spec", "extents"),
    [*EXPLICIT[:2], *(pytest.param(*case, marks=pytest.mark.slow) for case in EXPLICIT[2:])],
    ids=str,
)
def test_groups_that_cross_shards_of_an_explicit_mesh_give_the_same(shape, spec, extents, bits):
    """`jax.make_mesh` makes one; the state lies where `state_sharding` says."""
    rng = np.random.default_rng(0)
    params = jnp.asarray(0.02 * rng.standard_normal(shape), jnp.bfloat16)
    gradients = [jnp.asarray(rng.standard_normal(shape), jnp.bfloat16) for _ in range(2)]
    tx = small("lion", min_size=0, bits=bits)
    expected = run(tx, params, gradients)
    mesh = jax.make_mesh(
        extents, ("a", "b")[: len(extents)], axis_types=(AxisType.Explicit,) * len(extents)
    )
    sharding = NamedSharding(mesh, spec)
    shardings = state_sharding(tx, params, sharding)
    with jax.set_mesh(mesh):
        params, gradients = jax.device_put((params, gradients), sharding)
        init = jax.jit(tx.init, out_shardings=shardings)
        actual = run(optax.GradientTransformation(init, tx.update), params, gradients)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(e))
    for a, s in zip(jax.tree.leaves(actual[1]), jax.tree.leaves(shardings), strict=True):
        assert a.sharding.is_equivalent_to(s, a.ndim)


def test_a_mapped_init_makes_the_parts_of_the_state_outside():
    """A part may be smaller than `min_size` where the whole is not."""
    tx = sign_gather(with_quantized_state(lion_jax.scale_by_sign_momentum(), min_size=512), "d")
    params = jnp.ones((256, 4))
    whole = jax.jit(tx.init)(params)
    parts = jax.pmap(tx.init, axis_name="d")(jnp.stack([params] * 8))
    for part, leaf in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        assert part.dtype == leaf.dtype
        joined = part.reshape(leaf.shape) if leaf.ndim == 2 else part[0]
        np.testing.assert_array_equal(np.asarray(joined), np.asarray(leaf))


def test_a_checkpoint_of_other_groups_is_refused(tmp_path):
    """40 rows have as many exponents in groups of 20 as in groups of 32."""
    params = jnp.ones((40, 8))
    old, new = (
        lion_jax.with_finite_guard(
            with_quantized_state(lion_jax.lion(1e-3), min_size=0, group_size=size)
        )
        for size in (32, 20)
    )
    state = old.init(params)
    checkpoints.save(tmp_path / "run", 1, state)
    with pytest.raises(checkpoints.CheckpointError, match=r"group_size/(20|32)"):
        checkpoints.restore(tmp_path / "run", new.init(params))


@lion_soon
def test_shards_need_nothing_of_each_other(rule):
    """Neither by rows nor by columns is anything sent, if a shard's rows are whole groups."""
    tx = small(rule)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    for spec in (PartitionSpec("data"), PartitionSpec(None, "data")):
        sharding = NamedSharding(mesh, spec)
        like = jax.ShapeDtypeStruct((256, 512), jnp.bfloat16, sharding=sharding)
        state = jax.tree.map(
            lambda x, sharding=sharding: x.update(sharding=sharding) if x.ndim else x,
            jax.eval_shape(tx.init, like),
        )
        text = jax.jit(tx.update).lower(like, state, like).compile().as_text()
        for collective in ("all-reduce", "all-gather", "collective-permute", "all-to-all"):
            assert collective not in text


@every_rule
@pytest.mark.parametrize("bits", [8, 4])
def test_checkpoints_are_bit_exact(rule, bits, tmp_path):
    params = {"kernel": jnp.full((64, 96), 0.3, jnp.bfloat16), "bias": jnp.ones(96, jnp.bfloat16)}
    tx = small(rule, bits=bits)
    params, state = run(tx, params, [jax.tree.map(jnp.sin, params)] * 2)
    checkpoints.save(tmp_path / "run", 2, (params, state))
    _, restored = checkpoints.restore(tmp_path / "run", (params, state))
    for a, e in zip(jax.tree.leaves(restored), jax.tree.leaves((params, state)), strict=True):
        assert a.dtype == e.dtype
        np.testing.assert_array_equal(np.asarray(a, np.float32), np.asarray(e, np.float32))


@lion_soon
def test_either_may_stand_within_the_other(rule):
    params = jnp.full((64, 8), 0.3, jnp.bfloat16)
    gradients = [jax.random.normal(jax.random.key(i), (64, 8)) for i in range(4)]
    one, _ = run(small(rule, min_size=0), params, gradients)
    other = with_quantized_state(with_master_weights(RULES[rule]()), min_size=0)
    np.testing.assert_array_equal(one, run(other, params, gradients)[0])


@lion_soon
def test_learns_under_jit_with_donation_and_metrics(rule):
    tx = lion_jax.with_metrics(small(rule, min_size=0))
    params = jnp.ones((64, 8), jnp.bfloat16)
    state = tx.init(params)

    def step(params, state):
        updates, state = tx.update(2 * params, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, donate_argnums=(0, 1))
    for _ in range(20):
        params, state = step(params, state)
    np.testing.assert_allclose(np.asarray(params, np.float32), 0.98, atol=0.01)
    assert lion_jax.read_metrics(state)
