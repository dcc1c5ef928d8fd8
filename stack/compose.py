"""`python -m stack.compose`: whether Docker Compose understands docker-compose.yml."""

import json
import subprocess
import sys
from typing import Any, Final

from stack.components.catalogue import COMPOSE, Component
from stack.components.install import Installer, cache_directory
from stack.components.progress import Progress
from stack.errors import StackError
from stack.state import ROOT

FILE: Final = ROOT / "docker-compose.yml"
_TIMEOUT_SECONDS: Final = 60


def component() -> Component:
    """
    Docker Compose, installed now if need be.

    Raises:
        ComponentMissingError: it cannot be had here.

    """
    return Installer(cache_directory(), Progress()).provide(COMPOSE)


def resolved(compose: Component) -> dict[str, Any]:
    """
    The file as Compose resolves it, every profile included; no daemon is asked.

    Args:
        compose: what reads it.

    Raises:
        StackError: Compose refuses the file.

    """
    answer = subprocess.run(
        [compose.command("docker-compose"), "-f", str(FILE), "--profile", "*", "config", "--format", "json"],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    # What it only warns of, an unset variable say, would be wrong too.
    if answer.returncode or answer.stderr.strip():
        raise StackError(f"Compose refuses {FILE.name}: {answer.stderr.strip()}")
    model: dict[str, Any] = json.loads(answer.stdout)
    return model


def main() -> int:
    try:
        services = resolved(component())["services"]
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{FILE.name}: {len(services)} services: {', '.join(sorted(services))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
