"""Metrics of the step that was taken, against NumPy in float64."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import recordings
from catalogue import CATALOGUE
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from theirs import OPTAX, PECULIAR, update
from trees import Matrix, assert_close, run, small, tree
from versions import needs

import lion_jax
from lion_jax import compat, primitives
from lion_jax.metrics import MetricsState
from lion_jax.precision import Quantized, with_quantized_state

QUICK = {"lion", "adan", "lars"}
every_entry = pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, marks=[] if entry.name in QUICK else [pytest.mark.slow], id=entry.name)
        for entry in CATALOGUE
        if entry.name != "with_metrics"
    ],
)
# Rules that step each entry by itself, so that a part of the parameters steps like the whole.
ELEMENTWISE = {
    "lion": lion_jax.lion(1e-2, weight_decay=0.5),
    "decoupled_lion": lion_jax.decoupled_lion(1e-2, weight_decay=0.01),
    "adan": lion_jax.adan(1e-2, weight_decay=0.1),
    "adamw": optax.adamw(1e-2, eps=1e-3, weight_decay=0.1),  # 1e-8 is 0 in float16
    "sgd": optax.sgd(1e-2, momentum=0.9),
}

every_elementwise = pytest.mark.parametrize(
    "rule",
    [
        pytest.param(rule, marks=[] if name == "lion" else [pytest.mark.slow], id=name)
        for name, rule in ELEMENTWISE.items()
    ],
)


PARAMS = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}


def wide(tree):
    """The leaves in float64, by path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(x, np.float64)
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def expected(gradient, update, params, moment=None, last_update=None, bound=None):
    """The metrics of these entries, each an array or a dict of arrays to take together."""
    g, u, p, m, u_last = (
        np.concatenate([x.ravel() for x in t.values()]) if isinstance(t, dict) else t
        for t in (gradient, update, params, moment, last_update)
    )

    def cos(x, y):
        return np.sum(x * y) / max(np.linalg.norm(x) * np.linalg.norm(y), 1e-300)

    size = max(g.size, 1)
    metrics = {
        "norm/grad": np.linalg.norm(g),
        "norm/update": np.linalg.norm(u),
        "norm/param": np.linalg.norm(p),
        "cosine/update_grad": cos(u, g),
        "share/agree": np.nan if np.isnan(np.sum(u * g)) else np.sum(u * g < 0) / size,
    }
    if m is not None:
        metrics |= {"norm/moment": np.linalg.norm(m), "cosine/moment_grad": cos(m, g)}
    if u_last is not None:
        metrics["share/sign_flips"] = np.sum(u * u_last < 0) / size
    if bound is not None:
        metrics["share/near_bound"] = np.sum(np.abs(p) >= 0.9 * bound) / size
    return metrics


def moment_of(state):
    """The only first moment in a state, if there is one; not as integers."""
    moment = optax.tree_utils.tree_get(state, "mu", optax.tree_utils.tree_get(state, "trace"))
    return None if isinstance(moment, Quantized) else moment


def bound_of(state):
    """The only bound in a state, if there is one."""
    return optax.tree_utils.tree_get(state, "weight_bound")


def assert_measures(tx, dtype, tree=tree, steps=4, rtol=2e-5, atol=1e-7):
    """Every metric of every step is NumPy's, of all parameters and of each."""
    tx, params, last = lion_jax.with_metrics(tx, per_parameter=True), tree(dtype), None
    state, update = tx.init(params), jax.jit(tx.update)
    for t in range(1, steps + 1):
        gradient = tree(dtype, seed=t)
        updates, state = update(gradient, state, params)
        new_params = optax.apply_updates(params, updates)
        g, p, u = wide(gradient), wide(params), wide(updates)
        if dtype == jnp.float64:  # nothing was rounded on the way
            u = {path: x - p[path] for path, x in wide(new_params).items()}
        moment, bound = moment_of(state), bound_of(state)
        m = None if moment is None else wide(moment)
        last = last or {path: 0 * x for path, x in u.items()}
        old = None if bound is None else last
        all_of_it = expected(g, u, p, m, old, bound)
        for path in p:
            of_one = [x if x is None else x[path] for x in (g, u, p, m, old)]
            all_of_it |= {f"{k}/{path}": x for k, x in expected(*of_one, bound).items()}
        read = lion_jax.read_metrics(state)
        assert read.pop("step") == t
        read = {name: x for name, x in read.items() if not name.startswith("hyperparameter/")}
        assert set(read) == set(all_of_it)
        for name, value in all_of_it.items():
            np.testing.assert_allclose(read[name], value, rtol=rtol, atol=atol, err_msg=name)
        params, last = new_params, u


