"""Saving and restoring a tree of arrays as a step of a run."""

import json
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from lion_jax._core.kinds import integer
from lion_jax._core.rule import takes
from lion_jax._core.states import unwrapped
from lion_jax._core.types import PyTree
from lion_jax.checkpoints import _stored
from lion_jax.checkpoints._stored import Record

_ARRAYS, _RECORDS = "leaves", "lion_jax"


class CheckpointError(ValueError):
    """A checkpoint cannot be saved or restored: the message says where, why and what to try."""

    __module__ = "lion_jax.checkpoints"  # as users see it in tracebacks


@takes(step=integer(0).trying("1000"), keep=integer().or_none())
def save(folder: str | os.PathLike[str], step: int, tree: PyTree, *, keep: int | None = 2) -> None:
    """Saves the arrays of a tree as the checkpoint of one step, and returns when it is complete.

    The checkpoint is written under another name and then renamed; only then are older ones deleted.
    If the program is killed at any moment, the older checkpoints are intact. At most an unfinished
    folder stays, which :func:`restore` ignores and the next `save` removes. In a program of several
    processes, each process must call it.

    Args:
      folder: the folder for the run's checkpoints, and for nothing else; it is made if it is
        missing.
      step: an integer >= 0, later than any step in the folder: nothing is ever overwritten.
      tree: any tree of jax or NumPy arrays, e.g. ``(params, state)``, also as flax nnx wraps them.
      keep: how many of the latest checkpoints stay, >= 1; None keeps all.

    Raises:
      CheckpointError: the folder has this step or a later one, or a checkpoint of another program.
      TypeError, ValueError: ``step`` or ``keep`` out of range; a leaf is not an array, or could not
        be restored exactly (strings, dates, objects, records, long doubles, unsigned 4-bit
        integers, masked arrays). Such a leaf is refused before anything is deleted.
      ImportError: orbax is not installed.

    Example:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> import lion_jax
      >>> from lion_jax import checkpoints
      >>> params, tx = {"w": jnp.ones(3)}, lion_jax.lion(1e-4)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     checkpoints.save(folder, 10, (params, tx.init(params)))
      ...     print(checkpoints.latest(folder))
      ...     step, (params, state) = checkpoints.restore(folder, (params, tx.init(params)))
      10
    """
    ocp, path, step = _stored.orbax(), _path(folder), int(step)
    leaves = jax.tree_util.tree_leaves_with_path(unwrapped(tree))
    records = [
        _stored.record(*leaf)._replace(checksum=_stored.checksum(leaf[1])) for leaf in leaves
    ]
    _check_may_save(path, step)
    items: dict[str, Any] = {_RECORDS: ocp.args.JsonSave({"leaves": records})}
    arrays = {str(i): _stored.to_write(leaf) for i, (_, leaf) in enumerate(leaves) if leaf.size}
    if arrays:  # orbax takes no empty trees, and no empty arrays
        items[_ARRAYS] = ocp.args.PyTreeSave(arrays)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=False
    )
    with ocp.CheckpointManager(path, options=options) as manager:
        manager.save(step, args=ocp.args.Composite(**items), force=True)


