"""Pod costs: what is asked for, what it comes to, how it is told."""

import csv
import importlib.util
import io
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType
from rich.console import Console

import lion_jax
from lion_jax.lab import RequestError, cli, pod_cost
from lion_jax.lab.cost import pods, report
from lion_jax.lab.cost.figures import PodCost
from lion_jax.lab.cost.floors import Floors, Stored, least
from lion_jax.lab.cost.hlo import Array
from lion_jax.lab.cost.models import MODELS, abstract_params
from lion_jax.lab.cost.pods import _coarse, _request, pod_costs
from lion_jax.lab.cost.steps import make_step, sign_rule
from lion_jax.lab.cost.topology import describe
from lion_jax.lab.cost.traffic import Collective, Moved, Traffic
from lion_jax.lab.cost.wires import Sent
from lion_jax.lab.rules import RULES

HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None
compiles = [
    pytest.mark.slow,
    pytest.mark.skipif(not HAS_LIBTPU, reason="needs libtpu, from the extra pods"),
]
ONE = {"w": (1024, 2048)}  # packing signs takes long to compile
FOUR = {f"w{i}": (8192, 4096) for i in range(4)}


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
        ("{", "is no JSON"),
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
        (["--rule=lyon"], "unknown rule 'lyon'; did you mean 'lion'?"),
        (["--rule=,"], "rules must have at least one, all different; got none"),
        (["--rule=lion,lion"], "all different; got lion, lion"),
        (["--model=gpt3"], "unknown model 'gpt3'; did you mean 'gpt2'?"),
        (["--sharding=ddp"], "unknown sharding 'ddp'. Possible: single, data, fsdp"),
        (
            ["--sharding=vote", "--rule=lion,adamw"],
            "which 'adamw' is not made; possible: the rule lion (--rule lion), or the sharding",
        ),
        (["--dtype=int8"], "unknown dtype 'int8'. Possible: float32, bfloat16"),
        (["--topology=v9:2x2"], "unknown topology 'v9:2x2'. Possible: v5e:16x16, "),
        (["--topology=v5e"], "topology 'v5e' is no slice of v5e; possible: v5e:1x1, v5e:2x2, "),
        (["--topology=v5e:8x8x8"], "is no slice of v5e; possible: v5e:1x1"),
        (["--topology=v5e:32x32"], "is no slice of v5e; possible: v5e:1x1"),
        (["--topology=v5p:8x8"], "is no slice of v5p; possible: v5p:2x2x1"),
        (["--topology=v5p:0x4x4"], "is no slice of v5p; possible: v5p:2x2x1"),
    ],
)
def test_what_no_pod_has_is_refused_in_one_line(arguments, message, tmp_path, capsys):
    assert cli.main(["cost", *arguments, f"--output={tmp_path / 'new'}"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("rules", [["lion", "lars", "adamw"], ["lion", lion_jax.lion, 3]])
def test_all_rules_are_checked_before_the_compiler_is_asked_for(rules, monkeypatch):
    monkeypatch.setattr(pods, "describe", lambda name: pytest.fail("the compiler is asked for"))
    with pytest.raises(RequestError, match=r"'lars' is not made|must be a name or a transf"):
        pod_costs(rules, ONE, "v5e:2x2", "vote")


def test_a_string_of_rules_is_refused():
    with pytest.raises(RequestError, match="must be a list of names; got the string 'lion'"):
        pod_costs("lion")


@pytest.mark.parametrize(
    ("arguments", "rules"),
    [
        ([], ["lion", "adamw"]),
        (["--sharding=vote"], ["lion"]),
        (["--sharding=sign_gather"], ["lion"]),
    ],
)
def test_the_command_counts_rules_that_the_sharding_allows(
    arguments, rules, tmp_path, monkeypatch, capsys
):
    before = jax.config.jax_platforms

    def refuse(names, *_, **__):
        raise RequestError(f"{names} on {jax.config.jax_platforms}")

    monkeypatch.setattr(cli, "pod_costs", refuse)
    jax.config.update("jax_platforms", "cpu,of_the_caller")
    try:
        assert cli.main(["cost", *arguments, f"--output={tmp_path}"]) == 2
        assert jax.config.jax_platforms == "cpu,of_the_caller"
    finally:
        jax.config.update("jax_platforms", before)
    assert capsys.readouterr().err == f"lion-jax: {rules} on cpu\n"


def step_on(tx, sharding, chips=4):
    """Of a small model on chips that are this machine's."""
    mesh = jax.make_mesh((1, chips), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    return make_step(sharding, tx, abstract_params({"w": (8, 16)}, "float32"), mesh)


@pytest.mark.parametrize("sharding", ["vote", "sign_gather"])
@pytest.mark.parametrize("make", [lion_jax.lion, optax.sgd, optax.adamw])
def test_a_rule_that_exchanges_nothing_is_refused(make, sharding):
    why = r"exchanges nothing|cannot be traced \((TypeError|ValueError): "
    with pytest.raises(RequestError, match=rf"'{sharding}'.*({why}).*Try the rule 'lion', or "):
        step_on(make(1e-3), sharding).lower()


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
    with pytest.raises(RequestError, match=r"a pair of init and update; got 3\. Possible: lion, "):
        pod_cost(3)  # pyright: ignore[reportArgumentType]


def test_without_libtpu_it_says_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "libtpu" else find(name)
    )
    before = dict(os.environ)
    with pytest.raises(RequestError, match=r"libtpu is missing.*pip install \"lion-jax\[pods\]\""):
        pod_cost("lion")
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
    ],
)
def test_settings_name_the_model_and_the_dtypes_that_it_has(model, label, dtype):
    settings = _request("lion", model, "v5e:2x2", "fsdp", "float32").settings
    assert settings["model"] == (label or "a tree of shapes")
    assert settings["dtype"] == dtype


