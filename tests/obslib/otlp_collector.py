"""A collector on loopback that takes OTLP over HTTP, and misbehaves on demand."""

import socket
import ssl
import struct
import threading
import zlib
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

Behaviour = Callable[["Exchange"], None]


class Exchange(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: "Collector"

    def setup(self) -> None:
        self.server.connections += 1
        super().setup()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-encoding"] == "gzip":
            body = zlib.decompress(body, 31)
        # The answer is chosen first: who waits for a request may change what the next one gets.
        behaviour = self.server.script.popleft() if self.server.script else self.server.behaviour
        self.server.received(self.path, dict(self.headers), ExportTraceServiceRequest.FromString(body))
        behaviour(self)

    def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- its name upstream
        """Say nothing."""


class Collector(ThreadingHTTPServer):
    """Answers as `script` says, request by request, and as `behaviour` says afterwards."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Exchange)
        self._is_tls = tls is not None
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.script: deque[Behaviour] = deque()
        self.behaviour: Behaviour = ok
        self.connections = 0
        self.requests: list[tuple[str, dict[str, str], ExportTraceServiceRequest]] = []
        self.changed = threading.Condition()
        #: Set to end what hangs or drips.
        self.released = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http{'s' if self._is_tls else ''}://127.0.0.1:{self.server_port}/v1/traces"

    def received(self, path: str, headers: dict[str, str], request: ExportTraceServiceRequest) -> None:
        with self.changed:
            self.requests.append((path, headers, request))
            self.changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that give up are what is tested."""

    def names(self) -> list[str]:
        """Return the names of the spans received, in order."""
        return [
            span.name
            for _, _, request in self.requests
            for resource_spans in request.resource_spans
            for scope_spans in resource_spans.scope_spans
            for span in scope_spans.spans
        ]

    def sizes(self) -> list[int]:
        """Return how many spans each request had."""
        return [
            sum(len(scope_spans.spans) for group in request.resource_spans for scope_spans in group.scope_spans)
            for _, _, request in self.requests
        ]

    def wait(self, requests: int) -> None:
        """Wait until so many requests came."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.requests) >= requests, 10), self.requests

    def stop(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


def ok(exchange: Exchange) -> None:
    """Accept everything."""
    exchange.answer(200)


def status(code: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Behaviour:
    """Answer with a status."""
    return lambda exchange: exchange.answer(code, headers, body)


def partial_success(rejected_spans: int, message: str) -> Behaviour:
    """Accept all but some."""
    response = ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=rejected_spans, error_message=message)
    )
    return status(200, body=response.SerializeToString())


def hang(exchange: Exchange) -> None:
    """Answer only when released."""
    exchange.server.released.wait(30)
    exchange.answer(200)


def drip(exchange: Exchange) -> None:
    """Begin an answer whose next byte always comes in time, and whose last one never does."""
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\nx-drip: ")
    while not exchange.server.released.wait(0.02):
        exchange.wfile.write(b".")
    exchange.close_connection = True


def garbage(exchange: Exchange) -> None:
    """Answer with what is no HTTP."""
    exchange.wfile.write(b"\x00\xff garbage \r\n" * 1000)
    exchange.close_connection = True


def reset(exchange: Exchange) -> None:
    """Break the connection off without an answer."""
    exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    exchange.close_connection = True
    exchange.connection.close()


def ok_then_close(exchange: Exchange) -> None:
    """Accept everything, and close the connection without saying so."""
    exchange.answer(200)
    exchange.close_connection = True


def ok_and_announce_close(exchange: Exchange) -> None:
    """Accept everything, and end the answer by closing the connection."""
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
    exchange.close_connection = True
