"""Generated damage to checkpoint folders: the very tree that was saved, or one clear error."""

import contextlib
import gc
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search.counting import count, long, short

from lion_jax import checkpoints
from lion_jax.checkpoints import CheckpointError

STEPS = (3, 7)
DAMAGES = ("truncate", "flip", "delete", "empty", "append", "swap", "copy", "folder", "junk")


def tree_of(step):
    """A small tree, no leaf of which is the same at two steps."""
    return {
        "w": jnp.arange(6.0).reshape(2, 3) * step,
        "b": jnp.full(3, step, jnp.bfloat16),
        "count": jnp.int32(step),
        "key": jax.random.key(step),
        "empty": jnp.zeros((0, 2)),
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with two checkpoints."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    for step in STEPS:
        checkpoints.save(folder, step, tree_of(step))
    return folder


@pytest.fixture
def collected():
    """Collects what failed reads leave behind while its warnings are still ignored."""
    yield
    gc.collect()


def damages(test):
    """For reads that fail side by side: orbax closes their event loop with some under way."""
    ignored = "ignore::pytest.PytestUnraisableExceptionWarning"
    return pytest.mark.usefixtures("collected")(pytest.mark.filterwarnings(ignored)(test))


def damage(folder, data):
    """Does one thing to one file, or to two; of all files below the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        return
    what = data.draw(st.sampled_from(DAMAGES))
    one, other = (data.draw(st.sampled_from(files)) for _ in range(2))
    content = one.read_bytes()
    match what:
        case "truncate":
            one.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        case "flip" if content:
            bit = data.draw(st.integers(0, 8 * len(content) - 1))
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            one.write_bytes(bytes(flipped))
        case "delete":
            one.unlink()
        case "empty":
            one.write_bytes(b"")
        case "append":
            one.write_bytes(content + data.draw(st.binary(min_size=1, max_size=9)))
        case "swap":
            one.write_bytes(other.read_bytes())
            other.write_bytes(content)
        case "copy":
            one.write_bytes(other.read_bytes())
        case "folder":
            one.unlink()
            one.mkdir()
        case "junk":
            name = data.draw(st.sampled_from(["9", "12.orbax-checkpoint-tmp-0", "x", "3.5", "-1"]))
            place = folder / name
            if not place.exists():
                place.mkdir() if data.draw(st.booleans()) else place.write_text("no checkpoint")


def bits(tree):
    """The properties that must be the same, leaf by leaf."""

    def of(x):
        x = jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        return x.shape, x.dtype, np.asarray(x).tobytes()

    return [of(x) for x in jax.tree.leaves(tree)]


def check_folder(whole, tmp_path, data):
    """Restores what was saved at the step that it tells, or refuses by the documented error."""
    folder = tmp_path / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    for _ in range(data.draw(st.integers(1, 3))):
        damage(folder, data)
    step = data.draw(st.sampled_from([None, None, *STEPS]))
    latest = checkpoints.latest(folder)
    assert latest is None or latest >= 0
    with contextlib.suppress(CheckpointError):
        found, tree = checkpoints.restore(folder, tree_of(0), step=step)
        assert found in STEPS
        assert step in (None, found)
        assert bits(tree) == bits(tree_of(found))
    count("damaged checkpoints: every bit, or a CheckpointError")


def test_a_folder_in_the_place_of_the_records_is_damage(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    records = tmp_path / "run" / str(STEPS[-1]) / "lion_jax" / "metadata"
    records.unlink()
    records.mkdir()
    with pytest.raises(CheckpointError, match=r"is damaged, at lion_jax/metadata: .*step=3\)"):
        checkpoints.restore(tmp_path / "run", tree_of(0))


@damages
@short(8)
@given(st.data())
def test_damage_gives_every_bit_or_an_error(whole, tmp_path_factory, data):
    check_folder(whole, tmp_path_factory.getbasetemp(), data)


@damages
@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
@long(150)
@given(st.data())
def test_damage_gives_every_bit_or_an_error_at_length(part, whole, tmp_path_factory, data):
    del part
    check_folder(whole, tmp_path_factory.getbasetemp(), data)
