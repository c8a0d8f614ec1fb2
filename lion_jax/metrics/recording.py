"""Metrics of each step, kept in the state of any transformation."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from lion_jax._core import inner as _inner
from lion_jax._core.checks import check_has_params, check_match
from lion_jax._core.counters import zero
from lion_jax._core.dtypes import at_least_float32
from lion_jax._core.hyperparameters import by_name
from lion_jax._core.kinds import AXIS_NAME, FLAG, TRANSFORMATION, integer
from lion_jax._core.leaves import is_none, is_weight
from lion_jax._core.rule import combinator
from lion_jax._core.states import all_fields, the_only, unwrapped
from lion_jax._core.types import AxisName
from lion_jax.metrics._measuring import Step, keeps, metrics_from, no_signs, over_devices, sums_of

_SMALL = 2**20  # parameters, whose signs cost nothing to speak of


class MetricsState(NamedTuple):
    """State of `with_metrics`.

    Attributes:
      update_count: updates so far, int32 of shape (); once it is the largest int32, it goes on in
        a circle of `every` counts.
      metrics: those of all parameters together by name, each of shape (), float32 (float64 where a
        parameter is), and `step`, the update that they are of, int32.
      per_parameter: by path those of one parameter, likewise; None if not asked for.
      signs: signs of that update, int8 like the parameters, None for what is no floating-point
        number; without entries where there are too many, None if they are not to be compared.
      inner_state: state of the inner transformation.
    """

    update_count: jax.Array
    metrics: dict[str, jax.Array]
    per_parameter: Any
    signs: Any
    inner_state: optax.OptState


@combinator(
    inner=TRANSFORMATION,
    per_parameter=FLAG,
    axis_name=AXIS_NAME.or_none(),
    every=integer(is_traced=False).trying("100"),
    sign_flips=FLAG.or_none(),
)
def with_metrics(
    inner: optax.GradientTransformation,
    *,
    per_parameter: bool = False,
    axis_name: AxisName | None = None,
    every: int = 1,
    sign_flips: bool | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Measures every step of a transformation, for :func:`read_metrics` to read from the state.

    .. math::

      \lVert g_t \rVert, \ \lVert u_t \rVert, \ \lVert \theta_{t-1} \rVert, \ \lVert m_t \rVert,
      \quad \cos(u_t, g_t), \ \cos(m_t, g_t), \quad \ldots \qquad
      \text{of } u_t, s_t = \operatorname{inner}(g_t, s_{t-1}, \theta_{t-1})

    The updates and the inner state are those of the inner transformation. Its gradients are
    measured as they come, before any clipping within it; its updates as they go, which is the step
    really taken: put it inside of what changes them further or skips them.

    On a TPU the sums ride along with the pass over the parameters where the rule is one like Lion
    or Adan, and the inner update is traced once more for them; on a CPU they take several steps.

    Args:
      inner: the transformation to measure, its learning rate included.
      per_parameter: whether to keep the metrics of each parameter too.
      axis_name: under ``shard_map`` or ``pmap``, the name of the axis (or a tuple of names) over
        which each device has other parts of the parameters: sums are reduced over it before the
        root, so that a norm is that of the whole. Where ``shard_map`` keeps track of what varies
        (``check_vma``), a parameter of which each device has all is counted once; elsewhere once
        per device, so do not give it where devices have copies, as in data-parallel ``pmap``.
        Not needed under ``jit``.
      every: n >= 1: measures every n-th update. In between it costs a TPU nothing, a CPU a third of
        Lion's step.
      sign_flips: whether to compare the signs of the updates with those of the last measured one,
        which are kept as int8, one byte per parameter. None does so for rules whose updates are
        signs (those that show a ``weight_bound``, see :func:`hyperparameters`) and at most 2**20
        parameters; for larger models and for ``optax.lion`` give True.

    Returns:
      A transformation from gradients to the updates of the inner transformation. The state is a
      :class:`~lion_jax.metrics.MetricsState`. Sums are taken in at least float32.

    Raises:
      ValueError: ``every`` out of range; at ``update``, missing parameters, a gradient of another
        shape than its parameter.
      TypeError: an ``inner`` that is no transformation, an argument of the wrong type; at
        ``update``, another transformation's state.

    Example:
      >>> import jax.numpy as jnp, lion_jax, optax
      >>> tx = optax.chain(optax.clip_by_global_norm(1.0), lion_jax.lion(0.5))
      >>> tx = lion_jax.with_metrics(tx)
      >>> params = jnp.array([3.0, 4.0])
      >>> updates, state = tx.update(jnp.array([6.0, 8.0]), tx.init(params), params)
      >>> metrics = lion_jax.read_metrics(state)
      >>> for name in ("norm/grad", "norm/update", "share/agree", "hyperparameter/learning_rate"):
      ...     print(f"{name} {metrics[name]:.4f}")
      norm/grad 10.0000
      norm/update 0.7071
      share/agree 1.0000
      hyperparameter/learning_rate 0.5000

    References:
      The metrics of ``DecoupledLionW`` in `llm-foundry
      <https://github.com/mosaicml/llm-foundry>`_ 0.22, of the step as it is; its own figures, of
      one that differs, are :func:`lion_jax.compat.llm_foundry.report_metrics`'s.
    """
    inner = optax.with_extra_args_support(inner)

    def init_fn(params):
        inner_state = inner.init(params)
        is_counting = _is_sign_rule(inner_state) if sign_flips is None else sign_flips
        signs = no_signs(params, math.inf if sign_flips else _SMALL) if is_counting else None
        shapes = jax.eval_shape(
            lambda p, s: measured(Step.of(p, p, p, s, signs, None), signs, None),
            params,
            inner_state,
        )
        metrics, of_each, _ = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return MetricsState(zero(), metrics | {"step": zero()}, of_each, signs, inner_state)

    def measured(step, signs, axis_name=axis_name):
        before, treedef = jax.tree.flatten(signs, is_leaf=is_none)
        present = None if signs is None else [x for x in before if x is not None]
        sums, present = sums_of(step, present, _weight_bound(step.inner_state))
        of_all, of_each = over_devices(sums, axis_name, _dtype(step.params), per_parameter)
        of_each = _by_name(metrics_from(of_each), step.names) if per_parameter else None
        if present is not None:
            new = iter(present)
            signs = treedef.unflatten(None if x is None else next(new) for x in before)
        return metrics_from(of_all), of_each, signs

    def update_fn(updates, state, params=None, **extra_args):
        params = check_has_params(params, "with_metrics")
        if not isinstance(state, MetricsState):
            raise TypeError(
                "state must be that of with_metrics, from its init; got one of type "
                f"{type(state).__name__}. Try lion_jax.carry_state(state, tx, params)."
            )
        check_match("gradients", updates, params)
        gradients, count = updates, _next_in_phase(state.update_count, every)
        known = _names_in(state.per_parameter) if per_parameter else None

        def take(gradients, inner_state):
            return _inner.update(inner, gradients, inner_state, params, **extra_args)

        def measure(updates, inner_state):
            step = Step.of(gradients, updates, params, inner_state, state.signs, known)
            metrics, of_each, signs = measured(step, state.signs)
            return metrics | {"step": jnp.array(count)}, of_each, signs

        def measure_apart(inner_state):
            """Measures the same step, computed once more.

            Where sums and new weights share an update or a moment, XLA:TPU writes it out for them.
            What comes from behind a barrier it does not share, and computes in the same one pass.
            """
            behind = jax.tree.map(jax.lax.optimization_barrier, inner_state)
            return measure(*take(gradients, behind))

        start, before = state.inner_state, (state.metrics, state.per_parameter, state.signs)
        if not any(isinstance(x, Tracer) for x in jax.tree.leaves((gradients, state, params))):
            updates, inner_state = take(gradients, start)
            after = before if count % every else measure(updates, inner_state)
        elif every == 1:
            updates, inner_state = take(gradients, start)
            after = jax.lax.platform_dependent(
                start, tpu=measure_apart, default=lambda _: measure(updates, inner_state)
            )
        else:
            after = jax.lax.cond(count % every == 0, measure_apart, lambda _: before, start)
            updates, inner_state = take(_once_known(after[0], gradients), start)
        metrics, of_each, signs = after
        return updates, MetricsState(count, metrics, of_each, signs, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def read_metrics(state: optax.OptState) -> dict[str, jax.Array]:
    """The metrics in a state, ready for a logger.

    - ``norm/grad``, ``norm/update``, ``norm/param``, ``norm/moment``: 2-norms of the gradient as it
      came, of the step that was taken, of the parameters before it and of the first moment after
      it, each in its own units;
    - ``cosine/update_grad``, ``cosine/moment_grad``: of the angles between them, 0 where a norm is
      0. Downhill, the first is negative: updates are what is added to the parameters;
    - ``share/agree``: of the entries, those in which the step goes against the gradient, downhill;
    - ``share/sign_flips``: those whose update has the opposite sign of the last measured one; from
      or to 0 is no flip;
    - ``share/near_bound``, where there is one optimizer: those of the parameters that have come
      within a tenth of the ``weight_bound`` beyond which weight decay lets no step of a sign rule
      take them; a mask of the decay is not looked at;
    - ``step``: the update that all these are of, from 1; 0 before the first, when all are 0;
    - ``hyperparameter/learning_rate`` and the like: what was in force at the last update, see
      :func:`hyperparameters`; where the state holds several optimizers, under the label of each in
      ``optax.partition``, or its number.

    The moment's are there where the rule has a first moment (``mu`` or ``trace``; in
    :func:`~lion_jax.precision.with_quantized_state`, if the metrics are within), its cosine where
    that has the parameters' shapes, as GaLore's has not; the last two shares for rules whose
    updates are signs. With ``per_parameter`` each is also there for every parameter, as
    ``norm/update/<path>``: its keys joined by slashes, where a slash or a percent sign within a
    key is ``%2F`` or ``%25``; a dot for parameters that are a single array.

    Args:
      state: the optimizer state that holds one :class:`~lion_jax.metrics.MetricsState`, at any
        depth.

    Returns:
      The metrics by name, arrays of shape (): float32, or float64 where a parameter is; ``step``
      int32. Norms are roots of sums of squares, within float32's range for entries between 1e-19
      and 1e19. It may be called within ``jit``.

    Raises:
      ValueError: no metrics in the state, or several.

    Example:
      >>> import jax.numpy as jnp, lion_jax
      >>> tx = lion_jax.with_metrics(lion_jax.lion(0.1), per_parameter=True)
      >>> params = {"kernel": jnp.ones((2, 2)), "bias": jnp.zeros(2)}
      >>> _, state = tx.update(params, tx.init(params), params)
      >>> metrics = {name: float(value) for name, value in lion_jax.read_metrics(state).items()}
      >>> for name in ("norm/grad", "norm/grad/kernel", "norm/grad/bias"):
      ...     print(name, metrics[name])
      norm/grad 2.0
      norm/grad/kernel 2.0
      norm/grad/bias 0.0
    """
    state = unwrapped(state)
    metrics = the_only(state, "metrics", "with_metrics", "MetricsState")
    # What is None has no place in a state without types.
    per_parameter, signs = (
        next((value for _, value in all_fields(state, field, "MetricsState")), None)
        for field in ("per_parameter", "signs")
    )
    is_left_out = {"share/sign_flips"} if signs is not None and not keeps(signs) else set()
    read = {name: value for name, value in metrics.items() if name not in is_left_out}
    for path, of_one in per_parameter.items() if isinstance(per_parameter, Mapping) else ():
        read |= {f"{name}/{path}": x for name, x in of_one.items() if name not in is_left_out}
    for label, numbers in _hyperparameters(state).items():
        read |= {f"hyperparameter/{label}{name}": value for name, value in numbers.items()}
    return read


def _is_sign_rule(state: optax.OptState) -> bool:
    """Tells whether every optimizer in the state shows a bound of the weights."""
    shown = _hyperparameters(state)
    return bool(shown) and all("weight_bound" in numbers for numbers in shown.values())


def _weight_bound(state: optax.OptState) -> jax.Array | None:
    """The bound of the weights, where the one optimizer in the state shows it."""
    shown = [*_hyperparameters(state).values()]
    return shown[0].get("weight_bound") if len(shown) == 1 else None


def _hyperparameters(state: optax.OptState) -> dict[str, dict[str, jax.Array]]:
    """The hyperparameters of the optimizers in the state, by what tells them apart."""
    found = all_fields(state, "hyperparameters", "HyperparametersState")
    if len(found) == 1:
        return {"": by_name(found[0][1])}
    labels = [
        "/".join(str(k.key) for k in cast(Any, path) if hasattr(k, "key")) for path, _ in found
    ]
    if len(set(labels)) < len(labels):  # no partition's
        labels = list(map(str, range(len(labels))))
    return {
        f"{label}/": by_name(numbers) for label, (_, numbers) in zip(labels, found, strict=True)
    }


def _once_known(metrics: dict[str, jax.Array], gradients: optax.Updates) -> Any:
    """The gradients, for those who know the metrics.

    Before a step that need not wait for them, XLA:CPU copies the parameters and the whole state,
    whether they are measured or not.
    """
    is_known = metrics["step"] >= 0  # which is always so, but no compiler can tell
    return jax.tree.map(
        lambda g: jnp.where(is_known, g, jnp.zeros((), g.dtype)) if is_weight(g) else g, gradients
    )


def _next_in_phase(count: jax.Array, every: int) -> jax.Array:
    """The count after one more update; after the largest int32 one that leaves the same rest."""
    largest = jnp.iinfo(jnp.int32).max
    return jnp.where(count >= largest, largest - every + 1, count + 1)


def _names_in(per_parameter: Any) -> Any:
    """The parameters that a state has metrics of."""
    return per_parameter if isinstance(per_parameter, dict) else ()


def _by_name(metrics: dict[str, jax.Array], names: list[str]) -> Any:
    """By path the metrics of each parameter.

    Where optax asks with no parameters what in a state is like them, the answer is none of it.
    """
    columns = {name: list(values) for name, values in metrics.items()}
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return dict(zip(names, rows, strict=True)) or zero()


def _dtype(params: list[jax.Array]) -> jnp.dtype:
    return jnp.finfo(at_least_float32(*params)).dtype if params else jnp.dtype("float32")
