"""The Lion family against recorded runs of its authors' code, and against NumPy loops."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from family import assert_replays, replays
from versions import needs

import lion_jax
from lion_jax.primitives import signs, variance_reduced_gradient

AUTHORS_BETAS = (0.95, 0.98)
TIGERS_NAMES = {
    "w": "dense/kernel",
    "b": "dense/bias",
    "gamma": "norm/gamma",
    "emb": "embeddings",
    "zero": "head/kernel",
    "scalar": "temperature",
}


@replays("clion")
def test_c_optim(name, dtype):
    def make(schedule, kwargs):
        b1, b2 = kwargs.get("betas", AUTHORS_BETAS)
        return lion_jax.cautious_lion(schedule, b1, b2, weight_decay=kwargs["weight_decay"])

    assert_replays(name, dtype, make)


@replays("po_lion_cautious")
def test_cautious_lion_of_pytorch_optimizer(name, dtype):
    assert_replays(
        name, dtype, lambda rate, _: lion_jax.cautious_lion(rate, 0.9, 0.99, weight_decay=0.1)
    )


@replays("lionpytorch_c")
def test_lion_pytorch(name, dtype):
    def make(schedule, kwargs):
        direction = lion_jax.cautious(
            lion_jax.scale_by_sign_momentum(*kwargs.get("betas", (0.9, 0.99))),
            rescale="mean",
            factor=kwargs.get("cautious_factor", 0.0),
            is_direction=True,
        )
        decays_cautiously = kwargs.get("cautious_wd", False)
        return optax.chain(
            direction,
            lion_jax.add_decoupled_weight_decay(
                kwargs.get("weight_decay", 0.0), cautious=">" if decays_cautiously else False
            ),
            optax.scale_by_learning_rate(schedule),
        )

    # It forms 1 - lr * wd * mask in float32, whatever the leaf.
    in_float32 = "_cwd" in name or "_wd" in name
    assert_replays(name, dtype, make, tolerance=1e-6 if in_float32 else None)


@replays("dion_lion_cwd")
def test_cautious_decay_of_dion(name, dtype):
    def make(schedule, kwargs):
        return optax.chain(
            lion_jax.scale_by_sign_momentum(*kwargs["betas"]),
            lion_jax.add_decoupled_weight_decay(kwargs["weight_decay"], cautious=True),
            optax.scale_by_learning_rate(schedule),
        )

    assert_replays(name, dtype, make)


@replays("po_sign")
def test_signum_of_pytorch_optimizer(name, dtype):
    def make(schedule, kwargs):
        decay = kwargs["weight_decay"]
        if kwargs.get("weight_decouple", True):
            return lion_jax.signum(schedule, kwargs["momentum"], decay)
        coupled = lion_jax.add_decoupled_weight_decay(decay)
        return optax.chain(coupled, lion_jax.signum(schedule, kwargs["momentum"]))

    assert_replays(name, dtype, make)


@replays("epfml")
def test_signum_of_llm_optimizer_benchmark_is_ours_from_another_start(name, dtype):
    def make(schedule, kwargs):
        b1, nesterov = kwargs["momentum"], kwargs.get("nesterov", False)
        return lion_jax.signum(schedule, b1, kwargs["weight_decay"], nesterov=nesterov)

    def start(state, params, rate):
        """Its buffer is a sum, and starts as the parameter after its first decay."""
        b1 = 0.95 if "nesterov" in name else 0.9
        mu = jax.tree.map(lambda p: (1 - b1) * p * (1 - rate * 0.1), params)
        return optax.tree_utils.tree_set(state, mu=mu)

    assert_replays(name, dtype, make, start=start)


def mars(rule, rest, is_mars):
    """MARS on some leaves, AdamW on the rest, as its authors have it."""
    return optax.partition(
        {True: rule, False: rest}, lambda params: jax.tree.map(lambda p: is_mars(p.ndim), params)
    )


@replays("mars_lion", "mars_adamw")
def test_mars(name, dtype):
    def make(schedule, kwargs):
        b1, b2 = kwargs["betas"]
        fixed = {"weight_decay": kwargs["weight_decay"], "gamma": kwargs["gamma"]}
        if "adamw" in name:
            rule = lion_jax.mars_adamw(schedule, b1, b2, **fixed)
        else:
            rule = lion_jax.mars_lion(schedule, b1, **fixed)
        if kwargs.get("optimize_1d"):
            return rule
        rest = optax.adamw(schedule, 0.9, 0.95, weight_decay=kwargs["weight_decay_1d"])
        return mars(rule, rest, lambda rank: rank == 2)

    assert_replays(name, dtype, make)


@replays("po_mars_lion")
def test_mars_of_pytorch_optimizer(name, dtype):
    def make(schedule, kwargs):
        corrected = variance_reduced_gradient(0.95, kwargs["gamma"])
        momentum = optax.chain(corrected, lion_jax.interpolate_momentum(0.95, 0.95))
        adam = optax.scale_by_adam(0.9, 0.95)
        if kwargs.get("cautious"):  # before the sign, so that the rescaling is lost
            momentum = lion_jax.cautious(momentum, rescale=None, is_direction=True)
            adam = lion_jax.cautious(adam, is_direction=True)
        rule = optax.chain(
            momentum,
            signs.sign(),
            lion_jax.add_decoupled_weight_decay(kwargs["weight_decay"]),
            optax.scale_by_learning_rate(schedule),
        )
        rest = optax.chain(
            adam,
            lion_jax.add_decoupled_weight_decay(0.1),
            optax.scale_by_learning_rate(schedule),
        )
        return mars(rule, rest, lambda rank: rank >= 2)

    # Its AdamW adds 1e-15 to the second moment before it corrects the bias.
    assert_replays(name, dtype, make, skip=("b", "scalar", "one", "zero"))


def float32(x):
    """A coefficient as Tiger's code has it."""
    return float(np.float32(x))


