"""Shardings for an optimizer's state."""

import warnings
from typing import Any

import jax
import optax
from jax.sharding import NamedSharding, PartitionSpec

from lion_jax._core.kinds import TRANSFORMATION, choice
from lion_jax._core.rule import takes
from lion_jax._core.types import AxisName, PyTree
from lion_jax.distributed._collectives import names_of
from lion_jax.distributed._placing import Placed, place_parameters, place_state
from lion_jax.distributed._splitting import map_state, split_dimensions
from lion_jax.distributed._unsplit import describe
from lion_jax.distributed.sign_gather import SignGatherState


@takes(optimizer=TRANSFORMATION)
def state_sharding(
    optimizer: optax.GradientTransformation, params: optax.Params, param_sharding: PyTree
) -> PyTree:
    """Shardings for an optimizer's state that follow those of the parameters.

    A leaf of its parameter's shape, such as a moment, gets its parameter's sharding. A leaf of the
    same rank but other extents, such as the exponents of ``precision.with_quantized_state`` with a
    row per group, is split along the dimensions that divide and whole along the others. That is
    right but costs memory: :func:`zero_sharding` along an axis over which the parameters are split
    already gives the same shardings, and reports such leaves. A leaf that stacks several arrays of
    the parameter's shape, as in the memory of ``optax.lbfgs``, is split alike behind its first
    dimension. A leaf of another rank (a counter, a number per parameter, a factored moment) is on
    every device. Within ``jax.shard_map``, exponents must not be whole where their integers are
    split: choose a group size that divides the rows of a shard.

    ``jax.jit(optimizer.init)`` alone raises on an Explicit mesh, ``jax.make_mesh``'s default; on an
    Auto mesh the compiler chooses where the state goes.

    Args:
      optimizer: any transformation, ``optax.MultiSteps`` included.
      params: a tree of arrays or of ``jax.ShapeDtypeStruct``; nothing is computed with it.
      param_sharding: the parameters' shardings: a ``jax.sharding.NamedSharding``, or a tree of them
        like the parameters or a prefix of such a tree, as for the ``in_shardings`` of ``jax.jit``.

    Returns:
      A tree like ``optimizer.init(params)`` with a ``NamedSharding`` in place of each array, for
      the ``out_shardings`` of ``jax.jit`` and for ``jax.device_put``. The state of a parameter has
      its memory kind, such as ``"pinned_host"``; counters stay beside the devices' programs.

    Raises:
      ValueError: a sharding that does not divide its parameter, a tree of another structure, no
        sharding at all, or a memory kind of the host where the state has nothing for it.
      TypeError: an ``optimizer`` that is no transformation, a sharding without a mesh.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jax.sharding import NamedSharding, PartitionSpec
      >>> import lion_jax
      >>> from lion_jax.distributed import state_sharding
      >>> mesh = jax.make_mesh((jax.device_count(),), ("data",))
      >>> rows = NamedSharding(mesh, PartitionSpec("data"))
      >>> params = jax.device_put({"kernel": jnp.ones((64, 8))}, rows)
      >>> tx = lion_jax.lion(1e-3)
      >>> shardings = state_sharding(tx, params, rows)
      >>> state = jax.jit(tx.init, out_shardings=shardings)(params)
      >>> print({tuple(leaf.sharding.spec) for leaf in jax.tree.leaves(state) if leaf.ndim == 2})
      {('data',)}
    """
    parameters = place_parameters(params, param_sharding)
    shardings = _shardings(_place(optimizer, params, parameters, param_sharding))
    _check_memory(param_sharding, shardings)
    return shardings


