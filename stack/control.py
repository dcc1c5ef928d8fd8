"""
The supervisor's private door: one JSON object a line in, one out, over a unix socket that only this user can open.

    {"command": "scale", "service": "shop", "replicas": 3}   →   {"ok": true, "service": "shop", "running": 3, …}
    anything that cannot be done                             →   {"ok": false, "error": "a sentence"}

Commands: `status`, `replicas`, `scale`, `spike`, `stop`. `scale` answers when the replicas are there, or with
`"wait": false` as soon as the order is accepted; the newest order of a service holds (`stack.orders`). `replicas` asks
no process and answers at once: `{"services": {"shop": {"running": 2, "target": 3, "error": ""}, …}}`.
"""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from stack.errors import NotRunningError, StackError

Request = Mapping[str, Any]  # Any: JSON; each command checks its own fields
Answer = dict[str, Any]  # Any: JSON
Handler = Callable[[Request], Awaitable[Answer]]

_LONGEST_LINE_BYTES: Final = 64 * 1024
# A scale-in waits for sessions, a scrape and Prometheus; a scale-out for starts.
_ANSWER_SECONDS: Final = 600.0


class ControlServer:
    """
    Answers commands.

    Args:
        path: the socket; an old one is replaced.
        handlers: what carries out each command.

    """

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self._path = path
        self._handlers = handlers
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._path.unlink(missing_ok=True)
        # Created closed to others, not closed afterwards: there is no moment in which anyone else could connect.
        mask = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._accept, str(self._path), limit=_LONGEST_LINE_BYTES)
        finally:
            os.umask(mask)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            # The client has gone, or sent a line without an end.
            return
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, line: bytes) -> Answer:
        try:
            request = json.loads(line)
        except ValueError:
            return _refusal("The request is not JSON.")
        if not isinstance(request, dict):
            return _refusal("The request is not a JSON object.")
        handler = self._handlers.get(str(request.get("command")))
        if handler is None:
            return _refusal(
                f"Unknown command {request.get('command')!r}; known are {', '.join(sorted(self._handlers))}."
            )
        try:
            return {"ok": True, **await handler(request)}
        except StackError as error:
            return _refusal(str(error))


def ask(path: Path, request: Request, *, timeout_seconds: float = _ANSWER_SECONDS) -> Answer:
    """
    Send one command and wait for its answer.

    Raises:
        NotRunningError: nobody listens on the socket.
        StackError: the command was refused; the message is the supervisor's.

    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_seconds)
        try:
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
        except (FileNotFoundError, ConnectionError):
            raise NotRunningError("No stack runs here. Start it with `make demo` (or `python -m stack`).") from None
        except TimeoutError:
            raise StackError(f"The supervisor did not answer within {timeout_seconds:.0f} s.") from None
    if not line:
        raise NotRunningError("The stack stopped before it answered.")
    answer: Answer = json.loads(line)
    if not answer.pop("ok"):
        raise StackError(answer["error"])
    return answer


def _refusal(sentence: str) -> Answer:
    return {"ok": False, "error": sentence}
