"""Commands that install what is missing, for the way in which lion_jax was installed."""

import importlib.metadata
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

_PROJECT = "lion-jax"


def to_install(extra: str) -> str:
    """The command that adds an extra of lion_jax to this environment.

    pip and uv record a folder, an archive or a repository that they installed from (PEP 610); what
    came from an index has no record.

    Args:
      extra: its name, such as `lab`.
    """
    source, folder = _source()
    if folder and _is_of_uv(folder):
        return _line("uv", "sync", *_at(folder), "--inexact", "--extra", extra)
    if folder:
        return _line(*_installer(), "-e", f"{folder}[{extra}]")
    return _line(*_installer(), f"{_PROJECT}[{extra}]{f' @ {source}' if source else ''}")


def to_require(*requirements: str) -> str:
    """The command that installs the versions that lion_jax requires, such as `jax>=1.0`."""
    _, folder = _source()
    if folder and _is_of_uv(folder):
        return _line("uv", "sync", *_at(folder), "--inexact")
    return _line(*_installer(), *requirements)


def to_run_with(packages: Sequence[str], *arguments: str) -> str | None:
    """The command that runs `lion-jax` once with more packages; None where uv can't lend them."""
    _, folder = _source()
    if not folder or not _is_of_uv(folder):
        return None
    lent = [word for package in packages for word in ("--with", package)]
    return _line("uv", "run", *_at(folder), *lent, _PROJECT, *arguments)


def _source() -> tuple[str | None, Path | None]:
    """The address that lion_jax was installed from, and the folder if its files stay there."""
    try:
        record = importlib.metadata.distribution(_PROJECT).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        record = None
    if record is None:
        return None, None
    found = json.loads(record)
    url, repository = found["url"], found.get("vcs_info")
    if repository:
        url = f"{repository['vcs']}+{url}@{repository['commit_id']}"
    if subfolder := found.get("subdirectory"):
        url += f"#subdirectory={subfolder}"
    is_editable = found.get("dir_info", {}).get("editable", False)
    return url, Path(url2pathname(urlsplit(url).path)) if is_editable else None


def _is_of_uv(folder: Path) -> bool:
    """Tells whether this environment is the one that `uv run` keeps in the folder."""
    own = folder / os.environ.get("UV_PROJECT_ENVIRONMENT", ".venv")
    return (folder / "uv.lock").is_file() and own.resolve() == Path(sys.prefix).resolve()


def _at(folder: Path) -> list[str]:
    """Arguments that lead uv to the folder, if it would not find it."""
    here = Path.cwd()
    return [] if folder in (here, *here.parents) else ["--project", str(folder)]


def _installer() -> list[str]:
    """The beginning of a command that installs into this environment."""
    if importlib.util.find_spec("pip") is None and shutil.which("uv"):
        is_found = os.environ.get("VIRTUAL_ENV") == sys.prefix
        return ["uv", "pip", "install", *([] if is_found else ["--python", sys.executable])]
    found = shutil.which("pip")
    if found and Path(found).parent == Path(sys.executable).parent:
        return ["pip", "install"]
    return [sys.executable, "-m", "pip", "install"]


def _line(*words: str) -> str:
    """The words as this system's shell reads them."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
