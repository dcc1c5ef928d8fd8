"""A service that is not there: a real HTTP server whose metrics say whatever an alert is about."""

import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from obslib import names
from prometheus import foreign

#: More than four fifths of what Prometheus takes from one replica.
MANY_SAMPLES = 40_001
_LIMIT_BYTES = 1e9
_SLOW_SECONDS = 0.36


class MadeUp:
    """
    Metrics that the demo's own faults do not reach.

    `/ill` has everything wrong that a process can say of itself until it is cured, `/idle` is a replica without work,
    `/backlog` a queue that grows, `/many` has too many series, and `/slow` takes its time.
    """

    def __init__(self) -> None:
        made_up = self
        self._began = time.time()
        self._cured: float | None = None
        self._many = "".join(f'made_up{{number="{number}"}} 1\n' for number in range(MANY_SAMPLES)).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = made_up.answer(self.path)
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                # Prometheus may have stopped waiting.
                with contextlib.suppress(ConnectionError):
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def cure(self) -> None:
        """Counters stand still from now on, and nothing is nearly full any more."""
        self._cured = time.time()

    def answer(self, path: str) -> bytes:
        if path == "/many":
            return self._many
        if path == "/slow":
            time.sleep(_SLOW_SECONDS)
            return b""
        seconds = (self._cured or time.time()) - self._began
        if path == "/ill":
            return _text(_counted(seconds) | _measured(seconds, ill=self._cured is None))
        if path == "/backlog":
            return _text({"shop_outbox_backlog_jobs": 2000 + seconds})
        return _text({foreign.PROCESS_CPU: 1})


def _text(samples: dict[str, float]) -> bytes:
    return "".join(f"{series} {value:.17g}\n" for series, value in samples.items()).encode()


def _counted(seconds: float) -> dict[str, float]:
    """Counters that rise while it is ill."""
    lag, error = names.ASYNCIO_EVENT_LOOP_LAG, names.LABEL_ERROR_TYPE
    called = f'{names.HTTP_CLIENT_REQUEST_DURATION}_count{{{names.LABEL_SERVER_ADDRESS}="bank",{error}='
    asked = f'{names.DB_CLIENT_OPERATION_DURATION}_count{{{names.LABEL_DB_SYSTEM}="postgresql",{error}='
    return {
        f'{names.SPANS_DROPPED}{{{names.LABEL_REASON}="queue_full"}}': seconds,
        f'{names.LOG_LINES_DROPPED}{{{names.LABEL_REASON}="buffer_full"}}': seconds,
        f'{names.INTERNAL_ERRORS}{{{names.LABEL_SIGNAL}="traces"}}': seconds,
        f'{names.LABEL_SETS_OVERFLOWED}{{{names.LABEL_METRIC}="ledger_entries"}}': seconds,
        f'{called}""}}': seconds,
        f'{called}"503"}}': seconds,
        f'{asked}""}}': seconds,
        f'{asked}"OperationalError"}}': seconds,
        f'{lag}_bucket{{le="0.1"}}': seconds,
        f'{lag}_bucket{{le="0.5"}}': 10 * seconds,
        f'{lag}_bucket{{le="+Inf"}}': 10 * seconds,
        f"{foreign.PROCESS_CPU}": seconds,
    }


def _measured(seconds: float, *, ill: bool) -> dict[str, float]:
    """Gauges, far too high or as they should be."""
    return {
        foreign.PROCESS_START: time.time() - 7200,
        foreign.PROCESS_MEMORY: _LIMIT_BYTES * (0.7 + 0.0005 * seconds if ill else 0.1) + (seconds * 1e6 if ill else 0),
        names.PROCESS_MEMORY_LIMIT: _LIMIT_BYTES,
        foreign.PROCESS_OPEN_FDS: 95 if ill else 5,
        foreign.PROCESS_MAX_FDS: 100,
        f'{names.DB_CLIENT_CONNECTION_PENDING_REQUESTS}{{{names.LABEL_POOL}="ledger"}}': 3 if ill else 0,
        names.ANYIO_THREAD_LIMITER_WAITING: 3 if ill else 0,
        f'{names.TARGET_INFO}{{service_name="{"book" if ill else "ledger"}"}}': 1,
    }