@every_entry
@pytest.mark.usefixtures("x64")
def test_metrics_are_those_of_the_true_step(entry):
    assert_measures(entry.make(), jnp.float64, small, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@every_elementwise
@pytest.mark.parametrize(
    "dtype",
    [
        jnp.bfloat16,
        pytest.param(jnp.float16, marks=pytest.mark.slow),
        pytest.param(jnp.float32, marks=pytest.mark.slow),
    ],
)
def test_metrics_are_taken_in_float32(rule, dtype):
    assert_measures(rule, dtype)


@pytest.mark.sampled
@every_elementwise
@pytest.mark.parametrize("every", [1, 2])
def test_the_updates_are_those_of_the_inner_rule(rule, every):
    gradients = [small(seed=seed) for seed in range(1, 4)]
    expected, inner_state = run(rule, small(), gradients)
    params, state = run(lion_jax.with_metrics(rule, every=every), small(), gradients)
    assert_close((params, state.inner_state), (expected, inner_state))


@pytest.mark.slow
def test_the_norm_of_the_gradient_is_the_one_before_clipping():
    tx = optax.chain(primitives.clip_by_global_norm(1e-3), lion_jax.lion(1e-2))
    tx, gradient = lion_jax.with_metrics(tx), tree(seed=1)
    _, state = tx.update(gradient, tx.init(tree()), tree())
    norm = np.linalg.norm(np.concatenate([x.ravel() for x in wide(gradient).values()]))
    np.testing.assert_allclose(lion_jax.read_metrics(state)["norm/grad"], norm, rtol=1e-6)


@pytest.mark.slow
def test_half_precision_gradients_do_not_overflow():
    params, tx = jnp.ones(3, jnp.float16), lion_jax.with_metrics(lion_jax.lion(1e-2))
    _, state = tx.update(jnp.full(3, 6e4, jnp.float16), tx.init(params), params)
    read = lion_jax.read_metrics(state)
    assert {x.dtype for name, x in read.items() if name != "step"} == {jnp.dtype("float32")}
    np.testing.assert_allclose(read["norm/grad"], 6e4 * 3**0.5, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("jit", [True, False], ids=["jit", "eager"])
def test_every_nth_step_is_measured(jit):
    each = lion_jax.with_metrics(lion_jax.lion(1e-2), sign_flips=False)
    third = lion_jax.with_metrics(lion_jax.lion(1e-2), sign_flips=False, every=3)
    states, params = [each.init(tree()), third.init(tree())], tree()
    updates = [jax.jit(tx.update) if jit else tx.update for tx in (each, third)]
    last = dict.fromkeys(lion_jax.read_metrics(states[0]), 0.0)
    for t in range(1, 8):
        of_each, of_third = (
            update(tree(seed=t), state, params)
            for update, state in zip(updates, states, strict=True)
        )
        states, params = [of_each[1], of_third[1]], optax.apply_updates(params, of_each[0])
        if t % 3 == 0:
            last = lion_jax.read_metrics(states[0])
        for name, value in lion_jax.read_metrics(states[1]).items():
            if not name.startswith("hyperparameter/"):
                np.testing.assert_allclose(value, last[name], rtol=1e-6, err_msg=name)


def test_flips_are_counted_from_measured_step_to_measured_step():
    tx = lion_jax.with_metrics(optax.sgd(1.0), every=2, sign_flips=True)
    state, shares = tx.init(jnp.ones(2)), []
    for gradient in ([1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]):
        _, state = tx.update(jnp.array(gradient), state, jnp.ones(2))
        shares.append(float(lion_jax.read_metrics(state)["share/sign_flips"]))
    assert shares == [0.0, 0.0, 0.0, 0.5]


def test_from_or_to_zero_is_no_flip():
    tx = lion_jax.with_metrics(optax.sgd(1.0), sign_flips=True)
    state, shares = tx.init(jnp.ones(4)), []
    for gradient in ([1.0, 0.0, -1.0, 1.0], [0.0, 1.0, 1.0, jnp.nan]):
        _, state = tx.update(jnp.array(gradient), state, jnp.ones(4))
        shares.append(float(lion_jax.read_metrics(state)["share/sign_flips"]))
    assert shares == [0.0, 0.25]


def test_many_signs_are_kept_only_if_asked_for():
    params = {"w": jax.ShapeDtypeStruct((2**20, 2), jnp.float32)}
    for sign_flips, is_kept in ((None, False), (True, True), (False, False)):
        tx = lion_jax.with_metrics(lion_jax.lion(1e-2), sign_flips=sign_flips)
        state = jax.eval_shape(tx.init, params)
        assert ("share/sign_flips" in lion_jax.read_metrics(state)) == is_kept
        kept = sum(x.size for x in jax.tree.leaves(state) if x.dtype == jnp.int8)
        assert kept == is_kept * 2**21


def test_signs_are_compared_for_rules_whose_updates_are_signs():
    for rule, is_compared in (
        (lion_jax.lion(1e-2), True),
        (compat.keras.lion(1e-2), True),
        (lion_jax.lookahead(lion_jax.lion(1e-2)), True),
        (lion_jax.adan(1e-2), False),
        (optax.lion(1e-2), False),
    ):
        state = lion_jax.with_metrics(rule).init(tree())
        assert ("share/sign_flips" in lion_jax.read_metrics(state)) == is_compared


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "every"),
    [
        (PartitionSpec("x"), 1),
        pytest.param(PartitionSpec("x"), 2, marks=pytest.mark.slow),
        pytest.param(PartitionSpec(None, "x"), 1, marks=pytest.mark.slow),
    ],
)
@every_elementwise
def test_sharded_by_jit_they_are_those_of_one_device(rule, spec, every):
    tx, params, gradients = case(rule, axis_name=None, every=every)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    matrix, rest = NamedSharding(mesh, spec), NamedSharding(mesh, PartitionSpec())

    def place(tree):
        return {k: jax.device_put(x, matrix if x.ndim > 1 else rest) for k, x in tree.items()}

    _, state = run(tx, place(params), [place(g) for g in gradients])
    assert_close(lion_jax.read_metrics(state), on_one_device(rule, every), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("check_vma", [True, pytest.param(False, marks=pytest.mark.slow)])
@every_elementwise
def test_in_shard_map_they_are_those_of_the_whole(rule, check_vma):
    tx, params, gradients = case(rule, axis_name="x")
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    state = jax.eval_shape(tx.init, params)
    specs = jax.tree.map(
        lambda x: PartitionSpec("x") if x.ndim else PartitionSpec(), (params, state)
    )

    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(*specs, specs[0]),
        out_specs=specs,
        check_vma=check_vma,
    )
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state, step = tx.init(params), jax.jit(step)
    for gradient in gradients:
        params, state = step(params, state, gradient)
    assert_close(lion_jax.read_metrics(state), on_one_device(rule), rtol=1e-5)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.slow
