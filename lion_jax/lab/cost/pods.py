"""The cost of an optimizer's step on a slice of a TPU pod, from the program compiled for it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np
import optax

from lion_jax.lab.cost import hlo, traffic
from lion_jax.lab.cost.figures import PodCost
from lion_jax.lab.cost.floors import Stored, least, stored
from lion_jax.lab.cost.models import abstract_params
from lion_jax.lab.cost.steps import SHARDINGS, Step, make_step, sign_rule
from lion_jax.lab.cost.topology import AXES, Slice, describe, parse
from lion_jax.lab.cost.wires import sent
from lion_jax.lab.errors import RequestError, known
from lion_jax.lab.rules import RULES

DTYPES = ("float32", "bfloat16")
_RATE = 1e-3  # no value of it changes the cost


def pod_cost(
    rule: str | optax.GradientTransformation,
    model: Any = "gpt2",
    topology: str = "v5e:16x16",
    sharding: str = "fsdp",
    *,
    dtype: str = "float32",
    on_progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> PodCost:
    """Compiles an optimizer's step for a slice of a TPU pod, and counts what the program does.

    No TPU is needed: libtpu, from the extra `pods`, holds the compiler. The step is
    ``updates, state = tx.update(grads, state, params)`` and ``optax.apply_updates``, with
    parameters and state donated; the model's own passes are no part of it.

    Compiling makes jax start its own backends. Where libtpu is installed and no TPU is there, the
    environment variable ``JAX_PLATFORMS=cpu`` keeps it from looking for one.

    Args:
      rule: a name from :data:`lion_jax.lab.RULES`, or any transformation. With ``"vote"`` and
        ``"sign_gather"`` it is ``"lion"``, or one that exchanges what it needs along the mesh axes
        ``("x", "y")`` or ``("x", "y", "z")``.
      model: ``"gpt2"``, ``"vit_b_16"``, ``"decoder_1b"``, ``"decoder_7b"``, a path to a JSON file
        of shapes, or a tree of shapes.
      topology: a generation and a grid of chips, such as ``"v5e:16x16"`` or ``"v5p:8x8x8"``.
      sharding: ``"single"``, ``"data"``, ``"fsdp"``, ``"zero"``, ``"vote"`` or
        ``"sign_gather"``.
      dtype: of parameters and gradients, ``"float32"`` or ``"bfloat16"``; rules that have one of
        their own, such as ``"lion_small"``, keep it.
      on_progress: called with what is being compiled, what is done and what is to do.

    Returns:
      A :class:`PodCost`.

    Raises:
      RequestError: a name that is unknown, a topology that does not exist, a rule that cannot
        exchange signs, libtpu missing, a program that the compiler refuses, as one that does not
        fit into a chip's memory.

    Example::

      cost = lab.pod_cost("lion", "gpt2", "v5e:16x16", "fsdp")  # half a minute
      cost.hbm_bytes / cost.held  # 20.0 bytes per parameter and step
      [c.kind for c, _ in cost.exchanges]  # [], no collective at all
      cost.text  # the program itself
    """
    request = _request(rule, model, topology, sharding, dtype)
    return _costs([request], on_progress)[0]


def pod_costs(
    rules: Sequence[str | optax.GradientTransformation],
    model: Any = "gpt2",
    topology: str = "v5e:16x16",
    sharding: str = "fsdp",
    *,
    dtype: str = "float32",
    on_progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> list[PodCost]:
    """Costs of several rules side by side; :func:`pod_cost` says with what arguments.

    Raises:
      RequestError: as :func:`pod_cost`, of all rules before anything is compiled; no rule, or one
        twice.
    """
    if isinstance(rules, str):
        raise RequestError(f"rules must be a list of names; got the string {rules!r}")
    names = [_transformation(rule)[1] for rule in rules]
    twice = len(set(names)) < len(names) and all(isinstance(rule, str) for rule in rules)
    if not names or twice:
        got = ", ".join(names) or "none"
        raise RequestError(f"rules must have at least one, all different; got {got}")
    requests = [_request(rule, model, topology, sharding, dtype) for rule in rules]
    return _costs(requests, on_progress)


class _Request(NamedTuple):
    """A step to compile, checked as far as can be without a compiler."""

    name: str
    tx: optax.GradientTransformation
    params: Any
    settings: dict[str, Any]


def _request(rule: Any, model: Any, topology: str, sharding: str, dtype: str) -> _Request:
    tx, name, own_dtype = _transformation(rule)
    known("sharding", sharding, SHARDINGS)
    known("dtype", dtype, dict.fromkeys(DTYPES))
    _, extents = parse(topology)
    if isinstance(rule, str):
        tx = sign_rule(rule, sharding, AXES[: len(extents)]) or tx
    params = abstract_params(model, own_dtype or dtype)
    settings = {
        "model": str(model) if isinstance(model, str | Path) else "a tree of shapes",
        "topology": topology,
        "sharding": sharding,
        "dtype": " and ".join(sorted({p.dtype.name for p in jax.tree.leaves(params)})),
    }
    return _Request(name, tx, params, settings)


def _costs(
    requests: Sequence[_Request], on_progress: Callable[[str, int, int], None]
) -> list[PodCost]:
    """Traces all steps, which may be refused, before it compiles the first."""
    described = describe(requests[0].settings["topology"])
    steps = [
        make_step(of.settings["sharding"], of.tx, of.params, described.mesh) for of in requests
    ]
    lowered = [step.lower() for step in steps]
    costs = []
    for request, step, traced in zip(requests, steps, lowered, strict=True):
        stage = f"compiling {request.name}"
        on_progress(stage, 0, 1)
        costs.append(_count(request, described, step, _compile(traced, request.name)))
        on_progress(stage, 1, 1)
    return costs


def _compile(lowered: jax.stages.Lowered, name: str) -> jax.stages.Compiled:
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise RequestError(
            f"the compiler refuses the step of {name} ({reason}). "
            "Try a smaller model, more chips, or the sharding fsdp"
        ) from error


def _transformation(rule: Any) -> tuple[optax.GradientTransformation, str, Any]:
    """A rule's transformation, its name, and the dtype that it wants parameters in."""
    if isinstance(rule, str):
        found = RULES[known("rule", rule, RULES)]
        schedule = optax.constant_schedule(_RATE)
        # Not of jax.numpy, which would start a backend.
        rate = cast("jax.Array", np.float32(_RATE))
        return found.make(schedule, rate), rule, found.params_dtype
    if not callable(getattr(rule, "init", None)) or not callable(getattr(rule, "update", None)):
        raise RequestError(
            f"rule must be a name or a transformation, a pair of init and update; got {rule!r}. "
            f"Possible: {', '.join(RULES)}, or such as lion_jax.lion(1e-3)"
        )
    return rule, "a transformation", None