@takes(optimizer=TRANSFORMATION, unsplit=choice("warn", "raise", "ignore"))
def zero_sharding(
    optimizer: optax.GradientTransformation,
    params: optax.Params,
    param_sharding: PyTree,
    axis_name: AxisName,
    *,
    unsplit: str = "warn",
) -> PyTree:
    """Shardings that also split an optimizer's state along a mesh axis: ZeRO-1.

    Each data-parallel replica then keeps a part of the moments instead of a copy. Every leaf that
    belongs to a parameter is cut along one dimension, chosen such that all of them divide: integers
    and their exponents, say, are cut between the same groups, and a step sends nothing between
    them. Parameters that are split along the axis already (FSDP) leave their state as it is. If the
    optimizer has a :func:`lion_jax.distributed.sign_gather`, only the state inside it is split:
    outside it every replica steps whole parameters.

    Args:
      optimizer: any transformation, ``optax.MultiSteps`` included.
      params: a tree of arrays or of ``jax.ShapeDtypeStruct``; nothing is computed with it.
      param_sharding: the parameters' shardings, as in :func:`state_sharding`.
      axis_name: the mesh axis, or a tuple of axes, over whose devices the state is split, in the
        order of the mesh.
      unsplit: the action for state that cannot be split, of which every device along the axis keeps
        a whole copy: ``"warn"``, ``"raise"`` or ``"ignore"``. Counters do not count as such.

    Returns:
      A tree like ``optimizer.init(params)`` with a ``NamedSharding`` in place of each array.

    Raises:
      ValueError: as :func:`state_sharding`; an axis that the mesh does not have; another word for
        ``unsplit``; with ``"raise"``, state that cannot be split.
      TypeError: as :func:`state_sharding`.

    Warns:
      UserWarning: once, for all state that cannot be split: the parameters, the reason, the bytes
        and what to try.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jax.sharding import NamedSharding, PartitionSpec
      >>> import lion_jax
      >>> from lion_jax.distributed import zero_sharding
      >>> mesh = jax.sharding.AbstractMesh((256,), ("data",))  # or jax.make_mesh, given a pod
      >>> whole = NamedSharding(mesh, PartitionSpec())
      >>> params = {"embedding": jax.ShapeDtypeStruct((50257, 768), jnp.float32)}
      >>> shardings = zero_sharding(lion_jax.lion(1e-3), params, whole, "data")
      >>> print([tuple(each.spec) for each in jax.tree.leaves(shardings) if each.spec])
      [(None, 'data')]

    References:
      Rajbhandari et al., `ZeRO: Memory Optimizations Toward Training Trillion Parameter Models
      <https://arxiv.org/abs/1910.02054>`_, 2020, Section 5.1.
    """
    parameters = place_parameters(params, param_sharding)
    axes = _axes(axis_name, param_sharding)
    split = _split_along(axes, optimizer, params, parameters)
    placed = _place(optimizer, params, split, param_sharding)
    gathers = [x for x in jax.tree.leaves(placed, is_leaf=_is_gather) if _is_gather(x)]
    leaves = jax.tree.leaves(gathers or placed, is_leaf=_is_placed)
    if gathers:
        whole = _place(optimizer, params, parameters, param_sharding)
        placed = jax.tree.map(
            lambda a, b: b if _is_gather(b) else a, whole, placed, is_leaf=_is_gather
        )
    message = describe(optimizer, params, parameters, leaves, axes) if unsplit != "ignore" else None
    if message and unsplit == "raise":
        raise ValueError(message)
    if message:
        warnings.warn(f'{message}\nunsplit="ignore" silences this.', stacklevel=4)
    return _shardings(placed)


def _axes(axis_name: AxisName, param_sharding: PyTree) -> tuple[str, ...]:
    """The axes as a tuple, in the order of the mesh; every mesh must have them all."""
    axes = names_of(axis_name)
    are_names = isinstance(axes, tuple) and all(isinstance(name, str) for name in axes)
    for sharding in jax.tree.leaves(param_sharding):
        names = sharding.mesh.axis_names
        if not (are_names and axes and set(axes) <= set(names) and len(set(axes)) == len(axes)):
            raise ValueError(
                "axis_name must be an axis of the mesh, or a tuple of different ones, of "
                f"{', '.join(map(repr, names))}; got {axis_name!r}. Try axis_name={names[0]!r}."
            )
        axes = tuple(name for name in names if name in axes)
    return axes


def _split_along(
    axes: tuple[str, ...],
    optimizer: optax.GradientTransformation,
    params: optax.Params,
    parameters: list[Placed],
) -> list[Placed]:
    """The parameters as their state is to be split: along these axes too, where that can be."""
    treedef = jax.tree.structure(params)
    taken = treedef.unflatten([p.parts for p in parameters])
    shards = [p.devices_along(p.missing(axes)) for p in parameters]
    dimensions = {
        n: treedef.flatten_up_to(split_dimensions(optimizer, params, n, taken))
        for n in set(shards) - {1}
    }
    split = list(parameters)
    for i, (p, n) in enumerate(zip(parameters, shards, strict=True)):
        if n > 1 and (cut := dimensions[n][i]) is not None:
            further = p.missing(axes)
            split[i] = p.split(
                [(*mine, *further) if d == cut else mine for d, mine in enumerate(p.axes)]
            )
    return split


def _place(
    optimizer: optax.GradientTransformation,
    params: optax.Params,
    parameters: list[Placed],
    param_sharding: PyTree,
) -> PyTree:
    """The state's leaves where they live, those of no parameter on every device of the mesh."""

    def on_every_device(leaf):
        shardings = jax.tree.leaves(param_sharding)
        if not shardings:
            raise ValueError(
                "param_sharding must hold a sharding, over whose mesh the optimizer's counters go; "
                f"got {param_sharding!r}. Try NamedSharding(mesh, PartitionSpec())."
            )
        return Placed("", leaf, NamedSharding(shardings[0].mesh, PartitionSpec()))

    return map_state(
        optimizer,
        params,
        lambda leaf, i: place_state(leaf, i, parameters[i]),
        on_every_device,
    )


def _check_memory(param_sharding: PyTree, shardings: PyTree) -> None:
    """Refuses a memory of the host in which nothing of the state would be."""
    asked = {sharding.memory_kind for sharding in jax.tree.leaves(param_sharding)}
    given = {sharding.memory_kind for sharding in jax.tree.leaves(shardings)}
    own = jax.local_devices()[0].default_memory().kind  # of CPUs too: unpinned_host, or device
    unused = {kind for kind in asked - given - {own} if kind and "host" in kind}
    if unused:
        raise ValueError(
            "param_sharding must have a memory kind in which some of the state can be; got "
            f"{sorted(unused)}, but no leaf of this state belongs to a parameter. Try shardings "
            "without memory_kind."
        )


def _shardings(placed: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.sharding, placed, is_leaf=_is_placed)


def _is_gather(x: Any) -> bool:
    return isinstance(x, SignGatherState)


def _is_placed(x: Any) -> bool:
    return isinstance(x, Placed)