def tigers(schedule, kwargs, *, every=1):
    """The authors' Tiger, all of whose coefficients pass through float32."""

    def rate(count):
        of_step = schedule(every * count + every - 1)
        return of_step.astype(jnp.float32).astype(of_step.dtype)

    b1, decay = float32(kwargs.get("beta", 0.965)), float32(kwargs.get("weight_decay", 0.01))
    return lion_jax.with_accumulation(lion_jax.tiger(rate, b1, decay), every)


@replays("tiger__", "tiger_accum")
def test_tiger(name, dtype):
    assert_replays(
        name,
        dtype,
        lambda schedule, kwargs: tigers(schedule, kwargs, every=kwargs.get("grad_accum_steps", 1)),
        names=TIGERS_NAMES,
    )


@replays("tiger_schedule")
def test_tigers_schedule(name, dtype):
    slope = np.float32(-0.9 / 20)

    def make(schedule, kwargs):
        def rate(count):
            t = count.astype(jnp.float32)
            factor = jnp.where(t <= 5, t / 5, 1 + (t - 5) * slope)
            return (jnp.float32(0.01) * factor).astype(schedule(count).dtype)

        return tigers(rate, kwargs)

    assert_replays(name, dtype, make, names=TIGERS_NAMES)


def test_a_tensor_of_zeros_stays_without_a_least_rms():
    params = {"w": jnp.zeros(3)}
    for min_rms, expected in ((0.0, 0.0), (1e-3, -1e-3)):
        tx = lion_jax.tiger(1.0, min_rms=min_rms)
        updates, _ = tx.update({"w": jnp.ones(3)}, tx.init(params), params)
        np.testing.assert_allclose(updates["w"], expected, rtol=1e-6)


RNG = np.random.default_rng(0)
START = RNG.normal(size=(5, 4))
GRADIENTS = RNG.normal(size=(25, 5, 4))
RATES = 0.01 * 0.93 ** np.arange(25)


def path_of(tx):
    """The weights of one leaf after each step under x64."""

    @jax.jit
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params, path = {"w": jnp.asarray(START)}, []
    state = tx.init(params)
    for gradient in GRADIENTS:
        params, state = step(params, state, {"w": jnp.asarray(gradient)})
        path.append(params["w"])
    return np.array(path)


def rate(count):
    return jnp.asarray(RATES)[count]


SHAPES = {
    "sign": (signs.sign, np.sign),
    "lp_sign": (lambda: signs.lp_sign(1.3), lambda c: oracles.lp_sign(c, 1.3)),
    "lp_sign_1": (lambda: signs.lp_sign(1), np.sign),
    "lp_sign_2": (lambda: signs.lp_sign(2.0), lambda c: c / np.linalg.norm(c)),
    "tanh": (lambda: signs.tanh(3.0), lambda c: np.tanh(3 * c)),
    "huber": (lambda: signs.huber(0.3), lambda c: np.clip(c / 0.3, -1, 1)),
    "l2": (signs.l2_normalize, lambda c: c / np.linalg.norm(c)),
    "rows": (
        lambda: signs.l2_normalize(-1),
        lambda c: c / np.linalg.norm(c, axis=-1, keepdims=True),
    ),
    "top_k": (lambda: signs.top_k_sign(7), lambda c: oracles.top_k_sign(c, 7)),
    "top_share": (lambda: signs.top_k_sign(0.33), lambda c: oracles.top_k_sign(c, 7)),
    "function": (lambda: lambda c: c / (1 + abs(c)), lambda c: c / (1 + np.abs(c))),
}


