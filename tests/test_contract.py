"""What every line of the catalogue promises, whatever it computes."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import quick
from catalogue import CATALOGUE, COMBINATORS
from jax.sharding import NamedSharding, PartitionSpec
from trees import assert_close, run, small, specs, tree

import lion_jax

DTYPES = [jnp.bfloat16, jnp.float16, jnp.float32]
ALLOWED = [
    ("multiplier", None),
    ("multiplier", -1.0),
    ("dof", None),
    ("initial_learning_rate", None),
    ("initial_lr", None),
    ("clipnorm", None),
    ("global_clipnorm", None),
    ("loss_scale_factor", None),
]
# Those that may be None here, though not elsewhere.
OPTIONAL = {
    *((name, "max_norm") for name in ("variance_reduced_gradient", "mars_lion", "mars_adamw")),
    ("lion_muon", "sign_learning_rate"),
}
# One starts its inner state anew whatever happened; the other takes no gradient for a step of 0.
COUNTS_MISSING_STEPS = {"lookahead_reset", "scout"}
GRADIENTS = [tree(seed=seed) for seed in range(1, 6)]
SMALL = [small(seed=seed) for seed in range(1, 6)]
ENTRIES = {entry.name: entry for entry in CATALOGUE}


def marked(entry, *values, name=None):
    """A test case of this entry; that of a slow one waits for the run of all tests."""
    marks = [pytest.mark.slow] if entry.slow else []
    return pytest.param(entry, *values, marks=marks, id=name or entry.name)


every_entry = pytest.mark.parametrize("entry", [marked(entry) for entry in CATALOGUE])
every_combinator = pytest.mark.parametrize("wrap", COMBINATORS.values(), ids=COMBINATORS.keys())


def entry_and_scalar():
    """A test case per hyperparameter of each entry."""
    return [
        marked(entry, name, name=f"{entry.name}-{name}")
        for entry in CATALOGUE
        for name in entry.scalars
    ]


def stepping(tx):
    """A step of this transformation: gradients applied to parameters."""

    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return step


# Programs that several tests run: compiling takes most of their time. Tests come entry by entry,
# so that a few are enough.


@functools.lru_cache(maxsize=4)
def compiled(name):
    """The step of an entry, compiled."""
    return jax.jit(stepping(ENTRIES[name].make()))


@functools.lru_cache(maxsize=4)
def compiled_with_numbers(name):
    """The step of an entry by numbers that are given as arrays, compiled."""
    return jax.jit(step_with_numbers(ENTRIES[name]))


def step_with_numbers(entry):
    """The step of an entry by numbers that are its first argument."""
    return lambda numbers, *step: stepping(entry.make(**numbers))(*step)


def run_compiled(name, gradients=SMALL):
    """Small parameters after these gradients by this entry."""
    params, state = small(), ENTRIES[name].make().init(small())
    for gradient in gradients:
        params, state = compiled(name)(params, state, gradient)
    return params


@functools.cache
def alone(name):
    """Small parameters after all gradients by this entry: what other ways to run it must equal."""
    return run_compiled(name)


def numbers_at(entry, fraction, names=None):
    """Fractions of the numbers of an entry, as arrays."""
    return {
        name: jnp.asarray(entry.part(name, fraction) if names is None or name in names else value)
        for name, value in entry.scalars.items()
    }


@every_entry
def test_returns_a_transformation_with_extra_args(entry):
    assert isinstance(entry.make(), optax.GradientTransformationExtraArgs)


@every_entry
def test_jit_equals_eager_in_one_trace_and_with_donation(entry):
    """Parameters and state are both donated: nothing in a state is a parameter itself."""
    traces = []

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(*arguments):
        traces.append(1)
        return stepping(entry.make())(*arguments)

    params = tree()
    state = entry.make().init(params)
    eager = run(entry.make(), tree(), GRADIENTS, jit=False)
    for gradient in GRADIENTS:
        params, state = step(params, state, gradient)
    assert len(traces) == 1
    assert_close((params, state), eager)


@every_entry
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
def test_keeps_shapes_and_dtypes(entry, dtype):
    if entry.name == "hyperball" and dtype != jnp.float32:
        pytest.skip("emits float32, so that the new weights are rounded once")
    check_keeps_shapes_and_dtypes(entry, dtype)


@every_entry
@pytest.mark.usefixtures("x64")
def test_keeps_float64(entry):
    state = check_keeps_shapes_and_dtypes(entry, jnp.float64)
    floating = [x.dtype for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert jnp.float32 not in floating


@every_entry
@pytest.mark.usefixtures("x64")
def test_a_wide_hyperparameter_widens_nothing(entry):
    """float64 numbers, e.g. from a schedule by jnp.interp, around float32 parameters."""
    tx = entry.make(**{name: jnp.float64(value) for name, value in entry.scalars.items()})
    params = tree(jnp.float32)
    state = tx.init(params)
    updates, new_state = jax.eval_shape(tx.update, tree(jnp.float32, seed=1), state, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    assert specs(new_state) == specs(entry.make().init(params)) == specs(state)


def check_keeps_shapes_and_dtypes(entry, dtype):
    tx, params = entry.make(), tree(dtype)
    state = tx.init(params)
    before = specs(state)
    for gradient in [tree(dtype, seed=1), tree(dtype, seed=2)]:
        updates, state = tx.update(gradient, state, params)
        chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    assert specs(state) == before
    chex.assert_tree_all_finite(updates)
    return state


@every_entry
def test_updates_have_the_dtype_of_the_parameters(entry):
    tx, params = entry.make(), tree(jnp.float32)
    updates, state = tx.update(tree(jnp.bfloat16, seed=1), tx.init(params), params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    assert specs(state) == specs(tx.init(params))


@every_entry
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=lambda dtype: dtype.__name__)
def test_rounds_once(entry, dtype):
    """Narrow parameters get the float32 updates, rounded at the very end."""
    if "mu_dtype" in entry.static or "inner" in entry.static:
        pytest.skip("rounds its momentum by request, or what it wraps does the rounding")
    tx, narrow = entry.make(), tree(dtype)
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), narrow)
    narrow_state, wide_state = tx.init(narrow), tx.init(wide)
    for seed in range(1, 4):
        gradient = tree(dtype, seed=seed)
        wide_gradient = jax.tree.map(lambda x: x.astype(jnp.float32), gradient)
        actual, narrow_state = tx.update(gradient, narrow_state, narrow)
        expected, wide_state = tx.update(wide_gradient, wide_state, wide)
        chex.assert_trees_all_equal(actual, jax.tree.map(lambda x: x.astype(dtype), expected))


ODD_TREES = [{}, (), [None], {"a": None}, [jnp.ones((0, 4))], optax.MaskedNode()]


@every_entry
def test_takes_odd_trees(entry):
    tx = entry.make()
    for params in [*ODD_TREES, jnp.float32(2.0)]:
        updates, state = tx.update(params, tx.init(params), params)
        chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
        assert specs(state) == specs(tx.init(params))


@every_entry
def test_a_missing_gradient_moves_nothing(entry):
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    tx = entry.make()
    _, before = tx.update({"a": jnp.ones(2), "b": jnp.arange(3.0)}, tx.init(params), params)
    updates, after = tx.update({"a": jnp.ones(2), "b": None}, before, params)
    assert updates["b"] is None
    assert specs(after) == specs(before)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        if old.shape == (3,) and entry.name not in COUNTS_MISSING_STEPS:
            np.testing.assert_array_equal(new, old)


@every_entry
def test_accepts_extra_arguments(entry):
    tx = entry.make()
    plain = tx.update(tree(seed=1), tx.init(tree()), tree())
    extra = tx.update(tree(seed=1), tx.init(tree()), tree(), value=jnp.float32(1.0), other="x")
    chex.assert_trees_all_equal(plain, extra)


@every_combinator
def test_combinators_keep_the_dtypes_of_the_inner_state(wrap):
    """Those of optax would widen a moment in bfloat16 by a gradient in float32."""
    params, tx = jnp.ones(3, jnp.bfloat16), wrap(optax.adam(0.1))
    state = tx.init(params)
    for _ in range(3):
        _, new_state = tx.update(jnp.ones(3), state, params)
        assert specs(new_state) == specs(state)
        state = new_state


@every_combinator
@pytest.mark.parametrize(
    ("params", "updates"), [("bfloat16", "float32"), ("float32", "bfloat16")], ids=str
)
def test_combinators_take_updates_of_another_dtype(wrap, params, updates):
    params, updates = jnp.ones(3, params), jnp.full(3, -0.5, updates)
    tx = wrap(optax.identity())
    state = tx.init(params)
    for _ in range(4):
        new_updates, state = tx.update(updates, state, params)
        params = optax.apply_updates(params, new_updates)
    assert specs(state) == specs(tx.init(params))
    for weights in ("slow_params", "average"):
        kept = optax.tree_utils.tree_get(state, weights, params)
        np.testing.assert_array_equal(params, kept)


@every_combinator
def test_forwards_extra_arguments(wrap):
    received = []

    def update(updates, state, params=None, *, value, **extra_args):
        received.append(value)
        return updates, state

    tx = wrap(optax.GradientTransformationExtraArgs(optax.identity().init, update))
    tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2), value=3.0)
    assert set(received) == {3.0}  # with_quantized_state asks twice


@every_entry
def test_schedules_are_read_at_the_update_count(entry):
    """Constant ones equal their numbers; and all numbers at once go low, high, high, low."""
    names = list(entry.hyperparameters)

    def make(table):
        return entry.make(**{name: lambda t, name=name: table[name][t] for name in names})

    @jax.jit
    def step(table, *arguments):
        return stepping(make(table))(*arguments)

    def table(*fractions):
        return {
            name: jnp.asarray([entry.part(name, fraction) for fraction in fractions])
            for name in names
        }

    constant, moving = table(*[1.0] * len(SMALL)), table(0.25, 1.0, 1.0, 0.25)
    params, state = small(), make(constant).init(small())
    for gradient in SMALL:
        params, state = step(constant, params, state, gradient)
    assert_close(params, alone(entry.name))

    moving = jax.tree.map(lambda moved, kept: kept.at[:4].set(moved), moving, constant)
    params, state = small(), make(moving).init(small())
    expected, by_hand = params, entry.make(**numbers_at(entry, 0.25, names)).init(params)
    for fraction in (0.25, 1.0, 1.0, 0.25):
        params, state = step(moving, params, state, SMALL[0])
        numbers = numbers_at(entry, fraction, names)
        expected, by_hand = compiled_with_numbers(entry.name)(numbers, expected, by_hand, SMALL[0])
        assert_close(params, expected)


@every_entry
def test_injected_numbers_are_read_and_may_be_set(entry):
    tx = entry.inject()
    step, params, state = jax.jit(stepping(tx)), small(), tx.init(small())
    assert set(state.hyperparams) == set(entry.scalars)
    for gradient in SMALL:
        params, state = step(params, state, gradient)
    assert_close(params, alone(entry.name))

    halves, state = numbers_at(entry, 0.5), tx.init(small())
    state.hyperparams.update(halves)
    assert_close(
        step(small(), state, SMALL[0])[0],
        compiled_with_numbers(entry.name)(halves, small(), entry.make().init(small()), SMALL[0])[0],
    )


@every_entry
def test_accumulates_under_multi_steps(entry):
    tx = optax.MultiSteps(entry.make(), every_k_schedule=2).gradient_transformation()
    doubled = [g for g in SMALL for _ in range(2)]
    assert_close(run(tx, small(), doubled)[0], alone(entry.name))


@every_entry
def test_works_in_lookahead(entry):
    """A full slow step leaves what it wraps as it is, but for the rounding of (p + u) - p."""
    wrapped, _ = run(lion_jax.lookahead(entry.make(), 2, 1.0), small(), SMALL)
    assert_close(wrapped, alone(entry.name), atol=5e-7)


@every_entry
def test_chains(entry):
    tx = optax.chain(optax.clip(0.5), entry.make())
    clipped = [jax.tree.map(lambda g: jnp.clip(g, -0.5, 0.5), g) for g in SMALL]
    assert_close(run(tx, small(), SMALL)[0], run_compiled(entry.name, clipped))


@every_entry
def test_works_masked_and_partitioned(entry):
    params = {"a": jnp.arange(3.0), "b": jnp.arange(4.0)}
    gradients = [jax.tree.map(lambda p, s=s: jnp.sin(p + s), params) for s in range(4)]
    alone, _ = run(entry.make(), params["a"], [g["a"] for g in gradients])
    masked = optax.masked(entry.make(), {"a": True, "b": False})
    assert_close(run(masked, params, gradients)[0]["a"], alone)
    parted = optax.partition(
        {"train": entry.make(), "freeze": optax.set_to_zero()}, {"a": "train", "b": "freeze"}
    )
    after, _ = run(parted, params, gradients)
    assert_close(after["a"], alone)
    chex.assert_trees_all_equal(after["b"], params["b"])


@every_entry
def test_initializes_abstractly(entry):
    tx, params = entry.make(), tree()
    abstract = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
    expected = specs(tx.init(params))
    assert specs(jax.eval_shape(tx.init, abstract)) == expected
    assert specs(tx.init(abstract)) == expected


@every_entry
def test_a_sweep_vmaps(entry):
    """Over all hyperparameters at once."""
    points = [numbers_at(entry, fraction) for fraction in (0.25, 1.0)]
    sweep = jax.tree.map(lambda *values: jnp.stack(values), *points) if entry.scalars else {}
    mapped = jax.jit(jax.vmap(step_with_numbers(entry), in_axes=(0, 0, 0, None), axis_size=2))
    runs = [(small(), entry.make(**numbers).init(small())) for numbers in points]
    swept = jax.tree.map(lambda *leaves: jnp.stack(leaves), *runs)
    for gradient in SMALL[:3]:
        swept = mapped(sweep, *swept, gradient)
        runs = [
            compiled_with_numbers(entry.name)(numbers, *one, gradient)
            for numbers, one in zip(points, runs, strict=True)
        ]
    for i, (params, _) in enumerate(runs):
        assert_close(jax.tree.map(lambda x, i=i: x[i], swept[0]), params)


@every_entry
def test_pmap_equals_one_device(entry):
    """Where tests compile quickly, to one unit in the last place of weights up to 8."""
    tx, devices = entry.make(), jax.local_device_count()
    assert devices == 8

    @functools.partial(jax.pmap, axis_name="devices")
    def step(params, state, gradient):
        return stepping(tx)(params, state, jax.lax.pmean(gradient, "devices"))

    copy = functools.partial(jax.tree.map, lambda x: jnp.stack([x] * devices))
    params, state = copy(small()), copy(tx.init(small()))
    for gradient in SMALL:
        params, state = step(params, state, copy(gradient))
    atol = 5e-7 if quick.is_quick() else 1e-7  # XLA contracts other products and sums
    assert_close(jax.tree.map(lambda x: x[-1], params), alone(entry.name), atol=atol)


@every_entry
def test_sharded_equals_one_device(entry):
    tx, params = entry.make(), {"w": jnp.arange(16.0).reshape(8, 2) / 8}
    gradients = [{"w": jnp.sin(params["w"] * s)} for s in range(1, 5)]
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    expected, _ = run(tx, params, gradients)
    actual, state = run(tx, *jax.device_put((params, gradients), sharding))
    assert_close(actual, expected)
    assert all(x.sharding == sharding for x in jax.tree.leaves((actual, state)) if x.ndim == 2)


@every_entry
def test_state_maps_like_the_parameters(entry):
    """What sharding and checkpointing tools rely on."""
    tx, params = entry.make(), tree()
    state = optax.tree_utils.tree_map_params(tx, lambda x: x.astype(jnp.float16), tx.init(params))
    mapped = [x for x in jax.tree.leaves(state) if x.dtype == jnp.float16]
    assert len(mapped) % len(jax.tree.leaves(params)) == 0
    if entry.name != "with_spike_guard":  # whose windows are like no parameter
        assert all(x.ndim == 0 for x in jax.tree.leaves(state) if x.dtype != jnp.float16)


@every_entry
def test_zero_gradients_stay_finite(entry):
    if entry.name == "hyperball":
        pytest.skip("refuses matrices of zeros")
    zero = jax.tree.map(jnp.zeros_like, tree())
    params, state = run(entry.make(), zero, [zero, zero, tree(seed=1), zero])
    chex.assert_tree_all_finite((params, state))


@pytest.mark.parametrize(("entry", "name"), entry_and_scalar())
def test_refuses_bad_hyperparameters(entry, name):
    for value in [-1.0, float("nan"), float("inf"), "0.1", None, True, 1j, [0.1]]:
        if (name, value) in ALLOWED or (value is None and (entry.name, name) in OPTIONAL):
            continue
        expected = ValueError if isinstance(value, float) else TypeError
        with pytest.raises(expected, match=rf"^{name} must be .*got .*Try {name}=") as caught:
            entry.make(**{name: value})
        assert str(value) in str(caught.value)


@pytest.mark.parametrize(("entry", "name"), entry_and_scalar())
def test_refuses_an_array_for_a_scalar(entry, name):
    with pytest.raises(ValueError, match=rf"^{name} must be a scalar.*\(3,\).*jax\.vmap"):
        entry.make(**{name: jnp.full(3, 0.5)})


@every_combinator
def test_combinators_refuse_what_is_no_transformation(wrap):
    for inner in [optax.sgd, 1e-3, None, "lion", jnp.ones(2)]:
        with pytest.raises(TypeError, match=r"^inner must be an optax\.GradientTransformation"):
            wrap(inner)
