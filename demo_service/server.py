"""uvicorn, told how the demo wants to be served and how it ends."""

import asyncio
import socket
from collections.abc import Callable
from types import FrameType
from typing import Final

import uvicorn
from starlette.types import ASGIApp

import obslib
from demo_service.config import Config, SetupError
from demo_service.health import Health

log = obslib.get_logger(__name__)

_BACKLOG: Final = 2048
_KEEP_ALIVE_SECONDS: Final = 75


def serve(create: Callable[[Health], ASGIApp], config: Config, *, host: str, port: int) -> int:
    """
    Serve until SIGTERM or SIGINT, then drain; return the exit status.

    Raises:
        SetupError: The port cannot be had.
    """
    listener = _listen(host, port)
    health = Health()
    app = create(health)
    server = _DrainingServer(
        uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            # Longer than whoever keeps connections to it: HAProxy, httpx and a scraper let go after 5 to 30 s.
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            # The application believes X-Forwarded-For itself, from trusted addresses only.
            proxy_headers=False,
            timeout_graceful_shutdown=config.graceful_seconds,
        ),
        health,
        drain_seconds=config.drain_seconds,
    )
    log.info("listening", host=host, port=listener.getsockname()[1])
    server.run(sockets=[listener])
    return 0 if server.started else 1


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise SetupError(
            f"Cannot listen on {host}:{port}: {error.strerror}. Choose another port with --port, or stop what uses it."
        ) from None
    listener.set_inheritable(True)
    return listener


class _DrainingServer(uvicorn.Server):
    """Says "not ready" for a while before it stops to accept; a second signal ends the wait."""

    def __init__(self, config: uvicorn.Config, health: Health, *, drain_seconds: float) -> None:
        super().__init__(config)
        self._health = health
        self._drain_seconds = drain_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._health.draining or not self.started:
            super().handle_exit(sig, frame)
            return
        self._health.draining = True
        # A signal handler may interrupt anything: hand over to the loop.
        loop = self._loop
        loop.call_soon_threadsafe(loop.call_later, self._drain_seconds, super().handle_exit, sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