def restore(
    folder: str | os.PathLike[str], like: PyTree, *, step: int | None = None
) -> tuple[int, PyTree]:
    """Restores the latest checkpoint of a folder, or that of a given step, to the last bit.

    Args:
      folder: the folder that was given to :func:`save`.
      like: a tree with the nodes, paths, shapes and dtypes that were saved, of arrays or
        ``jax.ShapeDtypeStruct``: ``(params, tx.init(params))``, or its ``jax.eval_shape``. Its
        values are ignored. Its shardings are used, and may differ from those at saving. The arrays
        may be wrapped by flax nnx or not.
      step: the step to restore; None is the latest.

    Returns:
      The step, and a tree like ``like``. NumPy arrays come back as NumPy arrays, in the same byte
      order. Leaves with a sharding are placed by it; all others are where JAX puts a new array.

    Raises:
      CheckpointError: there is no such folder, checkpoint or step; the checkpoint is damaged, or of
        another tree. The message names the first path that does not fit or cannot be read.
      TypeError, ValueError: ``step`` is out of range; a leaf is not an array, or its sharding does
        not divide it.
      ImportError: orbax is not installed.

    Example:
      >>> import tempfile
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from lion_jax import checkpoints
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     checkpoints.save(folder, 10, {"w": jnp.arange(3)})
      ...     print(checkpoints.restore(folder, {"w": jax.ShapeDtypeStruct((3,), jnp.int32)}))
      ...     checkpoints.restore(folder, {"w": jnp.zeros(3), "b": jnp.zeros(3)})
      Traceback (most recent call last):
        ...
      lion_jax.checkpoints.CheckpointError: ...
    """
    path = _path(folder)
    leaves = jax.tree_util.tree_leaves_with_path(unwrapped(like))
    wanted = [_stored.record(*leaf) for leaf in leaves]
    checkpoint = _choose(path, step)
    records = _read_records(checkpoint)
    wrapped = [_stored.record(*leaf) for leaf in jax.tree_util.tree_leaves_with_path(like)]
    if _stored.first_difference(records, wrapped) is None:  # saved before wrappers were left out
        wanted = wrapped
    places = _stored.places(records, wanted)
    _check_fits(checkpoint, records, [wanted[i] for i in places])
    likes = [leaves[i][1] for i in places]
    arrays = _read_arrays(checkpoint, records, likes)
    for (name, *_, checksum), array in zip(records, arrays, strict=True):
        if None not in (checksum, found := _stored.checksum(array)) and checksum != found:
            raise checkpoint.damaged(f"{name}: its bytes are not those that were saved")
    restored = dict(zip(places, map(_stored.to_return, likes, arrays), strict=True))
    return checkpoint.step, jax.tree.structure(like).unflatten(
        map(restored.get, range(len(leaves)))
    )


def latest(folder: str | os.PathLike[str]) -> int | None:
    """The step of a folder's latest checkpoint; None without one, or without the folder.

    Args:
      folder: the folder that was given to :func:`save`.

    Raises:
      ImportError: orbax is not installed.

    Example:
      >>> from lion_jax import checkpoints
      >>> print(checkpoints.latest("a folder that is not there"))
      None
    """
    return max(_steps(_path(folder)), default=None)


class _Checkpoint(NamedTuple):
    """A checkpoint in a folder.

    Attributes:
      folder: the folder that has it.
      step: its name in the folder.
      steps: those of all checkpoints in the folder, in order.
    """

    folder: Any
    step: int
    steps: list[int]

    @property
    def path(self) -> Any:
        return self.folder / str(self.step)

    @property
    def remedy(self) -> str:
        """The older one next to it, else another."""
        older = [step for step in self.steps if step < self.step]
        others = older or [step for step in self.steps if step > self.step]
        if not others:
            return "Try a copy of it: the folder has no other checkpoint."
        return f"Try restore(folder, like, step={others[-1]})."

    def damaged(self, where: str) -> CheckpointError:
        return CheckpointError(f"the checkpoint {self.path} is damaged, at {where}. {self.remedy}")


def _path(folder: str | os.PathLike[str]) -> Any:
    """The path as orbax takes it: absolute, or a bucket's address."""
    _stored.orbax()
    from etils import epath

    path = epath.Path(folder)
    return path if "://" in os.fspath(folder) else path.expanduser().absolute()


def _steps(path: Any) -> list[int]:
    return sorted(_stored.orbax().utils.checkpoint_steps(path)) if path.is_dir() else []


