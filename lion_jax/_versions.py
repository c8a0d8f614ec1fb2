"""The versions of jax, jaxlib and optax that lion_jax works with."""

import importlib.metadata
import operator
import re
from collections.abc import Iterator

_NEEDED = ("jax", "jaxlib", "optax")
_COMPARE = {">=": operator.ge, "<=": operator.le, "==": operator.eq, "!=": operator.ne}


class UnsupportedVersionError(ImportError):
    """A needed package that is missing, or of a version that does not fit; says what to install."""


def check_versions() -> None:
    """Refuses packages older than lion_jax requires, and a jaxlib that does not fit jax.

    Raises:
      UnsupportedVersionError: there is such a package.
    """
    unmet = [
        (project, name, requirement, _installed(name))
        for project in ("lion-jax", "jax")
        for name, requirement in _requirements(project)
        if not _is_met(requirement, _installed(name))
    ]
    if unmet:
        from lion_jax._installation import to_require

        project, name, requirement, installed = unmet[0]
        found = f"{name} {installed} is installed" if installed else f"{name} is missing"
        command = to_require(*dict.fromkeys(requirement for _, _, requirement, _ in unmet))
        whose = "lion_jax" if project == "lion-jax" else project
        raise UnsupportedVersionError(f"{whose} needs {requirement}, but {found}; try: {command}")


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requirements(project: str) -> Iterator[tuple[str, str]]:
    """The requirements of a project on the needed packages: their names, and the whole texts."""
    try:
        found = importlib.metadata.requires(project) or ()
    except importlib.metadata.PackageNotFoundError:
        return
    for requirement in found:
        name = re.match(r"[\w.-]*", requirement)
        if ";" not in requirement and name and name[0] in _NEEDED:
            yield name[0], requirement


def _is_met(requirement: str, installed: str | None) -> bool:
    clauses = re.findall(r"(>=|<=|==|!=)\s*([\d.]+)", requirement)
    return installed is not None and all(
        _COMPARE[sign](_numbers(installed), _numbers(version)) for sign, version in clauses
    )


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version, as numbers: 0.10.0rc1 is 0.10."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(number) for number in found[0].split(".")] if found else []
    while numbers and numbers[-1] == 0:
        del numbers[-1]
    return tuple(numbers)
