"""What is restored is what was saved, to the last bit, or an error that says where it is not."""

import functools
import gc
import math
import multiprocessing
import shutil
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import killed_run
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from catalogue import CATALOGUE, COMBINATORS, INNER
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding
from trees import run, tree
from versions import needs

import lion_jax
from lion_jax import checkpoints, precision
from lion_jax._installation import to_install
from lion_jax.checkpoints import CheckpointError

QUICK = {"lion", "lookahead", "around-lookahead"}


@pytest.fixture
def collected():
    """Collects what a test leaves behind while its warnings are still ignored."""
    yield
    gc.collect()


def interrupted_reads(test):
    """For reads that fail side by side: orbax closes their event loop with some under way."""
    ignored = "ignore::pytest.PytestUnraisableExceptionWarning"
    return pytest.mark.usefixtures("collected")(pytest.mark.filterwarnings(ignored)(test))


def assert_same_bits(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    pairs = zip(jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True)
    for (path, a), e in pairs:
        name = jax.tree_util.keystr(path)
        assert (a.shape, a.dtype) == (e.shape, e.dtype), name
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, e = jax.random.key_data(a), jax.random.key_data(e)
        assert np.asarray(a).tobytes() == np.asarray(e).tobytes(), name


def any_bits(of, seed=0):
    """A tree of these shapes and dtypes, of random bits: NaN, subnormal numbers and all."""
    rng = np.random.default_rng(seed)

    def drawn(x):
        if x.dtype == jnp.bool_:
            return jnp.asarray(rng.integers(0, 2, x.shape).astype(bool))
        size = math.prod(x.shape) * x.dtype.itemsize
        return jnp.asarray(np.frombuffer(rng.bytes(size), x.dtype).reshape(x.shape))

    return jax.tree.map(drawn, of)


def abstract(of):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), of)


def trained(tx, dtype=jnp.float32):
    return run(tx, tree(dtype), [tree(dtype, seed=seed) for seed in range(1, 4)])


MADE = {e.name: e.make for e in CATALOGUE}
MADE |= {f"around-{name}": functools.partial(wrap, INNER) for name, wrap in COMBINATORS.items()}
PARTS = [QUICK, *(sorted(MADE.keys() - QUICK)[part::2] for part in range(2))]


@pytest.mark.sampled
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("names", PARTS, ids=["quick", *map(str, range(2))])
def test_a_round_trip_keeps_every_bit(names, dtype, tmp_path):
    states = {name: jax.eval_shape(MADE[name]().init, tree(dtype)) for name in names}
    saved = any_bits((tree(dtype), states))
    checkpoints.save(tmp_path, 3, saved)
    step, restored = checkpoints.restore(tmp_path, any_bits(saved, seed=1))
    assert step == 3
    assert_same_bits(restored, saved)
    assert_same_bits(checkpoints.restore(tmp_path, abstract(saved))[1], saved)


@pytest.mark.slow
def test_awkward_trees_keep_every_bit(tmp_path):
    saved = {
        "a/b": jnp.arange(3.0),
        "a": {"b": jnp.arange(4), "b.c": jnp.ones(2, jnp.bool_), "": jnp.ones((), jnp.int8)},
        "a.b": {"c": jnp.full((), jnp.nan, jnp.bfloat16), "%2F": jnp.ones(3, jnp.int4)},
        "integers": {0: jnp.uint32(2**32 - 1), -7: jnp.zeros(1)},
        "tuples": {(1, "x"): jnp.ones(2), (): jnp.zeros(2)},
        "nodes": [None, (), {}, optax.MaskedNode(), optax.EmptyState(), tree(jnp.float16)],
        "keys": (jax.random.key(3), jax.random.split(jax.random.key(4, impl="rbg"), 2)),
        "complex": jnp.ones(2, jnp.complex64) * 1j,
        "numpy": np.arange(3.0),
        "no_entries": np.zeros((0, 2), np.float64),
    }
    checkpoints.save(tmp_path, 0, saved)
    step, restored = checkpoints.restore(tmp_path, saved)
    assert step == 0
    assert_same_bits(restored, saved)
    assert isinstance(restored["numpy"], np.ndarray)
    assert isinstance(restored["a/b"], jax.Array)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_float64_keeps_every_bit(tmp_path):
    saved = trained(INNER, jnp.float64)
    checkpoints.save(tmp_path, 1, saved)
    assert_same_bits(checkpoints.restore(tmp_path, abstract(saved))[1], saved)


