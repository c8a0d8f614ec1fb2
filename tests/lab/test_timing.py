"""The benchmark: interleaved, honest about what did not run, careful with memory."""

import csv
import json
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from rich.table import Table

from lion_jax import lab
from lion_jax.lab import RequestError, cli
from lion_jax.lab.timing import run as module
from lion_jax.lab.timing.contenders import Contender
from lion_jax.lab.timing.names import RULES
from lion_jax.lab.timing.report import Benchmark, CompileSeconds, Measurement
from lion_jax.lab.timing.run import benchmark, transformer

SMALL = {"size": 2000, "blocks": 1, "rounds": 2, "compilations": 1}


def fake_runner(name, log):
    """Takes steps that do nothing but leave a trace in the log."""
    compiled = CompileSeconds(1.0, 2.0) if name in ("optax", "lion_jax") else None
    return types.SimpleNamespace(
        state_bytes=8,
        scratch_bytes=None,
        step=lambda: log.append(name),
        wait=lambda: None,
        compile=lambda: compiled,
    )


@pytest.fixture
def log(monkeypatch):
    """Contenders that only say when they step; one of them cannot."""
    log = []

    def contenders(dtype):
        def fail(params):
            raise RuntimeError("No GPU found\nmore of it")

        names = ("optax", "lion_jax", "torch")
        fakes = [
            Contender("lion", n, lambda params, n=n: fake_runner(n, log), lambda params: 8)
            for n in names
        ]
        return [*fakes, Contender("lion", "bitsandbytes", fail, lambda params: 8)]

    monkeypatch.setattr(module, "contenders", contenders)
    return log


@pytest.fixture(scope="module")
def real():
    """All of optax and lion_jax, on few parameters."""
    return benchmark(**SMALL)


@pytest.mark.parametrize(("size", "blocks"), [(1e5, 1), (2e6, 3), (1e9, 12)])
def test_the_tree_has_the_size_asked(size, blocks):
    leaves = jax.tree.leaves(transformer(size, blocks, "bfloat16"))
    assert len(leaves) == 12 * blocks
    assert sum(x.size for x in leaves) == pytest.approx(size, rel=0.02)
    assert {x.dtype for x in leaves} == {np.dtype("bfloat16")}


@pytest.mark.slow
def test_every_rule_runs_as_optax_and_as_lion_jax(real):
    ran = {(m.rule, m.package) for m in real.measurements}
    assert {(rule, "optax") for rule in RULES} <= ran
    assert {(rule, "lion_jax") for rule in RULES} - ran == {("adamw", "lion_jax")}
    assert all(np.all(m.seconds > 0) and m.seconds.shape == (2,) for m in real.measurements)


@pytest.mark.slow
def test_memory_is_counted(real):
    def per_parameter(rule, package):
        m = next(m for m in real.measurements if (m.rule, m.package) == (rule, package))
        return m.state_bytes / real.parameters

    six_numbers = 4 * 6 / real.parameters  # the hyperparameters and the count
    assert per_parameter("lion", "lion_jax") == pytest.approx(4 + six_numbers)
    assert per_parameter("lion_bf16_moment", "lion_jax") == pytest.approx(2 + six_numbers)
    assert per_parameter("lookahead_lion", "lion_jax") == pytest.approx(8, rel=0.01)
    assert per_parameter("lookahead_lion", "optax") == pytest.approx(8, rel=0.01)
    assert per_parameter("adamw", "optax") == pytest.approx(8, rel=0.01)


@pytest.mark.slow
def test_contenders_take_turns_in_random_order(log):
    benchmark(**SMALL | {"rounds": 20})
    rounds = np.reshape(log, (21, 3, module.STEPS_PER_SAMPLE))  # with the warm-up
    assert all(set(turns) == {"optax", "lion_jax", "torch"} for turns in rounds[:, :, 0])
    assert np.all(rounds == rounds[:, :, :1])
    assert len({tuple(turns) for turns in rounds[:, :, 0]}) > 3


