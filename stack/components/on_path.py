"""Programs that are installed already."""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from stack.components.catalogue import Component, Requirement

# Debian keeps servers where an ordinary user's PATH does not lead.
_ALSO = ("/usr/sbin", "/usr/local/sbin", "/sbin", "/opt/homebrew/bin")


def find(requirement: Requirement) -> tuple[Component | None, str]:
    """
    Look for a component on PATH.

    Returns:
        The component, or None and a sentence that says why what is there will not do ("" when nothing is there).

    """
    also = [*_ALSO, *_directories(requirement.directory_pattern)]
    paths = {
        name: _which(name, also) or _which(requirement.also_called.get(name, name), also)
        for name in requirement.executables
    }
    main = paths[requirement.executables[0]]
    if main is None:
        return None, ""
    for name, path in paths.items():
        if path is None:
            return None, f"{main} is installed, but {name}, which belongs to it, is not on PATH."
    found = {name: path for name, path in paths.items() if path is not None}
    version = requirement.parse_version(_ask(main, requirement.version_arguments))
    needed = ".".join(map(str, requirement.oldest))
    if version is None:
        return None, f"{main} does not tell its version; {needed} or newer is needed."
    written = ".".join(map(str, version))
    if version < requirement.oldest:
        return None, f"{main} is {requirement.title} {written}, which is too old; {needed} or newer is needed."
    return Component(name=requirement.name, version=written, source="PATH", executables=found), ""


def _directories(pattern: str) -> list[str]:
    """The directories that match, the newest version's first."""
    return sorted(map(str, Path("/").glob(pattern)), reverse=True) if pattern else []


def _which(name: str, also: Iterable[str]) -> str | None:
    found = shutil.which(name)
    for directory in also:
        found = found or shutil.which(name, path=directory)
    return found


def _ask(program: str, arguments: tuple[str, ...]) -> str:
    try:
        answer = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout + answer.stderr
