"""`python -m stack.compose`: whether Docker Compose understands docker-compose.yml and docker-compose.scale.yml."""

import json
import os
import subprocess
import sys
from typing import Any, Final

from stack.components.catalogue import COMPOSE, Component
from stack.components.install import Installer, cache_directory
from stack.components.progress import Progress
from stack.errors import StackError
from stack.state import ROOT

FILE: Final = ROOT / "docker-compose.yml"
SCALE_FILE: Final = ROOT / "docker-compose.scale.yml"
# Whose it is, is of no account here; Compose refuses the file without.
_SCALE_ENVIRONMENT: Final = {"DOCKER_GROUP_ID": "999"}
_TIMEOUT_SECONDS: Final = 60


def component() -> Component:
    """
    Docker Compose, installed now if need be.

    Raises:
        ComponentMissingError: it cannot be had here.

    """
    return Installer(cache_directory(), Progress()).provide(COMPOSE)


def resolved(compose: Component, *, scales: bool = False) -> dict[str, Any]:
    """
    The file as Compose resolves it, every profile included; no daemon is asked.

    Args:
        compose: what reads it.
        scales: together with the file that lets the autoscaler act.

    Raises:
        StackError: Compose refuses the file.

    """
    files = [FILE, SCALE_FILE] if scales else [FILE]
    named = [argument for file in files for argument in ("-f", str(file))]
    answer = subprocess.run(
        [compose.command("docker-compose"), *named, "--profile", "*", "config", "--format", "json"],
        env={**os.environ, **(_SCALE_ENVIRONMENT if scales else {})},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    # What it only warns of, an unset variable say, would be wrong too.
    if answer.returncode or answer.stderr.strip():
        raise StackError(f"Compose refuses {files[-1].name}: {answer.stderr.strip()}")
    model: dict[str, Any] = json.loads(answer.stdout)
    return model


def main() -> int:
    try:
        compose = component()
        services = resolved(compose)["services"]
        resolved(compose, scales=True)
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{FILE.name} and {SCALE_FILE.name}: {len(services)} services: {', '.join(sorted(services))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
