"""What a step of an optimizer costs on a slice of a TPU pod, from the program compiled for it."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import optax

from lion_jax.lab.cost import hlo, traffic
from lion_jax.lab.cost.floors import Floors, Stored, least, stored
from lion_jax.lab.cost.models import abstract_params
from lion_jax.lab.cost.steps import SHARDINGS, Step, make_step, sign_rule
from lion_jax.lab.cost.topology import AXES, Slice, describe, parse
from lion_jax.lab.cost.traffic import Collective, Traffic
from lion_jax.lab.cost.wires import Sent, sent
from lion_jax.lab.errors import RequestError, known
from lion_jax.lab.rules import RULES

DTYPES = ("float32", "bfloat16")
_RATE = 1e-3  # no value of it changes the cost


@dataclasses.dataclass(frozen=True)
class PodCost:
    """What a step costs each chip, counted in its compiled program.

    All bytes are of one chip and one step. Bytes stored, moved through HBM and temporary are also
    given per parameter that a chip holds; bytes sent per parameter of the model.

    Attributes:
      rule: the rule's name.
      settings: model, topology, sharding and dtype.
      chips: of the slice; 1 with the sharding `single`.
      parameters: of the model.
      held: parameters that a chip holds.
      stored_bytes: of parameters and state, without padding.
      stored_in_tiles: the same with the padding of the tiles that arrays lie in.
      traffic: what the step moves through HBM, and its collectives.
      temporary_bytes: what the program needs beside its arguments and results.
      exchanges: each collective with what it sends.
      links_per_chip: outgoing links of a chip, the mean.
      floors: the least of each.
      coarse: parameters that the layout splits over fewer chips than there are, by their paths, and
        over how many; those that take most of a chip first.
      text: the compiled program.
    """

    rule: str
    settings: dict[str, Any]
    chips: int
    parameters: int
    held: int
    stored_bytes: float
    stored_in_tiles: float
    traffic: Traffic
    temporary_bytes: int
    exchanges: tuple[tuple[Collective, Sent], ...]
    links_per_chip: float
    floors: Floors
    coarse: dict[str, int]
    text: str = dataclasses.field(repr=False)

    @property
    def hbm_bytes(self) -> float:
        """Bytes read from HBM and written to it, in a step that takes the dearest branches."""
        return self.traffic.most.total

    @property
    def sent_bytes(self) -> float:
        """Bytes that a chip sends."""
        return sum(s.nbytes for _, s in self.exchanges)

    @property
    def hop_bytes(self) -> float:
        """Bytes that a chip sends, each times the links that it crosses."""
        return sum(s.hop_bytes for _, s in self.exchanges)

    @property
    def link_bytes(self) -> float:
        """Bytes that a link carries in one direction, the mean over all links."""
        return self.hop_bytes / self.links_per_chip if self.links_per_chip else 0.0

    def record(self) -> dict[str, Any]:
        """All figures under their names, in bytes per chip and step and per parameter."""
        cheapest = self.traffic.least.total
        return {
            "rule": self.rule,
            **self.settings,
            "chips": self.chips,
            "parameters": self.parameters,
            "parameters_per_chip": self.held,
            "stored_bytes": self.stored_bytes,
            "stored_bytes_in_tiles": self.stored_in_tiles,
            "stored_bytes_floor": self.floors.stored,
            "hbm_bytes": self.hbm_bytes,
            "hbm_bytes_cheapest_branches": cheapest,
            "hbm_bytes_in_tiles": self.traffic.most.in_tiles,
            "hbm_bytes_floor": self.floors.hbm,
            "temporary_bytes": self.temporary_bytes,
            "temporary_bytes_floor": self.floors.temporary,
            "sent_bytes": self.sent_bytes,
            "sent_bytes_floor": self.floors.sent,
            "hop_bytes": self.hop_bytes,
            "link_bytes": self.link_bytes,
            "stored_per_parameter": self.stored_bytes / self.held,
            "hbm_per_parameter": self.hbm_bytes / self.held,
            "hbm_per_parameter_cheapest_branches": cheapest / self.held,
            "temporary_per_parameter": self.temporary_bytes / self.held,
            "sent_per_parameter": self.sent_bytes / self.parameters,
            "link_per_parameter": self.link_bytes / self.parameters,
            "collectives": " ".join(sorted({c.kind for c, _ in self.exchanges})),
            "loops_of_unknown_length": len(self.traffic.unknown_loops),
        }


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
        exchange signs, libtpu missing.

    Example::

      cost = lab.pod_cost("lion", "gpt2", "v5e:16x16", "fsdp")  # half a minute
      cost.hbm_bytes / cost.held  # 20.0 bytes per parameter and step
      [c.kind for c, _ in cost.exchanges]  # [], no collective at all
      cost.text  # the program itself
    """
    tx, name, own_dtype = _transformation(rule)
    known("sharding", sharding, SHARDINGS)
    known("dtype", dtype, dict.fromkeys(DTYPES))
    params = abstract_params(model, own_dtype or dtype)
    settings = {
        "model": model if isinstance(model, str) else "a tree of shapes",
        "topology": topology,
        "sharding": sharding,
        "dtype": jnp.dtype(own_dtype or dtype).name,
    }
    _, extents = parse(topology)
    if isinstance(rule, str):
        tx = sign_rule(rule, sharding, AXES[: len(extents)]) or tx
    described = describe(topology)
    on_progress(f"compiling {name}", 0, 1)
    step = make_step(sharding, tx, params, described.mesh)
    compiled = step.compile()
    cost = _count(name, settings, described, step, compiled)
    on_progress(f"compiling {name}", 1, 1)
    return cost