def test_what_every_device_has_all_of_counts_once(every):
    """Sharded matrices beside a bias that is not."""
    rule = ELEMENTWISE["lion"]
    tx, params, gradients = case(rule, axis_name="x", every=every)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = jax.tree.map(
        lambda x: PartitionSpec("x") if x.ndim > 1 else PartitionSpec(),
        (params, jax.eval_shape(tx.init, params)),
    )

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(*specs, specs[0]), out_specs=specs)
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state, step = tx.init(params), jax.jit(step)
    for gradient in gradients:
        params, state = step(params, state, gradient)
    assert_close(lion_jax.read_metrics(state), on_one_device(rule, every), rtol=1e-5)


@pytest.mark.slow
@every_elementwise
def test_in_pmap_they_are_those_of_the_whole(rule):
    tx, params, gradients = case(rule, axis_name="x")
    split = functools.partial(jax.tree.map, lambda x: x.reshape(8, -1, *x.shape[1:]))

    @functools.partial(jax.pmap, axis_name="x")
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params, state = split(params), jax.pmap(tx.init)(split(params))
    for gradient in gradients:
        params, state = step(params, state, split(gradient))
    read = jax.tree.map(lambda x: x[3], lion_jax.read_metrics(state))
    assert_close(read, on_one_device(rule), rtol=1e-5)


def case(rule, **kwargs):
    """The rule with metrics, parameters that eight devices can share, and gradients."""
    rng = np.random.default_rng(0)
    shapes = {"w": (16, 8), "b": (8,)}

    def draw():
        return {k: jnp.asarray(rng.standard_normal(s), jnp.float32) for k, s in shapes.items()}

    tx = lion_jax.with_metrics(rule, per_parameter=True, **kwargs)
    return tx, draw(), [draw() for _ in range(4)]