@pytest.mark.parametrize("name", SHAPES)
def test_lion_k_is_the_papers(name):
    make, shape = SHAPES[name]
    expected = oracles.lion_k(START, GRADIENTS, RATES, shape, weight_decay=0.1)
    with jax.enable_x64(True):
        actual = path_of(lion_jax.lion_k(rate, make(), weight_decay=0.1))
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)


RULES = {
    "signum": (
        lambda: lion_jax.signum(rate, 0.8, 0.1),
        lambda: oracles.signum(START, GRADIENTS, RATES, 0.8, 0.1),
    ),
    "signum_nesterov": (
        lambda: lion_jax.signum(rate, 0.8, 0.1, nesterov=True),
        lambda: oracles.signum(START, GRADIENTS, RATES, 0.8, 0.1, nesterov=True),
    ),
    "signum_scaled": (
        lambda: lion_jax.signum(rate, 0.8, 0.1, shape_scaled=True),
        lambda: oracles.signum(START, GRADIENTS, RATES, 0.8, 0.1, scale=2 / 9),
    ),
    "tiger": (
        lambda: lion_jax.tiger(rate, 0.8, 0.1),
        lambda: oracles.tiger(START, GRADIENTS, RATES, 0.8, 0.1),
    ),
    "mars_lion": (
        lambda: lion_jax.mars_lion(rate, 0.8, 0.1, gamma=0.3, max_norm=2.0),
        lambda: oracles.mars_lion(START, GRADIENTS, RATES, 0.8, 0.1, 0.3, 2.0),
    ),
    "mars_adamw": (
        lambda: lion_jax.mars_adamw(rate, 0.8, 0.9, weight_decay=0.1, gamma=0.3, max_norm=2.0),
        lambda: oracles.mars_adamw(START, GRADIENTS, RATES, 0.8, 0.9, 0.1, 0.3, 2.0),
    ),
    **{
        f"cautious_lion_{rescale}": (
            lambda rescale=rescale: lion_jax.cautious_lion(rate, weight_decay=0.1, rescale=rescale),
            lambda rescale=rescale: oracles.cautious_lion(
                START, GRADIENTS, RATES, *AUTHORS_BETAS, 0.1, rescale
            ),
        )
        for rescale in ("count", "mean", "mean_1e-3", "sign_bits", None)
    },
}


@pytest.mark.parametrize("name", RULES)
def test_rule_is_its_papers(name):
    make, loop = RULES[name]
    with jax.enable_x64(True):
        actual = path_of(make())
    np.testing.assert_allclose(actual, loop(), rtol=1e-9, atol=1e-12)


def test_lion_k_of_sign_is_lion_bit_for_bit():
    lion = path_of(lion_jax.lion(rate, weight_decay=0.1))
    of_sign = path_of(lion_jax.lion_k(rate, signs.sign(), weight_decay=0.1))
    np.testing.assert_array_equal(lion, of_sign)


def test_lion_k_of_sign_and_equal_rates_is_signum_bit_for_bit():
    signum = path_of(lion_jax.signum(rate, 0.9, 0.1))
    of_sign = path_of(lion_jax.lion_k(rate, signs.sign(), 0.9, 0.9, weight_decay=0.1))
    np.testing.assert_array_equal(signum, of_sign)


@needs(optax, "signum")
def test_signum_is_optax_signum():
    np.testing.assert_allclose(
        path_of(lion_jax.signum(rate, 0.9)), path_of(optax.signum(rate, 0.9)), rtol=1e-6
    )


