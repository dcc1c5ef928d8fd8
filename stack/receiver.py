"""Where Alertmanager's messages to people and to the dead man's switch end on this machine."""

import asyncio
import contextlib
import hmac
import json
import time
from typing import Final, Protocol

from stack.alerting import ANY_CHAT, CHAT, SCALE, WATCHDOG
from stack.notifications import Notification
from stack.ports import HOST

_LONGEST_HEAD_BYTES: Final = 16 * 1024
_LONGEST_BODY_BYTES: Final = 1024 * 1024
_REQUEST_SECONDS: Final = 10.0
# It comes every minute.
_WATCHDOG_SECONDS: Final = 180.0
_HEALTH: Final = "/healthz"
_STATUSES: Final = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Content Too Large",
    503: "Service Unavailable",
}


class Keeper(Protocol):
    """Does something with messages."""

    def add(self, notification: Notification) -> None:
        """Take one."""


class Receiver:
    """
    Takes messages at `/watchdog` and `/scale` with the token as bearer, and at `/<token>/page` as chats have it.

    `GET /healthz` answers 503 once the watchdog does not come any more.

    Args:
        port: where Alertmanager finds it.
        token: what it has to show.
        log: keeps the messages.

    """

    def __init__(self, port: int, token: str, log: Keeper) -> None:
        self.port = port
        self._token = token
        self._log = log
        self._server: asyncio.Server | None = None
        self._watchdog_seen: float | None = None
        self._started = time.monotonic()

    @property
    def watchdog_age_seconds(self) -> float | None:
        """How long ago the watchdog came last: as long as it comes, alerts reach people. None before the first."""
        return None if self._watchdog_seen is None else time.monotonic() - self._watchdog_seen

    @property
    def hears_the_watchdog(self) -> bool:
        """Whether it has come lately; at first there is time for it to come."""
        seen = self._started if self._watchdog_seen is None else self._watchdog_seen
        return time.monotonic() - seen < _WATCHDOG_SECONDS

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port, limit=_LONGEST_HEAD_BYTES)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                status = await self._take(reader)
                # What a chat says when it has understood; Alertmanager takes anything else for a failure.
                body = "ok" if status == 200 else _STATUSES[status]
                head = f"HTTP/1.1 {status} {_STATUSES[status]}\r\nContent-Type: text/plain\r\nConnection: close\r\n"
                writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
                await writer.drain()
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _take(self, reader: asyncio.StreamReader) -> int:
        """The status to answer with."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, _, rest = head[0].partition(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        path = rest.partition(" ")[0]
        if method == "GET" and path == _HEALTH:
            return 200 if self.hears_the_watchdog else 503
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            return 411 if method == "POST" else 405
        if int(length) > _LONGEST_BODY_BYTES:
            return 413
        body = await reader.readexactly(int(length))
        receiver, shown = _addressee(path, headers)
        if not hmac.compare_digest(shown.encode(), self._token.encode()):
            return 401
        if receiver not in {*CHAT, ANY_CHAT, SCALE, WATCHDOG}:
            return 404
        try:
            notification = Notification.read(receiver, json.loads(body))
        except ValueError:
            return 400
        if receiver == WATCHDOG:
            self._watchdog_seen = time.monotonic()
        self._log.add(notification)
        return 200


def _addressee(path: str, headers: dict[str, str]) -> tuple[str, str]:
    """For whom a message is, and the token that was shown."""
    *secret, receiver = path.strip("/").split("/")
    return receiver, secret[0] if secret else headers.get("authorization", "").removeprefix("Bearer ")
