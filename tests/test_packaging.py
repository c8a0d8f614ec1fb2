"""Installation: commands that fit how lion_jax was installed, versions, and what tests need."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import needed
import pytest

from lion_jax import __main__, _installation
from lion_jax._installation import to_install, to_require, to_run_with
from lion_jax._versions import UnsupportedVersionError, check_versions
from lion_jax.lab import RequestError
from lion_jax.lab.cost.topology import describe

ROOT = Path(__file__).parent.parent
COMMIT = "0" * 40


@pytest.fixture
def installed(monkeypatch):
    """Pretends that lion_jax was installed from somewhere, by pip or by uv."""

    def pretend(record, by="pip", prefix="/env"):
        text = record and json.dumps(record)
        distribution = types.SimpleNamespace(read_text=lambda name: text)
        monkeypatch.setattr(importlib.metadata, "distribution", lambda name: distribution)
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name: (by == "pip" or None) if name == "pip" else find(name),
        )
        monkeypatch.setattr(shutil, "which", {by: f"/env/bin/{by}"}.get)
        monkeypatch.setattr(sys, "executable", "/env/bin/python")
        monkeypatch.setattr(sys, "prefix", str(prefix))
        monkeypatch.setenv("VIRTUAL_ENV", str(prefix))
        monkeypatch.delenv("UV_PROJECT_ENVIRONMENT", raising=False)

    return pretend


def folder(path, editable):
    return {"url": Path(path).as_uri(), "dir_info": {"editable": editable}}


posix = pytest.mark.skipif(os.name == "nt", reason="quotes as POSIX shells read them")


@posix
@pytest.mark.parametrize(
    ("record", "command"),
    [
        (None, "install 'lion-jax[lab]'"),
        (folder("/my clone", True), "install -e '/my clone[lab]'"),
        (folder("/my clone", False), "install 'lion-jax[lab] @ file:///my%20clone'"),
        (
            {"url": "file:///lion_jax-1.0-py3-none-any.whl", "archive_info": {}},
            "install 'lion-jax[lab] @ file:///lion_jax-1.0-py3-none-any.whl'",
        ),
        (
            {"url": "https://a.org/l.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}},
            f"install 'lion-jax[lab] @ git+https://a.org/l.git@{COMMIT}'",
        ),
        (
            {"url": "https://a.org/all.zip", "archive_info": {}, "subdirectory": "lion"},
            "install 'lion-jax[lab] @ https://a.org/all.zip#subdirectory=lion'",
        ),
    ],
    ids=["index", "editable folder", "folder", "wheel", "repository", "archive"],
)
def test_an_extra_is_added_from_where_the_library_came_from(record, command, installed):
    installed(record)
    assert to_install("lab") == f"pip {command}"
    installed(record, by="uv")
    assert to_install("lab") == f"uv pip {command}"


@posix
def test_the_command_installs_into_this_environment(installed, monkeypatch):
    installed(None)
    monkeypatch.setattr(shutil, "which", lambda name: f"/other/bin/{name}")
    assert to_install("lab") == "/env/bin/python -m pip install 'lion-jax[lab]'"
    installed(None, by="uv")
    monkeypatch.delenv("VIRTUAL_ENV")
    assert to_install("lab") == "uv pip install --python /env/bin/python 'lion-jax[lab]'"


@posix
def test_a_clone_of_uv_is_synchronized(installed, tmp_path, monkeypatch):
    (tmp_path / "uv.lock").touch()
    installed(folder(tmp_path, True), by="uv", prefix=tmp_path / ".venv")
    monkeypatch.chdir(tmp_path)
    assert to_install("tasks") == "uv sync --inexact --extra tasks"
    assert to_require("jax>=0.7") == "uv sync --inexact"
    assert to_run_with(["libtpu"], "cost") == "uv run --with libtpu lion-jax cost"
    monkeypatch.chdir("/")
    assert to_install("tasks") == f"uv sync --project {tmp_path} --inexact --extra tasks"
    installed(folder(tmp_path, True), prefix="/env")  # the clone, in another environment
    assert to_install("tasks") == f"pip install -e '{tmp_path}[tasks]'"
    assert to_run_with(["libtpu"], "cost") is None


def test_windows_quotes_with_double_quotes(installed, monkeypatch):
    installed({"url": "file:///C:/l.whl", "archive_info": {}})
    monkeypatch.setattr(_installation.os, "name", "nt")
    monkeypatch.setattr(_installation, "_installer", lambda: ["pip", "install"])
    assert to_install("lab") == 'pip install "lion-jax[lab] @ file:///C:/l.whl"'


def test_hints_have_one_home():
    found = {
        path.name
        for path in (ROOT / "lion_jax").rglob("*.py")
        if re.search(r"pip install|uv sync|uv run", path.read_text("utf-8"))
    }
    assert found <= {"_installation.py"}


@pytest.fixture
def versions(monkeypatch):
    """Pretends that other versions are installed."""

    def pretend(**versions):
        requires = {
            "lion-jax": ["jax>=0.7", "jaxlib>=0.7", "optax!=0.2.7,>=0.2.5", 'jax>=9; extra == "x"'],
            "jax": [f"jaxlib<={versions['jax']},>=0.8", "numpy>=2"] if "jax" in versions else [],
        }

        def version(name):
            if name in versions:
                return versions[name]
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, "version", version)
        monkeypatch.setattr(importlib.metadata, "requires", requires.get)

    return pretend


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            {"jax": "0.6.2", "jaxlib": "0.6.2"},
            r"lion_jax needs jax>=0\.7, but jax 0\.6\.2 is installed",
        ),
        (
            {"jax": "0.10.2", "jaxlib": "0.11.0"},
            r"jax needs jaxlib<=0\.10\.2,>=0\.8, but jaxlib 0\.11\.0",
        ),
        ({"jax": "0.10.2", "jaxlib": "0.7.9"}, r"jax needs jaxlib<=0\.10\.2,>=0\.8, but jaxlib"),
        ({"jax": "0.10.2"}, r"lion_jax needs jaxlib>=0\.7, but jaxlib is missing"),
        ({"jax": "0.8", "jaxlib": "0.8", "optax": "0.2.4"}, r"needs optax.*but optax 0\.2\.4"),
        ({"jax": "0.8", "jaxlib": "0.8", "optax": "0.2.7"}, r"needs optax.*but optax 0\.2\.7"),
    ],
)
def test_versions_that_do_not_fit_are_named_in_one_line(found, said, versions, monkeypatch, capsys):
    versions(**{"optax": "0.2.8"} | found)
    with pytest.raises(UnsupportedVersionError, match=rf"{said}.*; try: \S+ ") as error:
        check_versions()
    monkeypatch.setattr(sys, "argv", ["lion-jax", "list"])
    assert __main__.main() == 2
    assert capsys.readouterr().err == f"lion-jax: {error.value}\n"


def test_all_requirements_that_are_not_met_are_in_the_command(versions, monkeypatch):
    monkeypatch.setattr(_installation, "_source", lambda: (None, None))
    versions(jax="0.6.2", jaxlib="0.6.2", optax="0.2.8")
    with pytest.raises(UnsupportedVersionError, match=r"'jax>=0\.7' 'jaxlib>=0\.7'"):
        check_versions()


@pytest.mark.parametrize(
    ("jax", "jaxlib"),
    [("0.8", "0.8.0"), ("0.8.1rc1", "0.8.1rc1"), ("0.10.3.dev20260101", "0.10.2"), ("1", "1.0")],
)
def test_versions_that_fit_pass(jax, jaxlib, versions):
    versions(jax=jax, jaxlib=jaxlib, optax="0.2.8")
    check_versions()


def test_what_is_installed_fits():
    check_versions()


@pytest.mark.parametrize("name", ["v5e:2x2", "h100"])
def test_a_compiler_is_not_offered_where_none_is_made(name, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "libtpu" else find(name)
    )
    monkeypatch.setattr(sys.modules[describe.__module__], "_version", lambda package: None)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    with pytest.raises(RequestError) as refusal:
        describe(name)
    assert "is made for Linux on x86_64, and this is Darwin on arm64" in str(refusal.value)
    assert "try:" not in str(refusal.value)


@pytest.fixture
def without_hypothesis(monkeypatch):
    """The environment as `uv run` makes it; the commands that the hook runs, with their status."""
    others = [d for d in importlib.metadata.distributions() if d.name != "hypothesis"]
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: others)
    monkeypatch.setenv("UV", "/bin/uv")
    monkeypatch.delenv(needed.BEGUN_AGAIN, raising=False)
    ran, statuses = [], [0, 3]

    def run(command, **options):
        ran.append((command, options))
        return types.SimpleNamespace(returncode=statuses[len(ran) - 1])

    monkeypatch.setattr(subprocess, "run", run)
    return ran, statuses


ARGUMENTS = types.SimpleNamespace(
    invocation_params=types.SimpleNamespace(args=("-k", "name", "-n", "0"), dir=Path("tests"))
)


def test_what_only_tests_need_is_installed_and_pytest_begins_again(without_hypothesis, capsys):
    ran, _ = without_hypothesis
    assert needed.begin_again(ARGUMENTS) == 3
    (install, at), (again, options) = ran
    assert install == ["/bin/uv", "sync", "--inexact", "--group", "test"]
    assert at["cwd"] == ROOT
    assert again == [sys.executable, "-m", "pytest", "-k", "name", "-n", "0"]
    assert options["cwd"] == Path("tests")
    assert needed.BEGUN_AGAIN in options["env"]
    said = capsys.readouterr().err
    assert said.startswith("the tests need hypothesis; installing: uv sync")
    assert said.count("\n") == 1


def test_an_installation_that_fails_is_the_status(without_hypothesis):
    ran, statuses = without_hypothesis
    statuses[0] = 1
    assert needed.begin_again(ARGUMENTS) == 1
    assert len(ran) == 1


@pytest.mark.parametrize("variables", [{"UV": None}, {needed.BEGUN_AGAIN: "1"}])
def test_without_uv_or_a_second_time_it_says_what_to_run(
    variables, without_hypothesis, monkeypatch, tmp_path
):
    for name, value in variables.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(pytest.UsageError, match=r"need hypothesis\. Try: pip install uv && uv run"):
        needed.begin_again(ARGUMENTS)
    assert without_hypothesis[0] == []


def test_nothing_is_missing_here():
    assert needed.missing_packages() == []
    assert needed.begin_again(ARGUMENTS) is None
