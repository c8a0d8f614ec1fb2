"""Pod costs of programs that the compiler makes, against what a layout must cost."""

import dataclasses
import importlib.util
import os

import jax
import optax
import pytest

import lion_jax
from lion_jax import lab
from lion_jax.lab import RequestError, cli
from lion_jax.lab.cost.run import cost, pod_cost
from lion_jax.precision import with_master_weights

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="needs libtpu, from the extra pods"
    ),
]
ONE = {"w": (1024, 2048)}  # packing signs takes long to compile
FOUR = {f"w{i}": (8192, 4096) for i in range(4)}


@pytest.mark.parametrize(("tx", "bytes_"), [(lion_jax.lion(1e-3), 20), (optax.adamw(1e-3), 28)])
def test_a_step_moves_what_it_must(tx, bytes_):
    for sharding in ("single", "fsdp"):
        cost = pod_cost(tx, FOUR, "v5e:16x16", sharding)
        assert cost.hbm_bytes / cost.held == pytest.approx(bytes_, rel=1e-4)
        assert cost.floors.hbm / cost.held == pytest.approx(bytes_, rel=1e-4)
        assert cost.exchanges == ()
        assert cost.held == 4 * 8192 * 4096 // (1 if sharding == "single" else 256)


@pytest.mark.parametrize(("rule", "bytes_"), [("lion", 16), ("adamw", 24), ("sgdm", 16)])
def test_master_weights_are_stepped_in_one_pass(rule, bytes_):
    inner = {
        "lion": lion_jax.lion(1e-3, mu_dtype="float32"),
        "adamw": optax.adamw(1e-3),
        "sgdm": optax.sgd(0.1, momentum=0.9),
    }[rule]
    cost = pod_cost(with_master_weights(inner), FOUR, "v5e:2x2", "single", dtype="bfloat16")
    assert cost.hbm_bytes / cost.held == pytest.approx(bytes_, rel=1e-4)


@pytest.mark.parametrize("topology", ["v5e:16x16", "v5p:8x8x8", "v6e:4x4", "v4:4x4x4"])
def test_elementwise_rules_send_nothing_and_trust_ratios_scalars(topology):
    lion, lamb = cost(FOUR, ["lion", "lamb"], topology, "fsdp")
    assert lion.exchanges == ()
    assert all(array.dims == () for c, _ in lamb.exchanges for array in c.operands)
    assert 0 < lamb.sent_bytes < 100


def test_what_does_not_divide_is_split_as_far_as_it_goes():
    cost = pod_cost("lion", {"w": (8192, 24), "v": (24,), "u": (7,)}, "v5e:4x8", "fsdp")
    assert cost.coarse == {"['v']": 8, "['u']": 1}
    assert cost.held == 8192 * 24 // 32 + 24 // 8 + 7


def test_replicas_send_their_gradients_in_full():
    cost = pod_cost("lion", FOUR, "v5e:4x4", "data")
    assert {c.kind for c, _ in cost.exchanges} == {"all-reduce"}
    assert cost.sent_bytes == pytest.approx(2 * 15 / 16 * 4 * cost.parameters)
    assert cost.sent_bytes == pytest.approx(cost.floors.sent)
    assert cost.stored_bytes == pytest.approx(8 * cost.parameters, rel=1e-6)


def test_a_vote_sends_signs():
    cost = pod_cost("lion", ONE, "v5e:4x4", "vote")
    assert cost.floors.sent < cost.sent_bytes < 0.4 * cost.parameters
    assert {dtype for c, _ in cost.exchanges for dtype in c.dtypes} == {"u8"}


@pytest.mark.parametrize("sharding", ["zero", "sign_gather"])
def test_state_that_is_not_split_is_named(sharding):
    cost = pod_cost("lion", {"w": (1001, 1001), "v": (64, 128)}, "v5e:2x2", sharding)
    ((path, parts),) = cost.coarse.items()
    assert path.endswith("mu['w']")
    assert parts == 1
    assert cost.stored_bytes - cost.floors.stored == pytest.approx(4 * 1001**2 * 3 / 4, abs=4)


