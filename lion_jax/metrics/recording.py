"""Metrics of every step, recorded in the state of the optimizer."""

import math
from collections.abc import Container
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from lion_jax._core.checks import check_has_params, check_match
from lion_jax._core.counters import zero
from lion_jax._core.dtypes import at_least_float32
from lion_jax._core.inner import update
from lion_jax._core.kinds import FLAG, SUMMED_AXES, TRANSFORMATION, integer
from lion_jax._core.leaves import is_none, is_weight
from lion_jax._core.rule import combinator
from lion_jax._core.types import AxisName, PyTree
from lion_jax.metrics._measuring import Step, keeps, metrics_from, no_signs, over_devices, sums_of
from lion_jax.metrics.reading import shown_in

_SMALL = 2**20  # parameters, whose signs cost nothing to speak of

_Measured = tuple[dict[str, jax.Array], PyTree, PyTree]  # of all, of each, and the signs


class MetricsState(NamedTuple):
    """State of `with_metrics`.

    Attributes:
      update_count: updates so far, int32 of shape (); once it is the largest int32, it cycles
        through `every` counts.
      metrics: those of all parameters together by name, each of shape (), float32 (float64 where a
        parameter is), and `step`, the update that they are of, int32.
      per_parameter: the same for one parameter, by its path; None if not asked for.
      signs: signs of that update, int8 like the parameters, None for leaves of no floating-point
        numbers; without entries where there are too many, None if they are not to be compared.
      inner_state: state of the inner transformation.
    """

    update_count: jax.Array
    metrics: dict[str, jax.Array]
    per_parameter: PyTree
    signs: PyTree
    inner_state: optax.OptState