def on_one_device(rule, every=1):
    """What the rule's metrics should be after those gradients."""
    return lion_jax.read_metrics(run(*case(rule, every=every))[1])


@pytest.mark.slow
def test_keys_are_safe_for_any_path():
    params = {"a/b": 1.0, "a": {"b": 2.0}, "%2F": 3.0, "": {"": 4.0}, "c": [5.0, (6.0,)]}
    params = jax.tree.map(jnp.float32, params)
    tx = lion_jax.with_metrics(optax.sgd(1.0), per_parameter=True)
    read = lion_jax.read_metrics(tx.update(params, tx.init(params), params)[1])
    of_each = {
        name.removeprefix("norm/grad/"): float(x)
        for name, x in read.items()
        if name.startswith("norm/grad/")
    }
    assert of_each == {"a%2Fb": 1, "a/b": 2, "%252F": 3, "/": 4, "c/0": 5, "c/1/0": 6}


@pytest.mark.slow
def test_a_single_array_is_a_dot():
    tx = lion_jax.with_metrics(optax.sgd(1.0), per_parameter=True)
    read = lion_jax.read_metrics(tx.update(jnp.ones(4), tx.init(jnp.ones(4)), jnp.ones(4))[1])
    assert read["norm/grad/."] == read["norm/grad"] == 2.0


@pytest.mark.slow
def test_the_hyperparameters_in_force_are_among_them():
    schedule = optax.linear_schedule(1.0, 0.0, 4)
    tx = lion_jax.with_metrics(lion_jax.lookahead(lion_jax.lion(schedule, weight_decay=0.5)))
    _, state = run(tx, tree(), [tree(seed=1), tree(seed=2)])
    read = lion_jax.read_metrics(state)
    assert read["hyperparameter/learning_rate"] == 0.75
    assert read["hyperparameter/weight_decay"] == 0.5


def test_several_optimizers_are_told_apart():
    labels = {"a": "slow", "b": "fast"}
    tx = optax.partition({"slow": lion_jax.lion(0.1), "fast": lion_jax.lion(0.2)}, labels)
    tx = lion_jax.with_metrics(tx)
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    read = lion_jax.read_metrics(tx.update(params, tx.init(params), params)[1])
    rates = {k: float(x) for k, x in read.items() if k.endswith("learning_rate")}
    assert sorted(rates.values()) == pytest.approx([0.1, 0.2])
    assert any("slow" in name for name in rates)
    assert read["norm/moment"] == pytest.approx(0.01 * 2)


@pytest.mark.slow
def test_parameters_named_like_a_moment_confuse_nothing():
    params = {"mu": jnp.ones(4), "trace": {"mu": jnp.ones(9)}}
    tx = lion_jax.with_metrics(lion_jax.lion(0.1), per_parameter=True)
    read = lion_jax.read_metrics(tx.update(params, tx.init(params), params)[1])
    assert read["norm/moment/mu"] == pytest.approx(0.02)
    assert read["norm/moment/trace/mu"] == pytest.approx(0.03)
    plain = lion_jax.with_metrics(optax.sgd(0.1)).init(params)
    assert "norm/moment" not in lion_jax.read_metrics(plain)


@pytest.mark.slow
def test_a_skipped_step_leaves_the_last_one_to_read():
    tx = lion_jax.with_finite_guard(lion_jax.with_metrics(lion_jax.lion(0.1)))
    _, state = run(tx, jnp.ones(4), [jnp.ones(4), jnp.full(4, jnp.nan)])
    read = lion_jax.read_metrics(state)
    assert (read["step"], read["norm/grad"]) == (1, 2.0)


def test_what_is_not_finite_is_seen():
    tx = lion_jax.with_metrics(optax.sgd(0.1))
    read = lion_jax.read_metrics(run(tx, jnp.ones(2), [jnp.array([jnp.nan, 1.0])])[1])
    assert np.isnan(read["norm/grad"])
    assert np.isnan(read["cosine/update_grad"])


