"""Pod costs: what is asked for, and what it comes to."""

import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType

import lion_jax
from lion_jax import lab
from lion_jax._installation import to_install
from lion_jax.lab import RequestError, cli
from lion_jax.lab.cost import run
from lion_jax.lab.cost.floors import Stored, least
from lion_jax.lab.cost.hlo import Array
from lion_jax.lab.cost.models import abstract_params
from lion_jax.lab.cost.published import MODELS
from lion_jax.lab.cost.run import _coarse, cost, pod_cost
from lion_jax.lab.cost.steps import make_step, sign_rule
from lion_jax.lab.cost.topology import describe

ONE = {"w": (1024, 2048)}  # packing signs takes long to compile


@pytest.mark.parametrize("name", MODELS)
def test_models_have_their_published_number_of_parameters(name):
    params = abstract_params(name, "bfloat16")
    assert sum(x.size for x in jax.tree.leaves(params)) == MODELS[name].parameters
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}


def test_a_model_is_a_file_of_shapes_or_a_tree(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"layers": [{"w": [3, 4]}, {"w": [4, 5], "scale": []}]}')
    own = {"layers": [{"w": (3, 4)}, {"w": (4, 5), "scale": ()}]}
    expected = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
        own,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    assert abstract_params(str(path), "float32") == expected
    assert abstract_params(own, "float32") == expected
    assert abstract_params(expected, "bfloat16") == expected  # which has dtypes of its own


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": {"w": [3, -4]}}', r"leaf at \['a'\]\['w'\] must be a shape, .*; got \[3, -4\]"),
        ('{"w": "3x4"}', r"leaf at \['w'\] must be a shape, .*; got '3x4'"),
        ('{"w": [3, 4.5]}', r"leaf at \['w'\]\[0\] must be a shape"),
        ("{}", "at least one parameter, and at most 1e.14; got none"),
        ('{"w": [0, 3]}', "at least one parameter, and at most 1e.14; got none"),
        ('{"w": [1000000000000, 1000000000000]}', r"at most 1e\+14; got 1e\+24"),
        ('{"w": [3], "b": {"x": null}}', r"leaf at \['b'\]\['x'\] must be a shape, .* got null"),
        ("null", "leaf at the root must be a shape, .* got null"),
        ("{", "must be JSON"),
        (None, r"cannot read the model .* \(No such file"),
    ],
)
def test_a_model_that_is_none_is_refused_with_the_place(text, message, tmp_path):
    path = tmp_path / "model.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RequestError, match=message):
        abstract_params(str(path), "float32")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rules=lyon"], "unknown rule 'lyon'; did you mean 'lion'?"),
        (["--rules=,"], "rules must name at least one; got none"),
        (["--rules=lion,lion"], "must have different names; got lion, lion"),
        (["--model=gpt3"], "unknown model 'gpt3'; did you mean 'gpt2'?"),
        (["--task=gpt2"], "unknown task 'gpt2'. Possible: digits, text"),
        (["--rules=lion_vote_8"], "only `compare` trains rules of several replicas"),
        (
            ["--sharding=vote", "--rules=lion(b1=0.95)", "--model=mine.json"],
            "cannot read the model mine.json",
        ),
        (["--sharding=ddp"], "unknown sharding 'ddp'. Possible: single, data, fsdp"),
        (
            ["--sharding=vote", "--rules=lion,adamw"],
            "'adamw' is not a sign rule; possible: the rule lion (--rules lion), or the sharding",
        ),
        (["--dtype=int8"], "unknown dtype 'int8'. Possible: float32, bfloat16"),
        (["--topology=v9:2x2"], "unknown topology 'v9:2x2'. Possible: v5e:16x16, "),
        (
            ["--topology=v5e"],
            "topology must be a slice of v5e; got 'v5e'; possible: v5e:1x1, v5e:2x2, ",
        ),
        (["--topology=v5e:8x8x8"], "must be a slice of v5e; got 'v5e:8x8x8'; possible: v5e:1x1"),
        (["--topology=v5e:32x32"], "must be a slice of v5e; got 'v5e:32x32'; possible: v5e:1x1"),
        (["--topology=v5p:8x8"], "must be a slice of v5p; got 'v5p:8x8'; possible: v5p:2x2x1"),
        (["--topology=v5p:0x4x4"], "must be a slice of v5p; got 'v5p:0x4x4'; possible: v5p:2x2x1"),
    ],
)
def test_what_no_pod_has_is_refused_in_one_line(arguments, message, tmp_path, capsys):
    assert cli.main(["cost", *arguments, f"--output={tmp_path / 'new'}"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not (tmp_path / "new").exists()


def test_a_model_or_a_task_is_counted_but_not_both(capsys):
    with pytest.raises(SystemExit):
        cli.main(["cost", "--model=gpt2", "--task=digits"])
    assert "argument --task: not allowed with argument --model" in capsys.readouterr().err


@pytest.mark.parametrize("rules", [["lion", "lars", "adamw"], ["lion", lion_jax.lion], ["lion", 3]])
def test_all_rules_are_checked_before_the_compiler_is_asked_for(rules, monkeypatch):
    monkeypatch.setattr(run, "describe", lambda name: pytest.fail("the compiler is asked for"))
    with pytest.raises(RequestError, match=r"'lars' is not a sign rule|must be a name or a lab\.R"):
        cost(ONE, rules, "v5e:2x2", "vote")


def requests(*arguments, monkeypatch, **words):
    """Requests to a compiler that is not there."""
    asked = []

    def request(*of):
        asked.append(_request(*of))
        return asked[-1]

    def refuse(name):
        raise RequestError(f"no compiler for {name}")

    _request = run._request
    monkeypatch.setattr(run, "_request", request)
    monkeypatch.setattr(run, "describe", refuse)
    with pytest.raises(RequestError, match="no compiler for"):
        cost(*arguments, **words)
    return asked


def test_rules_are_names_objects_and_transformations(monkeypatch, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import optax\n"
        "from lion_jax import lab\n"
        "rule = lab.Rule('nadam', optax.nadam, (1e-4, 1e-1), tuned={'b1': (0.9, 0.95)})\n"
    )
    rules = [
        "lion(b1=0.95, weight_decay=(0.01, 1.0))",
        "optax.adafactor",
        f"{tmp_path / 'mine.py'}:rule",
        lab.RULES["lion_small"],
        optax.sgd(0.1),
        optax.adam(0.1),
    ]
    asked = requests(ONE, rules, monkeypatch=monkeypatch)
    assert [request.name for request in asked] == [
        "lion(b1=0.95,weight_decay=(0.01,1.0))",
        "optax.adafactor",
        "nadam",
        "lion_small",
        "a transformation",
        "transformation 2",
    ]
    dtypes = ["float32"] * 3 + ["bfloat16"] + ["float32"] * 2
    assert [request.settings["dtype"] for request in asked] == dtypes
    for request in asked:
        jax.eval_shape(request.tx.init, request.params)
    (alone,) = requests(ONE, "lion(b1=0.95,b2=0.98)", monkeypatch=monkeypatch)
    assert alone.name == "lion(b1=0.95,b2=0.98)"


@pytest.mark.parametrize(
    ("arguments", "rules"),
    [
        ({}, ["lion", "adamw"]),
        ({"sharding": "vote"}, ["lion"]),
        ({"sharding": "sign_gather"}, ["lion"]),
        ({"sharding": "vote", "rules": "lion"}, ["lion"]),
    ],
)
def test_by_default_rules_are_counted_that_the_sharding_allows(arguments, rules, monkeypatch):
    assert [r.name for r in requests(**arguments, monkeypatch=monkeypatch)] == rules


def test_a_rule_that_steps_other_parameters_is_refused(monkeypatch):
    chips = jax.make_mesh((1, 4), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    monkeypatch.setattr(run, "describe", lambda name: run.Topology(name, chips, None, "tpu"))
    with pytest.raises(RequestError, match=r"step of optax\.polyak_sgd cannot be traced \(TypeErr"):
        cost(ONE, ["lion", "optax.polyak_sgd"], "v5e:2x2")


@pytest.mark.sampled
@pytest.mark.parametrize("given", [["--task=digits"], ["--task={}:mine"], ["--model=digits"]])
def test_the_command_counts_on_cpus_and_leaves_the_setting(given, tmp_path, monkeypatch, capsys):
    (tmp_path / "own.py").write_text(
        "from lion_jax.lab.tasks.digits import digits\n\n\ndef mine():\n    return digits()\n"
    )
    before = jax.config.jax_platforms

    def refuse(topology):
        raise RequestError(f"{topology} on {jax.config.jax_platforms}")

    monkeypatch.setattr(run, "describe", refuse)
    jax.config.update("jax_platforms", "cpu,of_the_caller")
    try:
        task = [word.format(tmp_path / "own.py") for word in given]
        assert cli.main(["cost", *task, f"--output={tmp_path / 'new'}"]) == 2
        assert jax.config.jax_platforms == "cpu,of_the_caller"
    finally:
        jax.config.update("jax_platforms", before)
    assert capsys.readouterr().err == "lion-jax: v5e:16x16 on cpu\n"


def test_the_arguments_load_neither_jax_nor_what_draws():
    code = (
        "import sys, lion_jax.lab.cost.command;"
        "assert not {'jax', 'matplotlib', 'rich'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


NO_BACKEND = """
import jax._src.xla_bridge as bridge
from lion_jax.lab.choosing import choose_rules
from lion_jax.lab.cost.models import abstract_params
from lion_jax.lab.cost.run import _transformation
from lion_jax.lab.rules.catalogue import RULES

for rule in RULES.values():
    if "stochastic" not in rule.name:  # which makes a random key
        _transformation(rule)
_transformation(choose_rules("lion(weight_decay=(0.01, 1.0))")[0])
abstract_params("digits")
assert not bridge._backends
"""


@pytest.mark.slow
def test_nothing_starts_a_backend_before_something_is_compiled():
    subprocess.run([sys.executable, "-c", NO_BACKEND], check=True)


def test_a_task_has_its_own_parameters_or_those_asked_for(line):
    own = jax.ShapeDtypeStruct((3,), jnp.float32)
    assert abstract_params(line) == own
    assert abstract_params(line, "bfloat16") == own.update(dtype=jnp.bfloat16)
    narrow = line.stored_in("bfloat16")
    assert abstract_params(narrow) == own.update(dtype=jnp.bfloat16)


def step_on(tx, sharding, chips=4):
    """A small model on this machine's own devices."""
    mesh = jax.make_mesh((1, chips), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    return make_step(sharding, tx, abstract_params({"w": (8, 16)}, "float32"), mesh)


@pytest.mark.parametrize("sharding", ["vote", "sign_gather"])
@pytest.mark.parametrize("make", [lion_jax.lion, optax.sgd, optax.adamw])
def test_a_rule_that_exchanges_nothing_is_refused(make, sharding):
    why = r"exchanges nothing|cannot be traced \((TypeError|ValueError): "
    with pytest.raises(RequestError, match=rf"'{sharding}'.*({why}).*Try the rule 'lion', or "):
        step_on(make(1e-3), sharding).lower()


@pytest.mark.sampled
@pytest.mark.parametrize("sharding", ["vote", "sign_gather"])
def test_a_rule_that_exchanges_signs_is_not(sharding):
    step_on(sign_rule("lion", sharding, ("x", "y")), sharding).lower()
    step_on(lion_jax.lion(1e-3), sharding, chips=1).lower()  # has nobody to exchange with


@pytest.mark.parametrize("name", ["TPU_WORKER_HOSTNAMES", "TPU_SKIP_MDS_QUERY"])
def test_the_compiler_finds_variables_that_are_gone_afterwards(name, monkeypatch):
    def read(**_):
        raise RuntimeError(f"{name}={os.environ[name]}")

    monkeypatch.setenv("TPU_LIBRARY_PATH", "somewhere")
    monkeypatch.setattr(topologies, "get_topology_desc", read)
    monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    with pytest.raises(RequestError, match=rf"{name}=(localhost|1)"):
        describe("v5e:2x2")
    assert dict(os.environ) == before


def test_what_is_no_rule_is_refused():
    with pytest.raises(RequestError, match=r"a rule must be a name or a lab\.Rule; got 3 of type"):
        pod_cost(3)  # pyright: ignore[reportArgumentType]


def test_without_libtpu_it_says_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "libtpu" else find(name)
    )
    before = dict(os.environ)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(RequestError, match=r"libtpu is missing, .*every program") as refusal:
        pod_cost("lion")
    assert f"; try: {to_install('pods')}" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert dict(os.environ) == before


def stored_as(path, shape, parts=1):
    leaf = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=single_device())
    size = leaf.size // parts
    return Stored(path, leaf, Array("f32", (size,), 32, size))


def single_device():
    return jax.sharding.SingleDeviceSharding(jax.devices()[0])


def test_floors_split_all_but_scalars():
    params = [stored_as("w", (8, 8)), stored_as("scale", ())]
    gradients, state = params, [*params, stored_as("count", ())]
    full, part = 4 * 64, 4 * 64 / 4
    floors = least("fsdp", 4, params, gradients, state)
    assert floors.stored == 2 * part + 4 + 8
    assert floors.hbm == 2 * (part + 4) + (part + 4) + 2 * (part + 8)
    assert least("zero", 4, params, gradients, state).stored == full + 4 + part + 8


def test_what_is_in_fewer_parts_is_named_but_for_scalars():
    leaves = [
        stored_as("small", (6,), 2),
        stored_as("count", ()),
        stored_as("whole", (9, 9)),
        stored_as("split", (8, 8), 4),
        stored_as("empty", (0, 8)),
    ]
    assert list(_coarse(leaves, 4).items()) == [("whole", 1), ("small", 2)]


@pytest.mark.parametrize(
    ("model", "label", "dtype"),
    [
        ("gpt2", "gpt2", "float32"),
        (Path("gpt2"), "gpt2", "float32"),
        ({"w": jax.ShapeDtypeStruct((2,), jnp.bfloat16)}, "a tree of shapes", "bfloat16"),
        ({"w": jax.ShapeDtypeStruct((), "bfloat16"), "b": (2,)}, None, "bfloat16 and float32"),
        ("digits", "digits", "float32"),
    ],
)
def test_settings_name_the_model_and_the_dtypes_that_it_has(model, label, dtype, monkeypatch):
    ((*_, settings),) = requests(model, "lion", "v5e:2x2", monkeypatch=monkeypatch)
    assert settings["model"] == (label or "a tree of shapes")
    assert settings["dtype"] == dtype
