"""The record of a WebSocket: a connection becomes one, however many messages it carries."""

from collections.abc import Mapping
from typing import ClassVar, Self

from opentelemetry.context import Context

from obslib import names
from obslib._record import RequestRecord, Scope


class ConnectionRecord(RequestRecord):
    """Everything the three signals say about one connection.

    Its `status_code` is the answer to the handshake: 101 once it is accepted.
    """

    __slots__ = (
        "close_code",
        "counted_received",
        "counted_sent",
        "departure",
        "is_application_code",
        "messages_received",
        "messages_sent",
        "otel_context",
        "received_bytes",
        "sent_bytes",
    )

    #: 0 until an accepted connection is closed, and for ever of a handshake that was not accepted.
    close_code: int
    #: Whether it was the application that sent that code.
    is_application_code: bool
    messages_received: int
    messages_sent: int
    #: Bytes of the messages themselves, text as UTF-8.
    received_bytes: int
    sent_bytes: int
    #: What the application raised because the connection was over; none of its failures.
    departure: BaseException | None
    #: The OpenTelemetry context in which the application runs; set by the traces recorder.
    otel_context: Context | None
    #: How many of the messages the metric has counted.
    counted_received: int
    counted_sent: int

    @classmethod
    def begin_connection(
        cls,
        path: str,
        scheme: str,
        http_version: str,
        headers: Mapping[bytes, bytes],
        client_address: str,
        request_id: str,
        start_clock_ns: int,
        start_unix_ns: int,
    ) -> Self:
        """Make the record of a connection that begins; see `begin`."""
        common = (path, scheme, http_version, headers, client_address, request_id, start_clock_ns, start_unix_ns)
        record = cls.begin(names.METHOD_WEBSOCKET, *common)
        record.close_code = record.messages_received = record.messages_sent = 0
        record.received_bytes = record.sent_bytes = record.counted_received = record.counted_sent = 0
        record.is_application_code = False
        record.departure = record.otel_context = None
        return record

    @property
    def is_accepted(self) -> bool:
        """Whether the handshake has led to a connection."""
        return self.status_code == 101


class ConnectionRecorder:
    """One signal. Must not await and must not block; does nothing at what it does not override."""

    #: The value of the label `signal` when this recorder fails.
    signal: ClassVar[str]

    def started(self, record: ConnectionRecord, scope: Scope) -> None:
        """Called before the application sees the handshake."""

    def accepted(self, record: ConnectionRecord) -> None:
        """Called when the application accepts the handshake; the route is known."""

    def closed(self, record: ConnectionRecord) -> None:
        """Called once, when nothing can be sent or received any more; the application may still be at work."""

    def ended(self, record: ConnectionRecord) -> None:
        """Called once, after `closed`, when the application is done with the connection and the record complete."""