def _count(request: _Request, described: Slice, step: Step, compiled: Any) -> PodCost:
    text = compiled.as_text()
    program = hlo.parse(text)
    counted = traffic.count(program, lambda c: sent(c, described.torus).nbytes)
    sharding = request.settings["sharding"]
    params, gradients, state = stored(step, program)
    n = step.mesh.size
    split = {"fsdp": params, "zero": state, "sign_gather": state}.get(sharding, [])
    parameters = sum(x.leaf.size for x in params)
    return PodCost(
        rule=request.name,
        settings=request.settings,
        chips=n,
        parameters=parameters,
        held=sum(x.array.size for x in params),
        stored_bytes=sum(x.array.nbytes for x in [*params, *state]),
        stored_in_tiles=sum(x.array.padded_bytes for x in [*params, *state]),
        traffic=counted,
        temporary_bytes=compiled.memory_analysis().temp_size_in_bytes,
        exchanges=tuple((c, sent(c, described.torus)) for c in counted.collectives),
        links_per_chip=described.torus.links_per_chip,
        floors=least(sharding, n, params, gradients, state),
        coarse=_coarse(split, n),
        text=text,
    )


def _coarse(leaves: list[Stored], n: int) -> dict[str, int]:
    """Leaves in fewer than `n` parts, by path, the largest parts first; scalars are left out."""
    largest = sorted(
        (x for x in leaves if x.leaf.ndim and x.leaf.size), key=lambda x: -x.array.size
    )
    parts = {x.path: x.leaf.size // max(x.array.size, 1) for x in largest}
    return {path: number for path, number in parts.items() if number < n}