def _check_may_save(path: Any, step: int) -> None:
    """Refuses a folder with checkpoints that are another program's, or not older than this one."""
    if path.exists() and not path.is_dir():
        raise CheckpointError(f"folder must be a folder; got the file {path}. Try its parent.")
    steps = _steps(path)
    if not steps:
        return
    foreign = [other for other in steps if _is_foreign(path / str(other), other == steps[-1])]
    if foreign:
        raise CheckpointError(
            f"folder must have no other checkpoints than those of save, which deletes old ones; "
            f"got {path} with another program's {foreign[-1]}. Try a new folder."
        )
    if step <= steps[-1]:
        raise CheckpointError(
            f"step must be later than all in the folder; got {step} where {path} has "
            f"{_listed(reversed(steps))}. Try another folder, or remove the later ones by hand."
        )


def _is_foreign(path: Any, is_complete: bool) -> bool:
    """Tells whether another program made it; of an old one of ours any part may be missing."""
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    if is_complete:
        return _RECORDS not in names
    return bool(names) and not names & {_RECORDS, _ARRAYS, "_CHECKPOINT_METADATA"}


def _choose(path: Any, step: int | None) -> _Checkpoint:
    """The checkpoint of this step, by default the latest."""
    steps = _steps(path)
    if not steps:
        names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
        found = f"has only {_listed(names)}" if names else "is empty"
        raise CheckpointError(
            f"folder must be one that save has written to; got {path}, which "
            f"{found if path.is_dir() else 'is no folder'}. "
            "Try the path that was given to save."
        )
    if step is None:
        return _Checkpoint(path, steps[-1], steps)
    integer(0).check("step", step, steps[-1])
    if int(step) not in steps:
        raise CheckpointError(
            f"step must be one of the folder's; got {step} where {path} has "
            f"{_listed(reversed(steps))}. Try step={steps[-1]}."
        )
    return _Checkpoint(path, int(step), steps)


def _listed(names: Iterable[Any], most: int = 8) -> str:
    names = [str(name) for name in names]
    return ", ".join(names if len(names) <= most else [*names[:most], "..."])


def _read_records(checkpoint: _Checkpoint) -> list[Record]:
    file = checkpoint.path / _RECORDS / "metadata"
    if not file.exists():
        raise CheckpointError(
            f"{checkpoint.path} must be a checkpoint of save; got one without {_RECORDS}/metadata: "
            f"another program's, or damaged. {checkpoint.remedy}"
        )
    try:
        return [Record(*fields) for fields in json.loads(file.read_text())["leaves"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise checkpoint.damaged(f"{_RECORDS}/metadata: {error}") from error


def _check_fits(checkpoint: _Checkpoint, records: list[Record], wanted: list[Record]) -> None:
    difference = _stored.first_difference(records, wanted)
    if difference:
        path, has, wants = difference
        raise CheckpointError(
            f"like must be the tree that was saved; got {wants or 'no leaf'} at {path}, where the "
            f"checkpoint {checkpoint.path} has {has or 'no leaf'}. Try like=(params, "
            "tx.init(params)) with the transformation that saved it, then "
            "lion_jax.carry_state(state, new_transformation, params)."
        )


def _read_arrays(checkpoint: _Checkpoint, records: list[Record], likes: list[Any]) -> list[Any]:
    """Each leaf's values, on the devices of its sharding if it has one."""
    folder = checkpoint.path / _ARRAYS
    stored = {str(i): like for i, like in enumerate(likes) if like.size}
    try:
        arrays = _stored.read(folder, {i: _stored.to_read(like) for i, like in stored.items()})
    except jax.errors.JaxRuntimeError:
        raise  # no damage: another process has died, or memory has run out
    except Exception:
        # It may be the sharding that does not suit; damaged is what cannot be read without it.
        for i, like in stored.items():
            try:
                _stored.read(folder, {i: _stored.to_read_on_host(like)})
            except Exception as error:
                reason = str(error).partition("\n")[0][:200]
                raise checkpoint.damaged(f"{records[int(i)].path}: {reason}") from error
        raise
    return [
        arrays[str(i)] if like.size else np.array(_stored.to_read_on_host(like))
        for i, like in enumerate(likes)
    ]