def synthetic(rule="lion", **changes):
    """A chip of four with a quarter of a thousand parameters, whose figures are round numbers."""
    operand = Array("f32", (100,), 32, 100)
    reduce = Collective("all-reduce", (operand,), "replica_groups={}", 2, "mean")
    settings = {"model": "mine", "topology": "v5e:2x2", "sharding": "fsdp", "dtype": "float32"}
    cost = PodCost(
        rule=rule,
        settings=settings,
        chips=4,
        parameters=1000,
        held=250,
        stored_bytes=2000.0,
        stored_in_tiles=3000.0,
        traffic=Traffic(Moved(3000, 2000, 7500), Moved(2000, 1000, 4500), (reduce,)),
        temporary_bytes=250,
        exchanges=((reduce, Sent(1000.0, 2000.0, 4)),),
        links_per_chip=2.0,
        floors=Floors(2000.0, 5000.0, 500.0),
        coarse={"['b']": 2},
        text="",
    )
    return PodCost(**{**vars(cost), **changes})


def test_records_hold_bytes_of_a_chip_and_per_parameter():
    record = synthetic().record()
    assert record["hbm_bytes"] == 5000
    assert record["hbm_per_parameter"] == 5000 / 250
    assert record["hbm_per_parameter_cheapest_branches"] == 3000 / 250
    assert record["stored_per_parameter"] == 2000 / 250
    assert record["temporary_per_parameter"] == 250 / 250
    assert record["sent_per_parameter"] == 1000 / 1000
    assert record["link_per_parameter"] == 2000 / 2 / 1000
    assert record["collectives"] == "all-reduce"


def test_the_summary_names_collectives_padding_whole_parameters_and_unknown_loops():
    loops = Traffic(Moved(1, 1, 2), Moved(1, 1, 2), (), ("jit(step)/while",))
    lines = report.summary([synthetic(), synthetic("newton", traffic=loops)])
    text = "\n".join(lines)
    assert "lion: 2 all-reduce of f32 among 4 chips: 1 kB sent by each chip, 2.00 links" in text
    assert (
        "lion, newton: split over fewer than 4 chips, which do not divide them: ['b'] (2)." in text
    )
    assert "lion: arrays lie in tiles that are not full; with their padding 0.00 MB stored" in text
    assert "newton: the loop jit(step)/while runs as often as its data says; it counts once" in text
    assert report.summary([synthetic(stored_in_tiles=2000.0, coarse={}, exchanges=())]) == []


