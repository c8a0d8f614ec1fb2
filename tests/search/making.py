"""Strategies: trees of parameters, their values, hyperparameters and nestings.

Hypothesis draws what a program is compiled for: the tree, shapes, dtypes, the rule and what wraps
it. The values come in rows, many to a program, from a seed that it draws too.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from catalogue import CATALOGUE, Entry, guarded_from_spikes, stacked
from hypothesis import strategies as st
from trees import Layer

import lion_jax
from lion_jax import precision

STEPS = 3


class Pair(NamedTuple):
    """A node of another kind."""

    first: Any
    second: Any


@dataclasses.dataclass(frozen=True)
class Weight:
    """A leaf to be: its shape, its dtype, and whether it has a gradient."""

    shape: tuple[int, ...]
    dtype: str
    has_gradient: bool = True


SHAPES = [(), (1,), (3,), (2, 3), (3, 2), (1, 1), (0, 3), (2, 1, 3), (2, 2, 1, 2), (5,), (0,)]
FLOATS = ["float32", "bfloat16", "float16"]
ABSENT = [None, optax.MaskedNode(), {}, ()]


def weights(dtypes):
    """Leaves, most of them of floats."""
    return st.builds(
        Weight,
        st.sampled_from(SHAPES),
        st.sampled_from(dtypes),
        st.sampled_from([True, True, True, True, False]),
    )


def integers():
    """Leaves that no gradient moves."""
    return st.builds(Weight, st.sampled_from(SHAPES), st.sampled_from(["int32", "bool"]))


@st.composite
def trees(draw, dtypes=tuple(FLOATS)):
    """Trees of at most six leaves, down to none at all."""
    leaf = st.one_of(
        weights(dtypes), weights(dtypes), weights(dtypes), integers(), st.sampled_from(ABSENT)
    )

    def nodes(children):
        return st.one_of(
            st.dictionaries(
                st.sampled_from(["kernel", "bias", "embedding", "w", "v"]), children, max_size=3
            ),
            st.tuples(children, children),
            st.lists(children, max_size=3),
            st.builds(Pair, children, children),
            st.builds(Layer, children, children),
        )

    return draw(st.recursive(leaf, nodes, max_leaves=6))


@st.composite
def alike(draw, dtypes=tuple(FLOATS)):
    """Trees of two to four leaves of one shape and dtype."""
    one = Weight(draw(st.sampled_from(SHAPES)), draw(st.sampled_from(dtypes)))
    return {f"w{i}": one for i in range(draw(st.integers(2, 4)))}


def is_weight(x: Any) -> bool:
    """Tells a leaf to be from the rest."""
    return isinstance(x, Weight)


def leaves_of(tree: Any) -> list[Weight]:
    """The leaves to be."""
    return [x for x in jax.tree.leaves(tree, is_leaf=is_weight) if is_weight(x)]


def abstract(tree: Any) -> Any:
    """The parameters of a tree as shapes."""
    return jax.tree.map(lambda w: jax.ShapeDtypeStruct(w.shape, w.dtype), tree, is_leaf=is_weight)


def gradients_of(tree: Any, of_leaf: Callable[[Weight], Any]) -> Any:
    """A tree of gradients: None where a leaf has none."""

    def gradient(w):
        return (
            of_leaf(w) if w.has_gradient and np.dtype(jnp.dtype(w.dtype)).kind not in "ib" else None
        )

    return jax.tree.map(gradient, tree, is_leaf=is_weight)


# By the range that a rule declares: numbers at its ends, near them, and between. Where a range has
# no end, what people might use: a learning rate of 1e30 overflows by itself.
RANGES = {
    "in [0, 1)": [0.0, 0.5, 0.9, 0.99, 0.9999, 1 - 2**-20],
    "in [0, 1]": [0.0, 0.25, 0.5, 1.0],
    "in [0.5, 1)": [0.5, 0.75, 0.9, 0.999],
    "in (0, 1)": [2**-10, 0.5, 0.9, 0.999],
    "in (0, 1) with warmup_steps": [2**-10, 0.5, 0.9, 0.999],
    "in [1, 2]": [1.0, 1.25, 1.5, 2.0],
    "finite and >= 0": [0.0, 1e-6, 1e-3, 0.1, 0.5, 1.0],
    "finite and > 0": [1e-3, 0.1, 1.0, 5.0],
    "finite": [-1.0, 0.0, 0.5, 2.0],
    "in [2**-126, 2**126]": [2.0**-10, 0.5, 1.0, 3.0, 2.0**15],
}
# An eps of 0 beside a second moment of 0 is 0 / 0, in the originals too.
NOT_0 = {"eps"}


@functools.cache
def declared(name: str, argument: str) -> tuple[float, ...]:
    """Numbers from the range that the rule of this name declares in its message for NaN."""
    try:
        ENTRIES[name].make(**{argument: float("nan")})
    except ValueError as error:
        allowed = str(error).split(" must be ", 1)[1].split("; got ", 1)[0]
    else:
        raise AssertionError(f"{name} takes NaN for {argument}")
    least = ENTRIES[name].least.get(argument, -np.inf)
    return tuple(x for x in RANGES[allowed] if x >= least and not (x == 0 and argument in NOT_0))


def numbers(name: str, rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """Each hyperparameter of a rule, for so many cases."""
    pools = {argument: declared(name, argument) for argument in ENTRIES[name].scalars}
    if name == "tiger":  # steps by the square of its weights where they decay in full
        pools["learning_rate"] = [x for x in pools["learning_rate"] if x <= 0.1]
    for start in {"initial_learning_rate", "initial_lr"} & pools.keys():
        pools[start] = [x for x in pools[start] if x >= 0.1]  # or decay multiplies the weights
    return {argument: rng.choice(pool, rows).astype(np.float32) for argument, pool in pools.items()}


THEIRS = [
    Entry("optax_sgd", optax.sgd, {"learning_rate": 0.1, "momentum": 0.9}),
    Entry("optax_adam", optax.adam, {"learning_rate": 0.1}),
    Entry("optax_adamw", optax.adamw, {"learning_rate": 0.1, "weight_decay": 0.1}),
    Entry("optax_lion", optax.lion, {"learning_rate": 0.1, "weight_decay": 0.1}),
    Entry("optax_rmsprop", optax.rmsprop, {"learning_rate": 0.1}),
    Entry("optax_lamb", optax.lamb, {"learning_rate": 0.1}),
]
ENTRIES = {entry.name: entry for entry in CATALOGUE}


GROWING = lion_jax.DynamicLossScale(4.0, 2)
# What wraps, by name. None of them declares a number that a row would vary.
WRAPS: dict[str, Callable[[Any], Any]] = {
    "lookahead": lambda tx: lion_jax.lookahead(tx, 2),
    "lookahead_reset": lambda tx: lion_jax.lookahead(tx, 2, reset_inner=True),
    "scout": lambda tx: lion_jax.scout(tx, 2),
    "average": lambda tx: lion_jax.with_parameter_average(tx, 0.5),
    "average_overwriting": lambda tx: lion_jax.with_parameter_average(tx, 0.5, 2),
    "accumulation": lambda tx: lion_jax.with_accumulation(tx, 2),
    "cautious": lion_jax.cautious,
    "cautious_mean": lambda tx: lion_jax.cautious(tx, rescale="mean"),
    "loss_scale": lambda tx: lion_jax.with_loss_scale(tx, 4.0),
    "loss_scale_dynamic": lambda tx: lion_jax.with_loss_scale(
        tx, lion_jax.DynamicLossScale(4.0, 2)
    ),
    "finite_guard": lambda tx: lion_jax.with_finite_guard(tx, max_consecutive=2),
    "spike_guard": lambda tx: guarded_from_spikes(tx, 4),
    "metrics": lambda tx: lion_jax.with_metrics(tx, per_parameter=True, sign_flips=True),
    "per_layer": lambda tx: lion_jax.per_layer(tx, lambda params: jax.tree.map(stacked, params)),
    "hyperball": lambda tx: lion_jax.hyperball(tx, 0.1),
    "quantized": lambda tx: precision.with_quantized_state(tx, min_size=0),
    "quantized_8": lambda tx: precision.with_quantized_state(tx, min_size=0, group_size=2),
    "master": precision.with_master_weights,
}


def nestings(least=1):
    """Names of up to four that wrap, the outermost first."""
    return st.lists(st.sampled_from(sorted(WRAPS)), min_size=least, max_size=4)


def nested(names: list[str], tx: Any) -> Any:
    """The transformation within all of these, the last of them innermost."""
    for name in reversed(names):
        tx = WRAPS[name](tx)
    return tx


# Rules whose every entry moves by the learning rate and by the decay, if they have one.
SIGN_RULES = [
    *("lion", "lion_multipliers", "signum", "mars_lion", "lion_pytorch", "wiki_lion"),
    *("scale_by_sign_momentum", "shape_sign"),
]
# What leaves each step of a sign rule as it is, or takes none.
KEEPS_SIGNS = ["accumulation", "finite_guard", "loss_scale", "loss_scale_dynamic", "metrics"]


def values(weight: Weight, rng: np.random.Generator, rows: int, steps: int | None = None) -> Any:
    """Values of one leaf in so many rows, each of one kind: from zeros over equal ones to large.

    In float16 they stay where three steps of the fastest rule are still below its largest number;
    in the wider dtypes where their squares are.
    """
    shape = (rows, *([] if steps is None else [steps]), *weight.shape)
    if weight.dtype == "int32":
        return rng.integers(-3, 4, shape).astype(np.int32)
    if weight.dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    x = rng.standard_normal(shape)
    each = (rows, *[1] * (x.ndim - 1))
    is_narrow, is_parameter = weight.dtype == "float16", steps is None
    largest = (1.0 if is_parameter else 8.0) if is_narrow else 1e3 if is_parameter else 1e6
    size = rng.choice([0.0, 1e-40, 1e-20, 1e-3, 1.0, 1.0, 1.0, largest], each)
    is_equal = rng.random(each) < 0.15
    x = np.where(is_equal, x.reshape(rows, -1)[:, :1].reshape(each) if x.size else x, x)
    x = np.where(rng.random(shape) < 0.1, 0.0, np.clip(x, -4, 4)) * size
    return np.asarray(x, jnp.dtype(weight.dtype))


def exact_values(weight: Weight, rng: np.random.Generator, rows: int, steps: int | None = None):
    """Eighths from -4 to 4: sums and products of few of them are exact in float32.

    So no order of operations makes another sign of a sum that is 0.
    """
    shape = (rows, *([] if steps is None else [steps]), *weight.shape)
    if weight.dtype in ("int32", "bool"):
        return values(weight, rng, rows, steps)
    return np.asarray(rng.integers(-32, 33, shape) / 8, jnp.dtype(weight.dtype))


def drawn(tree: Any, rng: np.random.Generator, rows: int, of: Callable[..., Any] = values) -> Any:
    """Parameters of so many rows, and their gradients of every step."""
    params = jax.tree.map(lambda w: of(w, rng, rows), tree, is_leaf=is_weight)
    return params, gradients_of(tree, lambda w: of(w, rng, rows, STEPS))


def walk(
    make: Callable[..., Any], numbers: Any, params: Any, gradients: Any, *, moves: bool = True
) -> Any:
    """The updates and parameters of each step, of one row, in a scan: no state may change."""
    tx = make(**numbers)

    def step(carry, g):
        params, state = carry
        u, state = tx.update(g, state, params)
        return (moved(params, u) if moves else params, state), (u, params)

    start = params, tx.init(params)
    return jax.lax.scan(step, start, gradients, length=STEPS)[1]


def walk_eagerly(
    make: Callable[..., Any], numbers: Any, params: Any, gradients: Any, *, moves: bool = True
) -> Any:
    """The same, operation by operation."""
    tx, seen = make(**numbers), []
    state = tx.init(params)
    for t in range(STEPS):
        u, state = tx.update(jax.tree.map(lambda g, t=t: g[t], gradients), state, params)
        seen.append((u, params))
        params = moved(params, u) if moves else params
    return jax.tree.map(lambda *xs: jnp.stack(xs), *seen)


def moved(params: Any, updates: Any) -> Any:
    """Parameters after an update; what has none stays."""

    def move(u, p):
        return p if u is None or p.dtype.kind in "ib" else (p + u).astype(p.dtype)

    leaves, treedef = jax.tree.flatten(updates, is_leaf=lambda x: x is None)
    return treedef.unflatten(map(move, leaves, treedef.flatten_up_to(params)))
