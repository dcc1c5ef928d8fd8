"""What an operator can set: `SHOP_*` variables, read once."""

import difflib
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

_DATABASE_DRIVERS: Final = ("sqlite+aiosqlite", "postgresql+asyncpg")
_VARIABLES: Final = {
    "SHOP_DATABASE_URL": "database_url",
    "SHOP_CACHE_URL": "cache_url",
    "SHOP_BROKER_URL": "broker_url",
    "SHOP_RATE_LIMIT_URL": "rate_limit_url",
    "SHOP_PAYMENTS_URL": "payments_url",
    "SHOP_TRUSTED_PROXY": "trusted_proxies",
    "SHOP_FAULTS_TOKEN_FILE": "faults_token",
    "SHOP_DRAIN_SECONDS": "drain_seconds",
    "SHOP_GRACEFUL_SECONDS": "graceful_seconds",
}
#: What may hold a password can stand in a file instead of the environment.
_FILES: Final = {
    f"{variable}_FILE": variable
    for variable in ("SHOP_DATABASE_URL", "SHOP_CACHE_URL", "SHOP_BROKER_URL", "SHOP_RATE_LIMIT_URL")
}
_MIN_TOKEN_CHARACTERS: Final = 16
_MAX_DRAIN_SECONDS: Final = 60
_MAX_GRACEFUL_SECONDS: Final = 300


class SetupError(Exception):
    """The process cannot start as it was asked to; the sentence names the setting and the fix."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The demo's settings; URLs may hold passwords and stay out of the repr."""

    #: `sqlite+aiosqlite:///file`, shared by all replicas of one machine, or `postgresql+asyncpg://…`.
    database_url: str = field(default="sqlite+aiosqlite:///shop.sqlite3", repr=False)
    #: `mem://` or `redis://…`.
    cache_url: str = field(default="mem://", repr=False)
    #: `filesystem:///absolute/directory` or `redis://…`.
    broker_url: str = field(default=f"filesystem://{Path.cwd() / 'shop-queue'}", repr=False)
    #: `memory://` for one replica, `redis://…` where replicas share the limits.
    rate_limit_url: str = field(default="memory://", repr=False)
    payments_url: str = "http://127.0.0.1:8001"
    #: Addresses or networks whose X-Forwarded-For is believed.
    trusted_proxies: tuple[str, ...] = ()
    #: What `/faults` demands; without it the endpoint does not exist.
    faults_token: str | None = field(default=None, repr=False)
    #: How long `/readyz` fails before the process stops to accept, so that a load balancer can notice.
    drain_seconds: float = 1.0
    #: How long it may go on with requests after that. Where nobody drains it first: as long as a request may last.
    graceful_seconds: int = 5

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """
        Read `SHOP_*` variables; an empty one counts as unset. `SHOP_…_URL_FILE` names a file that has the URL.

        Raises:
            SetupError: A variable is unknown or its value cannot work.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, object] = {}
        known = (*_VARIABLES, *_FILES)
        for given, text in environ.items():
            if not given.startswith("SHOP_") or not text.strip():
                continue
            if given not in known:
                close = difflib.get_close_matches(given, known, n=1)
                hint = f" Did you mean {close[0]}?" if close else f" Known are {', '.join(known)}."
                raise SetupError(f"{given} is not a variable the demo knows.{hint}")
            variable = _FILES.get(given, given)
            if _VARIABLES[variable] in values:
                raise SetupError(f"{variable} and {variable}_FILE are both set; keep one of them.")
            value = text.strip() if variable == given else _read(given, text.strip())
            values[_VARIABLES[variable]] = _parse(variable, value)
        return cls(**values)  # type: ignore[arg-type] # each parser returns its field's type


def _parse(variable: str, text: str) -> object:
    if variable == "SHOP_DATABASE_URL":
        return _database_url(text)
    if variable == "SHOP_CACHE_URL":
        return _url(variable, text, ("mem://", "redis://", "rediss://"))
    if variable == "SHOP_BROKER_URL":
        return _broker_url(text)
    if variable == "SHOP_RATE_LIMIT_URL":
        return _url(variable, text, ("memory://", "redis://", "rediss://"))
    if variable == "SHOP_PAYMENTS_URL":
        return _url(variable, text, ("http://", "https://")).rstrip("/")
    if variable == "SHOP_TRUSTED_PROXY":
        return _networks(text)
    if variable == "SHOP_FAULTS_TOKEN_FILE":
        return _token(text)
    if variable == "SHOP_GRACEFUL_SECONDS":
        return _graceful_seconds(text)
    return _drain_seconds(text)


def _url(variable: str, text: str, schemes: tuple[str, ...]) -> str:
    # The value may hold a password: the sentence never repeats it.
    if not text.startswith(schemes):
        raise SetupError(f"{variable} must begin with {' or '.join(schemes)}.")
    return text


def _database_url(text: str) -> str:
    try:
        url = make_url(text)
    except ArgumentError:
        raise SetupError(
            "SHOP_DATABASE_URL is no database URL, e.g. sqlite+aiosqlite:////var/lib/shop.sqlite3."
        ) from None
    if url.drivername not in _DATABASE_DRIVERS:
        raise SetupError(
            f"SHOP_DATABASE_URL names the driver {url.drivername}; use one of {', '.join(_DATABASE_DRIVERS)}."
        )
    if url.drivername.startswith("sqlite") and (not url.database or ":memory:" in url.database):
        raise SetupError(
            "SHOP_DATABASE_URL must name a file: replicas, relay and worker cannot share a memory database."
        )
    return text


def _broker_url(text: str) -> str:
    _url("SHOP_BROKER_URL", text, ("filesystem://", "redis://", "rediss://"))
    if text.startswith("filesystem://") and not text.removeprefix("filesystem://").startswith("/"):
        raise SetupError("SHOP_BROKER_URL must name an absolute directory: filesystem:///absolute/directory.")
    return text


def _networks(text: str) -> tuple[str, ...]:
    networks = tuple(part.strip() for part in text.split(",") if part.strip())
    for network in networks:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            raise SetupError(
                f"SHOP_TRUSTED_PROXY: {network!r} is no address or network; write e.g. 127.0.0.1 or 10.0.0.0/8."
            ) from None
    return networks


def _token(text: str) -> str:
    token = _read("SHOP_FAULTS_TOKEN_FILE", text)
    if len(token) < _MIN_TOKEN_CHARACTERS:
        raise SetupError(f"SHOP_FAULTS_TOKEN_FILE must hold at least {_MIN_TOKEN_CHARACTERS} characters.")
    return token


def _read(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{variable} cannot be read as ASCII text: {error}") from None


def _drain_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= _MAX_DRAIN_SECONDS:
        raise SetupError(f"SHOP_DRAIN_SECONDS must be a number from 0 to {_MAX_DRAIN_SECONDS}, not {text!r}.")
    return seconds


def _graceful_seconds(text: str) -> int:
    seconds = int(text) if text.isdecimal() else 0
    if not 1 <= seconds <= _MAX_GRACEFUL_SECONDS:
        raise SetupError(
            f"SHOP_GRACEFUL_SECONDS must be a whole number from 1 to {_MAX_GRACEFUL_SECONDS}, not {text!r}."
        )
    return seconds
