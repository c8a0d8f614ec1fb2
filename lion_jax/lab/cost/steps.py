"""An optimizer's step as a pod would run it: the places of its arrays, and its exchanges."""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lion_jax.distributed._splitting import split_dimensions
from lion_jax.distributed.majority_vote import majority_vote
from lion_jax.distributed.sharding import state_sharding, zero_sharding
from lion_jax.distributed.sign_gather import sign_gather
from lion_jax.lab.cost.names import SHARDINGS, SIGN_SHARDINGS
from lion_jax.lab.errors import RequestError
from lion_jax.primitives.decay import add_decoupled_weight_decay
from lion_jax.primitives.momentum import scale_by_sign_momentum

SIGN_RULES = {"lion": {"b1": 0.9, "b2": 0.99}}
"""Rules that vote, by name, with the rates of their momentum."""

_EXCHANGES = re.compile(r"stablehlo\.(all_|reduce_scatter|collective_)")


@dataclasses.dataclass(frozen=True)
class Step:
    """A step ready to compile.

    Attributes:
      sharding: one of :data:`SHARDINGS`.
      function: `(params, gradients, state) -> (params, state)`.
      arguments: their shapes, dtypes and shardings.
      results: the shardings of what it returns.
      mesh: the chips that it runs on.
    """

    sharding: str
    function: Callable[[Any, Any, Any], tuple[Any, Any]]
    arguments: tuple[Any, Any, Any]
    results: tuple[Any, Any]
    mesh: Mesh

    def lower(self) -> jax.stages.Lowered:
        """Traces the step with parameters and state donated, as in a training loop.

        Raises:
          RequestError: a transformation that does not exchange what its sharding leaves to it.
        """
        jitted = jax.jit(
            self.function, donate_argnums=(0, 2), out_shardings=self.results, keep_unused=True
        )
        if self.sharding not in SIGN_SHARDINGS:
            return jitted.lower(*self.arguments)
        try:
            lowered = jitted.lower(*self.arguments)
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:160]}"
            raise self._refusal(f"cannot be traced ({reason})") from error
        if self.mesh.size > 1 and not _EXCHANGES.search(lowered.as_text()):
            raise self._refusal("exchanges nothing, so the replicas would drift apart")
        return lowered

    def _refusal(self, why: str) -> RequestError:
        signs, axes = "lion_jax.scale_by_sign_momentum()", self.mesh.axis_names
        exchanged = {
            "vote": f"{signs}, majority_vote({axes})",
            "sign_gather": f"sign_gather({signs}, {axes})",
        }
        return RequestError(
            f"sharding {self.sharding!r} needs a transformation that exchanges signs itself; this "
            f"one {why}. Try the rule 'lion', or optax.chain({exchanged[self.sharding]}, "
            "optax.scale_by_learning_rate(1e-3)) of lion_jax.distributed"
        )


_Layout = tuple[Callable[..., tuple[Any, Any]], tuple[Any, Any, Any], tuple[Any, Any]]
"""A step's function, arguments and results."""


def make_step(sharding: str, tx: optax.GradientTransformation, params: Any, mesh: Mesh) -> Step:
    """Lays out an optimizer's step over a mesh.

    Args:
      sharding: one of :data:`SHARDINGS`.
      tx: the optimizer.
      params: abstract parameters.
      mesh: all chips of a slice.
    """
    if sharding == "single":
        mesh = Mesh(mesh.devices.reshape(-1)[:1], mesh.axis_names[:1])
    return Step(sharding, *_LAYOUTS[sharding](tx, params, mesh), mesh)


def _split_alike(tx: optax.GradientTransformation, params: Any, mesh: Mesh) -> _Layout:
    """Parameters, gradients and state split alike, as far as they divide."""
    placed = fully_split(tx, params, mesh)
    state = state_sharding(tx, params, placed)
    arguments = (_on(params, placed), _on(params, placed), _on(_state(tx, params), state))
    return lambda p, g, s: _apply(tx, p, g, s), arguments, (placed, state)


def _data(tx: optax.GradientTransformation, params: Any, mesh: Mesh) -> _Layout:
    whole = NamedSharding(mesh, PartitionSpec())

    def step(params, gradients, state):
        return _apply(tx, params, _mean(gradients, params), state)

    arguments = (_on(params, whole), _local(params, mesh), _on(_state(tx, params), whole))
    return step, arguments, (whole, whole)


def _zero(tx: optax.GradientTransformation, params: Any, mesh: Mesh) -> _Layout:
    whole = NamedSharding(mesh, PartitionSpec())
    state = zero_sharding(tx, params, whole, mesh.axis_names, unsplit="ignore")
    split = fully_split(tx, params, mesh)

    def step(params, gradients, state):
        mine = jax.lax.with_sharding_constraint(_mean(gradients, params), split)
        updates, state = tx.update(mine, state, jax.lax.with_sharding_constraint(params, split))
        updates = jax.lax.with_sharding_constraint(updates, split)
        return optax.apply_updates(params, updates), state

    arguments = (_on(params, whole), _local(params, mesh), _on(_state(tx, params), state))
    return step, arguments, (whole, state)


def _vote(tx: optax.GradientTransformation, params: Any, mesh: Mesh) -> _Layout:
    """A layout in which each chip has its own state; all are stacked along a first dimension."""

    def step(params, gradients, state):
        params, state = _apply(tx, params, gradients, jax.tree.map(lambda x: x[0], state))
        return params, jax.tree.map(lambda x: x[None], state)

    each = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    return _on_each_chip(step, params, _local(_state(tx, params), mesh), each, mesh)