@combinator(
    inner=TRANSFORMATION,
    per_parameter=FLAG,
    axis_name=SUMMED_AXES,
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
    r"""Measures every step of a transformation, and keeps the metrics for :func:`read_metrics`.

    .. math::

      \lVert g_t \rVert, \ \lVert u_t \rVert, \ \lVert \theta_{t-1} \rVert, \ \lVert m_t \rVert,
      \quad \cos(u_t, g_t), \ \cos(m_t, g_t), \quad \ldots \qquad
      \text{of } u_t, s_t = \operatorname{inner}(g_t, s_{t-1}, \theta_{t-1})

    The updates and the inner state are those of the inner transformation. Gradients are measured as
    they come in, before any clipping inside. Updates are measured as they go out, as
    the step that is taken: put this inside combinators that change or skip updates afterwards.

    Args:
      inner: the transformation to measure, its learning rate included.
      per_parameter: whether to keep the metrics of each parameter too.
      axis_name: the axis over which devices hold different parts of the parameters, not copies.
      every: n >= 1: measures every n-th update.
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

    Notes:
      Sums are reduced over ``axis_name`` before the root, so that a norm is that of the whole.
      Where ``shard_map`` keeps track of what varies (``check_vma``), a parameter of which each
      device has all is counted once; elsewhere once per device, as in data-parallel ``pmap``.

      On TPUs and GPUs the sums ride along with the pass over the parameters, with Lion, Adan and
      AdamW, also behind a clip; the inner update is traced up to twice more for them. On a CPU a
      measured step takes about three times Lion's, one in between a third more than Lion's.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> import lion_jax
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
    recorder = _Recorder(inner, per_parameter, axis_name, every, sign_flips)
    return optax.GradientTransformationExtraArgs(recorder.init, recorder.update)


class _Recorder(NamedTuple):
    """The arguments of `with_metrics`, and the transformation that they make."""

    inner: optax.GradientTransformationExtraArgs
    per_parameter: bool
    axis_name: AxisName | None
    every: int
    sign_flips: bool | None

    def init(self, params: optax.Params) -> MetricsState:
        """The state before the first update, in which every metric is 0."""
        inner_state = self.inner.init(params)
        is_counting = _is_sign_rule(inner_state) if self.sign_flips is None else self.sign_flips
        signs = no_signs(params, math.inf if self.sign_flips else _SMALL) if is_counting else None
        alone = self._replace(axis_name=None)
        shapes = jax.eval_shape(
            lambda p, s: alone.measured(Step.of(p, (p,), p, s, signs, None), signs),
            params,
            inner_state,
        )
        metrics, of_each, _ = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return MetricsState(zero(), metrics | {"step": zero()}, of_each, signs, inner_state)

    def update(
        self,
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, MetricsState]:
        """One update of the inner transformation, measured if it is its turn."""
        params, state = check_has_params(params, "with_metrics"), _of_metrics(state)
        check_match("gradients", updates, params)
        count = _next_in_phase(state.update_count, self.every)
        return _Call(self, updates, state, params, extra_args, count).run()

    def measured(self, step: Step, signs: PyTree) -> _Measured:
        """The metrics of a step: of all parameters, of each, and the signs for the next one."""
        before, treedef = jax.tree.flatten(signs, is_leaf=is_none)
        present = None if signs is None else [x for x in before if x is not None]
        sums, present = sums_of(step, present, _weight_bound(step.inner_state))
        dtype = _dtype(step.params)
        of_all, of_each = over_devices(sums, self.axis_name, dtype, self.per_parameter)
        of_each = _by_name(metrics_from(of_each), step.names) if self.per_parameter else None
        if present is not None:
            new = iter(present)
            signs = treedef.unflatten(None if x is None else next(new) for x in before)
        return metrics_from(of_all), of_each, signs


class _Call(NamedTuple):
    """One call of `update`: its arguments, and the ways to step and measure by them."""

    recorder: _Recorder
    gradients: optax.Updates
    state: MetricsState
    params: optax.Params
    extra_args: dict[str, Any]
    count: jax.Array

    def run(self) -> tuple[optax.Updates, MetricsState]:
        """The step, and the state after it: measured if it is its turn."""
        start, every = self.state.inner_state, self.recorder.every
        before = self.state.metrics, self.state.per_parameter, self.state.signs
        if not _is_traced((self.gradients, self.state, self.params)):
            updates, inner_state = self._step(self.gradients, start)
            after = before if self.count % every else self._measure(inner_state, updates)
        elif every == 1:
            updates, inner_state = self._step(self.gradients, start)
            updates, after = jax.lax.platform_dependent(
                updates,
                inner_state,
                cpu=self._measure_first,
                tpu=self._measure_apart,
                default=self._measure_copies,
            )
        else:
            is_on = self.count % every == 0
            after = jax.lax.cond(is_on, self._measure_behind, lambda _: before, start)
            gradients = _where(_is_known(after[0]), self.gradients)
            updates, inner_state = self._step(gradients, start)
        metrics, of_each, signs = after
        return updates, MetricsState(self.count, metrics, of_each, signs, inner_state)

    def _step(
        self, gradients: optax.Updates, inner_state: optax.OptState
    ) -> tuple[optax.Updates, optax.OptState]:
        inner = self.recorder.inner
        return update(inner, gradients, inner_state, self.params, **self.extra_args)

    def _measure(self, inner_state: optax.OptState, *updates: optax.Updates) -> _Measured:
        """The metrics of a step that was taken, whose updates may be given three times."""
        signs = self.state.signs
        known = _names_in(self.state.per_parameter) if self.recorder.per_parameter else None
        step = Step.of(self.gradients, updates, self.params, inner_state, signs, known)
        metrics, of_each, signs = self.recorder.measured(step, signs)
        return metrics | {"step": jnp.array(self.count)}, of_each, signs

    def _measure_first(
        self, updates: optax.Updates, inner_state: optax.OptState
    ) -> tuple[optax.Updates, _Measured]:
        """The updates, once the step is measured.

        XLA:CPU copies the parameters where new ones need not wait until the old ones are read.
        """
        after = self._measure(inner_state, updates)
        return _where(_is_known(after[0]), updates), after

    def _measure_apart(
        self, updates: optax.Updates, inner_state: optax.OptState
    ) -> tuple[optax.Updates, _Measured]:
        """The updates, and the metrics of the same step, computed once more.

        Where sums and new weights share an update or a moment, XLA:TPU writes it out for them.
        """
        del inner_state
        return updates, self._measure_behind(self.state.inner_state)

    def _measure_behind(self, inner_state: optax.OptState) -> _Measured:
        """The metrics of the step from a state behind a barrier, which shares nothing with others.

        The norm of the updates and their signs are from another one yet, with the parameters behind
        a barrier too: XLA:TPU writes out what has a division in it and goes into three sums. Where
        signs are written, it writes out more of two than of one.
        """
        behind = jax.tree.map(jax.lax.optimization_barrier, inner_state)
        again = self._replace(params=jax.tree.map(_behind_barrier, self.params))
        updates, inner_state = self._step(self.gradients, behind)
        copy = updates if keeps(self.state.signs) else again._step(self.gradients, behind)[0]
        return self._measure(inner_state, updates, copy, copy)

    def _measure_copies(
        self, updates: optax.Updates, inner_state: optax.OptState
    ) -> tuple[optax.Updates, _Measured]:
        """The updates, and their metrics, from copies where sums would share them.

        XLA:GPU writes out the updates of a large parameter that go into two sums. No two copies are
        the same to it, as their gradients are not.
        """
        start = self.state.inner_state
        copies = [self._step(_where(self.count >= -i, self.gradients), start)[0] for i in (1, 2)]
        return updates, self._measure(inner_state, updates, *copies)


def _of_metrics(state: optax.OptState) -> MetricsState:
    """The state; refuses another transformation's."""
    if isinstance(state, MetricsState):
        return state
    raise TypeError(
        "state must be that of with_metrics, from its init; got one of type "
        f"{type(state).__name__}. Try lion_jax.carry_state(state, tx, params)."
    )


def _is_sign_rule(state: optax.OptState) -> bool:
    """Tells whether every optimizer in the state shows a bound of the weights."""
    shown = shown_in(state)
    return bool(shown) and all("weight_bound" in numbers for numbers in shown.values())


def _weight_bound(state: optax.OptState) -> jax.Array | None:
    """The bound of the weights, where the one optimizer in the state shows it."""
    shown = [*shown_in(state).values()]
    return shown[0].get("weight_bound") if len(shown) == 1 else None


def _is_traced(tree: PyTree) -> bool:
    return any(isinstance(x, Tracer) for x in jax.tree.leaves(tree))


def _is_known(metrics: dict[str, jax.Array]) -> jax.Array:
    """True, once the metrics are known.

    Before a step that need not wait for them, XLA:CPU copies the parameters and the whole state,
    whether they are measured or not.
    """
    return ~(metrics["share/agree"] < 0)


def _behind_barrier(leaf: Any) -> Any:
    """The same array, which compilers take for another one; functions do not change."""
    return jax.lax.optimization_barrier(leaf) if is_weight(leaf) else leaf


def _where(is_so: jax.Array, tree: PyTree) -> PyTree:
    """The tree where something is so, which always is, but no compiler can tell."""
    return jax.tree.map(
        lambda x: jnp.where(is_so, x, jnp.zeros((), x.dtype)) if is_weight(x) else x, tree
    )


def _next_in_phase(count: jax.Array, every: int) -> jax.Array:
    """The count after one more update; after the largest int32 one that leaves the same rest."""
    largest = jnp.iinfo(jnp.int32).max
    return jnp.where(count >= largest, largest - every + 1, count + 1)


def _names_in(per_parameter: object) -> Container[str]:
    """The parameters that a state has metrics of."""
    return per_parameter if isinstance(per_parameter, dict) else ()


def _by_name(metrics: dict[str, jax.Array], names: list[str]) -> PyTree:
    """By path the metrics of each parameter.

    Where optax asks with no parameters what in a state is like them, the answer is none of it.
    """
    columns = {name: list(values) for name, values in metrics.items()}
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return dict(zip(names, rows, strict=True)) or zero()


def _dtype(params: list[jax.Array]) -> jnp.dtype:
    return jnp.finfo(at_least_float32(*params)).dtype if params else jnp.dtype("float32")
