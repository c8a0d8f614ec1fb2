"""The text of programs: types, tiles, instructions."""

import pytest

from lion_jax.lab import RequestError
from lion_jax.lab.cost import hlo
from lion_jax.lab.cost.loops import trip_count


@pytest.mark.parametrize(
    ("text", "dims", "nbytes", "padded", "in_hbm"),
    [
        ("f32[8192,4096]{1,0:T(8,128)}", (8192, 4096), 4 * 8192 * 4096, 4 * 8192 * 4096, True),
        ("f32[50257,3]{0,1:T(4,128)}", (50257, 3), 4 * 50257 * 3, 4 * 50304 * 4, True),
        ("bf16[10,100]{1,0:T(8,128)(2,1)S(1)}", (10, 100), 2000, 2 * 16 * 128, False),
        ("s4[4096,4096]{1,0:T(64,128)(8,1)E(4)}", (4096, 4096), 2**23, 2**23, True),
        ("pred[10]{0:T(512)}", (10,), 10, 512, True),
        ("pred[10]{0:T(512)E(1)}", (10,), 1.25, 64, True),
        ("f8e4m3fn[7]{0}", (7,), 7, 7, True),
        ("f32[]{:T(128)S(6)}", (), 4, 512, False),
        ("u32[3,0]{1,0:T(8,128)}", (3, 0), 0, 0, True),
        ("token[]", (), 0, 0, True),
    ],
)
def test_an_array_has_the_bytes_that_its_layout_says(text, dims, nbytes, padded, in_hbm):
    array = hlo.parse_type(text)
    assert (array.dims, array.nbytes, array.padded_bytes, array.in_hbm) == (
        dims,
        nbytes,
        padded,
        in_hbm,
    )


@pytest.mark.parametrize(
    ("layout", "on_a_tpu", "on_a_gpu"),
    [("{0}", True, True), ("{0:S(1)}", False, True), ("{0:S(5)}", False, False)],
)
def test_memory_for_collectives_is_hbm_on_a_gpu(layout, on_a_tpu, on_a_gpu):
    text = f"f32[7]{layout}"
    assert hlo.parse_type(text, "tpu").in_hbm == on_a_tpu
    assert hlo.parse_type(text, "gpu").in_hbm == on_a_gpu


def test_tuples_nest_and_number_their_elements():
    text = "((f32[2]{0}, /*index=1*/s8[3]{0}), u32[]{:S(2)}, ())"
    type_ = hlo.parse_type(text)
    assert [x.dtype for x in hlo.arrays(type_)] == ["f32", "s8", "u32"]
    assert [x.dtype for x in type_[0]] == ["f32", "s8"]
    assert type_[2] == ()


def test_what_is_no_scheduled_program_is_refused():
    with pytest.raises(RequestError, match=r"is_scheduled=true .* possible: what jax.jit"):
        hlo.parse("HloModule lowered, entry_computation_layout={()->f32[]}")


def test_attributes_name_the_computations_called():
    line = "  ROOT %c = f32[] conditional(%i, %a), branch_computations={%b.1, %b.2}, sharding={}"
    program = hlo.parse(f"HloModule m, is_scheduled=true\nENTRY %main () -> f32[] {{\n{line}\n}}\n")
    assert program.entry.root.called("branch_computations") == ["b.1", "b.2"]
    assert program.entry.root.operands == ("i", "a")


LOOP = """HloModule loop, is_scheduled=true

%body (s: (s32[], s32[], s32[])) -> (s32[], s32[], s32[]) {{
  %s = (s32[], s32[], s32[]) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %step = s32[] get-tuple-element(%s), index=1
  %other = s32[] get-tuple-element(%s), index=2
  %next = s32[] {change}(%i, %step)
  ROOT %t = (s32[], s32[], s32[]) tuple(%next, %step, %other)
}}

%compared (x: s32[], y: s32[]) -> pred[] {{
  %x = s32[] parameter(0)
  %y = s32[] parameter(1)
  ROOT %less = pred[] compare(%x, %y), direction={direction}
}}

%condition (s: (s32[], s32[], s32[])) -> pred[] {{
  %s = (s32[], s32[], s32[]) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %end = s32[] constant({end})
  ROOT %f = pred[] fusion(%i, %end), kind=kLoop, calls=%compared
}}

ENTRY %main (n: s32[]) -> s32[] {{
  %n = s32[] parameter(0)
  %first = s32[] constant({first})
  %copied = s32[] copy(%first)
  %by = s32[] {by}
  %init = (s32[], s32[], s32[]) tuple(%copied, %by, %n)
  %w = (s32[], s32[], s32[]) while(%init), condition=%condition, body=%body
  ROOT %o = s32[] get-tuple-element(%w), index=0
}}
"""


@pytest.mark.parametrize(
    ("first", "change", "by", "direction", "end", "trips"),
    [
        (0, "add", "constant(1)", "LT", 5, 5),
        (2, "add", "constant(3)", "LE", 8, 3),
        (10, "subtract", "constant(1)", "GT", 0, 10),
        (1, "multiply", "constant(2)", "NE", 64, 6),
        (7, "add", "constant(1)", "LT", 5, 0),
        (0, "add", "bitcast(%n)", "LT", 5, None),
        (0, "remainder", "constant(1)", "LT", 5, None),
    ],
)
def test_loops_run_as_often_as_their_counter_allows(first, change, by, direction, end, trips):
    text = LOOP.format(first=first, change=change, by=by, direction=direction, end=end)
    program = hlo.parse(text)
    assert trip_count(program, program.entry, program.entry.by_name["w"]) == trips


def test_a_program_that_says_how_often_a_loop_runs_is_believed():
    text = LOOP.format(first=0, change="add", by="bitcast(%n)", direction="LT", end=5).replace(
        "body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"12"}}'
    )
    program = hlo.parse(text)
    assert trip_count(program, program.entry, program.entry.by_name["w"]) == 12
