"""The recipes of the documentation, each run against the real library: its loss falls."""

import os
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from children import free_address, started

import lion_jax

PAGE = Path(__file__).parent.parent / "docs" / "recipes.md"
PROCESSES, DEVICES = 2, 2

if not PAGE.exists():
    pytest.skip("the docs are not here", allow_module_level=True)


def sections(text):
    """The text under each heading; that before the first is the introduction."""
    parts = re.split(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def blocks(text, language="python"):
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


SECTIONS = sections(PAGE.read_text())
[PREAMBLE] = blocks(SECTIONS.pop("Recipes"))
RECIPES = {heading: blocks(text) for heading, text in SECTIONS.items() if blocks(text)}
[LOOP] = RECIPES["A plain loop"]


def execute(code, space, where):
    exec(compile(code, f"{PAGE.name}: {where}", "exec"), space)


def fresh(preamble=PREAMBLE):
    """The names that the page assumes, made anew: a recipe may donate the parameters."""
    space = {}
    execute(preamble, space, "Recipes")
    return space


def follow(heading, space):
    for block in RECIPES[heading]:
        execute(block, space, heading)


def train(space):
    execute(LOOP, space, "A plain loop")


def check_value(space, most=0.1):
    """At least nine tenths of the loss of predicting 0 are gone."""
    y = np.asarray(jax.random.normal(jax.random.key(0), (256, 8)))
    of_zero = np.mean(np.sin(y[:, 0] + y[:, 1]) ** 2)
    assert space["value"] < most * of_zero


def check_values(space):
    values = space["values"]
    assert values.shape == (200,)
    assert values[-1] < 0.5 * values[0]


# What a recipe that trains by itself leaves behind, and how it is told that it has learned.
TRAINS = {
    "A plain loop": check_value,
    "A whole training in lax.scan": check_values,
    "Flax NNX": check_value,
    "Flax Linen": check_value,
    "Equinox": check_value,
    "Haiku": check_value,
    "NumPyro": check_values,
}
OPTIONAL = {"Haiku": "haiku", "NumPyro": "numpyro"}


SLOW = {"NumPyro"}  # its import and its first program take seconds


@pytest.mark.sampled
@pytest.mark.parametrize(
    "heading", [pytest.param(h, marks=[pytest.mark.slow] * (h in SLOW)) for h in TRAINS]
)
def test_its_loss_falls(heading):
    if heading in OPTIONAL:
        pytest.importorskip(OPTIONAL[heading])
    space = fresh()
    follow(heading, space)
    TRAINS[heading](space)


@pytest.mark.slow
@pytest.mark.parametrize("heading", TRAINS)
def test_its_loss_would_not_pass_without_a_learning_rate(heading):
    if heading in OPTIONAL:
        pytest.importorskip(OPTIONAL[heading])
    assert PREAMBLE.count("schedule(1e-2") == 1
    space = fresh(PREAMBLE.replace("schedule(1e-2", "schedule(0.0"))
    follow(heading, space)
    with pytest.raises(AssertionError):
        TRAINS[heading](space)


@pytest.mark.slow
def test_a_sweep_trains_with_each_rate():
    space = fresh()
    follow("A sweep of learning rates", space)
    rates, values = space["rates"], space["values"]
    assert values.shape == rates.shape
    assert values[np.argmin(np.abs(np.log(rates)))] < 0.1 * values[0]
    train(space)
    trained = space["loss"](space["params"], space["x"], space["y"])
    [at_one] = values[np.isclose(rates, 1.0)]  # the schedule itself
    np.testing.assert_allclose(at_one, trained, rtol=0.05)


@pytest.mark.slow
def test_a_warm_up_begins_at_nothing_and_learns():
    space = fresh()
    follow("Clipping and a warm-up", space)
    assert space["schedule"](0) == 0.0
    assert space["schedule"](20) == jnp.float32(1e-2)
    train(space)
    check_value(space)


@pytest.mark.slow
def test_frozen_weights_stay_and_a_group_goes_at_a_tenth():
    space = fresh()
    before = jax.tree.map(np.array, space["params"])
    follow("Groups and frozen weights", space)
    tx, params = space["tx"], space["params"]
    updates, _ = tx.update(params | {"out": jnp.ones((32, 1))}, tx.init(params), params)
    np.testing.assert_allclose(updates["out"], -1e-3, rtol=1e-6)
    train(space)
    np.testing.assert_array_equal(space["params"]["hidden"], before["hidden"])
    check_value(space, most=0.8)


@pytest.mark.slow
def test_bfloat16_weights_learn_and_are_read_in_float32():
    space = fresh()
    follow("Weights in bfloat16", space)
    train(space)
    check_value(space)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(space["params"])} == {"bfloat16"}
    weights = space["master_params"](space["params"], space["state"])
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(weights)} == {"float32"}
    space["value"] = space["loss"](weights, space["x"], space["y"])
    check_value(space)