def test_each_cost_says_what_it_does_not_split():
    costs = [synthetic("lion", coarse={}), synthetic("adamw", coarse={"[0].mu['w']": 1})]
    lines = [line for line in report.summary(costs) if "split over" in line]
    assert lines == [
        "adamw: split over fewer than 4 chips, which do not divide them: [0].mu['w'] (1)."
    ]


def test_no_figure_is_lost_in_80_columns():
    size = 6_738_415_616
    cost = synthetic(
        max(RULES, key=len),
        parameters=size,
        held=size,
        stored_bytes=12.0 * size,
        traffic=Traffic(Moved(100.0 * size, 0, 0), Moved(100.0 * size, 0, 0)),
        temporary_bytes=100 * size,
        exchanges=((synthetic().exchanges[0][0], Sent(12345.6, 23456.7, 4)),),
    )
    table = report.table([cost])
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    text = console.file.getvalue()
    for column in table.columns:
        for word in (str(column.header), *map(str, column.cells)):
            assert word in text
    assert {"adamw_stochastic", "80860.99", "100.00", "1.83e-06", "1.74e-06"} <= set(text.split())


def test_the_table_has_a_row_and_a_floor_for_each_rule():
    table = report.table([synthetic(), synthetic("adamw")])
    assert "mine, 1,000 float32 parameters on v5e:2x2, fsdp" in str(table.title)
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == ["lion", "  floor", "adamw", "  floor"]
    assert [column[0] for column in cells[1:]] == [
        *("0.00", "8.00", "20.00", "12.00", "1.00", "1", "1"),
    ]
    assert [column[1] for column in cells[1:]] == [
        *("0.00", "8.00", "20.00", "", "0.00", "0.5", "0.25"),
    ]


@pytest.mark.parametrize("records", ["csv", "json"])
def test_picture_and_records_are_written(tmp_path, records):
    costs = [synthetic(), synthetic("adamw", exchanges=())]
    picture, written = report.save(costs, tmp_path, records)
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = written.read_text()
    if records == "json":
        document = json.loads(text)
        assert document["collectives"][0]["kind"] == "all-reduce"
        rows = document["records"]
    else:
        rows = list(csv.DictReader(text.splitlines()))
    assert [row["rule"] for row in rows] == ["lion", "adamw"]


