"""The benchmark: interleaved, honest about what did not run, careful with memory."""

import csv
import json
import types

import jax
import numpy as np
import pytest

import lion_jax.lab.benchmark as module
from lion_jax.lab import RequestError, cli
from lion_jax.lab.benchmark import Benchmark, Measurement, benchmark, transformer
from lion_jax.lab.benchmark_report import picture, summary, tables
from lion_jax.lab.contenders import RULES, CompileSeconds, Contender

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


def test_who_cannot_run_is_said_with_the_reason(log):
    result = benchmark(**SMALL)
    assert result.left_out == {"lion (bitsandbytes)": "No GPU found"}
    assert "lion (bitsandbytes) did not run: No GPU found" in summary(result)


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
    settings = {"rounds": 2, "compilations": 2, "dtype": "float32"}
    return Benchmark(settings, "cpu", 100, 12, [optax, ours], np.array([0.25, 0.5]), {})


def test_ratios_are_taken_within_rounds():
    result = synthetic()
    _, ours = result.measurements
    assert result.step_ratio(ours) == (0.5, 0.5, 0.5)
    assert result.compile_ratio(ours) == ((0.25, 0.25, 0.25), (0.25, 0.25, 0.25))
    # 2000 bytes in 1 s, where 100 float32 read and written take 0.25 s.
    assert result.bandwidth_share(ours) == (0.625, 0.625, 0.625)


def test_the_summary_says_what_is_clear_and_what_is_not():
    result = synthetic()
    assert summary(result) == ["lion: lion_jax takes 0.50 of optax's time."]
    result.measurements[1].seconds[:] = [1.9, 4.1]
    (line,) = summary(result)
    assert line.endswith("of optax's time, no clear difference.")


@pytest.mark.slow
def test_tables_and_picture_have_a_row_for_each_contender(real):
    assert [table.row_count for table in tables(real)] == [len(real.measurements)] * 2
    (axes,) = picture(real).axes
    assert len(axes.patches) == len(real.measurements)


@pytest.mark.slow
def test_records_have_every_time(real):
    rows = real.records()
    steps = [row for row in rows if row["what"] == "step"]
    assert len(steps) == 2 * (len(real.measurements) + 1)
    assert len(rows) == len(steps) + 2 * len(real.measurements)


@pytest.mark.slow
@pytest.mark.parametrize("records", ["csv", "json"])
def test_the_command_writes_what_it_says(tmp_path, capsys, records):
    small = [f"--{name}={value}" for name, value in SMALL.items()]
    arguments = ["bench", *small, "--rules=lion", f"--records={records}", f"--output={tmp_path}"]
    assert cli.main(arguments) == 0
    output = capsys.readouterr().out
    assert "lion: lion_jax takes" in output
    assert {path.name for path in tmp_path.iterdir()} == {"step.png", f"records.{records}"}
    text = (tmp_path / f"records.{records}").read_text()
    rows = json.loads(text)["records"] if records == "json" else [*csv.DictReader(text.split("\n"))]
    assert len(rows) == 2 * (2 + 2) + 2


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
