"""docker-compose.yml and what it mounts, as the tests read them."""

from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
FILE: Final = ROOT / "docker-compose.yml"
MODEL: Final[dict[str, Any]] = yaml.safe_load(FILE.read_text())
SERVICES: Final[dict[str, dict[str, Any]]] = MODEL["services"]
#: Where a container finds its secrets unless it says otherwise.
SECRETS: Final = "/run/secrets"

#: What lets the autoscaler act, by itself.
SCALE_MODEL: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.scale.yml").read_text())

#: Names in `python -m demo_service`.
DEMO: Final = ("shop", "payments", "worker", "load")
#: Those that run our image.
OURS: Final = (*DEMO, "autoscaler", "notifications")
#: The one whose entry has it built.
BUILDER: Final = "shop"


def environment(service: str) -> dict[str, str]:
    variables: dict[str, str] = SERVICES[service].get("environment", {})
    return variables


def mounts(service: str) -> dict[str, str]:
    """The container's paths of what is mounted from the repository, and what is mounted there."""
    return {
        target: source
        for source, target, *_ in (volume.split(":") for volume in SERVICES[service].get("volumes", []))
        if source.startswith("./")
    }


def secret_paths(service: str) -> dict[str, str]:
    """The container's paths of the secrets it gets, and their names."""
    return {
        entry["target"] if isinstance(entry, dict) else f"{SECRETS}/{entry}": (
            entry["source"] if isinstance(entry, dict) else entry
        )
        for entry in SERVICES[service].get("secrets", [])
    }