@pytest.mark.parametrize("saved", [{}, None, jnp.arange(2.0), (jnp.zeros((0, 3)), None)])
def test_trees_without_keys_or_entries_keep_every_bit(saved, tmp_path):
    checkpoints.save(tmp_path, 1, saved)
    assert_same_bits(checkpoints.restore(tmp_path, saved)[1], saved)


@pytest.mark.slow
def test_a_sharded_run_goes_on_on_another_mesh_and_on_one_device(tmp_path):
    params = {"w": jnp.arange(32.0).reshape(8, 4).astype(jnp.bfloat16), "b": jnp.arange(8.0)}
    tx = lion_jax.lookahead(INNER)
    auto = (AxisType.Auto,)
    rows = NamedSharding(jax.make_mesh((8,), ("d",), axis_types=auto), PartitionSpec("d"))
    mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=auto * 2)
    columns = NamedSharding(mesh, PartitionSpec(None, "y"))
    on_rows = jax.device_put(params, rows)
    saved, state = run(tx, on_rows, [on_rows, on_rows])
    checkpoints.save(tmp_path, 2, (saved, state))

    def like(matrices, vectors):
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(
                x.shape, x.dtype, sharding={2: matrices, 1: vectors}.get(x.ndim)
            ),
            (saved, state),
        )

    _, restored = checkpoints.restore(tmp_path, like(columns, NamedSharding(mesh, PartitionSpec())))
    assert_same_bits(restored, (saved, state))
    matrices = [x for x in jax.tree.leaves(restored) if x.ndim == 2]
    assert len(matrices) == 3
    assert all(x.sharding == columns for x in matrices)
    _, on_one = checkpoints.restore(tmp_path, abstract((saved, state)))
    assert_same_bits(on_one, (saved, state))
    assert all(len(x.devices()) == 1 for x in jax.tree.leaves(on_one))
    last = SingleDeviceSharding(jax.devices()[-1])
    _, on_last = checkpoints.restore(tmp_path, like(last, last))
    assert on_last[0]["w"].sharding == last
    step = jax.jit(lambda p, s: tx.update(p, s, p)[1])
    assert_same_bits(step(*restored), step(*on_one))  # the counter goes along with either


def test_restored_arrays_can_be_donated(tmp_path):
    saved = {"w": jnp.arange(1e5), "n": jnp.int32(3)}
    checkpoints.save(tmp_path, 1, saved)
    _, restored = checkpoints.restore(tmp_path, saved)
    doubled = jax.jit(lambda x: jax.tree.map(lambda y: y + y, x), donate_argnums=0)(restored)
    assert_same_bits(doubled, jax.tree.map(lambda x: x + x, saved))


def test_keeps_the_latest_and_restores_any_of_them(tmp_path):
    for step in (5, 10, 15):
        checkpoints.save(tmp_path, jnp.int32(step), jnp.full(2, step), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "15"]
    assert checkpoints.latest(tmp_path) == 15
    assert checkpoints.restore(tmp_path, jnp.zeros(2, jnp.int32))[0] == 15
    step, restored = checkpoints.restore(str(tmp_path), jnp.zeros(2, jnp.int32), step=10)
    assert (step, restored.tolist()) == (10, [10, 10])
    checkpoints.save(tmp_path, 20, jnp.full(2, 20), keep=None)
    assert len(list(tmp_path.iterdir())) == 3
    checkpoints.save(tmp_path, 25, jnp.full(2, 25), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["25"]


def test_a_relative_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints.save("runs/first", 1, jnp.ones(2))
    assert checkpoints.latest(tmp_path / "runs" / "first") == 1
    assert checkpoints.latest("runs/second") is None
    assert not Path("runs/second").exists()


@pytest.mark.parametrize("step", [3, 2])
def test_nothing_is_overwritten(step, tmp_path):
    checkpoints.save(tmp_path, 3, jnp.ones(2))
    with pytest.raises(CheckpointError, match=rf"^step must be later .*got {step} .*has 3\. Try"):
        checkpoints.save(tmp_path, step, jnp.zeros(2))
    assert checkpoints.restore(tmp_path, jnp.zeros(2))[1].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "value"), [("step", -1), ("keep", 0), ("step", 0.5), ("keep", "2")]
)
def test_refuses_bad_numbers(name, value, tmp_path):
    arguments = {"step": 1, "keep": 2} | {name: value}
    with pytest.raises((TypeError, ValueError), match=rf"^{name} must be an integer .*got .*Try"):
        checkpoints.save(tmp_path, tree=jnp.ones(2), **arguments)
    assert not list(tmp_path.iterdir())


