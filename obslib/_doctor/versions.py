"""Which versions are installed, and whether obslib supports them."""

import platform
import re
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Final

from obslib._doctor.report import Finding, Version
from obslib._version import __version__

_DISTRIBUTION: Final = "obslib-fastapi"
#: Shown where they are installed, though obslib has no demands on them.
_ALSO: Final = re.compile(r"opentelemetry-|(uvicorn|uvicorn-worker|gunicorn|hypercorn|granian|uvloop|httptools)$")
_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*([<>=!~][^;]*)?")
_BOUND: Final = re.compile(r"(>=|<)\s*([0-9][0-9.]*)")


def installed_versions() -> list[Version]:
    """Return Python, what obslib demands, and what serves or instruments applications beside it."""
    ranges = _supported_ranges()
    versions = [_version("python", platform.python_version(), ranges.pop("python", ""))]
    versions.append(Version(name=_DISTRIBUTION, installed=__version__))
    others = {_normal(item.metadata["Name"]): item.version for item in metadata.distributions()}
    shown = sorted(ranges.keys() | {name for name in others if _ALSO.match(name)})
    return versions + [_version(name, others.get(name, ""), ranges.get(name, "")) for name in shown]


def version_findings(versions: Iterable[Version]) -> Iterator[Finding]:
    """Say which versions are not supported, and whether obslib itself is whole."""
    for version in versions:
        if not version.is_supported:
            yield Finding(
                level="error",
                code="version_unsupported",
                what=f"{version.name} {version.installed} is not supported.",
                fix=f'Install "{version.name}{version.supported}".',
            )
    yield from installation_findings(_version_of(_DISTRIBUTION), _version_of("obslib"))


def installation_findings(ours: str, theirs: str) -> Iterator[Finding]:
    """
    Say what is wrong with obslib's own installation.

    Args:
        ours: The version of `obslib-fastapi`, or "" where it is not installed.
        theirs: The same of PyPI's `obslib`, which is another project.
    """
    if theirs:
        yield Finding(
            level="error",
            code="other_project_installed",
            what=f"The distribution obslib {theirs} is another project, whose files lie among ours.",
            fix=f"pip uninstall obslib && pip install --force-reinstall {_DISTRIBUTION}",
        )
    if ours != __version__:
        yield Finding(
            level="warning",
            code="installation_differs",
            what=f"obslib {__version__} is imported, and {ours or 'nothing'} is installed: the ranges may be others'.",
            fix=f"Install {_DISTRIBUTION} {__version__}, or take the copy out of PYTHONPATH.",
        )


def _supported_ranges() -> dict[str, str]:
    """Return what obslib's metadata demands; nothing where there is none."""
    try:
        distribution = metadata.distribution(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return {}
    ranges = {"python": str(distribution.metadata["Requires-Python"])}
    for match in filter(None, map(_REQUIREMENT.match, distribution.requires or ())):
        ranges[_normal(match[1])] = (match[2] or "").strip()
    return ranges


def _normal(name: str) -> str:
    """Return a distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _version(name: str, installed: str, supported: str) -> Version:
    return Version(
        name=name,
        installed=installed,
        supported=supported,
        is_supported=not installed or is_inside(installed, supported),
    )


def is_inside(installed: str, supported: str) -> bool:
    """Tell whether a version is inside a range such as `>=1.30,<2`; a pre-release counts as its release."""
    release = _release(installed)
    for operator, bound in _BOUND.findall(supported):
        is_below = release < _release(bound)
        if is_below is (operator == ">="):
            return False
    return True


def _release(version: str) -> list[int]:
    match = re.match(r"[0-9]+(\.[0-9]+)*", version)
    numbers = [int(part) for part in match[0].split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers


def _version_of(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