def test_the_authors_two_rates_are_products():
    """Lion-K's authors mix the new momentum."""
    b_n, b_p = 0.8, 0.95
    expected = oracles.lion_k_of_new_momentum(START, GRADIENTS, RATES, np.tanh, b_n, b_p)
    with jax.enable_x64(True):
        actual = path_of(lion_jax.lion_k(rate, jnp.tanh, b_n * b_p, b_p))
    np.testing.assert_allclose(actual, expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "norm"),
    [
        (signs.sign, lambda w: np.abs(w).max()),
        (lambda: signs.lp_sign(1.5), lambda w: np.linalg.norm(w.ravel(), 3)),
        (lambda: signs.tanh(100.0), lambda w: np.abs(w).max()),
        (lambda: signs.huber(0.01), lambda w: np.abs(w).max()),
        (signs.l2_normalize, np.linalg.norm),
        (lambda: signs.l2_normalize(-1), lambda w: np.linalg.norm(w, axis=-1).max()),
        (lambda: signs.top_k_sign(3), lambda w: max(np.abs(w).max(), np.abs(w).sum() / 3)),
    ],
)
def test_weight_decay_bounds_the_norm_of_the_docstring(make, norm):
    """A gradient that always pulls the same way drives the weights to the bound, 1 / decay."""
    params = jnp.zeros((3, 4))
    gradient = jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32)
    tx = lion_jax.lion_k(0.1, make(), weight_decay=0.5)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=400)
    assert norm(np.asarray(params)) == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize(
    ("rescale", "expected"),
    [("count", 0.5), ("mean", 1.0), ("mean_1e-3", 1.0), ("sign_bits", 1.0), (None, 1.0)],
)
def test_what_each_rescaling_does_to_a_leaf_of_one_entry(rescale, expected):
    tx = lion_jax.cautious_lion(1.0, rescale=rescale)
    updates, _ = tx.update(jnp.ones(1), tx.init(jnp.zeros(1)))
    assert updates[0] == -expected


def test_cautious_forms_of_decay_differ_where_update_or_parameter_is_zero():
    params, updates = jnp.array([2.0, 2.0, 0.0, -2.0]), jnp.array([1.0, 0.0, 1.0, 0.0])
    decays = {
        form: lion_jax.add_decoupled_weight_decay(0.5, cautious=form).update(
            updates, optax.EmptyState(), params
        )[0]
        for form in (False, True, ">", "sign_bits")
    }
    np.testing.assert_array_equal(decays[False], [2, 1, 1, -1])
    np.testing.assert_array_equal(decays[True], [2, 1, 1, -1])
    np.testing.assert_array_equal(decays[">"], [2, 0, 1, 0])
    np.testing.assert_array_equal(decays["sign_bits"], [2, 1, 1, 0])


def test_decay_of_adamc_is_a_schedule_of_the_link():
    """AdamC: the decay of weights before a normalization follows the square of the rate."""
    params = {"norm": jnp.full(2, 2.0), "w": jnp.full(2, 2.0)}
    normalized = lion_jax.groups.select("norm")
    others = lion_jax.groups.exclude("norm")
    tx = optax.chain(
        lion_jax.scale_by_sign_momentum(),
        lion_jax.add_decoupled_weight_decay(0.5, others),
        lion_jax.add_decoupled_weight_decay(
            0.5, normalized, multiplier=lambda count: rate(count) / RATES[0]
        ),
        optax.scale_by_learning_rate(rate),
    )
    state, gradient = tx.init(params), jax.tree.map(jnp.zeros_like, params)
    for t in range(3):
        updates, state = tx.update(gradient, state, params)
        np.testing.assert_allclose(updates["w"], -RATES[t] * 0.5 * 2, rtol=1e-5)
        np.testing.assert_allclose(
            updates["norm"], -RATES[t] * 0.5 * 2 * RATES[t] / RATES[0], rtol=1e-5
        )


