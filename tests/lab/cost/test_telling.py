"""Costs in words, tables, pictures and files."""

import csv
import dataclasses
import io
import json

import pytest
from rich.console import Console

from lion_jax import lab
from lion_jax.lab.cost.figures import PodCost
from lion_jax.lab.cost.floors import Floors
from lion_jax.lab.cost.hlo import Array
from lion_jax.lab.cost.report import PodCosts
from lion_jax.lab.cost.traffic import Collective, Moved, Traffic
from lion_jax.lab.cost.wires import Sent
from lion_jax.lab.rules.catalogue import RULES


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
    return dataclasses.replace(cost, **changes)


def several(*costs, **words):
    """Costs side by side."""
    return PodCosts(costs=costs, settings=costs[0].settings, **words)


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
    lines = several(synthetic(), synthetic("newton", traffic=loops)).lines()
    text = "\n".join(lines)
    assert "lion: 2 all-reduce of f32 among 4 chips: 1 kB sent by each chip, 2.00 links" in text
    assert (
        "lion, newton: split over fewer than 4 chips, because 4 does not divide their dimensions: "
        "['b'] (2)." in text
    )
    assert "lion: with the padding of tiles that are not full, 0.00 MB stored" in text
    assert "newton: how often the loop jit(step)/while runs depends on the data. It is" in text
    assert synthetic(stored_in_tiles=2000.0, coarse={}, exchanges=()).lines() == []


