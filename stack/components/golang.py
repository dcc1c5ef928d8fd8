"""Programs built by the Go toolchain at pinned versions; the Go sum database vouches for every module's content."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from stack.components.catalogue import Component, GoModule, Requirement, Version
from stack.errors import ComponentMissingError

# From 1.21 on Go fetches the newer toolchain a module asks for by itself.
OLDEST_GO: Version = (1, 21)
_TIMEOUT_SECONDS = 3600


def usable_go() -> tuple[str | None, str]:
    """The Go command, or None and a sentence that says what is wrong."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        return None, "Go is not installed"
    answer = subprocess.run([go, "version"], capture_output=True, text=True, check=False)
    match = re.search(r"go(\d+)\.(\d+)", answer.stdout)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    if version < OLDEST_GO:
        return None, f"{go} is Go {version[0]}.{version[1]}; {OLDEST_GO[0]}.{OLDEST_GO[1]} or newer is needed"
    return go, ""


def install(requirement: Requirement, module: GoModule, go: str, prefix: Path) -> Component:
    """
    Build a component into `prefix/bin`.

    Raises:
        ComponentMissingError: the module cannot be downloaded or does not build.

    """
    binaries = prefix / "bin"
    binaries.mkdir(parents=True)
    flags = ["-trimpath", *(["-tags", module.tags] if module.tags else [])]
    if module.has_replacements:
        source = _download(go, module)
        for package, name in zip(module.packages, requirement.executables, strict=True):
            _run([go, "build", "-C", str(source / package), *flags, "-o", str(binaries / name)], module)
    else:
        paths = [f"{module.module}/{package}@{module.version}" for package in module.packages]
        _run([go, "install", *flags, *paths], module, {"GOBIN": str(binaries)})
    return Component(
        name=requirement.name,
        version=module.version.removeprefix("v"),
        source="built with Go",
        executables={name: str(binaries / name) for name in requirement.executables},
    )


def _download(go: str, module: GoModule) -> Path:
    answer = _run([go, "mod", "download", "-json", f"{module.module}@{module.version}"], module)
    return Path(json.loads(answer)["Dir"])


def _run(command: list[str], module: GoModule, extra: dict[str, str] | None = None) -> str:
    # -buildvcs=false: the module cache is no repository, but a directory above it may be one.
    environment = {**os.environ, "GOFLAGS": "-buildvcs=false", **(extra or {})}
    answer = subprocess.run(
        command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False, env=environment, cwd="/"
    )
    if answer.returncode != 0:
        reason = (answer.stderr.strip() or answer.stdout.strip() or "no reason given").splitlines()[-1]
        raise ComponentMissingError(f"{module.module}@{module.version} could not be built: {reason}")
    return answer.stdout
