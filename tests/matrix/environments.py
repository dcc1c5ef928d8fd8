"""Environments in a cache outside of the tree, made by uv once and used by every run and every checkout."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.matrix.corners import Corner

ROOT: Final = Path(__file__).parents[2]
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "obslib" / "matrix"
#: Corners that hold what is newest are made anew after so long.
MAX_AGE_SECONDS: Final = 7 * 86_400
_BUILD_SECONDS: Final = 600
_TEST_SECONDS: Final = 900
_PACKAGES: Final = ("fastapi", "starlette", "opentelemetry-sdk", "opentelemetry-instrumentation-fastapi")
_ASK_FOR_VERSIONS: Final = """
import sys
from importlib.metadata import PackageNotFoundError, version
for name in sys.argv[1:]:
    try:
        print(version(name))
    except PackageNotFoundError:
        print("-")
"""


@dataclass(frozen=True)
class Outcome:
    """How a corner went."""

    corner: Corner
    passed: bool
    #: One line.
    summary: str
    #: Everything that was printed.
    text: str
    seconds: float = 0.0
    versions: tuple[str, ...] = ("-",) * len(_PACKAGES)


def run_corner(corner: Corner, cache: Path, tests: Sequence[str]) -> Outcome:
    """Run these test modules in a corner's environment, which is made if it is not there."""
    started = time.monotonic()
    with _locked(cache / f"{key(corner)}.lock"):
        built = _build(corner, cache / key(corner))
    if built is not None:
        return Outcome(corner, passed=False, summary="cannot be built", text=built)
    python = cache / key(corner) / "bin" / "python"
    asked = subprocess.run(
        [python, "-c", _ASK_FOR_VERSIONS, *_PACKAGES], capture_output=True, text=True, check=True, timeout=60
    )
    files = [f"tests/obslib/{name}.py" for name in tests]
    # As a module and without `-W error`: warnings of versions that are old today are not news.
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not integration", *_OPTIONS, *files]
    text, status = _run_tests([str(part) for part in command])
    last = text.strip().splitlines()[-1] if text.strip() else "said nothing"
    versions = tuple(asked.stdout.split())
    # 5 is "no test was collected": a corner that tests nothing has not passed.
    return Outcome(corner, status == 0, last.strip("= "), text, time.monotonic() - started, versions)


_OPTIONS: Final = ("-W", "default", "-o", "addopts=--strict-markers")


def key(corner: Corner) -> str:
    """Return the name of a corner's folder: another if anything is that decides what is installed."""
    parts = (sys.version, *_requirements(corner), *corner.tools, str(corner.lowest))
    return f"{corner.name.replace(' ', '-').replace('*', 'x')}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}"


def _requirements(corner: Corner) -> tuple[str, ...]:
    """Return obslib's own dependencies and what the corner is about."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return (*project["dependencies"], *corner.requirements)


def _build(corner: Corner, folder: Path) -> str | None:
    """Make the environment, unless it is there and fresh; return why it could not be made."""
    marker = folder / ".built"
    if marker.exists() and not (corner.moves and time.time() - marker.stat().st_mtime > MAX_AGE_SECONDS):
        return None
    shutil.rmtree(folder, ignore_errors=True)
    uv = Path(sys.executable).with_name("uv")
    install = [uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python"]
    resolution = ["--resolution", "lowest-direct"] if corner.lowest else []
    # The tools come second, or the oldest of them would be taken, too; what is installed already stays.
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, folder],
        [*install, *resolution, *_requirements(corner)],
        [*install, *_requirements(corner), *corner.tools],
    ):
        done = subprocess.run(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_BUILD_SECONDS,
            check=False,
        )
        if done.returncode:
            return done.stdout
    marker.touch()
    return None


def _run_tests(command: list[str]) -> tuple[str, int]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "OBSLIB_", "COVERAGE"))}
    environment = {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TEST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return f"{(error.output or b'').decode()}\nnot over after {_TEST_SECONDS} s", 124
    return done.stdout, done.returncode


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time make an environment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