def test_refuses_leaves_that_are_no_arrays(tmp_path):
    with pytest.raises(TypeError, match=r"got 3 of type int at a/1\. Try jnp\.asarray"):
        checkpoints.save(tmp_path, 1, {"a": (jnp.ones(2), 3)})


@pytest.mark.parametrize(
    ("leaf", "got", "remedy"),
    [
        (jnp.tanh, "of type", "the tree with None"),
        ("adam", "got 'adam' of type str", "the tree with None"),
        (np.array(["a", "b"]), "got <U1", "leaf.astype"),
        (np.array(["2026-01-01"], "M8[D]"), r"got datetime64\[D\]", "leaf.astype"),
        (np.array([1, "a"], object), "got object", "leaf.astype"),
        (np.zeros(2, [("a", "f4")]), r"got \[\('a', '<f4'\)\]", "leaf.astype"),
        (np.zeros(0, "V4"), "got .V4", "leaf.astype"),
        (np.zeros(2, jax.dtypes.float0), "got ", "leaf.astype"),
        (jnp.zeros(2, jnp.uint4), "got uint4", "leaf.astype"),
        (np.ma.masked_array([1.0, 2.0], [True, False]), "got a masked one", r"\(leaf.data"),
    ],
)
def test_refuses_by_path_what_could_not_be_restored(leaf, got, remedy, tmp_path):
    checkpoints.save(tmp_path, 1, {"b": jnp.ones(2)})
    with pytest.raises(TypeError, match=rf"^each leaf must .*{got}.* at a/1\. Try {remedy}"):
        checkpoints.save(tmp_path, 2, {"a": (jnp.ones(2), leaf)}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def of_long_double():
    """An array of a dtype that only some machines have more than a float64 in."""
    return np.ones(2, np.longdouble)


@pytest.mark.skipif(of_long_double().dtype == np.float64, reason="long double is float64 here")
def test_refuses_long_doubles(tmp_path):
    with pytest.raises(TypeError, match=r"got float128 at the root\. Try leaf\.astype"):
        checkpoints.save(tmp_path, 1, of_long_double())


NUMPY = [
    *("?", "i1", "<i2", ">i2", ">i4", "<i8", ">u2", ">u8", "<f2", ">f2", ">f4", "<f8", ">f8"),
    *(">c8", "<c16", ">c16"),
]
LAYOUTS = {
    "as_it_is": lambda x: x,
    "fortran": np.asfortranarray,
    "transposed": lambda x: x.T,
    "reversed": lambda x: x[..., ::-1] if x.ndim else x,
    "every_other": lambda x: np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x,
    "broadcast": lambda x: np.broadcast_to(x, (2, *x.shape)),
    "of_one_entry": lambda x: np.broadcast_to(x.reshape(-1)[:1], (1, 1)) if x.size else x,
    "matrix": lambda x: np.asmatrix(x) if x.ndim == 2 else x,
    "scalar": lambda x: x.reshape(-1)[0] if x.size else x,
}


@st.composite
def arrays(draw):
    """NumPy arrays of random bits, of any dtype that JAX knows, any order of bytes, any layout."""
    extended = [np.dtype(name) for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")]
    dtype = draw(st.sampled_from([*map(np.dtype, NUMPY), *extended]))
    shape = draw(st.sampled_from([(), (1,), (5,), (2, 3), (0, 2), (2, 1, 3)]))
    size = int(np.prod(shape, dtype=int)) * dtype.itemsize
    bits = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
    if dtype.kind == "b":
        bits = bits % 2
    array = bits.view(dtype).reshape(shape) if size else np.zeros(shape, dtype)
    array = LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))](array)
    if isinstance(array, np.ndarray):
        array.flags.writeable &= draw(st.booleans())
    return array


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@given(st.lists(arrays(), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_what_save_accepts_restore_gives_back_to_the_last_bit(saved):
    with tempfile.TemporaryDirectory() as folder:
        checkpoints.save(folder, 1, saved)
        _, restored = checkpoints.restore(folder, saved)
        assert_same_bits(restored, saved)
        natives = [np.empty(x.shape, x.dtype.newbyteorder("=")) for x in saved]
        _, restored = checkpoints.restore(folder, natives)
        for x, y in zip(restored, saved, strict=True):
            assert x.dtype.isnative
            assert x.astype(y.dtype).tobytes() == y.tobytes()


@pytest.mark.sampled
@pytest.mark.parametrize("dtype", ["int2", "int4", "float4_e2m1fn", "float8_e8m0fnu", "bfloat16"])
def test_small_numbers_keep_every_bit(dtype, tmp_path):
    saved = {"jax": jnp.arange(-2, 2).astype(dtype), "numpy": np.arange(-2, 2).astype(dtype)}
    saved["placed"] = jax.device_put(saved["numpy"], jax.devices()[1])
    checkpoints.save(tmp_path, 1, saved)
    assert_same_bits(checkpoints.restore(tmp_path, saved)[1], saved)


def test_a_file_in_memory_is_saved_as_an_array(tmp_path):
    saved = np.memmap(tmp_path / "data", ">f4", "w+", shape=(2, 3))
    saved[:] = np.arange(6).reshape(2, 3)
    checkpoints.save(tmp_path / "run", 1, saved)
    assert_same_bits(checkpoints.restore(tmp_path / "run", saved)[1], np.asarray(saved))


@needs(nnx, "as_pure")
@pytest.mark.slow
def test_what_nnx_wraps_is_saved_and_restored_wrapped_or_not(tmp_path):
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, lion_jax.lookahead(optax.adam(1e-3)), wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.sin, nnx.state(model, nnx.Param)))
    state = nnx.state(model, nnx.Param)
    wrapped = {"params": state, "state": optimizer.opt_state}
    bare = {"params": nnx.to_pure_dict(state), "state": nnx.as_pure(optimizer.opt_state)}
    split = {"params": state, "state": nnx.state(optimizer.opt_state)}  # its keys are sorted
    for step, saved in enumerate((wrapped, bare, split)):
        checkpoints.save(tmp_path, step, saved)
        for like in (wrapped, bare, split):
            assert_same_bits(checkpoints.restore(tmp_path, like)[1], like)
            assert_same_bits(checkpoints.restore(tmp_path, abstract(like))[1], like)