@pytest.mark.slow
def test_who_cannot_run_is_said_with_the_reason(log):
    result = benchmark(**SMALL)
    assert result.left_out == {"lion (bitsandbytes)": "No GPU found"}
    assert "lion (bitsandbytes) did not run: No GPU found" in result.lines()


@pytest.mark.slow
def test_what_is_not_compiled_has_no_compile_ratio(log):
    ratios = {
        m.package: benchmark(**SMALL).compile_ratio(m) for m in benchmark(**SMALL).measurements
    }
    assert ratios["torch"] is None
    assert ratios["lion_jax"] == ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))


def test_a_size_beyond_the_memory_is_refused_before_anything_is_allocated(log, monkeypatch):
    monkeypatch.setattr(module, "available_bytes", lambda device: 10**6)
    with pytest.raises(RequestError, match=r"1e\+06 needs .* GB free; possible: at most --size"):
        benchmark(1e6)
    assert not log


@pytest.mark.slow
def test_the_size_it_then_proposes_fits(log, monkeypatch):
    monkeypatch.setattr(module, "available_bytes", lambda device: 10**8)
    with pytest.raises(RequestError) as caught:
        benchmark(1e9, rounds=1, compilations=1)
    proposed = float(str(caught.value).split("--size ")[1].split(",")[0])
    assert proposed > 1e6
    benchmark(proposed, rounds=1, compilations=1)


def synthetic():
    """Two rounds; the second ran on a machine half as fast."""
    arguments = {"state_bytes": 400, "scratch_bytes": 0, "least_bytes": 2000}
    compiling = np.array([[1.0, 2.0], [1.0, 2.0]])
    optax = Measurement("lion", "optax", np.array([2.0, 4.0]), compiling, **arguments)
    ours = Measurement("lion", "lion_jax", np.array([1.0, 2.0]), compiling / 4, **arguments)
    return Benchmark(
        settings={"rounds": 2, "compilations": 2, "dtype": "float32", "steps_per_round": 5},
        device="cpu",
        parameters=100,
        leaves=12,
        measurements=(optax, ours),
        pass_seconds=np.array([0.25, 0.5]),
        left_out={},
    )


def test_ratios_are_taken_within_rounds():
    result = synthetic()
    _, ours = result.measurements
    assert result.step_ratio(ours) == (0.5, 0.5, 0.5)
    assert result.compile_ratio(ours) == ((0.25, 0.25, 0.25), (0.25, 0.25, 0.25))
    # 2000 bytes in 1 s, where 100 float32 read and written take 0.25 s.
    assert result.bandwidth_share(ours) == (0.625, 0.625, 0.625)


@pytest.mark.parametrize(
    ("seconds", "line"),
    [
        ([1.0, 2.0], "lion: lion_jax takes 1500 ms, optax 3000 ms: 2 times as fast."),
        ([1.9, 4.1], "lion: lion_jax takes 3000 ms, optax 3000 ms: no clear difference."),
        ([2.4, 4.8], "lion: lion_jax takes 3600 ms, optax 3000 ms: 1.2 times as long."),
        ([4e-3, 8e-3], "lion: lion_jax takes 6 ms, optax 3000 ms: 500 times as fast."),
    ],
)
def test_the_lines_say_what_is_clear_and_what_is_not(seconds, line):
    result = synthetic()
    result.measurements[1].seconds[:] = seconds
    assert result.lines() == [line]


def test_bars_are_milliseconds_so_that_rules_compare_too():
    result = synthetic()
    (axes,) = result.picture().axes
    assert [bar.get_width() for bar in axes.patches] == [3000.0, 1500.0]
    assert [text.get_text() for text in axes.texts] == ["3000 ms", "1500 ms, 2 times as fast"]
    ticks = [label.get_text() for label in axes.get_yticklabels()]
    assert ticks == ["lion  (optax)", "lion  (lion_jax)"]


def test_a_benchmark_says_who_is_the_fastest():
    assert repr(synthetic()) == (
        "Benchmark(100 float32 parameters in 12 arrays: of 2 optimizers lion of lion_jax is the "
        "fastest, 1500 ms)"
    )


