"""`python -m stack.compose_secrets`: the secrets that docker-compose.yml mounts, made once and kept."""

import os
import secrets
from pathlib import Path
from typing import Final

from stack.alerting import ANY_CHAT
from stack.ports import HOST, PREFERRED

DIRECTORY: Final = Path(__file__).parents[1] / ".secrets"

_GENERATED: Final = (
    "postgres_password",
    "redis_password",
    "faults_token",
    "grafana_password",
    "autoscaler_token",
    "operator_token",
    "watchdog_token",
)


def write(directory: Path = DIRECTORY) -> list[str]:
    """
    Make what is missing; what is there stays as it is.

    Args:
        directory: made for this user alone. The files in it are readable, since each container has a user of its own
            and reads what is mounted into it with that user's rights; on the host the directory keeps others out.

    Returns:
        The names of the files that were made.

    """
    directory.mkdir(mode=0o700, exist_ok=True)
    directory.chmod(0o700)
    made = [name for name in _GENERATED if _write(directory / name, secrets.token_urlsafe(32))]
    derived = _derived(
        *((directory / name).read_text() for name in ("postgres_password", "redis_password", "watchdog_token"))
    )
    return [*made, *(name for name, text in derived.items() if _write(directory / name, text))]


def _derived(postgres: str, redis: str, token: str) -> dict[str, str]:
    server = f"redis://:{redis}@redis:6379"
    return {
        "database_url": f"postgresql+asyncpg://shop:{postgres}@postgres:5432/shop",
        "redis_auth": f"requirepass {redis}\n",
        "cache_url": f"{server}/0",
        "broker_url": f"{server}/1",
        "rate_limit_url": f"{server}/2",
        # Until a person puts in a real one: the service that prints what people are told.
        "chat_url": f"http://{HOST}:{PREFERRED['notifications']}/{token}/{ANY_CHAT}",
    }


def _write(path: Path, text: str) -> bool:
    if path.exists():
        return False
    # Whole or not at all: half a password would be kept for ever.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.chmod(0o444)
    temporary.rename(path)
    return True


if __name__ == "__main__":
    names = write()
    print(f"{DIRECTORY}: {', '.join(names)} made." if names else f"{DIRECTORY}: everything is there.")
    print(f"Grafana's user is admin; its password is in {DIRECTORY / 'grafana_password'}.")