def test_paths_saved_with_their_wrappers_are_still_known(tmp_path, monkeypatch):
    saved = nnx.state(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.saving, "unwrapped", lambda tree: tree)
        checkpoints.save(tmp_path, 1, saved)
    assert_same_bits(checkpoints.restore(tmp_path, saved)[1], saved)


def test_corrections_to_another_dtype_are_refused(tmp_path):
    """Also where the state alone is saved."""
    params = {"w": jnp.ones((64, 64), jnp.bfloat16)}
    tx = precision.with_master_weights(optax.sgd(1.0))
    checkpoints.save(tmp_path, 1, tx.init(params))
    half = jax.tree.map(lambda p: p.astype(jnp.float16), params)
    with pytest.raises(CheckpointError, match=r"got float16\(\) at correction_of"):
        checkpoints.restore(tmp_path, tx.init(half))


def test_refuses_a_sharding_that_does_not_suit(tmp_path):
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    checkpoints.save(tmp_path, 1, {"w": jnp.ones(6)})
    like = jax.ShapeDtypeStruct((6,), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("d")))
    with pytest.raises(ValueError, match=r"^each sharding must suit.* at w .*Try"):
        checkpoints.restore(tmp_path, {"w": like})


SAVED = ({"layer": {"kernel": jnp.ones((2, 3))}}, {"mu": jnp.ones(3), "z": jnp.int32(1)})


