"""The Docker Engine's API over its Unix socket: questions and orders, and what went wrong in one sentence."""

import errno
import json
from pathlib import Path
from typing import Any, Final

import httpx

from autoscaler.actuators import ActuatorError

# The first that connects a new container to several networks at once: Docker 25.
_VERSION: Final = "v1.44"
_CONNECT_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 5.0
_LONGEST_ANSWER_BYTES: Final = 8 * 1024 * 1024
_LONGEST_MESSAGE_CHARACTERS: Final = 300


class EngineError(ActuatorError):
    """
    The engine could not be asked, refused or failed.

    Args:
        sentence: what and why.
        status: of its answer; 0 when there was none.

    """

    def __init__(self, sentence: str, status: int = 0) -> None:
        super().__init__(sentence)
        self.status = status


class Engine:
    """
    A client of the engine's socket.

    Args:
        socket: its path; whoever may open it can do anything on the host.
        answer_seconds: how long to wait for an answer that is not expected to take longer.

    """

    def __init__(self, socket: Path, *, answer_seconds: float = _ANSWER_SECONDS) -> None:
        self._socket = socket
        self._answer_seconds = answer_seconds
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket)),
            base_url=f"http://docker/{_VERSION}",
            trust_env=False,
        )

    async def ask(
        self,
        purpose: str,
        method: str,
        path: str,
        *,
        parameters: dict[str, Any] | None = None,  # Any: JSON
        body: dict[str, Any] | None = None,  # Any: JSON
        takes_seconds: float = 0,
    ) -> Any:  # Any: JSON
        """
        Ask, and return the answer's JSON; None when it has none.

        Args:
            purpose: completes "Docker refused to …".
            method: of HTTP.
            path: below the version.
            parameters: of the query; a list or an object is sent as JSON.
            body: sent as JSON.
            takes_seconds: how long the order itself may take, on top of what an answer may.

        Raises:
            EngineError: there is no answer, or it is not one of success.

        """
        query = {
            name: json.dumps(value) if isinstance(value, (dict, list)) else value
            for name, value in (parameters or {}).items()
        }
        timeout = httpx.Timeout(self._answer_seconds + takes_seconds, connect=_CONNECT_SECONDS)
        try:
            async with self._http.stream(method, path, params=query, json=body, timeout=timeout) as response:
                text = await _bounded(response, purpose)
        except httpx.ConnectError as error:
            raise EngineError(self._unreachable(error)) from None
        except httpx.TimeoutException:
            raise EngineError(f"Docker took more than {timeout.read:g} s to {purpose}.") from None
        except httpx.HTTPError as error:
            raise EngineError(f"Docker broke off when asked to {purpose}: {type(error).__name__}.") from None
        if response.is_success or response.status_code == httpx.codes.NOT_MODIFIED:
            return _parsed(text, purpose)
        verb = "failed" if response.is_server_error else "refused"
        raise EngineError(
            f"Docker {verb} to {purpose} ({response.status_code}): {_message(text)}", response.status_code
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    def _unreachable(self, error: BaseException) -> str:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        number = cause.errno if cause is not None else None
        if number == errno.ENOENT:
            return f"There is no socket of Docker at {self._socket}; AUTOSCALER_DOCKER_SOCKET names another."
        if number in (errno.EACCES, errno.EPERM):
            return f"Docker's socket {self._socket} may not be opened; give the autoscaler the group it belongs to."
        return f"Docker cannot be reached at {self._socket}: {cause or error}."


async def _bounded(response: httpx.Response, purpose: str) -> bytes:
    text = bytearray()
    async for part in response.aiter_bytes():
        text += part
        if len(text) > _LONGEST_ANSWER_BYTES:
            raise EngineError(f"Docker answered more than {_LONGEST_ANSWER_BYTES} bytes when asked to {purpose}.")
    return bytes(text)


def _parsed(text: bytes, purpose: str) -> Any:  # Any: JSON
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except ValueError:
        raise EngineError(f"Docker's answer is no JSON when asked to {purpose}.") from None


def _message(text: bytes) -> str:
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        message = text.decode(errors="replace").strip() or "it gave no reason"
    return message[:_LONGEST_MESSAGE_CHARACTERS].rstrip(".") + "."
