"""Moments in 8 bits: the codes, what they keep, and what they cannot harm."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trees import Matrix, run, specs, tree

import lion_jax
from lion_jax.precision import Quantized, _codes, with_quantized_state

GOLDEN = (math.sqrt(5) - 1) / 2


def keeps(field="mu"):
    """A transformation whose state is the last gradient, under some name."""

    def init(params):
        return {field: jax.tree.map(jnp.zeros_like, params), "count": jnp.zeros((), jnp.int32)}

    def update(updates, state, params=None):
        return state[field], {field: updates, "count": state["count"] + 1}

    return optax.GradientTransformation(init, update)


def stored(x, steps=1, field="mu", **options):
    """What a moment of these values reads as after it was stored for the n-th time."""
    tx = with_quantized_state(keeps(field), **({"min_size": 0} | options))
    state, x = tx.init(x), jnp.asarray(x, jnp.float32)
    update = jax.jit(tx.update)
    for _ in range(steps):
        _, state = update(x, state)
    return np.asarray(update(x, state)[0]), state


def by_hand(x, steps, group_size, levels, root, signed):
    """The same in float64: of all the numbers of a group, the one below or the one above."""
    # In the middle of its 4096th, as the walk has it.
    threshold, last = (1 - (t * GOLDEN % 1 * 4096 // 1 + 0.5) / 4096 for t in (steps, steps - 1))
    table = ((4.0 ** (np.arange(levels + 1) / levels) - 1) / 3) ** root
    # Of a sign that is kept, and what it was read as before.
    least, last_least = (table[1] * max(t, 1 / 256) ** 2 for t in (threshold, last))
    result = np.zeros_like(x, np.float64)
    for i in range(0, len(x), group_size):
        for j in range(x.shape[1]):
            group = x[i : i + group_size, j].astype(np.float64)
            scale = 2.0 ** math.ceil(math.log2(np.abs(group).max()))
            for k, value in enumerate(group):
                z = abs(value) / scale
                below = np.searchsorted(table, z, side="right") - 1
                below = max(below, int(signed))
                floor = last_least if signed and below == 1 else table[below]
                number = below + int(z - floor >= threshold * (table[below + 1] - floor))
                z = least if signed and number == 1 else table[max(number, int(value != 0))]
                result[i + k, j] = math.copysign(z * scale, value)
    return result if signed else np.abs(result)


@pytest.mark.sampled
@pytest.mark.parametrize("group_size", [32, 7])
@pytest.mark.parametrize(
    ("field", "bits", "levels", "root"),
    [("mu", 8, 127, 2), ("nu", 8, 253, 4), ("mu", 4, 7, 2), ("nu", 4, 13, 4)],
)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_equals_the_equation(field, bits, levels, root, group_size, steps):
    rng = np.random.default_rng(steps)
    x = rng.standard_normal((70, 5)) * 10 ** rng.uniform(-3, 3, (70, 1))
    if field == "nu":
        x = x**2
    x = x.astype(np.float32)
    actual, _ = stored(x, steps, field, bits=bits, group_size=group_size)
    expected = by_hand(x, steps, group_size, levels, root, field == "mu")
    same = np.isclose(actual, expected, rtol=1e-5, atol=0)
    assert same.mean() > 0.998  # float32 and float64 may disagree on which side of the threshold


@pytest.mark.slow
def test_never_loses_a_lone_sign_nor_a_divisor():
    x = jnp.array([[1e4], [1e-4], [-1e-4], [1e-20], [0.0], [-3.0]])
    for field in ("mu", "nu"):
        actual, _ = stored(jnp.abs(x) if field == "nu" else x, field=field)
        expected = np.abs(x) if field == "nu" else x
        np.testing.assert_array_equal(np.sign(actual), np.sign(expected))


def test_parameters_may_be_called_like_second_moments():
    """Only fields of the state tell which is which."""
    x = jnp.array([1e4, -1e-4, 3.0])
    for name in ("nu", "n", "slow_params"):
        tx = with_quantized_state(keeps(), min_size=0)
        params = {name: x}
        _, state = tx.update(params, tx.init(params))
        np.testing.assert_array_equal(np.sign(tx.update(params, state)[0][name]), np.sign(x))
        assert state.inner_state["mu"].codes[name].dtype == jnp.int8


@pytest.mark.sampled
@pytest.mark.parametrize("bits", [8, 4])
def test_a_weight_whose_gradient_stops_comes_to_rest(bits):
    """A first moment that could not become 0 would outlive the second one that it is divided by."""
    tx = with_quantized_state(optax.adam(1.0, b2=0.95), bits=bits, min_size=0)
    params = jnp.zeros((32, 8))

    def step(carry, key):
        total, state, is_first = carry
        gradient = jax.random.normal(key, (32, 8)).at[0].multiply(is_first)
        updates, state = tx.update(gradient, state, params)
        return (total + updates, state, 0.0), updates[0]

    keys = jax.random.split(jax.random.key(0), 600)
    (total, _, _), history = jax.jit(lambda s: jax.lax.scan(step, s, keys))(
        (params, tx.init(params), 1.0)
    )
    assert jnp.abs(total[0]).max() < 15
    np.testing.assert_array_equal(history[-1], 0)


@pytest.mark.slow
def test_a_huge_gradient_stays_in_its_group_and_passes():
    tx = with_quantized_state(optax.adam(1.0), min_size=0)
    state, update = tx.init(jnp.zeros((64, 4))), jax.jit(tx.update)
    gradients = jax.random.normal(jax.random.key(0), (3, 64, 4)).at[1, 0, 0].set(1e21)
    for gradient in gradients:
        updates, state = update(gradient, state)
    assert jnp.abs(updates).max() < 10


@pytest.mark.sampled
@pytest.mark.parametrize("is_outside", [True, False])
def test_skipped_steps_change_no_integer(is_outside):
    """Within, the first one may: a group whose largest entry was rounded down has finer steps."""
    if is_outside:
        tx = lion_jax.with_finite_guard(with_quantized_state(optax.adam(1e-2), min_size=0))
    else:
        tx = with_quantized_state(lion_jax.with_finite_guard(optax.adam(1e-2)), min_size=0)
    state, update = tx.init(jnp.zeros((64, 64))), jax.jit(tx.update)
    for key in jax.random.split(jax.random.key(0), 5):
        _, state = update(jax.random.normal(key, (64, 64)), state)
    bad = jnp.full((64, 64), jnp.nan)
    if not is_outside:
        _, state = update(bad, state)
    get = optax.tree_utils.tree_get
    before = get(state, "mu"), get(state, "nu")
    for _ in range(300):
        _, state = update(bad, state)
    chex.assert_trees_all_equal((get(state, "mu"), get(state, "nu")), before)


@pytest.mark.sampled
@pytest.mark.parametrize("rule", [lambda: optax.adamw(1e-2), lambda: lion_jax.lion(1e-2)])
def test_updates_have_the_dtypes_of_the_inner_rule(rule):
    """So that conditionals around it and within fit."""
    params = jnp.ones((8, 8), jnp.bfloat16)
    for tx in (
        with_quantized_state(rule(), min_size=0),
        optax.apply_if_finite(with_quantized_state(rule(), min_size=0), 3),
    ):
        updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
        assert updates.dtype == jnp.bfloat16


@pytest.mark.slow
def test_is_right_on_average_where_nearest_would_stand_still():
    """A second moment with b2 = 0.999 decays by a thousandth per step, its integers by hundreds."""
    tx = with_quantized_state(optax.scale_by_rms(0.999, eps=0.0), min_size=0)
    state = tx.init(jnp.ones(64))
    update = jax.jit(tx.update)
    _, state = update(1 + jnp.arange(64.0), state)
    first, _ = update(jnp.ones(64), state)
    for _ in range(500):
        last, state = update(jnp.full(64, 1e-10), state)
    ratio = np.asarray(first / (last * 1e10))
    np.testing.assert_allclose(ratio.mean(), 0.999**250 * np.sqrt(0.999), rtol=0.02)


@pytest.mark.slow
def test_adam_is_not_biased():
    """Its updates are a quotient of moments of long memories."""
    rms, exact = [], optax.scale_by_adam(b2=0.999)
    for tx in (exact, with_quantized_state(exact, min_size=0)):
        state, update = tx.init(jnp.zeros((64, 8))), jax.jit(tx.update)
        scale = 10.0 ** jnp.linspace(-2, 0, 64)[:, None]
        last = []
        for step in range(400):
            gradient = scale * jax.random.normal(jax.random.key(step), (64, 8))
            updates, state = update(gradient, state)
            last.append(updates)
        rms.append(float(jnp.sqrt(jnp.mean(jnp.stack(last[200:]) ** 2))))
    assert rms[1] == pytest.approx(rms[0], rel=0.03)


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("shape", "axis", "length"),
    [((64, 96), 0, 2), ((65, 3), 0, 3), ((4, 96), 1, 3), ((100,), 0, 4), ((3, 3, 64, 5), 2, 2)],
    ids=str,
)
def test_exponents_have_the_rank_and_the_axes_of_the_parameter(shape, axis, length):
    _, state = stored(jnp.ones(shape))
    quantized = state.inner_state["mu"]
    assert isinstance(quantized, Quantized)
    assert quantized.codes.shape == shape
    assert quantized.codes.dtype == quantized.exponents.dtype == jnp.int8
    assert quantized.exponents.shape == (*shape[:axis], length, *shape[axis + 1 :])


def test_specs_of_parameters_map_onto_integers_and_exponents():
    params = {"a": jnp.ones((64, 8)), "b": jnp.ones(3)}
    tx = with_quantized_state(lion_jax.lion(1e-3), min_size=8)
    specs = optax.tree_utils.tree_map_params(
        tx, lambda _, spec: spec, tx.init(params), {"a": "of a", "b": "of b"}
    )
    assert optax.tree_utils.tree_get(specs, "mu") == Quantized(
        codes={"a": "of a", "b": "of b"}, exponents={"a": "of a", "b": "of b"}
    )


def test_small_leaves_and_what_is_no_float_stay_exactly_as_they_are():
    params = {"small": jnp.full(4095, 0.3), "large": jnp.full(4096, 0.3), "number": jnp.ones(())}
    tx = with_quantized_state(keeps())
    _, state = tx.update(params, tx.init(params))
    codes = state.inner_state["mu"].codes
    chex.assert_trees_all_equal(
        {k: codes[k] for k in ("small", "number")}, {k: params[k] for k in ("small", "number")}
    )
    assert codes["large"].dtype == jnp.int8
    numbers = with_quantized_state(keeps(), min_size=0).init(jnp.ones(8, jnp.int16))
    assert numbers.inner_state["mu"].codes.dtype == jnp.int16


@pytest.mark.parametrize("wrap", [lion_jax.lookahead, lion_jax.with_parameter_average])
def test_weights_in_the_state_are_not_rounded(wrap):
    """A combinator may stand within, though it had better stand outside."""
    params = jnp.full((8, 8), 1 / 3)
    tx = with_quantized_state(wrap(lion_jax.lion(1e-3)), min_size=0)
    read = lion_jax.slow_params if wrap is lion_jax.lookahead else lion_jax.averaged_params
    chex.assert_trees_all_equal(read(tx.init(params)), params)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("rule", [lambda: lion_jax.lion(1e-2), lambda: optax.adamw(1e-2)])
def test_a_bad_gradient_spoils_no_more_than_in_float32(rule, bad):
    params = jnp.ones((64, 4))
    gradient = jnp.ones((64, 4)).at[5, 2].set(bad)
    results = []
    for tx in (rule(), with_quantized_state(rule(), min_size=0)):
        state, weights = tx.init(params), params
        for g in (jnp.ones_like(params), gradient, jnp.ones_like(params), -gradient):
            updates, state = jax.jit(tx.update)(g, state, weights)
            weights = optax.apply_updates(weights, updates)
        results.append(np.isfinite(weights))
    exact, quantized = results
    assert np.all(quantized | ~exact)
    assert exact.sum() >= exact.size - 1


@pytest.mark.parametrize("size", [1e-37, 1e-30, 1e30, 1e38])
def test_any_size_of_moments_survives(size):
    """A scale in float16 would flush groups below 6e-8 to zero."""
    x = size * jnp.linspace(0.5, 3.0, 32)
    actual, _ = stored(x)
    np.testing.assert_allclose(actual, np.minimum(x, 2.0**126), rtol=0.05)


def test_initializing_a_large_state_takes_no_compile_time_computation():
    """XLA would evaluate the integers of constant zeros while compiling."""
    tx = with_quantized_state(lion_jax.lion(1e-3))
    text = jax.jit(tx.init).lower(jnp.ones((512, 512))).as_text()
    assert "optimization_barrier" in text


@pytest.mark.parametrize("rule", ["lion", "adamw"])
def test_learns_like_float32(rule):
    """A quadratic with a hundredfold spread of curvatures."""
    rules = {"lion": lambda: lion_jax.lion(3e-3), "adamw": lambda: optax.adamw(1e-2)}
    curvature = 10.0 ** jnp.linspace(-2, 0, 64)[:, None]
    losses = []
    for tx in (rules[rule](), with_quantized_state(rules[rule](), min_size=0)):

        @jax.jit
        def step(carry, _, tx=tx):
            params, state = carry
            gradient = curvature * params
            updates, state = tx.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        params = jnp.ones((64, 4))
        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=300)
        losses.append(float(jnp.sum(curvature * params**2)))
    assert losses[1] < 1.2 * losses[0] + 1e-4


@pytest.mark.parametrize("inner", [lion_jax.lion(1e-2), optax.adamw(1e-2)])
def test_jit_and_scan_keep_the_state_as_it_was_made(inner):
    tx, params = with_quantized_state(inner, min_size=0), tree()
    state = tx.init(params)
    _, after = run(tx, params, [tree(seed=1), tree(seed=2)])
    assert specs(after) == specs(state)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bits": 7}, ValueError, r"^bits must be 8 or 4; got 7\. Try bits=8\."),
        ({"bits": 8.0}, ValueError, r"^bits must be 8 or 4; got 8\.0"),
        ({"bits": True}, ValueError, r"^bits must be 8 or 4; got True"),
        ({"group_size": 0}, ValueError, r"^group_size must be an integer >= 1 .*got 0\. Try"),
        ({"group_size": 2.5}, TypeError, r"^group_size must be an integer >= 1 .*got 2\.5"),
        ({"min_size": -1}, ValueError, r"^min_size must be an integer >= 0 .*got -1\. Try"),
    ],
    ids=str,
)
def test_what_does_not_exist_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        with_quantized_state(lion_jax.lion(1e-3), **options)


def test_four_bits_are_four_bits():
    _, state = stored(jnp.ones((64, 8)), bits=4)
    assert state.inner_state["mu"].codes.dtype == jnp.int4


@pytest.mark.parametrize(
    ("bits", "small"), [(8, 1e-3), (8, 1e-4), (8, 1e-5), (8, 1e-9), (4, 1e-2), (4, 1e-5)]
)
def test_a_sign_that_turns_round_is_followed_whatever_its_neighbours_are(bits, small):
    """It takes float32 69 steps here; none may take more than 377."""

    def travelled(tx):
        def step(carry, t):
            params, state = carry
            turned = jnp.where(t < 50, small, -small)
            gradient = jnp.zeros((32, 1)).at[0].set(1.0).at[1].set(turned)
            updates, state = tx.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        params = jnp.zeros((32, 1))
        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), jnp.arange(1050))
        return params[1, 0]

    tx = with_quantized_state(lion_jax.lion(1e-3), bits=bits, min_size=0)
    is_tiny = small * 10 < {8: 1e-4, 4: 1e-2}[bits]  # below the least number that is no mere sign
    late = 377 if is_tiny else 69
    # Back by 50 steps, and by another for each that is late: 1,000 to go otherwise.
    assert jax.jit(lambda: travelled(tx))() > 0.95 - 0.002 * late - 0.02


def test_zeros_between_gradients_take_no_sign_away():
    """As in float32: a weight that gets no gradient goes on in the direction of its last one."""
    tx = with_quantized_state(lion_jax.lion(1e-3), min_size=0)
    first = jnp.ones((32, 2)).at[1].set(-1e-4)

    def step(state, t):
        gradient = jnp.where(t == 0, first, first.at[1].set(0.0))
        updates, state = tx.update(gradient, state, first)
        return state, updates[1]

    _, history = jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(1500)))(tx.init(first))
    np.testing.assert_array_equal(np.sign(history), 1)


def test_a_full_count_goes_on():
    """Else the threshold stands still, and moments are rounded one way for ever."""
    tx = with_quantized_state(optax.scale_by_rms(0.999, eps=0.0), min_size=0)
    state = tx.init(jnp.ones(64))
    _, state = tx.update(1 + jnp.arange(64.0), state)
    counts = []
    state = state._replace(quantization_count=jnp.int32(2**31 - 1))
    for _ in range(2):
        _, state = jax.jit(tx.update)(jnp.full(64, 1e-10), state)
        counts.append(int(state.quantization_count))
    assert counts == [-(2**31), -(2**31) + 1]


@pytest.mark.parametrize("jit", [True, False])
def test_a_state_of_other_groups_is_refused(jit):
    """40 rows are two groups, of 32 or of 20."""
    params = jnp.ones((40, 8))
    made = with_quantized_state(keeps(), min_size=0, group_size=32)
    read = with_quantized_state(keeps(), min_size=0, group_size=20)
    update = jax.jit(read.update) if jit else read.update
    with pytest.raises(
        ValueError, match=r"^group_size .* got group_size=20 .* 32\. Try group_size=32"
    ):
        update(params, made.init(params))


def test_a_state_of_other_bits_is_refused():
    params = jnp.ones((40, 8))
    state = with_quantized_state(keeps(), min_size=0).init(params)
    with pytest.raises(ValueError, match=r"^bits .* got bits=4 for integers of int8\. Try bits=8"):
        with_quantized_state(keeps(), min_size=0, bits=4).update(params, state)


def test_a_state_that_does_not_tell_its_moments_is_refused():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    for inner in (optax.lbfgs(), optax.scale_by_backtracking_linesearch(3)):
        with pytest.raises(TypeError, match=r"^inner must tell its moments.*LinesearchState.*Try"):
            with_quantized_state(inner, min_size=0).init(params)
    with pytest.raises(TypeError, match=r"^inner must tell its moments.*Try"):
        with_quantized_state(optax.flatten(optax.sgd(0.1, momentum=0.9))).init(params)


def test_what_has_not_its_parameters_shape_stays_as_it_is():
    """A history has an axis more, an accumulator of a row or column one less."""
    params = {"a": jnp.ones((16, 24))}

    def init(params):
        return {"history": jax.tree.map(lambda p: jnp.zeros((3, *p.shape)), params)}

    inner = optax.GradientTransformation(init, lambda u, s, p=None: (u, s))
    state = with_quantized_state(inner, min_size=0).init(params)
    assert state.inner_state["history"].codes["a"].dtype == jnp.float32
    state = with_quantized_state(optax.sm3(0.1), min_size=0).init(params)
    accumulators = optax.tree_utils.tree_get(state, "mu").codes["a"]
    assert {(x.shape, x.dtype) for x in accumulators} == {
        ((16,), jnp.dtype("float32")),
        ((24,), jnp.dtype("float32")),
    }


def test_works_without_implicit_promotion():
    rules = [lion_jax.lion(1e-2, weight_decay=0.1), optax.inject_hyperparams(optax.sgd)(0.1, 0.9)]
    with jax.numpy_dtype_promotion("strict"):
        for inner in rules:
            for bits, dtype in ((8, jnp.float32), (4, jnp.float32), (8, jnp.bfloat16)):
                if dtype != jnp.float32 and inner is not rules[0]:
                    continue  # optax keeps the injected numbers in the parameters' dtype
                params = {"w": jnp.ones((33, 4), dtype)}
                tx = with_quantized_state(inner, bits=bits, min_size=0)
                updates, _ = tx.update(params, tx.init(params), params)
                assert updates["w"].dtype == dtype


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_node_that_checks_its_arrays_can_be_trained(dtype):
    params = Matrix(jnp.ones((16, 2), dtype))
    tx = with_quantized_state(optax.adam(1e-2), min_size=0)
    updates, state = jax.jit(tx.update)(params, tx.init(params), params)
    assert updates.w.dtype == dtype
    assert optax.tree_utils.tree_get(state, "mu").codes.w.dtype == jnp.int8


@pytest.mark.parametrize("rule", [optax.sgd(0.1, momentum=0.9), lion_jax.lion(0.1)])
def test_python_floats_are_parameters(rule):
    params = {"a": 1.0, "b": 2.0}
    plain, _ = rule.update(params, rule.init(params), params)
    tx = with_quantized_state(rule, min_size=0)
    updates, _ = tx.update(params, tx.init(params), params)
    chex.assert_trees_all_equal(updates, plain)


@pytest.mark.slow
def test_the_moments_of_optax_s_own_rules_keep_their_signs():
    """No signed quantity is stored as a square."""
    params = jnp.ones((16, 2))
    rules = [optax.adam, optax.adamw, optax.adan, optax.adabelief, optax.amsgrad, optax.lion]
    rules += [optax.nadam, optax.radam, optax.yogi, functools.partial(optax.sgd, momentum=0.9)]
    rules += [optax.adagrad, optax.adadelta, optax.rmsprop, optax.novograd, optax.lamb, optax.sm3]
    gradients = [jax.random.normal(jax.random.key(i), (16, 2)) for i in range(4)]
    for rule in rules:
        exact, _ = run(rule(1e-2), params, gradients)
        quantized, _ = run(with_quantized_state(rule(1e-2), min_size=0), params, gradients)
        moved = np.asarray(exact - params), np.asarray(quantized - params)
        assert np.corrcoef(moved[0].ravel(), moved[1].ravel())[0, 1] > 0.97, rule


@pytest.mark.parametrize(
    ("shape", "axis"), [((70, 3), 0), ((3, 70), 1), ((70,), 0), ((2, 5, 4), 1)]
)
def test_windows_of_rows_have_the_exponents_of_padded_groups(shape, axis):
    exponents = jax.random.randint(jax.random.key(0), shape, -126, 127, jnp.int8)
    padded = _codes._largest_when_padded(exponents, axis, 32)
    np.testing.assert_array_equal(_codes._largest_in_windows(exponents, axis, 32), padded)


@pytest.mark.parametrize(
    "wrap", [lambda tx: tx, lambda tx: optax.chain(optax.clip(1.0), lion_jax.lookahead(tx))]
)
def test_integers_are_not_quantized_again(wrap):
    """One within another was float32 from its first update on, without a word."""
    inner = with_quantized_state(lion_jax.lion(1e-3), min_size=0)
    with pytest.raises(ValueError, match=r"^with_quantized_state must not be around another; got "):
        with_quantized_state(wrap(inner), min_size=0).init(jnp.ones((4, 3)))