def test_what_does_not_fit_is_refused():
    message = r"refuses the step of lion \(RESOURCE_EXHAUSTED.* Try a smaller model, more chips"
    with pytest.raises(RequestError, match=message):
        pod_cost("lion", {"w": (10**6, 10**6)}, "v5e:2x2")


def test_the_environment_and_the_settings_stay_as_they_are():
    before = dict(os.environ), jax.config.jax_platforms
    pod_cost("lion", ONE, "v5e:2x2")
    assert (dict(os.environ), jax.config.jax_platforms) == before


@pytest.mark.parametrize("sharding", ["zero", "sign_gather"])
def test_zero_stores_a_part_of_the_state(sharding):
    cost = pod_cost("lion", ONE, "v5e:4x4", sharding)
    assert cost.stored_bytes == pytest.approx((4 + 4 / 16) * cost.parameters, abs=100)
    assert cost.stored_bytes == pytest.approx(cost.floors.stored, abs=100)


def test_a_lookahead_is_cheaper_between_synchronizations():
    cost = pod_cost("lookahead_lion", {"w": (8192, 4096)}, "v5e:2x2", "single")
    assert cost.hbm_bytes / cost.held == pytest.approx(32, rel=0.01)
    assert cost.traffic.least.total / cost.held == pytest.approx(24, rel=0.01)


def test_a_shape_that_the_compiler_refuses_is_named_with_what_is_possible():
    message = "knows no topology 'v5e:3x5' .*; possible: v5e:1x1"
    with pytest.raises(RequestError, match=message):
        pod_cost("lion", FOUR, "v5e:3x5")


def test_the_command_prints_figures_and_floors(tmp_path, capsys):
    model = tmp_path / "model.json"
    model.write_text('{"w": [512, 1024]}')
    arguments = [f"--model={model}", "--topology=v5e:2x4", f"--output={tmp_path}"]
    assert cli.main(["cost", "--rules=lion,lamb", *arguments]) == 0
    out = capsys.readouterr().out
    assert "floor" in out
    assert "lamb: 1 all-reduce of f32 among 8 chips" in out
    written = {"picture.png", "records.csv", "result.json"}
    assert {p.name for p in tmp_path.iterdir()} == {"model.json", *written}
    loaded = lab.load(tmp_path)
    assert [c.rule for c in loaded] == ["lion", "lamb"]
    assert loaded.is_finished


def test_what_was_saved_is_loaded_but_for_the_program(tmp_path):
    counted = cost(ONE, ["lion", "adamw"], "v5e:2x2", "data")
    counted.save(tmp_path)
    assert "HloModule" in counted[0].text
    assert "HloModule" not in (tmp_path / "result.json").read_text()
    without = tuple(dataclasses.replace(c, text="") for c in counted)
    assert lab.load(tmp_path) == dataclasses.replace(counted, costs=without)
    counted[1].save(tmp_path)
    assert lab.load(tmp_path) == without[1]


def test_a_task_costs_what_its_shapes_do():
    task = lab.TASKS["digits"]()
    tree = jax.eval_shape(task.init, jax.random.key(0))
    for rule in ("lion", lab.RULES["adamw_bf16"]):
        dtype = getattr(rule, "params_dtype", None)
        tree = jax.tree.map(lambda x, d=dtype: x.update(dtype=d or x.dtype), tree)
        of_task, of_tree = (pod_cost(rule, of, "v5e:2x2") for of in (task, tree))
        assert of_task.settings == of_tree.settings | {"model": "digits"}
        figures = dataclasses.replace(of_tree, settings=of_task.settings, text=of_task.text)
        assert figures == dataclasses.replace(of_task, provenance=of_tree.provenance)


def test_there_is_a_result_after_each_rule():
    first, second = cost.each(ONE, ["lion", "adamw"], "v5e:2x2", on_progress=lambda p: None)
    assert (len(first), first.missing) == (1, ("adamw",))
    assert (len(second), second.missing) == (2, ())
    assert first[0] == second[0]
    assert [c.rule for c in second] == ["lion", "adamw"]
