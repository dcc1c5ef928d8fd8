"""Whether the shop answers from outside, asked anew at each scrape; what blackbox_exporter would say, in its words."""

import asyncio
import contextlib
import time
from typing import Final

import httpx

from stack.ports import HOST

SUCCESS: Final = "probe_success"
DURATION: Final = "probe_duration_seconds"
_ANSWER_SECONDS: Final = 3.0
_LONGEST_REQUEST_BYTES: Final = 16 * 1024


class Probe:
    """
    Serves the result of one probe to each request.

    Args:
        url: what is asked for, through the load balancer; a status of 2xx is a success.
        port: where Prometheus gets the result.
        http: the client to ask with.

    """

    def __init__(self, url: str, port: int, http: httpx.AsyncClient) -> None:
        self._url = url
        self._port = port
        self._http = http
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._answer, HOST, self._port, limit=_LONGEST_REQUEST_BYTES)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # Whatever is asked for: there is only this.
            await reader.readuntil(b"\r\n\r\n")
            body = (await self._probe()).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(body)}\r\n"
            writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _probe(self) -> str:
        started = time.perf_counter()
        try:
            # A connection of its own: a probe that reuses one would not notice that none can be made.
            answer = await self._http.get(self._url, headers={"Connection": "close"}, timeout=_ANSWER_SECONDS)
            success = int(answer.is_success)
        except httpx.HTTPError:
            success = 0
        seconds = time.perf_counter() - started
        return (
            f"# HELP {SUCCESS} Whether the shop answered through the load balancer.\n# TYPE {SUCCESS} gauge\n"
            f"{SUCCESS} {success}\n"
            f"# HELP {DURATION} How long the answer took.\n# TYPE {DURATION} gauge\n{DURATION} {seconds:.6f}\n"
        )