@pytest.mark.slow
def test_they_can_be_read_within_jit():
    tx, params = lion_jax.with_metrics(lion_jax.lion(0.1), per_parameter=True), tree()

    @jax.jit
    def step(params, state):
        _, state = tx.update(params, state, params)
        return lion_jax.read_metrics(state), state

    read, state = step(params, tx.init(params))
    chex.assert_trees_all_equal(read, lion_jax.read_metrics(state))


def test_state_of_each_parameter_maps_around():
    """What sharding and checkpointing tools rely on, with metrics of each parameter too."""
    tx = lion_jax.with_metrics(lion_jax.lion(0.1), per_parameter=True)
    state = tx.init(tree())
    mapped = optax.tree_utils.tree_map_params(tx, lambda x: x, state)
    chex.assert_trees_all_equal(mapped, state)


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("every", 0, ValueError),
        ("every", 1.5, TypeError),
        ("per_parameter", 1, TypeError),
        ("sign_flips", "yes", TypeError),
    ],
)
def test_bad_arguments_are_refused(argument, value, error):
    with pytest.raises(error, match=rf"^{argument} must be .*got {value!r}.*Try {argument}="):
        lion_jax.with_metrics(optax.sgd(0.1), **{argument: value})


def test_missing_parameters_are_refused():
    tx = lion_jax.with_metrics(lion_jax.lion(0.1))
    with pytest.raises(ValueError, match="with_metrics reads the parameters; got params=None"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))


def test_another_transformations_state_is_refused():
    rule = lion_jax.lion(0.1)
    with pytest.raises(TypeError, match=r"^state must be that of with_metrics.*Hyper.*carry_state"):
        lion_jax.with_metrics(rule).update(jnp.ones(2), rule.init(jnp.ones(2)), jnp.ones(2))


def test_the_peers_figures_are_of_its_rule_only():
    state = lion_jax.lion(0.1).init(jnp.ones(2))
    with pytest.raises(ValueError, match=r"^state must be that of decoupled_lionw.*b1.*Try"):
        compat.llm_foundry.report_metrics(jnp.ones(2), jnp.ones(2), state)


@pytest.mark.slow
def test_what_flax_nnx_wraps_is_unwrapped():
    tx = lion_jax.with_metrics(lion_jax.lion(0.1))
    optimizer = nnx.Optimizer(model := nnx.Linear(2, 2, rngs=nnx.Rngs(0)), tx, wrt=nnx.Param)
    gradients = nnx.grad(lambda model: jnp.sum(model(jnp.ones((1, 2)))))(model)
    optimizer.update(model, gradients)
    read = lion_jax.read_metrics(optimizer.opt_state)
    assert all(isinstance(x, jax.Array) and x.shape == () for x in read.values())
    assert read["norm/grad"] == pytest.approx(6**0.5)


def test_a_state_without_metrics_or_with_several_is_refused():
    one = lion_jax.with_metrics(optax.sgd(0.1))
    with pytest.raises(ValueError, match=r"one with_metrics; found 0 in this tuple"):
        lion_jax.read_metrics(optax.sgd(0.1).init(tree()))
    with pytest.raises(ValueError, match=r"one with_metrics; found 2 .*the part that you mean"):
        lion_jax.read_metrics(optax.chain(one, one).init(tree()))


def test_the_state_is_documented():
    assert all(f"{field}:" in str(MetricsState.__doc__) for field in MetricsState._fields)


@recordings.replays("foundry", "zeta", slow=[np.float32, np.float64])
def test_the_originals_figures_can_be_reported(name, dtype):
    """And ours beside them: of the same steps, as the recorded parameters have them."""
    case = recordings.CASES[name]
    start, gradients = recordings.inputs(name)
    recorded, reported = recordings.trajectory(name), recordings.trajectory(name, "metrics")
    tolerance = recordings.TOLERANCE[np.dtype(dtype)]
    with jax.enable_x64(dtype == np.float64):
        tx = lion_jax.with_metrics(
            compat.llm_foundry.decoupled_lionw(
                recordings.schedule(name), **case["kwargs"], initial_lr=case["lr"][0]
            ),
            per_parameter=True,
        )
        params = {leaf: jnp.asarray(p, dtype) for leaf, p in start.items()}
        state, update, before = tx.init(params), jax.jit(tx.update), start
        report = jax.jit(compat.llm_foundry.report_metrics)
        for t in range(recordings.STEPS):
            gradient = {leaf: jnp.asarray(g[t], dtype) for leaf, g in gradients.items()}
            updates, state = update(gradient, state, params)
            params = optax.apply_updates(params, updates)
            figures = report(gradient, params, state)
            for metric, values in reported.items():
                np.testing.assert_allclose(
                    figures[metric], values[t], tolerance, tolerance, err_msg=f"{metric} {t}"
                )
            if dtype == np.float64:
                for leaf, p in recorded.items():
                    true = np.linalg.norm(p[t] - before[leaf])
                    norm = lion_jax.read_metrics(state)[f"norm/update/{leaf}"]
                    np.testing.assert_allclose(norm, true, 1e-9, 1e-9)
                before = {leaf: p[t] for leaf, p in recorded.items()}