@pytest.mark.parametrize(
    ("shape", "error", "words"),
    [
        (3.0, TypeError, "shape must be a transformation"),
        (signs.sign, TypeError, "did you mean to call it"),
        (lambda c: (c, c), ValueError, "shape must give a direction of the momentum's structure"),
        (lambda c: c.sum(), ValueError, "shape must keep the shape of each leaf"),
        (optax.stateless(lambda c, p: c["w"]), ValueError, "of the momentum's structure"),
    ],
)
def test_a_bad_shape_is_refused_by_name(shape, error, words):
    params = {"w": jnp.ones((2, 3))}

    def step():
        tx = lion_jax.lion_k(1.0, shape)
        tx.update(params, tx.init(params), params)

    with pytest.raises(error, match=words):
        step()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: signs.lp_sign(2.5), ValueError, r"p must be in \[1, 2\]; got 2.5. Try p=1.5"),
        (lambda: signs.top_k_sign(0), ValueError, "k must be an integer >= 1 or a share"),
        (lambda: signs.top_k_sign(1.5), ValueError, "k must be an integer >= 1 or a share"),
        (
            lambda: signs.top_k_sign(5).init({"w": jnp.ones(4)}),
            ValueError,
            r"k must be at most .*; got 5 for the leaf at \['w'\] of 4. Try k=4",
        ),
        (
            lambda: lion_jax.cautious_lion(1.0, rescale="max"),
            ValueError,
            'rescale must be "count" or "mean" or "mean_1e-3" or "sign_bits" or None; got .max.',
        ),
        (
            lambda: lion_jax.add_decoupled_weight_decay(0.1, cautious=">="),
            ValueError,
            'cautious must be True or False or ">" or "sign_bits"; got .>=.',
        ),
        (lambda: lion_jax.beta_for_batch(0.9, 0, 1), ValueError, "from_batch must be finite and >"),
    ],
)
def test_a_bad_argument_is_refused_by_name(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_beta_for_batch_keeps_the_half_life_in_examples():
    b, old, new = 0.99, 256, 1024
    forgotten = lion_jax.beta_for_batch(b, old, new)
    np.testing.assert_allclose(np.log(forgotten) / new, np.log(b) / old, rtol=1e-12)


NAMED = {
    "lion_k": lambda: lion_jax.lion_k(1e-2, signs.lp_sign(1.5), weight_decay=0.1),
    "signum": lambda: lion_jax.signum(1e-2, weight_decay=0.1),
    "tiger": lambda: lion_jax.tiger(1e-2),
    "cautious_lion": lambda: lion_jax.cautious_lion(1e-2, weight_decay=0.1),
    "cautious": lambda: lion_jax.cautious(lion_jax.lion(1e-2, weight_decay=0.1)),
    "mars_lion": lambda: lion_jax.mars_lion(1e-2, weight_decay=0.1),
    "mars_adamw": lambda: lion_jax.mars_adamw(1e-2, weight_decay=0.1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_steps_in_fewer_bytes_and_measured(name):
    """Quantized state, master weights and metrics by parameter around it, with sign flips."""
    small = lion_jax.precision.with_master_weights(
        lion_jax.precision.with_quantized_state(NAMED[name](), min_size=0)
    )
    tx = lion_jax.with_metrics(small, per_parameter=True, sign_flips=True)
    params = {"w": jnp.asarray(START, jnp.bfloat16), "b": jnp.ones(3, jnp.bfloat16)}
    state, step = tx.init(params), jax.jit(tx.update)
    for gradient in GRADIENTS[:3]:
        gradients = {"w": jnp.asarray(gradient, jnp.bfloat16), "b": jnp.ones(3, jnp.bfloat16)}
        updates, state = step(gradients, state, params)
        params = optax.apply_updates(params, updates)
    assert all(p.dtype == jnp.bfloat16 for p in params.values())
    measured = lion_jax.read_metrics(state)
    flips = [key for key in measured if "sign_flip" in key]
    assert any(key.endswith("/w") or "w" in key.split("/") for key in flips), measured.keys()
    assert all(np.isfinite(x) for x in jax.tree.leaves(measured))


@pytest.mark.slow
@replays("lionmuon")
def test_lion_muon(name, dtype):
    """Vectors and what has no gradient go to the authors' own AdamW."""

    def make(schedule, kwargs):
        is_default = not kwargs
        sign_rate = None if is_default else (lambda count: schedule(count) * 0.0005 / 0.01)
        return lion_jax.lion_muon(
            schedule,
            sign_rate,
            weight_decay=kwargs.get("weight_decay", 0.0),
            period=kwargs.get("muon_every_k", 5),
            steps=kwargs.get("ns_steps", 6),
        )

    assert_replays(name, dtype, make, skip=("vec", "dead"))


@pytest.mark.parametrize("period", [1, 3])
def test_lion_muon_is_its_papers(period):
    def decay_and_step(p, u, nu):
        return p * (1 - nu * 0.1) - nu * u

    m, p, expected = np.zeros_like(START), START, []
    for t, (g, eta) in enumerate(zip(GRADIENTS, RATES, strict=True)):
        c = 0.95 * m + 0.05 * g
        if t % period == 0:
            p = decay_and_step(p, 0.2 * np.sqrt(5) * oracles.newton_schulz(c, 5), eta)
        else:
            p = decay_and_step(p, np.sign(c), 0.3 * eta)
        m = 0.99 * m + 0.01 * g
        expected.append(p)
    with jax.enable_x64(True):
        tx = lion_jax.lion_muon(
            rate, lambda count: 0.3 * rate(count), weight_decay=0.1, period=period
        )
        np.testing.assert_allclose(path_of(tx), expected, rtol=1e-9, atol=1e-12)