@pytest.mark.parametrize(
    ("like", "path", "wants", "has"),
    [
        (({}, SAVED[1]), "0/layer/kernel", "no leaf", "float32(2, 3)"),
        ((SAVED[0], {"z": SAVED[1]["z"]}), "1/mu", "no leaf", "float32(3,)"),
        ((SAVED[0], {"mu": SAVED[1]["mu"]}), "1/z", "no leaf", "int32()"),
        ((SAVED[0], SAVED[1] | {"nu": jnp.ones(3)}), "1/nu", "float32(3,)", "no leaf"),
        ((*SAVED, jnp.ones(1)), "2", "float32(1,)", "no leaf"),
        (
            ({"layer": {"kernel": jnp.ones((3, 2))}}, {}),
            "0/layer/kernel",
            "float32(3, 2)",
            "float32(2, 3)",
        ),
        ((SAVED[0], {"mu": jnp.ones(3, jnp.bfloat16)}), "1/mu", "bfloat16(3,)", "float32(3,)"),
    ],
)
def test_another_tree_is_refused_with_the_first_path_that_differs(like, path, wants, has, tmp_path):
    checkpoints.save(tmp_path, 7, SAVED)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.restore(tmp_path, like)
    expected = f"got {wants} at {path}, where the checkpoint {tmp_path / '7'} has {has}. "
    assert expected in str(caught.value)
    assert "lion_jax.carry_state" in str(caught.value)


def test_another_optimizers_state_is_refused_by_its_path(tmp_path):
    params = {"layer": {"kernel": jnp.ones((2, 3))}}
    checkpoints.save(tmp_path, 7, (params, optax.adam(1e-3).init(params)))
    with pytest.raises(CheckpointError, match=r"got float32\(2, 3\) at 1/trace/layer/kernel"):
        checkpoints.restore(tmp_path, (params, optax.trace(0.9).init(params)))


def two_checkpoints(folder):
    """The latest of two, with a leaf that has a data file to itself."""
    noise = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    saved = {"first": jnp.arange(3.0), "noise": jnp.asarray(noise), "zlast": jnp.ones(2)}
    for step in (10, 20):
        checkpoints.save(folder, step, saved)
    files = [path for path in (folder / "20").rglob("*") if path.is_file()]
    return saved, max(files, key=lambda path: path.stat().st_size)


def cut(file):
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.sampled
@interrupted_reads
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink, lambda file: file.write_bytes(b"")])
def test_damaged_data_is_refused_with_its_path_and_the_older_step(damage, tmp_path):
    saved, file = two_checkpoints(tmp_path)
    damage(file)
    with pytest.raises(CheckpointError, match=r"20 is damaged, at noise: .*like, step=10\)\."):
        checkpoints.restore(tmp_path, saved)
    assert_same_bits(checkpoints.restore(tmp_path, saved, step=10)[1], saved)


@interrupted_reads
@pytest.mark.slow
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink, lambda file: file.write_bytes(b"")])
def test_damage_to_any_file_is_refused_or_does_no_harm(damage, tmp_path):
    saved, _ = two_checkpoints(tmp_path / "whole")
    refused = {}
    for whole in sorted((tmp_path / "whole" / "20").rglob("*")):
        if whole.is_file():
            shutil.copytree(tmp_path / "whole", tmp_path / "hurt")
            name = whole.relative_to(tmp_path / "whole")
            damage(tmp_path / "hurt" / name)
            try:
                assert_same_bits(checkpoints.restore(tmp_path / "hurt", saved)[1], saved)
            except CheckpointError as error:
                refused[str(name)] = str(error)
            shutil.rmtree(tmp_path / "hurt")
    assert all("step=10" in message for message in refused.values())
    assert "20/lion_jax/metadata" in refused
    assert any("/d/" in name for name in refused)


@pytest.mark.sampled
@interrupted_reads
def test_damage_without_another_checkpoint_says_so(tmp_path):
    saved, file = two_checkpoints(tmp_path)
    shutil.rmtree(tmp_path / "10")
    file.unlink()
    with pytest.raises(CheckpointError, match=r"noise: .*Try a copy of it"):
        checkpoints.restore(tmp_path, saved)


def test_folders_of_other_programs_are_refused_and_left_alone(tmp_path):
    with ocp.CheckpointManager(tmp_path / "orbax") as manager:
        manager.save(3, args=ocp.args.StandardSave({"w": jnp.ones(2)}))
    with pytest.raises(CheckpointError, match=r"3 must be a checkpoint of save; got one without"):
        checkpoints.restore(tmp_path / "orbax", {"w": jnp.ones(2)})
    with pytest.raises(CheckpointError, match=r"^folder must have no other .*program's 3\. Try"):
        checkpoints.save(tmp_path / "orbax", 9, {"w": jnp.ones(2)}, keep=1)
    assert (tmp_path / "orbax" / "3").exists()
    (tmp_path / "files").mkdir()
    np.savez(tmp_path / "files" / "model.npz", w=np.ones(2))
    with pytest.raises(CheckpointError, match=r"^folder must be .*has only model\.npz\. Try"):
        checkpoints.restore(tmp_path / "files", {"w": jnp.ones(2)})
    file = tmp_path / "files" / "model.npz"
    with pytest.raises(CheckpointError, match=r"model\.npz, which is no folder\. Try"):
        checkpoints.restore(file, {"w": jnp.ones(2)})
    with pytest.raises(CheckpointError, match=r"^folder must be a folder; got the file .*Try"):
        checkpoints.save(file, 1, {"w": jnp.ones(2)})


