"""The command line: what it prints and writes, and that it refuses in one line without a trace."""

import csv
import json
import os
import subprocess
import sys

import pytest
from lab.made_up import comparison_of, result
from rich.console import Console, Group

import lion_jax
from lion_jax import __main__, lab
from lion_jax._installation import to_install
from lion_jax.lab import cli, files, screen
from lion_jax.lab.comparing import run as comparing

QUICK = ["--steps", "2", "--seeds", "2", "--learning-rates", "2", "--batch-size", "8"]
FILES = ["picture.png", "records.csv", "result.json"]
MINE = """
import jax.numpy as jnp, numpy as np, optax
from lion_jax import lab

x = np.arange(60, dtype=np.float32).reshape(20, 3) / 60
def loss(w, batch, key):
    return jnp.mean((batch @ w) ** 2)
task = lab.Task(lambda key: jnp.ones(3), loss, *lab.split(x))
rule = lab.Rule("mine", optax.sgd, (1e-3, 1e-1))
number = 3
"""


def written(folder):
    """The names of the files in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_compare_prints_a_table_and_writes_picture_records_and_result(tmp_path, instant, capsys):
    output = tmp_path / "new" / "folder"
    rules = ["--rules", "lion,sgd"]
    assert cli.main(["compare", *QUICK, *rules, "--output", str(output)]) == 0
    assert instant == ["lion", "sgd"]
    captured = capsys.readouterr()
    for word in ("best", "accuracy", "good lr", "B/param", "seconds", "diverged", "lion", "sgd"):
        assert word in captured.out
    assert captured.out.count("trained weights") == 1
    assert "lion (1 of 2): started" in captured.err
    assert captured.err.splitlines()[-1] == "sgd (2 of 2): 2 of 2"
    assert captured.out.splitlines()[-1] == "Written: " + ", ".join(str(output / n) for n in FILES)
    assert written(output) == FILES
    assert (output / "picture.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((output / "records.csv").read_text().splitlines()))
    assert len(rows) == 2 * 2 * 2
    assert {"rule", "learning_rate", "seed", "test_accuracy", "diverged"} <= set(rows[0])
    assert [found.rule for found in lab.load(output).results] == ["lion", "sgd"]


@pytest.mark.slow
def test_the_command_line_compares_against_a_rule(tmp_path, instant, capsys):
    rules = ["--rules", "lion,lion_bf16", "--against", "lion"]
    assert cli.main(["compare", *QUICK, *rules, "--output", str(tmp_path)]) == 0
    assert instant == ["lion", "lion_bf16"]
    assert "minus" in capsys.readouterr().out
    document = json.loads((tmp_path / "result.json").read_text())
    assert [found["compared_to"] for found in document["summary"]] == ["lion", "lion"]


@pytest.mark.slow
def test_the_json_carries_summary_settings_and_versions(tmp_path, instant):
    arguments = ["compare", *QUICK, "--rules", "lion", "--output", str(tmp_path)]
    assert cli.main([*arguments, "--seeds", "1"]) == 0
    assert instant == ["lion"]
    document = json.loads((tmp_path / "result.json").read_text())
    assert document["settings"]["steps"] == 2
    assert document["provenance"]["versions"]["lion_jax"] == lion_jax.__version__
    assert document["summary"][0]["standard_error"] is None
    assert len((tmp_path / "records.csv").read_text().splitlines()) == 1 + 2


@pytest.mark.slow
def test_a_task_and_a_rule_of_one_s_own_come_from_a_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    asked = ["--task", "mine.py:task", "--rules", "lion,mine.py:rule", "--output", "out"]
    assert cli.main(["compare", *QUICK, *asked]) == 0
    out = capsys.readouterr().out
    assert "test loss" in " ".join(out.split())
    found = lab.load("out")
    assert found.task["name"] == "task"
    assert [found.rule for found in found.results] == ["lion", "mine"]
    assert found.settings["batch_size"] == 8


@pytest.mark.slow
def test_the_picture_is_of_the_format_asked_for(tmp_path, instant):
    arguments = ["compare", *QUICK, "--rules", "lion", "--output", str(tmp_path)]
    assert cli.main([*arguments, "--picture", "svg"]) == 0
    assert instant == ["lion"]
    assert written(tmp_path) == ["picture.svg", "records.csv", "result.json"]


@pytest.mark.slow
def test_resume_takes_what_is_finished(tmp_path, instant, capsys):
    arguments = ["compare", *QUICK, "--output", str(tmp_path), "--rules"]
    assert cli.main([*arguments, "lion"]) == 0
    assert cli.main([*arguments, "lion,sgd", "--resume"]) == 0
    assert instant == ["lion", "sgd"]
    assert "replaced" not in capsys.readouterr().err


@pytest.mark.slow
def test_what_will_be_replaced_is_said(tmp_path, instant, capsys):
    arguments = ["compare", *QUICK, "--output", str(tmp_path), "--rules", "lion"]
    cli.main(arguments)
    capsys.readouterr()
    cli.main(arguments)
    assert instant == ["lion", "lion"]
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith(f"lion-jax: {tmp_path} holds a result of ")
    assert first.endswith("UTC (from Python), which will be replaced")
    (tmp_path / "result.json").write_text("[")
    cli.main(arguments)
    first = capsys.readouterr().err.splitlines()[0]
    assert first == f"lion-jax: {tmp_path} holds a result.json, which will be replaced"


@pytest.mark.slow
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
        (["--rules", "lyon"], "did you mean 'lion'? Possible: lion, "),
        (["--rules", ""], "rules must name at least one; got none"),
        (["--rules", "lion(0.9)"], "cannot read the rule 'lion(0.9)'"),
        (["--rules", "lion(b9=0.9)"], "b9"),
        (["--rules", "mine.py:task"], "mine.py:task must be a lab.Rule; got "),
        (["--rules", "mine.py:none"], "mine.py has no 'none'; it has task, rule"),
        (["--rules", "none.py:rule"], "there is no file none.py"),
        (["--against", "lyon"], "unknown rule to compare against 'lyon'; did you mean"),
        (["--task", "cifar"], "unknown task 'cifar'. Possible: digits"),
        (["--task", "mine.py:rule"], "mine.py:rule must be a lab.Task; got "),
        (["--task", "mine.py:number"], "mine.py:number must be a lab.Task; got 3 of type int"),
        (["--task", "none.py:task"], "there is no file none.py"),
        (["--steps", "0"], "must be a whole number of at least 1; got '0'"),
        (["--steps", "many"], "must be a whole number of at least 1; got 'many'"),
        (["--seeds", "-1"], "must be a whole number of at least 1; got '-1'"),
        (["--learning-rates", "2.5"], "must be a whole number of at least 1; got '2.5'"),
        (["--batch-size", "9999"], "batch_size must be from 1 to 1078"),
        (["--batch-size", "0"], "must be a whole number of at least 1; got '0'"),
        (["--picture", "gif"], "choose from"),
        (["--records", "json"], "unrecognized arguments: --records json"),
        (["--schedule", "linear"], "Possible: cosine, constant"),
        (["--rules", "sgd,sgd"], "rules must have different names; got sgd, sgd"),
        (["--steps", "9" * 12], "must be from 1 to 2147483647, the largest of 32 bits"),
        (["--rules", "lion_vote_32", "--batch-size", "48"], "must be a multiple of 32"),
    ],
)
def test_bad_requests_end_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert status_of(["compare", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert written(tmp_path) == ["mine.py"]


def test_an_unknown_command_is_refused_in_one_line(capsys):
    assert status_of(["compete"]) == 2
    captured = capsys.readouterr()
    assert "compare" in captured.err
    assert captured.err.count("\n") == 1


def test_what_cannot_be_resumed_is_refused_and_left(tmp_path, capsys):
    (tmp_path / "result.json").write_text("{")
    arguments = ["compare", "--resume", "--output", str(tmp_path)]
    assert status_of(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"lion-jax: cannot read {tmp_path}/result.json (")
    assert captured.err.count("\n") == 1
    assert (tmp_path / "result.json").read_text() == "{"


@pytest.mark.parametrize(
    "folder",
    ["file/folder", "dangling", "blocked", "drawn", "kept", "new/" + "x" * 300],
    ids=lambda name: name[:9],
)
def test_an_output_that_cannot_be_written_is_refused_before_any_work(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "at all")
    (tmp_path / "blocked" / "records.csv").mkdir(parents=True)
    (tmp_path / "drawn" / "picture.png").mkdir(parents=True)
    (tmp_path / "kept" / "result.json").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    assert status_of(["compare", "--output", str(tmp_path / folder)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("lion-jax: cannot write to the output folder")
    assert captured.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failure_while_writing_leaves_earlier_files_whole(tmp_path, monkeypatch, capsys, instant):
    (tmp_path / "picture.png").write_text("earlier")

    def fail(rows, path):
        path.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(files, "write_csv", fail)
    assert cli.main(["compare", *QUICK, "--rules", "lion", "--output", str(tmp_path)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "cannot write to the output folder" in last
    assert "disk full" in last
    assert written(tmp_path) == ["picture.png"]
    assert (tmp_path / "picture.png").read_text() == "earlier"
    del instant


@pytest.fixture
def command(monkeypatch):
    """Runs the command as a process does, and gives its exit status."""

    def leave(status):
        raise SystemExit(status)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lion-jax", *arguments])
        with pytest.raises(SystemExit) as exit_:
            sys.exit(__main__.main())
        return exit_.value.code

    monkeypatch.setattr(__main__.os, "_exit", leave)
    return run


def interrupt_after(monkeypatch, rules):
    """Lets Ctrl-C come while the next rule runs."""
    train = comparing.train

    def interrupted(*arguments, **settings):
        nonlocal rules
        if rules == 0:
            raise KeyboardInterrupt
        rules -= 1
        return train(*arguments, **settings)

    monkeypatch.setattr(comparing, "train", interrupted)


def test_an_interruption_before_anything_is_finished_leaves_a_folder_to_read(
    tmp_path, monkeypatch, capsys, command
):
    interrupt_after(monkeypatch, 0)
    assert command("compare", "--output", str(tmp_path)) == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith("lion-jax: interrupted; nothing ")
    assert lab.load(tmp_path).missing == ("lion", "lookahead_lion", "adamw", "sgd")


@pytest.mark.slow
def test_an_interruption_before_anything_is_finished_leaves_an_earlier_result(
    tmp_path, monkeypatch, capsys, command, instant
):
    """Whoever reads that it will be replaced may think again."""
    output = ["--output", str(tmp_path)]
    cli.main(["compare", *QUICK, "--rules", "sgd", *output])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    interrupt_after(monkeypatch, 0)
    assert command("compare", *QUICK, "--rules", "lion", *output) == 130
    assert "which will be replaced" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert instant == ["sgd"]


@pytest.mark.slow
def test_an_interruption_keeps_what_is_finished(tmp_path, monkeypatch, capsys, command, instant):
    interrupt_after(monkeypatch, 1)
    rules = ["--rules", "lion,sgd,adamw"]
    assert command("compare", *QUICK, *rules, "--output", str(tmp_path)) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"lion-jax: interrupted; what was finished is in {tmp_path}, without sgd, adamw"
        ". To go on, give the same command with --resume"
    )
    assert instant == ["lion"]
    left = lab.load(tmp_path)
    assert [found.rule for found in left.results] == ["lion"]
    assert left.missing == ("sgd", "adamw")
    assert written(tmp_path) == FILES


@pytest.mark.slow
def test_an_interruption_while_the_result_is_shown_says_that_it_is_written(
    tmp_path, monkeypatch, capsys, command, instant
):
    def interrupt(*shown):
        raise KeyboardInterrupt

    monkeypatch.setattr(screen, "show", interrupt)
    assert command("compare", *QUICK, "--rules", "lion", "--output", str(tmp_path)) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("lion-jax: interrupted")
    assert "nothing" not in said
    assert written(tmp_path) == FILES
    assert instant == ["lion"]


HEAVY = ("jax", "numpy", "scipy", "optax", "flax", "sklearn", "matplotlib", "rich", "cattrs")


@pytest.mark.slow
def test_the_core_imports_nothing_of_the_lab():
    """Its name is public, and loads what is in it when asked."""
    code = (
        "import sys, lion_jax; lion_jax.lion; print([m for m in sys.modules if m.startswith"
        "(('lion_jax.lab.', 'flax', 'sklearn', 'matplotlib', 'rich'))])"
    )
    assert python(code).stdout.strip() == "[]"


@pytest.mark.sampled
@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], [], ["compare", "--help"], ["compare", "--steps", "0"]]
)
def test_help_version_and_mistakes_wait_for_no_heavy_package(arguments):
    code = (
        "import sys\nfrom lion_jax.__main__ import main\n"
        f"sys.argv = ['lion-jax', *{arguments}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert python(code).stdout.splitlines()[-1] == "[]"


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("rich", ["compare"]),
        *(
            pytest.param(package, ["compare"], marks=pytest.mark.slow)
            for package in ("matplotlib", "cattrs", "sklearn")
        ),
        ("shtab", ["--completion", "bash"]),
    ],
)
def test_without_the_extra_the_command_says_what_to_install(
    package, arguments, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code = (
        f"import sys; sys.modules[{package!r}] = None; from lion_jax.__main__ import main; "
        f"sys.argv = ['lion-jax', *{arguments}]; sys.exit(main())"
    )
    finished = python(code)
    assert f"lion-jax: {package}" in finished.stderr
    assert f"try: {to_install('lab')}\n" in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert finished.returncode == 2
    assert written(tmp_path) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_shell_completes_commands_and_options(shell, capsys):
    assert cli.main(["--completion", shell]) == 0
    out = capsys.readouterr().out
    for word in ("compare", "learning-rates", "resume"):
        assert word in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["--completion", "bash"],
        pytest.param(["list"], marks=pytest.mark.slow),
        pytest.param(["list", "--plain"], marks=pytest.mark.slow),
        pytest.param(["compare", *QUICK, "--rules", "sgd"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_whoever_has_seen_enough_may_close_the_pipe(arguments, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    finished = subprocess.run(
        [sys.executable, "-m", "lion_jax", *arguments],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        timeout=120,
        check=False,
    )
    os.close(writing)
    assert finished.returncode == 0
    assert "Traceback" not in finished.stderr
    assert "Broken" not in finished.stderr


def long_comparison(task):
    """A comparison whose table is 80 characters wide, with two more arguments tuned."""
    figures = [[0.9, 0.8]] * 3
    return comparison_of(task, *(result(figures, figures, name=name) for name in ("lion", "b")))


@pytest.mark.parametrize("width", [200, 60, 40, 20])
def test_a_narrow_terminal_has_no_last_columns_and_is_told_which(width, task):
    table = long_comparison(task).table()
    names = [" ".join(str(column.header).split()) for column in table.columns]
    console = Console(width=width)
    fitted, left_out = screen.fit(table, console)
    kept = len(names) - len(left_out)
    assert names[kept:] == left_out
    assert kept >= 2
    with console.capture() as capture:
        console.print(fitted)
    assert "…" not in capture.get()
    assert (left_out == []) == (width == 200)
    for other in (60, 40, 20):
        _, more = screen.fit(long_comparison(task).table(), Console(width=other - 10))
        assert len(more) >= len(screen.fit(long_comparison(task).table(), Console(width=other))[1])


def test_tables_of_a_group_are_each_made_to_fit(task):
    table = long_comparison(task).table
    _, left_out = screen.fit(Group(table(), table()), Console(width=40))
    _, of_one = screen.fit(table(), Console(width=40))
    assert left_out == [*of_one, *of_one] != []


def test_what_a_narrow_terminal_leaves_out_is_said(task, monkeypatch, capsys):
    monkeypatch.setattr(screen, "console", lambda: Console(width=50))
    long_comparison(task).show()
    out = " ".join(capsys.readouterr().out.split())
    assert "The screen is too narrow for: " in out
    assert "seconds. See result.json." in out


def status_of(arguments):
    try:
        return cli.main(arguments)
    except SystemExit as exit_:
        return exit_.code


def python(code, **options):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )
