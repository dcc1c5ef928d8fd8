"""
One HTTP/1.1 connection to a collector: kept alive, renewed when it breaks, every exchange ended by a deadline.

OTLP/HTTP as https://opentelemetry.io/docs/specs/otlp/#otlphttp describes it. Redirects are not followed and proxies not
used: telemetry goes where the settings say, or nowhere.
"""

import http.client
import io
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final, Literal, NamedTuple, Self, cast
from urllib.parse import urlsplit

from obslib._version import __version__
from obslib.settings import Settings

_MAX_ANSWER_BYTES: Final = 64 * 1024


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class OtlpConfig:
    """Where spans go, how, and how many may wait."""

    #: The full URL that takes `ExportTraceServiceRequest`s.
    endpoint: str
    headers: Mapping[str, str] = field(default_factory=dict)
    #: For a batch, with all its retries.
    timeout_seconds: float = Settings.otlp_timeout_seconds
    compression: Literal["gzip", "none"] = Settings.otlp_compression
    certificate_file: str | None = None
    client_certificate_file: str | None = None
    client_key_file: str | None = None
    queue_max_spans: int = Settings.span_queue_max_spans
    queue_max_bytes: int = Settings.span_queue_max_bytes
    batch_max_spans: int = Settings.span_batch_max_spans
    flush_interval_seconds: float = Settings.span_flush_interval_seconds

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return what a service's settings say of it."""
        return cls(
            endpoint=settings.otlp_traces_endpoint,
            headers=settings.otlp_headers,
            timeout_seconds=settings.otlp_timeout_seconds,
            compression=settings.otlp_compression,
            certificate_file=settings.otlp_certificate_file,
            client_certificate_file=settings.otlp_client_certificate_file,
            client_key_file=settings.otlp_client_key_file,
            queue_max_spans=settings.span_queue_max_spans,
            queue_max_bytes=settings.span_queue_max_bytes,
            batch_max_spans=settings.span_batch_max_spans,
            flush_interval_seconds=settings.span_flush_interval_seconds,
        )

    def __repr__(self) -> str:
        headers = dict.fromkeys(self.headers, "***")
        return f"OtlpConfig(endpoint={self.endpoint!r}, headers={headers!r}, compression={self.compression!r})"


class Answer(NamedTuple):
    """What the collector said to a batch."""

    status: int
    reason: str
    #: None where the collector named no time, or none that can be read.
    retry_after_seconds: float | None
    #: From a partial success: how many spans were refused, and why; 0 and "" otherwise.
    rejected_spans: int
    message: str


class CollectorConnection:
    """A connection that opens itself. Not for use by several threads."""

    def __init__(self, config: OtlpConfig) -> None:
        url = urlsplit(config.endpoint)
        self._config = config
        self._is_tls = url.scheme == "https"
        self._host = url.hostname or ""
        self._port = url.port or (443 if self._is_tls else 80)
        self._target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        # The exporter, its language and its version; headers from the settings win. See
        # https://opentelemetry.io/docs/specs/otel/protocol/exporter/#user-agent
        self._headers = {"user-agent": f"obslib-OTLP-Exporter-Python/{__version__}"}
        self._headers.update((name.lower(), value) for name, value in config.headers.items())
        self._headers["content-type"] = "application/x-protobuf"
        if config.compression == "gzip":
            self._headers["content-encoding"] = "gzip"
        self._http: http.client.HTTPConnection | None = None
        self._socket: _DeadlineSocket | None = None

    def post(self, body: bytes, deadline_seconds: float) -> Answer:
        """
        Send one request and return the answer to it.

        Args:
            body: Compressed already if that was asked for.
            deadline_seconds: When to give up, on the clock of `time.monotonic`.

        Raises:
            OSError: No connection, no TLS, or no answer in time.
            http.client.HTTPException: The answer is not HTTP.
        """
        is_reused = self._http is not None
        try:
            return self._exchange(body, deadline_seconds)
        except (ConnectionError, http.client.BadStatusLine, ssl.SSLError):
            if not is_reused:
                raise
        # The collector had closed the connection since the last batch: that says nothing about a new one.
        return self._exchange(body, deadline_seconds)

    def close(self) -> None:
        """Close the connection; the next `post` opens another."""
        self._http = None
        if self._socket is not None:
            self._socket.raw.close()
            self._socket = None

    def _exchange(self, body: bytes, deadline_seconds: float) -> Answer:
        try:
            connection, sock = self._connect(deadline_seconds)
            sock.deadline_seconds = deadline_seconds
            connection.request("POST", self._target, body, self._headers)
            with closing(connection.getresponse()) as response:
                content = response.read(_MAX_ANSWER_BYTES)
                if response.will_close or not response.isclosed():
                    self.close()
        except BaseException:
            self.close()
            raise
        return _to_answer(response, content)

    def _connect(self, deadline_seconds: float) -> "tuple[http.client.HTTPConnection, _DeadlineSocket]":
        if self._http is not None and self._socket is not None:
            return self._http, self._socket
        raw = socket.create_connection((self._host, self._port), _left_seconds(deadline_seconds))
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._is_tls:
                raw.settimeout(_left_seconds(deadline_seconds))
                # A new context each time: certificates are renewed while processes live.
                raw = tls_context(self._config).wrap_socket(raw, server_hostname=self._host)
        except BaseException:
            raw.close()
            raise
        self._socket = _DeadlineSocket(raw)
        self._http = http.client.HTTPConnection(self._host, self._port)
        self._http.default_port = 443 if self._is_tls else 80
        # What it would open by itself has no deadline.
        self._http.auto_open = 0
        self._http.sock = cast("socket.socket", self._socket)
        return self._http, self._socket


class _DeadlineSocket:
    """
    The part of a socket that `http.client` uses, ended by one deadline.

    A socket's own timeout begins anew with every byte, so that an answer that drips would never end.
    """

    def __init__(self, raw: socket.socket) -> None:
        self.raw = raw
        self.deadline_seconds = 0.0

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self.raw.settimeout(_left_seconds(self.deadline_seconds))
            view = view[self.raw.send(view) :]

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_DeadlineReader(self))

    def close(self) -> None:
        """Do nothing: `http.client` closes before it has read the answer; `CollectorConnection.close` closes."""


class _DeadlineReader(io.RawIOBase):
    def __init__(self, sock: _DeadlineSocket) -> None:
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]  # BufferedReader passes nothing else
        self._sock.raw.settimeout(_left_seconds(self._sock.deadline_seconds))
        return self._sock.raw.recv_into(buffer)


def tls_context(config: OtlpConfig) -> ssl.SSLContext:
    """
    Return what the certificate settings mean.

    Raises:
        OSError: A file cannot be read or is no certificate; `ssl.SSLError` is one, too.
    """
    context = ssl.create_default_context(cafile=config.certificate_file)
    if config.client_certificate_file is not None:
        context.load_cert_chain(config.client_certificate_file, config.client_key_file)
    return context


def _left_seconds(deadline_seconds: float) -> float:
    left_seconds = deadline_seconds - time.monotonic()
    if left_seconds <= 0:
        raise TimeoutError("no answer in time")
    return left_seconds


def _to_answer(response: http.client.HTTPResponse, content: bytes) -> Answer:
    rejected_spans, message = _partial_success(content) if response.status < 300 else (0, "")
    retry_after_seconds = _retry_after_seconds(response.getheader("retry-after"))
    return Answer(response.status, response.reason, retry_after_seconds, rejected_spans, message)


def _retry_after_seconds(value: str | None) -> float | None:
    """Return seconds from now; the header is a number of them or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    try:
        seconds = float(value) if value.strip().isdecimal() else parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return max(0.0, seconds)


def _partial_success(content: bytes) -> tuple[int, str]:
    """Return `rejected_spans` and `error_message` of an `ExportTraceServiceResponse`; (0, "") if it is none."""
    rejected_spans, message = 0, b""
    try:
        for tag, value in _fields(content):
            if tag == 0x0A and isinstance(value, bytes):
                for inner_tag, inner_value in _fields(value):
                    if inner_tag == 0x08 and isinstance(inner_value, int):
                        rejected_spans = inner_value
                    elif inner_tag == 0x12 and isinstance(inner_value, bytes):
                        message = inner_value
    except (IndexError, ValueError):
        return 0, ""
    # As an int64: what is negative is nothing that a count can mean.
    return (0 if rejected_spans >= 1 << 63 else rejected_spans), message.decode("utf-8", "replace")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield tag and value of each field (https://protobuf.dev/programming-guides/encoding/#structure)."""
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        number, position = (0, position) if tag & 7 in (1, 5) else _read_varint(message, position)
        match tag & 7:
            case 0:
                yield tag, number
            case 1 | 2 | 5 as wire_type:
                end = position + {1: 8, 2: number, 5: 4}[wire_type]
                if end > len(message):
                    raise ValueError("truncated")
                yield tag, message[position:end]
                position = end
            case _:
                raise ValueError("not protobuf")


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
