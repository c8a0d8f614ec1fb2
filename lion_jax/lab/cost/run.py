"""Counting the cost of an optimizer's step on TPUs or GPUs, in the compiled program."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from lion_jax._core.leaves import is_transformation
from lion_jax.lab import progress
from lion_jax.lab.choosing import choose_rules, names
from lion_jax.lab.cost import hlo, traffic
from lion_jax.lab.cost.compiling import compile_step
from lion_jax.lab.cost.figures import PodCost
from lion_jax.lab.cost.floors import Stored, least, stored
from lion_jax.lab.cost.models import abstract_params, choose_model
from lion_jax.lab.cost.names import DTYPES, SHARDINGS, SIGN_SHARDINGS, parse
from lion_jax.lab.cost.report import PodCosts
from lion_jax.lab.cost.steps import Step, make_step, sign_rule
from lion_jax.lab.cost.topology import Topology, describe
from lion_jax.lab.cost.wires import sent
from lion_jax.lab.errors import RequestError, known
from lion_jax.lab.progress import OnProgress
from lion_jax.lab.provenance import processor, provenance
from lion_jax.lab.reporting import reporting
from lion_jax.lab.rules.catalogue import RULES
from lion_jax.lab.rules.rule import Rule
from lion_jax.lab.tasks.task import Task

AnyRule = str | Rule | optax.GradientTransformation
_RATE = 1e-3  # no value of it changes the cost


@reporting
def cost(
    model: Any = "gpt2",
    rules: AnyRule | Iterable[AnyRule] | None = None,
    topology: str = "v5e:16x16",
    sharding: str = "fsdp",
    *,
    dtype: str | None = None,
    on_progress: OnProgress = progress.silent,
) -> Iterator[PodCosts]:
    """Compiles the step of each rule for TPUs or GPUs, and counts what the programs do.

    None is needed: libtpu, from the extra `pods`, holds the compiler for a slice of a TPU pod; the
    wheels of the extra `gpus` hold the one for NVIDIA GPUs. The step is
    ``updates, state = tx.update(grads, state, params)`` and ``optax.apply_updates``, with
    parameters and state donated; the model's own passes are no part of it.

    Compiling makes jax start its own backends. Where a compiler is installed and no such chip is
    there, the environment variable ``JAX_PLATFORMS=cpu`` keeps it from looking for one.

    Args:
      model: whose parameters are stepped: ``"gpt2"``, ``"vit_b_16"``, ``"decoder_1b"``,
        ``"decoder_7b"``; a :class:`~lion_jax.lab.Task`, its name or ``"mine.py:task"``; a path to a
        JSON file of shapes; or a tree of shapes.
      rules: what :func:`lion_jax.lab.compare` takes, or any transformation; None is
        ``("lion", "adamw")``. With ``"vote"`` and ``"sign_gather"`` it is ``"lion"``, or a rule
        that exchanges what it needs along the mesh axes ``("x", "y")`` or ``("x", "y", "z")``, for
        GPUs ``("gpu",)`` or ``("gpu", "host")``.
      topology: a generation of TPUs and a grid of chips, such as ``"v5e:16x16"`` or
        ``"v5p:8x8x8"``; or ``"a100"``, ``"h100"``, ``"h200"`` or ``"b200"``, with how many,
        ``"h100:8"`` on one host or ``"h100:32x8"`` on 32.
      sharding: ``"single"``, ``"data"``, ``"fsdp"``, ``"zero"``, ``"vote"`` or
        ``"sign_gather"``.
      dtype: of parameters and gradients, ``"float32"`` or ``"bfloat16"``; None is float32, or what
        a task has. Rules that have one of their own, such as ``"lion_small"``, keep it, as do
        arrays in a tree.
      on_progress: called with a :class:`~lion_jax.lab.Progress` now and then; None shows bars on a
        terminal and lines in a notebook.

    Returns:
      The :class:`PodCosts`, a sequence of :class:`PodCost`.

    Raises:
      RequestError: a name that is unknown, a topology that does not exist, a rule that cannot
        exchange signs, a compiler missing, a program that the compiler refuses, as one that does
        not fit into a chip's memory. All rules are checked before anything is compiled.

    Example::

      costs = lab.cost("gpt2", ["lion", "adamw"], "v5e:16x16", "fsdp")  # a minute
      [c.hbm_bytes / c.held for c in costs]  # [20.0, 28.0] bytes per parameter and step
      [c.kind for c, _ in costs[0].exchanges]  # [], no collective at all
      costs[0].text  # the program itself
    """
    known("sharding", sharding, SHARDINGS)
    if dtype is not None:
        known("dtype", dtype, DTYPES)
    generation, extents = parse(topology)
    if rules is None:
        rules = ("lion",) if sharding in SIGN_SHARDINGS else ("lion", "adamw")
    found = choose_model(model)
    settings = {
        "model": _name(model, found),
        "topology": topology,
        "sharding": sharding,
        "dtype": dtype,
    }
    axes = generation.axes(extents)
    requests = [_request(name, rule, found, settings, axes) for name, rule in _named(rules)]
    described = describe(topology)
    traced = [_traced(request, described) for request in requests]
    tell = progress.teller(on_progress, [request.name for request in requests])
    costs = PodCosts(
        provenance=provenance(device=processor()),
        settings=settings,
        missing=tuple(request.name for request in requests),
    )
    for request, (step, lowered) in zip(requests, traced, strict=True):
        tell(request.name, 0, 1)
        counted = _count(request, described, step, compile_step(lowered, request.name, generation))
        tell(request.name, 1, 1)
        costs = dataclasses.replace(costs, costs=(*costs.costs, counted), missing=costs.missing[1:])
        yield costs


def pod_cost(
    rule: AnyRule,
    model: Any = "gpt2",
    topology: str = "v5e:16x16",
    sharding: str = "fsdp",
    *,
    dtype: str | None = None,
    on_progress: OnProgress | None = None,
) -> PodCost:
    """Compiles the step of one rule for TPUs or GPUs, and counts what the program does.

    Args:
      rule: one of the rules that :func:`cost` takes, whose other arguments are the same.
      model: whose parameters are stepped.
      topology: TPUs or GPUs, and how many.
      sharding: where parameters, gradients and state are.
      dtype: of parameters and gradients.
      on_progress: called now and then.

    Returns:
      A :class:`PodCost`.

    Raises:
      RequestError: as :func:`cost`.

    Example::

      cost = lab.pod_cost("lion", "gpt2", "v5e:16x16", "fsdp")  # half a minute
      cost.hbm_bytes / cost.held  # 20.0 bytes per parameter and step
    """
    words: Any = {"dtype": dtype, "on_progress": on_progress}  # None shows progress
    return cost(model, [rule], topology, sharding, **words)[0]


class _Request(NamedTuple):
    """A step to compile, checked as far as can be without a compiler."""

    name: str
    tx: optax.GradientTransformation
    params: Any
    settings: dict[str, Any]


def _named(rules: AnyRule | Iterable[AnyRule]) -> list[tuple[str, Any]]:
    """Each rule or transformation with its name, as many as are asked for."""
    if isinstance(rules, str):
        rules = names(rules)
    given: list[Any] = [rules] if isinstance(rules, Rule) or is_transformation(rules) else [*rules]
    by_name = [rule for rule in given if not is_transformation(rule)]
    chosen = iter(choose_rules(by_name) if by_name or not given else [])
    count, found = 0, []
    for rule in given:
        if is_transformation(rule):
            count += 1
            found.append((f"transformation {count}" if count > 1 else "a transformation", rule))
        else:
            rule = next(chosen)
            found.append((rule.name, rule))
    return found


def _request(
    name: str, rule: Any, model: Any, settings: dict[str, Any], axes: tuple[str, ...]
) -> _Request:
    """A request; with names from the lab, signs are exchanged as the sharding says."""
    tx, dtype = rule, settings["dtype"]
    if isinstance(rule, Rule):
        tx = sign_rule(name, settings["sharding"], axes) if RULES.get(name) is rule else None
        tx = tx or _transformation(rule)
        dtype = rule.params_dtype or dtype
    params = abstract_params(model, dtype)
    dtypes = sorted({p.dtype.name for p in jax.tree.leaves(params)})
    return _Request(name, tx, params, {**settings, "dtype": " and ".join(dtypes)})


def _transformation(rule: Rule) -> optax.GradientTransformation:
    """A rule at some learning rate; of numpy, as numbers of jax would start a backend."""
    tuned = {name: np.float32(high) for name, (_, high) in rule.tuned.items()}
    return rule.transformation(np.float32(_RATE), lambda count: np.float32(1), **tuned)


def _name(model: Any, found: Any) -> str:
    if isinstance(found, Task):
        return found.name
    return str(model) if isinstance(model, str | Path) else "a tree of shapes"


def _traced(request: _Request, described: Topology) -> tuple[Step, jax.stages.Lowered]:
    """The step of a rule, and what there is to compile.

    Raises:
      RequestError: a rule that cannot step such parameters.
    """
    try:
        step = make_step(request.settings["sharding"], request.tx, request.params, described.mesh)
        return step, step.lower()
    except RequestError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
        raise RequestError(
            f"the step of {request.name} cannot be traced ({reason}); possible: a rule that needs "
            "parameters, gradients and its state alone"
        ) from error


def _count(request: _Request, described: Topology, step: Step, compiled: Any) -> PodCost:
    text = compiled.as_text()
    program = hlo.parse(text, described.platform)
    counted = traffic.count(program, lambda c: sent(c, described.links).nbytes)
    sharding = request.settings["sharding"]
    params, gradients, state = stored(step, program)
    n = step.mesh.size
    split = {"fsdp": params, "zero": state, "sign_gather": state}.get(sharding, [])
    parameters = sum(x.leaf.size for x in params)
    return PodCost(
        provenance=provenance(device=processor()),
        rule=request.name,
        settings=request.settings,
        chips=n,
        parameters=parameters,
        held=sum(x.array.size for x in params),
        stored_bytes=sum(x.array.nbytes for x in [*params, *state]),
        stored_in_tiles=sum(x.array.padded_bytes for x in [*params, *state]),
        traffic=counted,
        temporary_bytes=compiled.memory_analysis().temp_size_in_bytes,
        exchanges=tuple((c, sent(c, described.links)) for c in counted.collectives),
        links_per_chip=described.links.links_per_chip,
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
