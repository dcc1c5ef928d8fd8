"""Whether the shop answers from outside, asked anew at each scrape; what blackbox_exporter would say, in its words."""

import asyncio
import contextlib
import math
import re
import time
from typing import Final

import httpx

from stack.ports import HOST

SUCCESS: Final = "probe_success"
DURATION: Final = "probe_duration_seconds"
_LONGEST_SECONDS: Final = 3.0
#: Of the time that the scrape may take: a probe that took all of it would say nothing, not that the shop is silent.
_SHARE: Final = 0.7
_SCRAPE_TIMEOUT: Final = re.compile(
    rb"^x-prometheus-scrape-timeout-seconds:[ \t]*([0-9.]+)[ \t]*\r$", re.IGNORECASE | re.MULTILINE
)
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
            request = await reader.readuntil(b"\r\n\r\n")
            body = (await self._probe(_patience_seconds(request))).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(body)}\r\n"
            writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _probe(self, patience_seconds: float) -> str:
        started = time.perf_counter()
        try:
            # A connection of its own: a probe that reuses one would not notice that none can be made.
            async with asyncio.timeout(patience_seconds):
                answer = await self._http.get(self._url, headers={"Connection": "close"}, timeout=_LONGEST_SECONDS)
            success = int(answer.is_success)
        except (httpx.HTTPError, TimeoutError):
            success = 0
        seconds = time.perf_counter() - started
        return (
            f"# HELP {SUCCESS} Whether the shop answered through the load balancer.\n# TYPE {SUCCESS} gauge\n"
            f"{SUCCESS} {success}\n"
            f"# HELP {DURATION} How long the answer took.\n# TYPE {DURATION} gauge\n{DURATION} {seconds:.6f}\n"
        )


def _patience_seconds(request: bytes) -> float:
    """How long to wait for the shop: less than Prometheus waits for us, which it says in a header."""
    found = _SCRAPE_TIMEOUT.search(request)
    try:
        scrape_seconds = float(found[1]) if found else math.inf
    except ValueError:
        scrape_seconds = math.inf
    return min(_LONGEST_SECONDS, _SHARE * scrape_seconds)
