"""The pages for people who come from optax, PyTorch and Keras: what they call equal is equal.

Their Python blocks run. Where a table has a line before and a line after, both are built from the
page's own text and compared. What needs PyTorch or Keras is in blocks marked `py`; it is run where
those packages are installed, and otherwise replayed in plain NumPy or compared with `compat`.
"""

import os
import re
import textwrap
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lion_jax
from lion_jax import compat

DOCS = Path(__file__).parent.parent / "docs"
OPTAX, TORCH, KERAS = "from-optax.md", "from-pytorch.md", "from-keras.md"


@cache
def page(name):
    return (DOCS / name).read_text()


def blocks(name, language):
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", page(name), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


def run_blocks(name, language, namespace):
    for block in blocks(name, language):
        exec(compile(block, name, "exec"), namespace)
    return namespace


@cache
def namespace(name):
    """The names that a reader has who ran all Python blocks of a page."""
    return run_blocks(name, "python", {})


def lines(name, section):
    """The code before and after in each line of the first table of a section."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", page(name), re.DOTALL | re.MULTILINE)
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table, section
    rows = [line.strip("|\n ").split(" | ") for line in table[0].splitlines()[2:]]
    return [tuple(re.fullmatch("`(.*)`", cell.strip())[1] for cell in row) for row in rows]


def each_line(name, section):
    return pytest.mark.parametrize(("before", "after"), lines(name, section))


def value(code, names):
    return eval(code, dict(names))


def gradients(params, steps):
    """Gradients of each step.

    Their sizes change from step to step, which clipping shows in a sign rule; those of the second
    leaf are as small as an eps.
    """
    leaves, treedef = jax.tree.flatten(params)
    random = np.random.default_rng(0)
    sizes = 3.0 ** random.permutation(np.arange(steps) - 2)
    return treedef.unflatten(
        np.float32(
            random.normal(size=(steps, *p.shape))
            * sizes.reshape(-1, *[1] * p.ndim)
            * (1e-7 if i == 1 else 1)
        )
        for i, p in enumerate(leaves)
    )


def weights(params, *optimizers, steps=9):
    """The parameters after each step and the last state, of each optimizer, in one program."""

    def run(tx):
        def step(carry, gradient):
            params, state = carry
            updates, state = tx.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        (_, state), path = jax.lax.scan(step, (params, tx.init(params)), gradients(params, steps))
        return path, state

    return jax.jit(lambda: [run(tx) for tx in optimizers])()


def last(path):
    return jax.tree.map(lambda x: x[-1], path)


def differ(a, b):
    return max(
        float(jnp.abs(x - y).max()) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
    )


def assert_close(actual, expected, rtol=1e-5, atol=1e-6):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=rtol, atol=atol)


# optax


@pytest.mark.sampled
@each_line(OPTAX, "Line by line: the same updates")
def test_a_line_of_optax_and_its_successor_give_the_same_updates(before, after):
    names = namespace(OPTAX)
    (theirs, _), (ours, _) = weights(
        names["params"], *(value(code, names) for code in (before, after))
    )
    assert_close(ours, theirs)
    assert differ(last(ours), names["params"]) > 1e-4


@pytest.mark.slow
def test_rules_that_the_page_calls_different_are_different():
    params = namespace(OPTAX)["params"]
    pairs = [
        (optax.lion(0.1), lion_jax.lion(0.1)),  # the default weight decay
        (optax.adan(0.1), lion_jax.adan(0.1)),
        (optax.lars(10.0, weight_decay=0.5), lion_jax.lars(10.0, weight_decay=0.5)),
    ]
    paths = [path for path, _ in weights(params, *(tx for pair in pairs for tx in pair))]
    for theirs, ours in zip(paths[::2], paths[1::2], strict=True):
        assert differ(last(theirs), last(ours)) > 1e-4


def test_lamb_differs_from_optax_beyond_a_norm_of_10():
    for size, is_equal in ((1.0, True), (20.0, False)):
        rules = (make(0.01, eps=1e-6) for make in (optax.lamb, lion_jax.lamb))
        (theirs, _), (ours, _) = weights({"w": jnp.full((3, 3), size)}, *rules, steps=1)
        assert (differ(theirs, ours) < 1e-6) == is_equal


def test_in_bfloat16_the_momentum_of_lion_is_wider_unless_told():
    params = jnp.ones(3, jnp.bfloat16)

    def dtype(tx):
        return optax.tree_utils.tree_get(tx.init(params), "mu").dtype

    assert dtype(optax.lion(0.1)) == jnp.bfloat16
    assert dtype(lion_jax.lion(0.1)) == jnp.float32
    assert dtype(lion_jax.lion(0.1, mu_dtype=jnp.bfloat16)) == jnp.bfloat16


def test_masked_of_optax_hands_on_gradients_and_freeze_does_not():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    masked = optax.masked(optax.sgd(0.1), {"a": True, "b": False})
    frozen = lion_jax.groups.freeze(optax.sgd(0.1), "^b")
    theirs, ours = (tx.update(params, tx.init(params), params)[0] for tx in (masked, frozen))
    assert_close(theirs, {"a": jnp.full(2, -0.1), "b": jnp.ones(2)})
    assert_close(ours, {"a": jnp.full(2, -0.1), "b": jnp.zeros(2)})


def test_apply_if_finite_gives_in_and_the_guard_does_not():
    params, bad = jnp.ones(2), jnp.full(2, jnp.nan)
    theirs = optax.apply_if_finite(optax.sgd(0.1), 5)
    ours = lion_jax.with_finite_guard(optax.sgd(0.1), 5)
    states = theirs.init(params), ours.init(params)
    for calls in range(1, 7):
        (u, a), (v, b) = (
            tx.update(bad, s, params) for tx, s in zip((theirs, ours), states, strict=True)
        )
        states = a, b
        assert bool(jnp.isnan(u).all()) == (calls > 5)
        assert not v.any()
        assert lion_jax.has_given_up(b) == (calls >= 5)


def test_lookahead_has_the_fast_and_slow_weights_of_optax():
    names = namespace(OPTAX)
    assert_close(names["plain"], names["pair"].fast)
    assert_close(names["slow"], names["pair"].slow)


def test_the_average_is_that_of_a_loop_that_starts_after_the_first_step():
    names = namespace(OPTAX)
    tx, params, grad = optax.sgd(0.1), names["params"], names["grad"]
    state, average = tx.init(params), None
    for _ in range(5):
        updates, state = tx.update(grad(params), state, params)
        params = optax.apply_updates(params, updates)
        average = params if average is None else optax.incremental_update(params, average, 0.01)
    assert_close(names["averaged"], average)
    assert_close(names["ours"], names["trained"])
    assert differ(names["average"], average) > 1e-4


def test_from_adamw_divides_by_five_and_multiplies_by_five():
    names = namespace(OPTAX)
    converted = lion_jax.from_adamw(names["lr"], weight_decay=1e-4).arguments
    assert converted["weight_decay"] == pytest.approx(5e-4)
    for t in range(20):
        assert converted["learning_rate"](t) == pytest.approx(names["lr"](t) / 5)


def test_an_injected_mask_still_masks():
    names = namespace(OPTAX)
    tx, state, params = names["tx"], names["tx"].init(names["params"]), names["params"]
    state.hyperparams["learning_rate"] = jnp.float32(0.5)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
    assert_close(updates["embed"], -0.5 * 0.1 * params["embed"])
    assert not updates["head"]["bias"].any()


def test_a_state_of_optax_goes_on_as_if_nothing_had_changed():
    names = namespace(OPTAX)
    params, gradient = names["params"], names["grad"](names["params"])
    theirs, _ = names["old"].update(gradient, names["old_state"], params)
    ours, _ = names["new"].update(gradient, names["new_state"], params)
    assert_close(ours, theirs)
    fresh, _ = names["new"].update(gradient, names["new"].init(params), params)
    assert differ(fresh, ours) > 1e-3
    assert str(names["report"]) in page(OPTAX)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.contrib.schedule_free(tx, 0.01),
        optax.contrib.split_real_and_imaginary,
        lambda tx: optax.partition({"a": tx}, "a"),
        lambda tx: optax.chain(tx, optax.contrib.reduce_on_plateau()),
        lambda tx: optax.chain(optax.contrib.differentially_private_aggregate(1.0, 0.1, 0), tx),
    ],
    ids=["schedule_free", "split_real_and_imaginary", "partition", "plateau", "private"],
)
def test_what_the_page_says_to_keep_takes_a_rule_from_here(wrap):
    tx, params = wrap(lion_jax.lion(0.01)), {"w": jnp.ones((2, 3))}
    is_private = "private" in str(tx.init(params)).lower()
    gradient = jax.tree.map(lambda p: jnp.stack([p, -2 * p]) if is_private else p, params)
    metric = {"value": jnp.float32(1.0)} if "Plateau" in str(tx.init(params)) else {}
    updates, _ = tx.update(gradient, tx.init(params), params, **metric)
    np.testing.assert_allclose(jnp.abs(updates["w"]), 0.01, rtol=1e-5)


# PyTorch


def test_the_loop_in_jax_is_pytorchs_loop_in_numpy():
    names = namespace(TORCH)
    flat, treedef = jax.tree.flatten(names["start"])
    p, m, total = [np.array(x) for x in flat], [0.0] * 4, [0.0] * 4
    average, gradient_of = None, jax.jit(jax.grad(names["loss"]))
    for t, (x, y) in enumerate(names["batches"]):
        gradient = jax.tree.leaves(gradient_of(treedef.unflatten(p), x, y))
        total = [s + np.array(g) / 4 for s, g in zip(total, gradient, strict=True)]
        if t % 4 < 3:
            continue
        norm = np.sqrt(sum((g**2).sum() for g in total))
        lr = 1e-2 * (1 + np.cos(np.pi * (t // 4) / 20)) / 2
        for i, g in enumerate(total):
            g = g * min(1.0, 1.0 / (norm + 1e-6))
            decay = 0.1 if p[i].ndim > 1 else 0.0
            p[i] = p[i] * (1 - lr * decay) - lr * np.sign(0.9 * m[i] + 0.1 * g)
            m[i] = 0.99 * m[i] + 0.01 * g
        pairs = zip(p if average is None else average, p, strict=True)
        average, total = [0.9 * a + 0.1 * q for a, q in pairs], [0.0] * 4
    assert_close(names["params"], treedef.unflatten(p))
    assert_close(names["average"], treedef.unflatten(average))


@each_line(TORCH, "Optimizers")
def test_the_optimizer_for_a_line_of_pytorch_keeps_its_name_and_arguments(before, after):
    assert re.search(r"\.(\w+)\(", after)[1] == re.search(r"(\w+)\(", before)[1].lower()
    assert re.findall(r"\w+=[^,)]+", after) == re.findall(r"\w+=[^,)]+", before)
    ((path, _),) = weights({"w": jnp.ones((2, 3))}, value(after, namespace(TORCH)), steps=1)
    assert jnp.abs(path["w"] - 1).min() > 0


@each_line(TORCH, "Schedulers")
def test_the_schedule_for_a_line_of_pytorch_starts_at_its_rate(before, after):
    start = {"LinearLR": 0.025, "SequentialLR": 0.05, "OneCycleLR": 0.1 / 25}
    expected = start.get(before.partition("(")[0], 0.1)
    np.testing.assert_allclose(value(after, namespace(TORCH))(0), expected, rtol=1e-6)


def test_a_schedule_by_epochs_is_constant_within_one():
    schedule = namespace(TORCH)["schedule"]
    for count, rate in ((0, 1e-3), (2999, 1e-3), (3000, 1e-4), (6000, 1e-5)):
        np.testing.assert_allclose(schedule(count), rate, rtol=1e-5)


def test_a_decay_of_t_over_t_plus_1_is_the_plain_mean():
    tx = lion_jax.with_parameter_average(optax.sgd(0.1), decay=lambda t: t / (t + 1))
    ((path, state),) = weights({"w": jnp.ones(3)}, tx)
    assert_close(lion_jax.averaged_params(state)["w"], path["w"].mean(0))


def test_a_momentum_from_pytorch_goes_on_with_its_count():
    state = namespace(TORCH)["state"]
    assert optax.tree_utils.tree_get(state, "schedule_count") == 5000
    tx, params = lion_jax.lion(1e-3, weight_decay=0.1), namespace(TORCH)["params"]
    updates, _ = tx.update(jax.tree.map(lambda p: -jnp.ones_like(p), params), state, params)
    expected = jax.tree.map(lambda p: -1e-3 * (jnp.sign(0.9 - 0.1) + 0.1 * p), params)
    assert_close(updates, expected)


def test_moments_of_adamw_go_on_with_their_count():
    tx = optax.adamw(optax.linear_schedule(0.1, 0.0, 9))
    params = {"w": jnp.ones((2, 3))}
    ((path, of_first),) = weights(params, tx, steps=3)
    params, gradient = last(path), jax.tree.map(jnp.cos, last(path))
    old = {"mu": of_first[0].mu, "nu": of_first[0].nu, "count": jnp.int32(3)}
    state, _ = lion_jax.carry_state(old, tx, params)
    state = optax.tree_utils.tree_set(state, count=jnp.int32(3))
    assert_close(tx.update(gradient, state, params)[0], tx.update(gradient, of_first, params)[0])


def test_an_infinity_halves_the_loss_scale_and_skips_the_step():
    tx = lion_jax.with_loss_scale(optax.sgd(1.0), lion_jax.DynamicLossScale(2.0**16, 2000))
    params = jnp.ones(2)
    state = tx.init(params)
    updates, state = tx.update(jnp.array([jnp.inf, 1.0]), state, params)
    assert not updates.any()
    assert lion_jax.current_loss_scale(state) == 2.0**15


@pytest.mark.parametrize(
    ("wrap", "moved"),
    [
        (lambda scaled, k: lion_jax.with_accumulation(scaled(optax.sgd(1.0)), k), False),
        (lambda scaled, k: scaled(lion_jax.with_accumulation(optax.sgd(1.0), k)), True),
    ],
    ids=["inside", "outside"],
)
def test_where_a_loss_scale_drops_all_gradients_of_a_step_and_where_one(wrap, moved):
    scale = lion_jax.DynamicLossScale(4.0, 2000)
    tx = wrap(lambda inner: lion_jax.with_loss_scale(inner, scale), 2)
    params = jnp.ones(1)
    state = tx.init(params)
    for gradient in (jnp.nan, 4.0, 4.0):
        updates, state = tx.update(jnp.full(1, gradient), state, params)
    assert bool(updates.any()) == moved


# Keras


@pytest.mark.sampled
@each_line(KERAS, "In parts")
def test_an_argument_of_keras_is_a_part(before, after):
    names, params = namespace(KERAS), {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    arguments = {"learning_rate": 1e-2} | value(f"dict({before})", names)
    rules = compat.keras.lion(**arguments), value(after, names), compat.keras.lion(1e-2)
    (keras, state), (parts, ours), (plain, _) = weights(params, *rules)
    assert_close(parts, keras)
    same = {"learning_rate=1e-2", "loss_scale_factor=8.0", "use_ema=True, ema_momentum=0.9"}
    assert (differ(keras, plain) > 1e-3) != (before in same)
    if arguments.get("use_ema"):
        assert_close(lion_jax.averaged_params(ours), lion_jax.averaged_params(state))


@each_line(KERAS, "Argument by argument")
def test_a_line_of_keras_keeps_its_arguments(before, after):
    assert (
        before.replace("keras.optimizers.Lion", "compat.keras.lion").replace(
            "keras.optimizers.LossScaleOptimizer", "compat.keras.loss_scale_optimizer"
        )
        == after
    )
    weights({"w": jnp.ones((2, 3))}, value(after, namespace(KERAS)), steps=2)


def test_schedules_that_differ_in_their_counts_are_moved_over():
    rates = {before.partition("(")[0]: [] for before, _ in lines(KERAS, "Schedules")}
    for before, after in lines(KERAS, "Schedules"):
        schedule = value(after, {"optax": optax})
        rates[before.partition("(")[0]].append([float(schedule(t)) for t in range(14)])
    boundaries = [0.1] * 4 + [0.05] * 5 + [0.01] * 5  # at 3 and 8 the value before still holds
    np.testing.assert_allclose(rates["PiecewiseConstantDecay"][0], boundaries, rtol=1e-5)
    warm = rates["CosineDecay"][1]
    np.testing.assert_allclose(warm[:5], 0.01 + 0.0225 * np.arange(5), rtol=1e-5)
    cosine = 0.1 * (0.9 * (1 + np.cos(np.pi * np.arange(9) / 8)) / 2 + 0.1)
    np.testing.assert_allclose(warm[4:13], cosine, rtol=1e-5)
    np.testing.assert_allclose(rates["CosineDecay"][0][:9], cosine, rtol=1e-5)


# With the packages themselves, where they are installed.


def test_pytorch_itself_goes_the_same_way():
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("lion_pytorch")
    names = namespace(TORCH)

    def array(x):
        return torch.tensor(np.array(x))

    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    layers = [(model[0], "hidden"), (model[2], "out")]
    with torch.no_grad():
        for layer, name in layers:
            layer.weight.copy_(array(names["start"][name]["kernel"]).T)
            layer.bias.copy_(array(names["start"][name]["bias"]))
    theirs = {"model": model, "batches": [(array(x), array(y)) for x, y in names["batches"]]}
    run_blocks(TORCH, "py", theirs)
    for of, ours in ((model, "params"), (theirs["average"].module, "average")):
        for i, name in ((0, "hidden"), (2, "out")):
            found = {"kernel": of[i].weight.detach().numpy().T, "bias": of[i].bias.detach().numpy()}
            assert_close(names[ours][name], found, atol=2e-6)


def test_optimizers_of_pytorch_itself():
    torch, package = pytest.importorskip("torch"), pytest.importorskip("lion_pytorch")
    params = {"w": jnp.ones((2, 3))}
    for before, after in lines(TORCH, "Optimizers"):
        p = torch.nn.Parameter(torch.ones(2, 3))
        optimizer = eval(before, {"torch": torch, "Lion": package.Lion, "params": [p]})
        ((path, _),) = weights(params, value(after, namespace(TORCH)))
        for gradient, ours in zip(gradients(params, 9)["w"], path["w"], strict=True):
            p.grad = torch.tensor(gradient)
            optimizer.step()
            assert_close(ours, p.detach().numpy(), rtol=2e-5)


@pytest.mark.filterwarnings("ignore")  # a scheduler that steps without its optimizer
def test_schedulers_of_pytorch_itself():
    torch = pytest.importorskip("torch")
    for before, after in lines(TORCH, "Schedulers"):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
        scheduler = eval(before, vars(torch.optim.lr_scheduler) | {"optimizer": optimizer})
        schedule = value(after, namespace(TORCH))
        for t in range(12):
            expected = optimizer.param_groups[0]["lr"]
            np.testing.assert_allclose(schedule(t), expected, rtol=1e-5, atol=1e-8)
            if t < 11:
                scheduler.step()


@pytest.fixture
def keras(monkeypatch):
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "jax")
    with jax.numpy_rank_promotion("allow"):  # its layers broadcast
        yield pytest.importorskip("keras")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of NumPy's about Keras's arrays
def test_the_loop_around_a_keras_model_is_keras_own_training(keras):
    random = np.random.default_rng(0)
    xs = random.normal(size=(64, 4, 4)).astype("float32")
    batches = [(x, x @ np.float32([[1.0], [2.0], [-1.0], [0.5]])) for x in xs]
    keras.utils.set_random_seed(0)
    first, *others = blocks(KERAS, "py")
    names = {"batches": batches}
    exec(first, names)
    assert names["message"].startswith("Could not interpret optimizer identifier")
    twin = keras.models.clone_model(names["model"])
    twin.set_weights(names["model"].get_weights())
    optimizer = keras.optimizers.Lion(1e-2, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    twin.compile(optimizer=optimizer, loss="mse")
    for block in others:
        exec(block, names)
    for batch in batches:
        twin.train_on_batch(*batch)
    for ours, theirs in zip(names["model"].get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_schedules_of_keras_itself(keras):
    for before, after in lines(KERAS, "Schedules"):
        theirs = eval(before, dict(vars(keras.optimizers.schedules)))
        ours = value(after, {"optax": optax})
        for t in range(14):
            np.testing.assert_allclose(ours(t), theirs(t), atol=1e-7)