def _sign_gather(tx: optax.GradientTransformation, params: Any, mesh: Mesh) -> _Layout:
    whole = NamedSharding(mesh, PartitionSpec())
    placed = zero_sharding(tx, params, whole, mesh.axis_names, unsplit="ignore")

    def step(params, gradients, state):
        return _apply(tx, params, gradients, state)

    return _on_each_chip(step, params, _on(_state(tx, params), placed), placed, mesh)


def _on_each_chip(
    step: Callable[..., Any], params: Any, state: Any, state_sharding: Any, mesh: Mesh
) -> _Layout:
    """A step that each chip runs on its own gradients, with the axes of the mesh at hand."""
    replicated = NamedSharding(mesh, PartitionSpec())
    specs = jax.tree.map(lambda s: s.spec, state_sharding)
    mapped = jax.shard_map(
        lambda p, g, s: step(p, jax.tree.map(lambda x: x[0], g), s),
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(mesh.axis_names), specs),
        out_specs=(PartitionSpec(), specs),
        check_vma=False,  # which knows no gather by groups along an axis
    )
    arguments = (_on(params, replicated), _local(params, mesh), state)
    return mapped, arguments, (replicated, state_sharding)


_LAYOUTS = {
    "single": _split_alike,
    "data": _data,
    "fsdp": _split_alike,
    "zero": _zero,
    "vote": _vote,
    "sign_gather": _sign_gather,
}


def sign_rule(
    name: str, sharding: str, axes: tuple[str, ...]
) -> optax.GradientTransformation | None:
    """The sign rule of a sharding that exchanges signs; None for any other sharding.

    Raises:
      RequestError: a rule that is not a sign rule.
    """
    if sharding not in SIGN_SHARDINGS:
        return None
    if name not in SIGN_RULES:
        others = [s for s in SHARDINGS if s not in SIGN_SHARDINGS]
        raise RequestError(
            f"sharding {sharding!r} exchanges signs, and {name!r} is not a sign rule; possible: "
            f"the rule {', '.join(SIGN_RULES)} (--rules {','.join(SIGN_RULES)}), or the sharding "
            f"{', '.join(others)}"
        )
    signs = scale_by_sign_momentum(**SIGN_RULES[name])
    exchanged = [signs, majority_vote(axes)] if sharding == "vote" else [sign_gather(signs, axes)]
    return optax.chain(
        *exchanged, add_decoupled_weight_decay(0.1), optax.scale_by_learning_rate(1e-3)
    )


def fully_split(tx: optax.GradientTransformation, params: Any, mesh: Mesh) -> Any:
    """Shardings that split each parameter, and so its state, over as many chips as divide it.

    It splits one dimension over all axes of the mesh where that can be, else over those with the
    most chips; the other axes split what dimension they divide. What none divides stays whole.
    """
    leaves, treedef = jax.tree.flatten(params)
    split: list[list[tuple[str, ...]]] = [[()] * p.ndim for p in leaves]
    for axes in _combinations(mesh):
        chips = _chips(mesh, axes)
        taken = treedef.unflatten([tuple(_chips(mesh, of_d) for of_d in of) for of in split])
        cuts = treedef.flatten_up_to(split_dimensions(tx, params, chips, taken))
        for of, cut in zip(split, cuts, strict=True):
            if cut is not None and not set(axes) & {a for of_d in of for a in of_d}:
                of[cut] += axes
    return treedef.unflatten(
        [NamedSharding(mesh, PartitionSpec(*(of_d or None for of_d in of))) for of in split]
    )


def _combinations(mesh: Mesh) -> list[tuple[str, ...]]:
    """Sets of axes with several chips, those with the most first."""
    names = [name for name in mesh.axis_names if mesh.shape[name] > 1]
    sets = [c for n in range(len(names), 0, -1) for c in itertools.combinations(names, n)]
    return sorted(sets, key=lambda axes: -_chips(mesh, axes))


def _chips(mesh: Mesh, axes: Iterable[str]) -> int:
    """The number of chips along some axes."""
    return math.prod(mesh.shape[axis] for axis in axes)


def _apply(tx: Any, params: Any, gradients: Any, state: Any) -> tuple[Any, Any]:
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state


def _mean(gradients: Any, params: Any) -> Any:
    """The mean over the chips, taken in float32."""
    return jax.tree.map(
        lambda g, p: jnp.mean(g.astype(jnp.float32), 0).astype(p.dtype), gradients, params
    )


def _local(params: Any, mesh: Mesh) -> Any:
    """Gradients that each chip has of its own, stacked along a first dimension."""
    each = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    return jax.tree.map(
        lambda p: jax.ShapeDtypeStruct((mesh.devices.size, *p.shape), p.dtype, sharding=each),
        params,
    )


def _state(tx: optax.GradientTransformation, params: Any) -> Any:
    return jax.eval_shape(tx.init, params)


def _on(tree: Any, sharding: Any) -> Any:
    """A tree of shapes with shardings: one for all, or a tree of them."""
    shardings = jax.tree.broadcast(sharding, tree)
    return jax.tree.map(lambda x, s: x.update(sharding=s), tree, shardings)