def test_no_two_leaves_of_a_state_share_a_buffer():
    """Or they could not be donated."""
    tx = lion_jax.with_metrics(lion_jax.lion(0.1), every=2)
    state = tx.init(PARAMS)
    for _ in range(2):
        _, state = tx.update(PARAMS, state, PARAMS)
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)]
    assert len(set(pointers)) == len(pointers)


@pytest.mark.sampled
@pytest.mark.parametrize("every", [1, 2])
def test_an_explicit_mesh_keeps_its_types(every):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        params = jax.device_put(jnp.ones((8, 4)), NamedSharding(mesh, PartitionSpec("x")))
        tx = lion_jax.with_metrics(lion_jax.lion(0.1), every=every)

        def step(state, _):
            return tx.update(params, state, params)[1], None

        state, _ = jax.lax.scan(step, tx.init(params), None, 2)
    assert lion_jax.read_metrics(state)["norm/grad"] == pytest.approx(32**0.5)


def test_complex_parameters_have_real_metrics():
    params = jnp.array([3.0 + 4.0j, 0.0])
    tx = lion_jax.with_metrics(optax.sgd(0.5, momentum=0.9))
    read = lion_jax.read_metrics(tx.update(2 * params, tx.init(params), params)[1])
    assert (read["norm/grad"], read["norm/update"], read["norm/param"]) == (10.0, 5.0, 5.0)
    assert (read["cosine/update_grad"], read["norm/moment"]) == (-1.0, 10.0)


def test_huge_parameters_have_a_state():
    params = {"w": jax.ShapeDtypeStruct((80, 8192, 28672), jnp.bfloat16)}
    state = jax.eval_shape(lion_jax.with_metrics(lion_jax.lion(0.1)).init, params)
    assert "norm/grad" in lion_jax.read_metrics(state)


@pytest.mark.slow
def test_a_moment_of_integers_is_measured_within_only():
    params, gradient = jnp.ones((8, 8)), jnp.ones((8, 8))
    rule = lion_jax.lion(1e-2)
    around = lion_jax.with_metrics(with_quantized_state(rule, min_size=0))
    within = with_quantized_state(lion_jax.with_metrics(rule), min_size=0)
    _, state = around.update(gradient, around.init(params), params)
    assert "norm/moment" not in lion_jax.read_metrics(state)
    _, state = within.update(gradient, within.init(params), params)
    assert lion_jax.read_metrics(state)["norm/moment"] == pytest.approx(0.08)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in PECULIAR else [pytest.mark.slow]) for n in OPTAX]
)
def test_every_optimizer_of_optax_is_measured(name):
    """In states that keep their shapes and dtypes."""
    for params in ({"w": jnp.ones((4, 2)), "b": jnp.ones(4)}, jnp.ones((4, 2))):
        tx = lion_jax.with_metrics(OPTAX[name](), per_parameter=True, sign_flips=True)
        state = jax.eval_shape(tx.init, params)
        _, after = jax.eval_shape(functools.partial(update, tx), params, state, params)
        chex.assert_trees_all_equal_shapes_and_dtypes(after, state)


@needs(optax.contrib, "galore")
@pytest.mark.slow
def test_a_projected_moment_has_a_norm_and_no_angle():
    params = {"w": jnp.arange(8.0).reshape(4, 2)}
    tx = lion_jax.with_metrics(optax.contrib.galore(0.1, rank=1))
    _, state = tx.update(params, tx.init(params), params)
    read = lion_jax.read_metrics(state)
    moment = optax.tree_utils.tree_get(state, "mu")["w"]
    assert moment.shape != (4, 2)
    assert read["norm/moment"] == pytest.approx(float(jnp.linalg.norm(moment)))
    assert "cosine/moment_grad" not in read