def test_folders_and_steps_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"missing, which is no folder\. Try"):
        checkpoints.restore(tmp_path / "missing", jnp.ones(2))
    assert not (tmp_path / "missing").exists()
    with pytest.raises(CheckpointError, match=r"which is empty\. Try"):
        checkpoints.restore(tmp_path, jnp.ones(2))
    for step in (2, 4):
        checkpoints.save(tmp_path, step, jnp.ones(2))
    with pytest.raises(
        CheckpointError, match=r"^step must be .*got 3 where .*has 4, 2\. Try step=4"
    ):
        checkpoints.restore(tmp_path, jnp.ones(2), step=3)


def test_a_missing_orbax_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r"need orbax, which is missing; try: ") as refusal:
        checkpoints.save(tmp_path, 1, jnp.ones(2))
    assert str(refusal.value).endswith(to_install("checkpoints"))


def test_an_unfinished_save_hides_nothing_and_is_removed_by_the_next(tmp_path):
    checkpoints.save(tmp_path, 1, jnp.ones(2))
    unfinished = tmp_path / "2.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "1", unfinished)
    assert checkpoints.latest(tmp_path) == 1
    assert checkpoints.restore(tmp_path, jnp.zeros(2))[1].tolist() == [1.0, 1.0]
    assert unfinished.exists()
    checkpoints.save(tmp_path, 2, jnp.zeros(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_a_half_deleted_old_checkpoint_is_in_nobodys_way(tmp_path):
    for step in (1, 2):
        checkpoints.save(tmp_path, step, jnp.full(2, step))
    shutil.rmtree(tmp_path / "1" / "lion_jax")
    assert checkpoints.restore(tmp_path, jnp.zeros(2, jnp.int32))[0] == 2
    checkpoints.save(tmp_path, 3, jnp.full(2, 3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]


def is_unfinished(folder):
    return any("orbax-checkpoint-tmp" in path.name for path in folder.glob("*"))


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_a_run_killed_twenty_times_ends_where_an_unbroken_one_does(tmp_path, capsys, monkeypatch):
    """Kills come when a checkpoint has appeared, or before, a random moment later."""
    monkeypatch.setenv("PYTHONPATH", str(Path(killed_run.__file__).parent))
    context = multiprocessing.get_context("forkserver")  # which imports jax once for all runs
    context.set_forkserver_preload(["killed_run"])
    folder, unbroken, broken = tmp_path / "run", tmp_path / "unbroken", tmp_path / "broken"
    killed_run.run(tmp_path / "unused", killed_run.STEPS + 1, unbroken)
    rng = np.random.default_rng(0)
    kills = unfinished = 0
    while not broken.exists():
        process = context.Process(target=killed_run.run, args=(folder, 2, broken))
        start = checkpoints.latest(folder)
        process.start()
        if kills < 20:
            waits_for_progress, delay = rng.random() < 0.8, rng.uniform(0.0, 0.25)
            while waits_for_progress and process.is_alive() and checkpoints.latest(folder) == start:
                time.sleep(0.01)
            time.sleep(delay)
            process.kill()
        process.join()
        assert process.exitcode in (0, -9)
        kills += process.exitcode == -9
        unfinished += process.exitcode == -9 and is_unfinished(folder)
    with capsys.disabled():
        print(f"\n{kills} kills, {unfinished} of them in the middle of saving")
    assert broken.read_bytes() == unbroken.read_bytes()
    assert not is_unfinished(folder)
    assert kills > 0


def test_a_failure_of_the_devices_is_not_taken_for_damage(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, 1, jnp.ones(2))

    def fail(*_):
        raise jax.errors.JaxRuntimeError("UNKNOWN: Connection closed by peer")

    monkeypatch.setattr(checkpoints._stored, "read", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="closed by peer"):
        checkpoints.restore(tmp_path, jnp.ones(2))