def test_each_cost_says_what_it_does_not_split():
    costs = several(synthetic("lion", coarse={}), synthetic("adamw", coarse={"[0].mu['w']": 1}))
    lines = [line for line in costs.lines() if "split over" in line]
    assert lines == [
        "adamw: split over fewer than 4 chips, because 4 does not divide their dimensions: "
        "[0].mu['w'] (1)."
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
    table = cost.table()
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    text = console.file.getvalue()
    for column in table.columns:
        for word in (str(column.header), *map(str, column.cells)):
            assert word in text
    assert {"adamw_stochastic", "80860.99", "100.00", "1.83e-06", "1.74e-06"} <= set(text.split())


def test_the_table_has_a_row_and_a_floor_for_each_rule():
    table = several(synthetic(), synthetic("adamw")).table()
    assert "mine, 1,000 float32 parameters on v5e:2x2, fsdp" in str(table.title)
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == ["lion", "  floor", "adamw", "  floor"]
    assert [column[0] for column in cells[1:]] == [
        *("0.00", "8.00", "20.00", "12.00", "1.00", "1", "1"),
    ]
    assert [column[1] for column in cells[1:]] == [
        *("0.00", "8.00", "20.00", "", "0.00", "0.5", "0.25"),
    ]


@pytest.mark.sampled
@pytest.mark.parametrize("picture", ["png", "svg"])
def test_picture_and_records_are_written(tmp_path, picture):
    costs = several(synthetic(), synthetic("adamw", exchanges=()))
    drawn, records, result = costs.save(tmp_path, picture)
    assert drawn.read_bytes().startswith(b"\x89PNG" if picture == "png" else b"<?xml")
    rows = list(csv.DictReader(records.read_text().splitlines()))
    assert [row["rule"] for row in rows] == ["lion", "adamw"]
    lion, adamw = json.loads(result.read_text())["summary"]
    assert lion["exchanges"][0]["kind"] == "all-reduce"
    assert adamw["exchanges"] == []
    assert [row["rule"] for row in (lion, adamw)] == ["lion", "adamw"]


def test_what_was_saved_is_loaded_but_for_the_program(tmp_path):
    words = {"missing": ("sgd",), "provenance": {"device": "x"}}
    costs = several(synthetic(), synthetic("adamw"), **words)
    several(synthetic(text="HloModule"), costs[1], **words).save(tmp_path)
    loaded = lab.load(tmp_path)
    assert loaded == costs
    assert not loaded.is_finished
    assert isinstance(loaded[0].exchanges[0][1], Sent)
    assert loaded[1].hbm_bytes == 5000


@pytest.mark.slow
def test_a_cost_alone_is_told_as_one_of_several_is(tmp_path):
    cost = synthetic(text="HloModule")
    one = several(cost)
    assert cost.lines() == one.lines()
    assert cost.records() == one.records()
    assert cost.summary() == one.summary()
    assert str(cost.table().title) == str(one.table().title)
    assert len(cost.picture().axes) == len(one.picture().axes) == 3
    assert "HBM" in cost._repr_mimebundle_()["text/html"]
    cost.save(tmp_path)
    assert lab.load(tmp_path) == synthetic()


def test_costs_are_a_sequence_with_a_line_that_says_what_moves():
    costs = several(synthetic(), synthetic("adamw"), missing=("sgd",))
    assert len(costs) == 2
    assert costs[-1].rule == "adamw"
    assert [cost.rule for cost in costs] == ["lion", "adamw"]
    assert repr(costs) == (
        "PodCosts(mine on v5e:2x2, fsdp: HBM bytes per parameter and step: lion 20.00, "
        "adamw 20.00, unfinished: sgd not run)"
    )
    assert repr(costs[0]) == (
        "PodCost(mine on v5e:2x2, fsdp: HBM bytes per parameter and step: lion 20.00)"
    )
    assert repr(PodCosts(missing=("lion",))) == ("PodCosts(nothing yet, unfinished: lion not run)")


def on_gpus(rule="lion", **changes):
    """The same four parts on two hosts of two H100."""
    (reduce, _), *_ = synthetic().exchanges
    settings = synthetic().settings | {"topology": "h100:2x2"}
    moved = Moved(3000, 2000, 5000, kernels=159, small_kernels=11, copies=4, copied=1000)
    words = {
        "settings": settings,
        "traffic": Traffic(moved, Moved(2000, 1000, 3000), (reduce,)),
        "stored_in_tiles": 2000.0,
        "exchanges": ((reduce, Sent(1000.0, 1000.0, 4, 250.0)),),
        "links_per_chip": 1.0,
    }
    return synthetic(rule, **words | changes)


def test_records_of_a_gpu_hold_kernels_copies_and_both_kinds_of_links():
    record = on_gpus().record()
    assert (record["kernels"], record["small_kernels"], record["copies"]) == (159, 11, 4)
    assert record["copied_bytes"] == 1000
    assert (record["nvlink_per_parameter"], record["network_per_parameter"]) == (0.75, 0.25)
    assert not {"hop_bytes", "link_bytes", "link_per_parameter"} & {*record}
    assert not {"kernels", "nvlink_bytes", "network_bytes"} & {*synthetic().record()}
    assert synthetic().record()["copies"] == 0


def test_the_table_of_gpus_shows_launches_in_80_columns():
    table = several(on_gpus(max(RULES, key=len)), on_gpus("adamw")).table()
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    text = console.file.getvalue()
    for column in table.columns:
        for word in (str(column.header), *map(str, column.cells)):
            assert word in text
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    assert [column[0] for column in cells[1:]] == [
        *("0.00", "8.00", "20.00", "12.00", "1.00", "148+11", "0.75", "0.25"),
    ]
    assert [column[1] for column in cells[1:]] == [
        *("0.00", "8.00", "20.00", "", "0.00", "", "0.33", "0.17"),
    ]
    assert "split over all GPUs" in str(table.title)


def test_the_summary_of_gpus_says_what_is_assumed_of_links_once():
    assert several(on_gpus(coarse={}), on_gpus("adamw", coarse={}, exchanges=())).lines() == [
        "lion: 2 all-reduce of f32 among 4 GPUs: 1 kB sent by each GPU, 750 B by NVLink and 250 B "
        "by the network.",
        "Links are a model: NVLink's switch joins the 2 GPUs of a host, 450 GB/s from each, and "
        "between the 2 hosts a network, assumed to take 50 GB/s from each GPU. A group on several "
        "hosts reduces and gathers within each host first, then between the GPUs of one rank. "
        "Rates are of data sheets, in one direction.",
        "lion: 4 kernels do nothing but copy; they move 4.00 of the B/param through HBM.",
        "adamw: 4 kernels do nothing but copy; they move 4.00 of the B/param through HBM.",
    ]


def test_links_that_are_busy_for_longer_than_latency_are_timed():
    ((reduce, _),) = on_gpus().exchanges
    _, times, *_ = on_gpus(exchanges=((reduce, Sent(1e9, 1e9, 4, 1e8)),)).lines()
    assert times == (
        "lion: at the rates below a step occupies NVLink for 2 ms and the network for 2 ms."
    )


def test_costs_of_gpus_are_saved_and_drawn_like_others(tmp_path):
    costs = several(on_gpus(), on_gpus("adamw"))
    assert len(costs.save(tmp_path)) == 3
    assert lab.load(tmp_path) == costs