@pytest.mark.slow
def test_the_rate_in_force_is_read_and_set():
    space = fresh()
    train(space)
    read, set_ = RECIPES["The learning rate in force"]
    execute(read, space, "The learning rate in force")
    np.testing.assert_allclose(space["rate"], space["schedule"](199), rtol=1e-6)
    execute(set_, space, "The learning rate in force")
    tx, params, state = space["tx"], space["params"], space["state"]
    updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
    np.testing.assert_allclose(updates["out"], -3e-3, rtol=1e-6)
    assert lion_jax.hyperparameters(state)["learning_rate"] == jnp.float32(3e-3)


@pytest.mark.slow
def test_what_was_saved_is_restored():
    space = fresh()
    train(space)
    saved = jax.tree.map(np.array, (space["params"], space["state"]))
    follow("Saving and restoring", space)
    assert space["count"] == 200
    jax.tree.map(np.testing.assert_array_equal, (space["params"], space["state"]), saved)


def of_several_hosts():
    """The recipe as one script, in the order that the page says."""
    [first] = blocks(SECTIONS["Several hosts"], "py")
    [rest] = RECIPES["Several hosts"]
    line = "state = tx.init(params)\n"
    assert LOOP.count(line) == 1
    return first, rest + LOOP.replace(line, "")


@pytest.mark.slow
def test_several_hosts_may_be_one():
    _, rest = of_several_hosts()
    assert rest.count("range(200)") == rest.count("count % 10 == 0") == 1
    # Eight devices on two cores starve each other when many steps are under way: wait for each.
    rest = rest.replace("range(200)", "range(40)").replace("count % 10 == 0", "True")
    space = fresh()
    execute(rest, space, "Several hosts")
    check_value(space, most=0.5)
    for leaf in jax.tree.leaves((space["params"], optax.tree.get(space["state"], "mu"))):
        assert leaf.sharding.spec == space["rows"].spec
        assert leaf.addressable_shards[0].data.shape[0] == leaf.shape[0] // jax.device_count()


@pytest.mark.slow
def test_several_hosts_are_found_and_agree(tmp_path):
    """Two processes on this machine, which Slurm's variables tell of each other."""
    first, rest = of_several_hosts()
    report = "print(jax.process_count(), jax.device_count(), float(value))"
    script = tmp_path / "script.py"
    script.write_text("\n".join(["import jax", first, PREAMBLE, rest, report]))
    ours = ("JAX_", "XLA_", "SLURM_")
    settings = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    settings |= {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(DEVICES),
        "JAX_COORDINATOR_ADDRESS": free_address(),
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(PROCESSES),
    }
    commands = {
        tmp_path / f"{i}.log": (
            [sys.executable, script],
            settings | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)},
        )
        for i in range(PROCESSES)
    }
    with started(commands) as children:
        assert [child.wait(timeout=120) for child in children] == [0] * PROCESSES
    said = [log.read_text().split("\n")[-2].split() for log in commands]
    assert said == [said[0]] * PROCESSES
    count, devices, value = said[0]
    assert (int(count), int(devices)) == (PROCESSES, PROCESSES * DEVICES)
    check_value({"value": float(value)})


def test_every_recipe_is_run_here():
    others = {
        "Several hosts",
        "A sweep of learning rates",
        "Clipping and a warm-up",
        "Groups and frozen weights",
        "Weights in bfloat16",
        "The learning rate in force",
        "Saving and restoring",
    }
    assert set(RECIPES) == set(TRAINS) | others
