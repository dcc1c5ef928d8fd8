"""
A million requests with hostile paths, methods and headers through one process: does its memory stay where it is?

`python -m benchmarks.soak` prints resident memory, series and dropped spans as it goes, and fails if memory grew after
the first fifth, when every cache and queue is full. The collector is dead all the time, and /metrics is scraped.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import obslib
from benchmarks.performance_page import publish_soak
from obslib import Settings, names

REQUESTS: Final = 1_000_000
_REPORTS: Final = 20
#: Of the requests, those after which memory has to stay where it is.
_WARM_PART: Final = 0.2
#: What the allocator may keep to itself: its arenas are this large or larger.
GROWTH_BYTES: Final = 4 * 1024 * 1024
_SCRAPE_EVERY: Final = 5_000
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was seen after so many requests."""

    requests: int
    resident_bytes: int
    series: int
    spans_dropped: int


def grown_bytes(reports: list[Report]) -> int:
    """Return what memory grew by after the warm part: the last third's least over the warm part's greatest."""
    warm_requests = reports[-1].requests * _WARM_PART
    warm = max(report.resident_bytes for report in reports if report.requests <= warm_requests)
    late = min(report.resident_bytes for report in reports[-len(reports) // 3 :])
    return late - warm


class Hostile:
    """Makes requests as nobody should."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def scope(self) -> dict[str, Any]:
        """Return the scope of the next one: each name and value that a caller chooses is new."""
        chance = self._random
        path = chance.choice([f"/items/{self._word()}", f"/tenants/{self._word()}/orders", f"/{self._word()}", "/boom"])
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": chance.choice(["1.0", "1.1", "2"]),
            "method": chance.choice(["GET", "GET", "POST", self._word().upper()]),
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": f"token={self._word()}&{self._word()}=1".encode(),
            "root_path": "",
            "headers": [
                (b"host", self._bytes(40)),
                (b"user-agent", self._bytes(300)),
                (b"x-request-id", self._bytes(140)),
                (b"traceparent", chance.choice([self._traceparent(), self._bytes(55)])),
                (b"tracestate", b"a=" + self._word().encode()),
                (b"baggage", b"k=" + self._bytes(200)),
                (self._word().encode(), self._bytes(100)),
            ],
            "client": (f"192.0.2.{chance.randrange(256)}", chance.randrange(65_536)),
            "server": ("127.0.0.1", 8000),
            "state": {},
        }

    def _word(self) -> str:
        return f"{self._random.getrandbits(64):x}"

    def _bytes(self, most: int) -> bytes:
        return self._random.randbytes(self._random.randrange(most))

    def _traceparent(self) -> bytes:
        ids = f"{self._random.getrandbits(128):032x}-{self._random.getrandbits(64):016x}"
        return f"00-{ids}-0{self._random.randrange(2)}".encode()


def make_app() -> FastAPI:
    """Return an application with routes of several kinds, one of which fails."""
    app = FastAPI()

    @app.get("/items/{item_id}")
    async def item(item_id: str) -> dict[str, str]:
        obslib.bind(item_id=item_id)
        return {"id": item_id}

    @app.get("/boom")
    async def boom() -> None:
        raise LookupError("boom")

    async def orders(_request: object) -> PlainTextResponse:
        return PlainTextResponse("orders")

    app.mount("/tenants/{tenant}", Starlette(routes=[Mount("/", routes=[Route("/orders", orders)])]))
    return app


async def soak(app: FastAPI, requests: int, told: Callable[[Report], None]) -> list[Report]:
    """Serve so many requests, telling what is seen as it goes."""
    hostile = Hostile(seed=5)
    reports: list[Report] = []
    every = max(1, requests // _REPORTS)
    text = ""
    for number in range(1, requests + 1):
        with contextlib.suppress(LookupError):
            await _serve(app, hostile.scope())
        if number % _SCRAPE_EVERY == 0 or number % every == 0:
            text = await _serve(app, {**hostile.scope(), "method": "GET", "path": "/metrics", "headers": []})
        if number % every == 0:
            gc.collect()
            reports.append(_report(number, text))
            told(reports[-1])
    return reports


async def _serve(app: FastAPI, scope: dict[str, Any]) -> str:
    body = bytearray()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        body.extend(message.get("body", b""))

    await app(scope, receive, send)
    return body.decode() if scope["path"] == "/metrics" else ""


def _report(requests: int, metrics: str) -> Report:
    lines = [line for line in metrics.splitlines() if not line.startswith("#")]
    dropped = sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(names.SPANS_DROPPED))
    resident_bytes = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    return Report(requests=requests, resident_bytes=resident_bytes, series=len(lines), spans_dropped=int(dropped))


def main() -> int:
    """Soak, print, and tell whether memory stayed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description="A million hostile requests.")
    parser.add_argument("--requests", type=int, default=REQUESTS, help=f"{REQUESTS} if not given")
    parser.add_argument("--docs", action="store_true", help="write the figures into docs/performance.md")
    arguments = parser.parse_args()
    # The log lines go where nobody reads them; what is printed here does not.
    screen = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    printed: list[str] = []

    def say(line: str) -> None:
        printed.append(line)
        screen.write(f"{line}\n")

    say(f"{'requests':>10}  {'resident MiB':>12}  {'series':>7}  {'spans dropped':>13}")
    app = make_app()
    settings = Settings(service_name="soak", log_format="json", otlp_traces_endpoint="http://127.0.0.1:9/v1/traces")
    with obslib.instrument(app, settings):
        reports = asyncio.run(
            soak(
                app,
                arguments.requests,
                lambda report: say(
                    f"{report.requests:>10,}  {report.resident_bytes / 2**20:>12.1f}  {report.series:>7,}  "
                    f"{report.spans_dropped:>13,}"
                ),
            )
        )
    grown = grown_bytes(reports)
    holds = grown <= GROWTH_BYTES
    say(f"grown after the first fifth: {grown / 2**20:+.1f} MiB, of {GROWTH_BYTES / 2**20:.0f} MiB allowed")
    if arguments.docs:
        publish_soak("\n".join(printed))
    return not holds


if __name__ == "__main__":
    sys.exit(main())
