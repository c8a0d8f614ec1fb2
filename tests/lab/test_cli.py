"""The command line: what it prints and writes, and that it refuses in one line without a trace."""

import csv
import json
import subprocess
import sys

import pytest

import lion_jax
from lion_jax import __main__
from lion_jax.lab import cli, files

QUICK = ["--steps", "2", "--seeds", "2", "--learning-rates", "2", "--batch-size", "8"]


def test_compare_prints_a_table_and_writes_picture_and_records(tmp_path, capsys):
    output = tmp_path / "new" / "folder"
    rules = ["--rules", "lion,sgd"]
    assert cli.main(["compare", *QUICK, *rules, "--output", str(output)]) == 0
    captured = capsys.readouterr()
    for word in ("best", "accuracy", "good lr", "B/param", "seconds", "diverged", "lion", "sgd"):
        assert word in captured.out
    assert captured.out.count("trained weights") == 1
    assert "lion: compiling" in captured.err
    assert sorted(p.name for p in output.iterdir()) == ["accuracy.png", "records.csv"]
    assert (output / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((output / "records.csv").read_text().splitlines()))
    assert len(rows) == 2 * 2 * 2
    assert {"rule", "learning_rate", "seed", "test_accuracy", "diverged"} <= set(rows[0])


@pytest.mark.slow
def test_the_command_line_compares_against_a_rule(tmp_path, capsys):
    rules = ["--rules", "lion,lion_bf16", "--against", "lion", "--records", "json"]
    assert cli.main(["compare", *QUICK, *rules, "--output", str(tmp_path)]) == 0
    assert "minus" in capsys.readouterr().out
    document = json.loads((tmp_path / "records.json").read_text())
    assert [found["compared_to"] for found in document["summary"]] == ["lion", "lion"]


@pytest.mark.slow
def test_json_records_carry_summary_settings_and_versions(tmp_path):
    arguments = ["compare", *QUICK, "--rules", "lion", "--output", str(tmp_path)]
    assert cli.main([*arguments, "--seeds", "1", "--records", "json"]) == 0
    document = json.loads((tmp_path / "records.json").read_text())
    assert document["settings"]["steps"] == 2
    assert document["versions"]["lion_jax"] == lion_jax.__version__
    assert document["summary"][0]["standard_error"] is None
    assert len(document["records"]) == 2


def test_list_names_tasks_and_rules(capsys):
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    for name in ("digits", "lion", "decoupled_lion", "lookahead_lion", "adamw", "sgd"):
        assert name in out


def test_without_a_command_it_helps(capsys):
    assert cli.main([]) == 0
    assert "compare" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--rules", "lyon"], "did you mean 'lion'? Possible: lion, "),
        (["compare", "--against", "lyon"], "unknown rule to compare against 'lyon'; did you mean"),
        (["compare", "--task", "mnist"], "unknown task 'mnist'. Possible: digits"),
        (["compare", "--steps", "0"], "must be a whole number of at least 1; got '0'"),
        (["compare", "--steps", "many"], "must be a whole number of at least 1; got 'many'"),
        (["compare", "--batch-size", "9999"], "batch_size must be from 1 to 1078"),
        (["compare", "--records", "xml"], "choose from"),
        (["compare", "--schedule", "linear"], "Possible: cosine, constant"),
        (["compare", "--rules", "sgd,sgd"], "rules must have different names; got sgd, sgd"),
        (["compare", "--steps", "9" * 12], "must be at most"),
        (["compete"], "compare"),
    ],
)
def test_bad_requests_end_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert status_of(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "folder", ["file/folder", "dangling", "blocked", "new/" + "x" * 300], ids=lambda name: name[:9]
)
def test_an_output_that_cannot_be_written_is_refused_before_any_work(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "at all")
    (tmp_path / "blocked" / "records.csv").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    assert status_of(["compare", "--output", str(tmp_path / folder)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("lion-jax: cannot write to the output folder")
    assert captured.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_failure_while_writing_leaves_earlier_files_whole(tmp_path, monkeypatch, capsys):
    (tmp_path / "accuracy.png").write_text("earlier")

    def fail(rows, path):
        path.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(files, "write_csv", fail)
    assert cli.main(["compare", *QUICK, "--rules", "lion", "--output", str(tmp_path)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "cannot write to the output folder" in last
    assert "disk full" in last
    assert [p.name for p in tmp_path.iterdir()] == ["accuracy.png"]
    assert (tmp_path / "accuracy.png").read_text() == "earlier"


def test_an_interruption_writes_nothing(tmp_path, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    def leave(status):
        raise SystemExit(status)

    monkeypatch.setattr(cli, "compare", interrupt)
    monkeypatch.setattr(__main__.os, "_exit", leave)
    monkeypatch.setattr(sys, "argv", ["lion-jax", "compare", "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match="130"):
        __main__.main()
    assert capsys.readouterr().err == "lion-jax: interrupted; nothing was written\n"
    assert list(tmp_path.iterdir()) == []


def test_the_core_imports_nothing_of_the_lab():
    code = (
        "import sys, lion_jax; print([m for m in sys.modules if m.startswith"
        "(('lion_jax.lab', 'flax', 'sklearn', 'matplotlib', 'rich'))])"
    )
    assert python(code).stdout.strip() == "[]"


def test_without_the_extra_the_command_says_what_to_install():
    code = "import sys; sys.modules['flax'] = None; from lion_jax.__main__ import main; main()"
    finished = python(code)
    assert "pip install 'lion-jax[lab]'" in finished.stderr
    assert finished.stderr.count("\n") == 1


def status_of(arguments):
    try:
        return cli.main(arguments)
    except SystemExit as exit_:
        return exit_.code


def python(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
