"""
One request after the other through the application, in this process: no server, no socket, no other thread at work.

`python -m benchmarks.hot_path VARIANT` prints, as JSON, how many bytecodes were executed and how many C functions
called for a request. Both are the same on every machine with one Python and one set of packages, however busy it is.
"""

import argparse
import asyncio
import gc
import json
import os
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Final

from fastapi import FastAPI

from benchmarks import application, variants

#: The first requests fill caches. Whole rows of requests: what waits to be recorded together is counted, too.
WARM_UP_REQUESTS: Final = 48
_COUNTED_REQUESTS: Final = 32
#: The sender and the writer sleep through the whole run: what they do is not a request's.
QUIET: Final = {
    "OTEL_SERVICE_NAME": "hot-path",
    "OBSLIB_SPAN_QUEUE_MAX_SPANS": "1000000",
    "OBSLIB_SPAN_BATCH_MAX_SPANS": "1000000",
    "OBSLIB_SPAN_QUEUE_MAX_BYTES": str(1 << 30),
    "OBSLIB_SPAN_FLUSH_INTERVAL_SECONDS": "3600",
    "OBSLIB_LOG_BUFFER_BYTES": str(1 << 30),
    "OBSLIB_LOG_FLUSH_INTERVAL_SECONDS": "60",
    "OBSLIB_SHUTDOWN_TIMEOUT_SECONDS": "0",
    "OBSLIB_LOG_FORMAT": "json",
}


def make(name: str, routes: int) -> FastAPI:
    """Return the application in one of the bench's variants, as quiet as it can be but for what was asked for."""
    variant = variants.BY_NAME[name]
    os.environ.update({**QUIET, **variant.environment, **os.environ})
    variant.prepare()
    app = application.build(routes)
    variant.instrument(app)
    return app


async def request(app: FastAPI) -> None:
    """Serve a request as uvicorn hands it over, and check the answer."""
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    await app(
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 50000),
            "scheme": "http",
            "method": "GET",
            "root_path": "",
            "path": application.PATH,
            "raw_path": application.PATH.encode(),
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1:8000")],
            "state": {},
        },
        receive,
        send,
    )
    if status != 200:
        raise SystemExit(f"The application answered {status}.")


async def _count(app: FastAPI, install: Callable[[], None], read: Callable[[], int]) -> int:
    """Count what `read` counts, a request."""
    install()
    before = read()
    for _ in range(_COUNTED_REQUESTS):
        await request(app)
    return round((read() - before) / _COUNTED_REQUESTS)


class _Bytecodes:
    def __init__(self) -> None:
        self.count = 0

    def install(self) -> None:
        sys.settrace(self._on_call)

    def read(self) -> int:
        return self.count

    def _on_call(self, frame: FrameType, _event: str, _argument: object) -> "Callable[..., Any]":
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._on_event

    def _on_event(self, _frame: FrameType, event: str, _argument: object) -> "Callable[..., Any]":
        if event == "opcode":
            self.count += 1
        return self._on_event


class _CCalls(_Bytecodes):
    def install(self) -> None:
        sys.setprofile(self._on_profile)

    def _on_profile(self, _frame: FrameType, event: str, _argument: object) -> None:
        if event == "c_call":
            self.count += 1


async def count(app: FastAPI) -> dict[str, int]:
    """Count what a request executes."""
    for _ in range(WARM_UP_REQUESTS):
        await request(app)
    gc.collect()
    gc.disable()
    counted = {}
    for name, counter in (("bytecodes", _Bytecodes()), ("c_calls", _CCalls())):
        counted[name] = await _count(app, counter.install, counter.read)
        sys.settrace(None)
        sys.setprofile(None)
    return counted


async def serve_many(app: FastAPI, requests: int) -> None:
    """Serve so many requests, for a profiler."""
    for _ in range(requests):
        await request(app)


def _inside_reduce(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine below C's `functools_reduce`, which callgrind is told to count."""
    import functools  # noqa: PLC0415

    functools.reduce(lambda _, item: asyncio.run(item), [None, coroutine])  # type: ignore[arg-type]


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", choices=sorted(variants.BY_NAME))
    parser.add_argument("--routes", type=int, default=application.ROUTES, help="how many the application has")
    parser.add_argument("--requests", type=int, help="serve so many, for callgrind or a profiler; count nothing")
    arguments = parser.parse_args()
    app = make(arguments.variant, arguments.routes)
    if arguments.requests is None:
        counted = asyncio.run(count(app))
        os.write(2, json.dumps(counted).encode() + b"\n")
    else:
        asyncio.run(serve_many(app, WARM_UP_REQUESTS))
        gc.collect()
        gc.disable()
        _inside_reduce(serve_many(app, arguments.requests))
    # What waits in the queues is not this program's business.
    os._exit(0)


if __name__ == "__main__":
    main()
