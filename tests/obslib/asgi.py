"""A client and a server in one: drives an ASGI application message by message, so that tests decide what happens when."""

from collections.abc import AsyncIterator, Iterable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.applications import Starlette

Message = MutableMapping[str, Any]


def http_scope(
    path: str = "/", method: str = "GET", headers: Iterable[tuple[bytes, bytes]] = (), **extra: Any
) -> dict[str, Any]:
    """Return the scope of one request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": list(headers),
        "client": ("192.0.2.7", 4711),
        "server": ("127.0.0.1", 8000),
        **extra,
    }


class Exchange:
    """One request: what it is sent, and what the application answers."""

    def __init__(self, *incoming: Message) -> None:
        self.incoming = list(incoming) or [{"type": "http.request", "body": b"", "more_body": False}]
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        return self.incoming.pop(0) if self.incoming else {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


async def call(app: Any, scope: dict[str, Any], *incoming: Message) -> Exchange:
    """Let the application serve one request."""
    exchange = Exchange(*incoming)
    await app(scope, exchange.receive, exchange.send)
    return exchange


def websocket_scope(path: str = "/", headers: Iterable[tuple[bytes, bytes]] = (), **extra: Any) -> dict[str, Any]:
    """Return the scope of one WebSocket."""
    scope = http_scope(path, headers=headers, **{"type": "websocket", "scheme": "ws", "subprotocols": [], **extra})
    del scope["method"]
    return scope


async def connect(app: Any, scope: dict[str, Any], *incoming: Message) -> list[Message]:
    """Let the application serve one WebSocket whose client sends these, then goes; return what it was sent."""
    waiting: list[Message] = [{"type": "websocket.connect"}, *incoming]
    sent: list[Message] = []

    async def receive() -> Message:
        return waiting.pop(0) if waiting else {"type": "websocket.disconnect", "code": 1001, "reason": ""}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


@asynccontextmanager
async def client_of(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """Return an HTTP client whose requests go straight into the application."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        yield client