@pytest.mark.slow
def test_what_was_saved_is_loaded(log, tmp_path):
    saved = benchmark(**SMALL)
    saved.save(tmp_path)
    loaded = lab.load(tmp_path)
    assert isinstance(loaded, Benchmark)
    assert loaded.records() == saved.records()
    assert loaded.summary() == saved.summary()
    assert loaded.lines() == saved.lines()
    assert loaded.settings == saved.settings
    assert loaded.measurements[2].compile_seconds is None  # of torch
    assert loaded.measurements[0].compile_seconds.tolist() == [[1.0, 2.0]]


@pytest.mark.slow
def test_progress_names_the_stages(log):
    told = []
    benchmark(**SMALL, on_progress=told.append)
    assert list(dict.fromkeys(p.stage for p in told)) == ["starting", "compiling", "stepping"]
    assert [(p.done, p.total) for p in told if p.stage == "stepping"] == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.slow
def test_tables_and_picture_have_a_row_for_each_contender(real):
    tables = [table for table in real.table().renderables if isinstance(table, Table)]
    assert [table.row_count for table in tables] == [len(real.measurements)] * 2
    (axes,) = real.picture().axes
    assert len(axes.patches) == len(real.measurements)


@pytest.mark.slow
def test_records_have_every_time(real):
    rows = real.records()
    steps = [row for row in rows if row["what"] == "step"]
    assert len(steps) == 2 * (len(real.measurements) + 1)
    assert len(rows) == len(steps) + 2 * len(real.measurements)


@pytest.mark.slow
def test_the_command_writes_what_it_says(tmp_path, capsys):
    small = [f"--{name}={value}" for name, value in SMALL.items()]
    assert cli.main(["bench", *small, "--rules=lion", f"--output={tmp_path}"]) == 0
    captured = capsys.readouterr()
    assert "lion: lion_jax takes" in captured.out
    assert "stepping (3 of 3): 2 of 2" in captured.err
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"picture.png", "records.csv", "result.json"}
    rows = [*csv.DictReader((tmp_path / "records.csv").read_text().split("\n"))]
    assert len(rows) == 2 * (2 + 2) + 2
    (theirs, ours) = json.loads((tmp_path / "result.json").read_text())["summary"]
    assert (theirs["package"], ours["package"]) == ("optax", "lion_jax")
    assert theirs["step_ratio"] == {"low": 1, "median": 1, "high": 1}


def test_the_arguments_load_neither_jax_nor_what_draws():
    code = (
        "import sys, lion_jax.lab.timing.command;"
        "assert not {'jax', 'matplotlib', 'rich'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size=100P"], r"must be a number of parameters, such as 5e6, 124M or 1B; got '100P'"),
        (["--size=-5"], "must be a number of parameters"),
        (["--size=nan"], "must be a number of parameters"),
        (["--size=1e12B"], "GB free; possible: at most --size"),
        (["--size=100"], "size must be at least 144 parameters for 12 blocks; got 100.0"),
        (["--blocks=0"], "must be a whole number of at least 1; got '0'"),
        (["--rounds=1.5"], "must be a whole number of at least 1; got '1.5'"),
        (["--rules=lamb"], "unknown rule 'lamb'. Possible: lion, "),
        (["--rules=,"], "rules must name at least one of lion, "),
        (["--dtype=int8"], "unknown dtype 'int8'. Possible: float32, bfloat16"),
    ],
)
def test_impossible_requests_are_refused_in_one_line(tmp_path, capsys, arguments, message):
    folder = tmp_path / "new"
    try:
        status = cli.main(["bench", *arguments, f"--output={folder}"])
    except SystemExit as end:
        status = end.code
    assert status == 2
    *progress, line = capsys.readouterr().err.splitlines()
    assert message in line
    assert not progress
    assert not folder.exists()


@pytest.mark.slow
def test_the_compilation_cache_is_as_it_was(log):
    before = jax.config.jax_enable_compilation_cache
    benchmark(**SMALL)
    assert jax.config.jax_enable_compilation_cache == before