def pod_costs(
    rules: Sequence[str | optax.GradientTransformation], *arguments: Any, **settings: Any
) -> list[PodCost]:
    """Costs of several rules side by side; :func:`pod_cost` says with what arguments.

    Raises:
      RequestError: as :func:`pod_cost`, before anything is compiled; no rule, or one twice.
    """
    names = [_transformation(rule)[1] for rule in rules]
    twice = len(set(names)) < len(names) and all(isinstance(rule, str) for rule in rules)
    if not names or twice:
        got = ", ".join(names) or "none"
        raise RequestError(f"rules must have at least one, all different; got {got}")
    return [pod_cost(rule, *arguments, **settings) for rule in rules]


def _transformation(rule: Any) -> tuple[optax.GradientTransformation, str, Any]:
    """A rule's transformation, its name, and the dtype that it wants parameters in."""
    if isinstance(rule, str):
        found = RULES[known("rule", rule, RULES)]
        schedule = optax.constant_schedule(_RATE)
        return found.make(schedule, jnp.float32(_RATE)), rule, found.params_dtype
    if not callable(getattr(rule, "init", None)) or not callable(getattr(rule, "update", None)):
        raise RequestError(
            f"rule must be a name or a transformation, a pair of init and update; got {rule!r}. "
            f"Possible: {', '.join(RULES)}, or such as lion_jax.lion(1e-3)"
        )
    return rule, "a transformation", None


def _count(
    name: str, settings: dict[str, Any], described: Slice, step: Step, compiled: Any
) -> PodCost:
    text = compiled.as_text()
    program = hlo.parse(text)
    counted = traffic.count(program)
    sharding = settings["sharding"]
    params, gradients, state = stored(step, program)
    n = 1 if sharding == "single" else described.chips
    parameters = sum(x.leaf.size for x in params)
    return PodCost(
        rule=name,
        settings=settings,
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
        coarse=_coarse(params, n) if sharding == "fsdp" else {},
        text=text,
    )


def _coarse(params: list[Stored], n: int) -> dict[str, int]:
    """Parameters in fewer than `n` parts, the largest parts first."""
    parts = {x.path: x.leaf.size // max(x.array.size, 1) for x in params if x.leaf.size}
    largest = sorted(params, key=lambda x: -x.array.size)
    return {x.path: parts[x.path] for x in largest if parts.get(x.path, n) < n}