@pytest.mark.slow
def test_moments_of_another_structure_are_left_out():
    params = {"w": jnp.ones((4, 2)), "b": jnp.ones(4)}
    for tx in (optax.sm3(0.1), optax.flatten(optax.adam(0.1))):
        tx = lion_jax.with_metrics(tx)
        _, state = tx.update(params, tx.init(params), params)
        assert "norm/update" in lion_jax.read_metrics(state)


@pytest.mark.parametrize("jit", [False, True])
def test_every_is_no_array(jit):
    def make(every):
        return lion_jax.with_metrics(optax.sgd(0.1), every=every).init(jnp.ones(2))

    with pytest.raises(TypeError, match=r"^every must be a Python integer.*Try every=100"):
        (jax.jit(make) if jit else make)(jnp.int32(2))


@pytest.mark.parametrize("jit", [False, True])
def test_every_nth_step_is_measured_after_the_largest_count_too(jit):
    largest, gradient = 2**31 - 1, jnp.ones(2)
    tx = lion_jax.with_metrics(optax.sgd(1.0), every=3)
    step = jax.jit(tx.update) if jit else tx.update
    state = tx.init(gradient)._replace(update_count=jnp.int32(largest - 4))
    measured = []
    for i in range(12):
        _, state = step(gradient * (i + 1), state, gradient)
        assert 0 < state.update_count <= largest
        measured.append(float(state.metrics["norm/grad"]) == pytest.approx((i + 1) * 2**0.5))
    first = (largest - 3) % 3 and 3 - (largest - 3) % 3
    assert measured == [i % 3 == first for i in range(12)]


def test_a_gradient_of_another_shape_is_refused():
    params = {"a": jnp.ones(3), "b": jnp.ones(3)}
    tx = lion_jax.with_metrics(optax.sgd(1.0))
    gradients = {"a": jnp.ones(3), "b": jnp.ones((3, 1))}
    message = r"^gradients must have .*got \(3, 1\) for \(3,\) at \['b'\]\. Try"
    with pytest.raises(ValueError, match=message):
        tx.update(gradients, tx.init(params), params)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_strict_promotion_changes_nothing(dtype):
    params = {"a": jnp.ones((2, 2), dtype)}
    tx = lion_jax.with_metrics(optax.sgd(0.5), per_parameter=True, sign_flips=True)
    with jax.numpy_dtype_promotion("strict"), jax.debug_infs(True), jax.debug_nans(True):
        _, state = tx.update(params, tx.init(params), params)
        _, state = jax.jit(tx.update)(params, state, params)
    assert lion_jax.read_metrics(state)["norm/update/a"] == 1.0


@pytest.mark.slow
def test_python_numbers_are_parameters():
    params, gradients = {"a": 3.0, "b": 0.0}, {"a": 0.5, "b": 4.0}
    tx = lion_jax.with_metrics(optax.sgd(0.5), per_parameter=True, sign_flips=True)
    state = tx.init(params)
    _, after = tx.update(gradients, state, params)
    read = lion_jax.read_metrics(after)
    assert (read["norm/param"], read["norm/update/b"]) == (3.0, 2.0)
    assert [x.dtype for x in jax.tree.leaves(after)] == [x.dtype for x in jax.tree.leaves(state)]


@needs(jax.lax, "pcast")  # jax.eval_shape of as old a jax puts no arrays into a node
def test_a_node_that_checks_its_arrays_is_measured():
    params = Matrix(jnp.ones((2, 2)))
    tx = lion_jax.with_metrics(optax.sgd(0.5), per_parameter=True, sign_flips=True)
    _, state = tx.update(params, tx.init(params), params)
    assert lion_jax.read_metrics(state)["norm/update/w"] == 1.0


def test_integers_are_not_measured():
    params = {"w": jnp.ones(4), "rows": jnp.arange(3)}
    gradients = jax.grad(lambda p: jnp.sum(p["w"]) * p["rows"][1], allow_int=True)(params)
    inner = lion_jax.groups.freeze(optax.sgd(0.5), "rows")
    tx = lion_jax.with_metrics(inner, per_parameter=True, sign_flips=True)
    _, state = tx.update(gradients, tx.init(params), params)
    read = lion_jax.read_metrics(state)
    assert (read["norm/param"], read["norm/grad"], read["share/agree"]) == (2.0, 2.0, 1.0)
    assert "norm/param/rows" not in read
    assert state.signs["rows"] is None