class TestCompiled:
    """What the compiler's programs come to."""

    pytestmark = compiles

    @pytest.mark.parametrize(("tx", "bytes_"), [(lion_jax.lion(1e-3), 20), (optax.adamw(1e-3), 28)])
    def test_a_step_moves_what_it_must(self, tx, bytes_):
        for sharding in ("single", "fsdp"):
            cost = pod_cost(tx, FOUR, "v5e:16x16", sharding)
            assert cost.hbm_bytes / cost.held == pytest.approx(bytes_, rel=1e-4)
            assert cost.floors.hbm / cost.held == pytest.approx(bytes_, rel=1e-4)
            assert cost.exchanges == ()
            assert cost.held == 4 * 8192 * 4096 // (1 if sharding == "single" else 256)

    @pytest.mark.parametrize("topology", ["v5e:16x16", "v5p:8x8x8", "v6e:4x4", "v4:4x4x4"])
    def test_elementwise_rules_send_nothing_and_trust_ratios_scalars(self, topology):
        lion, lamb = pod_costs(["lion", "lamb"], FOUR, topology, "fsdp")
        assert lion.exchanges == ()
        assert all(array.dims == () for c, _ in lamb.exchanges for array in c.operands)
        assert 0 < lamb.sent_bytes < 100

    def test_what_does_not_divide_is_split_as_far_as_it_goes(self):
        cost = pod_cost("lion", {"w": (8192, 24), "v": (24,), "u": (7,)}, "v5e:4x8", "fsdp")
        assert cost.coarse == {"['v']": 8, "['u']": 1}
        assert cost.held == 8192 * 24 // 32 + 24 // 8 + 7

    def test_replicas_send_their_gradients_in_full(self):
        cost = pod_cost("lion", FOUR, "v5e:4x4", "data")
        assert {c.kind for c, _ in cost.exchanges} == {"all-reduce"}
        assert cost.sent_bytes == pytest.approx(2 * 15 / 16 * 4 * cost.parameters)
        assert cost.sent_bytes == pytest.approx(cost.floors.sent)
        assert cost.stored_bytes == pytest.approx(8 * cost.parameters, rel=1e-6)

    def test_a_vote_sends_signs(self):
        cost = pod_cost("lion", ONE, "v5e:4x4", "vote")
        assert cost.floors.sent < cost.sent_bytes < 0.4 * cost.parameters
        assert {dtype for c, _ in cost.exchanges for dtype in c.dtypes} == {"u8"}

    @pytest.mark.parametrize("sharding", ["zero", "sign_gather"])
    def test_state_that_is_not_split_is_named(self, sharding):
        cost = pod_cost("lion", {"w": (1001, 1001), "v": (64, 128)}, "v5e:2x2", sharding)
        ((path, parts),) = cost.coarse.items()
        assert path.endswith("mu['w']")
        assert parts == 1
        assert cost.stored_bytes - cost.floors.stored == pytest.approx(4 * 1001**2 * 3 / 4, abs=4)

    def test_what_does_not_fit_is_refused(self):
        message = r"refuses the step of lion \(RESOURCE_EXHAUSTED.* Try a smaller model, more chips"
        with pytest.raises(RequestError, match=message):
            pod_cost("lion", {"w": (10**6, 10**6)}, "v5e:2x2")

    def test_the_environment_and_the_settings_stay_as_they_are(self):
        before = dict(os.environ), jax.config.jax_platforms
        pod_cost("lion", ONE, "v5e:2x2")
        assert (dict(os.environ), jax.config.jax_platforms) == before

    @pytest.mark.parametrize("sharding", ["zero", "sign_gather"])
    def test_zero_stores_a_part_of_the_state(self, sharding):
        cost = pod_cost("lion", ONE, "v5e:4x4", sharding)
        assert cost.stored_bytes == pytest.approx((4 + 4 / 16) * cost.parameters, abs=100)
        assert cost.stored_bytes == pytest.approx(cost.floors.stored, abs=100)

    def test_a_lookahead_is_cheaper_between_synchronizations(self):
        cost = pod_cost("lookahead_lion", {"w": (8192, 4096)}, "v5e:2x2", "single")
        assert cost.hbm_bytes / cost.held == pytest.approx(32, rel=0.01)
        assert cost.traffic.least.total / cost.held == pytest.approx(24, rel=0.01)

    def test_a_shape_that_the_compiler_refuses_is_named_with_what_is_possible(self):
        message = "knows no topology 'v5e:3x5' .*; possible: v5e:1x1"
        with pytest.raises(RequestError, match=message):
            pod_cost("lion", FOUR, "v5e:3x5")

    def test_the_command_prints_figures_and_floors(self, tmp_path, capsys):
        model = tmp_path / "model.json"
        model.write_text('{"w": [512, 1024]}')
        arguments = [f"--model={model}", "--topology=v5e:2x4", f"--output={tmp_path}"]
        assert cli.main(["cost", "--rule=lion,lamb", *arguments]) == 0
        out = capsys.readouterr().out
        assert "floor" in out
        assert "lamb: 1 all-reduce of f32 among 8 chips" in out
        assert {p.name for p in tmp_path.iterdir()} == {"model.json", "cost.png", "records.csv"}
