"""What an operator can set: `AUTOSCALER_*` variables, read once."""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final, Self

from prometheus.errors import PolicyError
from prometheus.policy import Policy
from prometheus.read_policy import read

PROCESSES: Final = "processes"
DRY_RUN: Final = "dry-run"
DOCKER: Final = "docker"
ACTUATORS: Final = (PROCESSES, DOCKER, DRY_RUN)
_PREFIX: Final = "AUTOSCALER_"
_MIN_TOKEN_CHARACTERS: Final = 16
_LONGEST_TICK_SECONDS: Final = 3600


class SetupError(Exception):
    """The autoscaler cannot start as it was asked to; the sentence names the setting and the fix."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    The autoscaler's settings.

    Args:
        policy: objectives and bounds; `AUTOSCALER_POLICY_FILE` names the file.
        webhook_token: what Alertmanager has to show; `AUTOSCALER_WEBHOOK_TOKEN_FILE`.
        operator_token: what a person has to show for an override; `AUTOSCALER_OPERATOR_TOKEN_FILE`.
        prometheus_url: who evaluates the rules.
        actuator: `processes`, `docker`, or `dry-run`, which only says what it would do.
        supervisor_socket: of the stack's supervisor; for `processes`.
        docker_socket: of the Docker Engine; for `docker`.
        compose_project: whose services `docker` scales; empty: a swarm's.
        host: the address to listen on.
        port: the port to listen on.
        tick_seconds: how often to look without an alert; None: as often as the rules are evaluated, 0: never.
        time_scale: that of the generated rules; 1 but for tests.

    """

    policy: Policy
    webhook_token: str = field(repr=False)
    operator_token: str = field(repr=False)
    prometheus_url: str = "http://127.0.0.1:9090"
    actuator: str = PROCESSES
    supervisor_socket: Path = Path(".stack/run/control.sock")
    docker_socket: Path = Path("/var/run/docker.sock")
    compose_project: str = ""
    host: str = "127.0.0.1"
    port: int = 9095
    tick_seconds: float | None = None
    time_scale: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        if not self.policy.scaling():
            raise SetupError("AUTOSCALER_POLICY_FILE: no service has `scaling:`, so there is nothing to do.")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """
        Read `AUTOSCALER_*` variables; an empty one counts as unset.

        Raises:
            SetupError: a variable is unknown or missing, or its value cannot work.

        """
        environ = os.environ if environ is None else environ
        values: dict[str, object] = {}
        for variable, text in environ.items():
            if not variable.startswith(_PREFIX) or not text.strip():
                continue
            if variable not in _VARIABLES:
                # Their common beginning would make any two of them alike.
                close = [
                    known
                    for known in _VARIABLES
                    if difflib.get_close_matches(variable.removeprefix(_PREFIX), [known.removeprefix(_PREFIX)])
                ]
                hint = f" Did you mean {close[0]}?" if close else f" Known are {', '.join(_VARIABLES)}."
                raise SetupError(f"{variable} is not a variable the autoscaler knows.{hint}")
            name, parse = _VARIABLES[variable]
            values[name] = parse(variable, text.strip())
        for variable, (name, _) in _VARIABLES.items():
            if name in {"policy", "webhook_token", "operator_token"} and name not in values:
                raise SetupError(f"{variable} is not set; it names a file.")
        return cls(**values)  # type: ignore[arg-type] # each parser returns its field's type


def _policy(variable: str, text: str) -> Policy:
    try:
        return read(Path(text))
    except (OSError, UnicodeDecodeError, PolicyError) as error:
        raise SetupError(f"{variable}: {error}") from None


def _token(variable: str, text: str) -> str:
    try:
        token = Path(text).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{variable} cannot be read as ASCII text: {error}") from None
    if len(token) < _MIN_TOKEN_CHARACTERS:
        raise SetupError(f"{variable} must hold at least {_MIN_TOKEN_CHARACTERS} characters.")
    return token


def _url(variable: str, text: str) -> str:
    # The value may hold a password: the sentence never repeats it.
    if not text.startswith(("http://", "https://")):
        raise SetupError(f"{variable} must begin with http:// or https://.")
    return text.rstrip("/")


def _actuator(variable: str, text: str) -> str:
    if text not in ACTUATORS:
        raise SetupError(f"{variable} must be one of {', '.join(ACTUATORS)}, not {text!r}.")
    return text


def _path(_: str, text: str) -> Path:
    return Path(text)


def _project(variable: str, text: str) -> str:
    # What Compose takes for a name: it is also the beginning of each container's.
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", text):
        raise SetupError(f"{variable} must be a project of Compose (a-z, 0-9, _ and -), not {text!r}.")
    return text


def _host(_: str, text: str) -> str:
    return text


def _port(variable: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 <= int(text) <= 65_535:
        raise SetupError(f"{variable} must be a port from 0 to 65535, not {text!r}.")
    return int(text)


def _tick(variable: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= _LONGEST_TICK_SECONDS:
        raise SetupError(f"{variable} must be seconds from 0 (no ticks) to {_LONGEST_TICK_SECONDS}, not {text!r}.")
    return seconds


def _scale(variable: str, text: str) -> Fraction:
    try:
        scale = Fraction(text)
    except (ValueError, ZeroDivisionError):
        scale = Fraction(0)
    if not 0 < scale <= 1:
        raise SetupError(f"{variable} must be a fraction above 0 and up to 1, such as 1/20, not {text!r}.")
    return scale


_VARIABLES: Final[Mapping[str, tuple[str, Callable[[str, str], object]]]] = {
    "AUTOSCALER_POLICY_FILE": ("policy", _policy),
    "AUTOSCALER_WEBHOOK_TOKEN_FILE": ("webhook_token", _token),
    "AUTOSCALER_OPERATOR_TOKEN_FILE": ("operator_token", _token),
    "AUTOSCALER_PROMETHEUS_URL": ("prometheus_url", _url),
    "AUTOSCALER_ACTUATOR": ("actuator", _actuator),
    "AUTOSCALER_SUPERVISOR_SOCKET": ("supervisor_socket", _path),
    "AUTOSCALER_DOCKER_SOCKET": ("docker_socket", _path),
    "AUTOSCALER_COMPOSE_PROJECT": ("compose_project", _project),
    "AUTOSCALER_HOST": ("host", _host),
    "AUTOSCALER_PORT": ("port", _port),
    "AUTOSCALER_TICK_SECONDS": ("tick_seconds", _tick),
    "AUTOSCALER_TIME_SCALE": ("time_scale", _scale),
}
