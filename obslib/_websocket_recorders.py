"""What each signal says about WebSockets: recorders that are told of connections as `_websocket` sees them."""

import threading
from collections import Counter
from typing import Any

from obslib import names
from obslib._connection_record import ConnectionRecord, ConnectionRecorder
from obslib._contrib import ContribRecorder
from obslib._instruments import Instruments
from obslib._logs import LogPipeline, mark_recorded
from obslib._record import Scope
from obslib._span_attributes import final_name
from obslib._traces import TracesRecorder


class ConnectionTraces(ConnectionRecorder):
    """One span a connection, made and ended as those of requests are."""

    signal = "traces"

    def __init__(self, recorder: TracesRecorder) -> None:
        self._recorder = recorder

    def started(self, record: ConnectionRecord, scope: Scope) -> None:
        """Start the span."""
        record.otel_context = self._recorder.started(record, scope)

    def ended(self, record: ConnectionRecord) -> None:
        """Complete the span and end it when the connection was closed."""
        self._recorder.ended(record)


class ContribConnections(ConnectionRecorder):
    """Completes the spans that contrib makes of connections, while contrib has not ended them."""

    signal = "traces"

    def __init__(self, recorder: ContribRecorder) -> None:
        self._recorder = recorder

    def started(self, record: ConnectionRecord, scope: Scope) -> None:
        """Let contrib start its span."""
        record.otel_context = self._recorder.started(record, scope)

    def accepted(self, record: ConnectionRecord) -> None:
        """Name it, in case nobody closes the connection before contrib ends it."""
        span = record.span
        if span is not None and record.route:
            span.update_name(final_name(record))
            span.set_attribute(names.ATTR_ROUTE, record.route)

    def closed(self, record: ConnectionRecord) -> None:
        """Complete it: when the application is done contrib has ended it."""
        self._recorder.ended(record)


class ConnectionMetrics(ConnectionRecorder):
    """Counts open connections, their messages while they are open, and what became of them."""

    signal = "metrics"

    def __init__(self, instruments: Instruments) -> None:
        self._active = instruments.gauge(
            names.WEBSOCKET_SERVER_ACTIVE_CONNECTIONS,
            "WebSockets that are open.",
            (names.LABEL_ROUTE,),
            before_reading=self._count,
        )
        self._messages = instruments.counter(
            names.WEBSOCKET_SERVER_MESSAGES,
            "Messages of WebSockets, by direction.",
            (names.LABEL_ROUTE, names.LABEL_DIRECTION),
            before_reading=self._count,
        )
        self._duration = instruments.histogram(
            names.WEBSOCKET_SERVER_CONNECTION_DURATION,
            "Duration of WebSockets, from their handshake until they are closed; of refused ones, until the answer.",
            (names.LABEL_ROUTE, names.LABEL_STATUS_CODE, names.LABEL_CLOSE_CODE, names.LABEL_ERROR_TYPE),
            buckets=names.CONNECTION_BUCKETS_SECONDS,
        )
        #: The routes on which there have been connections; a dict, because it has an order.
        self._routes: dict[str, None] = {}
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Forget the parent's connections: the parent counts them."""
        self._open: set[ConnectionRecord] = set()
        #: Reentrant: a connection may be thrown away at any allocation, and then it ends.
        self._lock = threading.RLock()

    def accepted(self, record: ConnectionRecord) -> None:
        """Count an open connection."""
        if record.route not in self._routes:
            self._routes[record.route] = None
            for direction in (names.DIRECTION_RECEIVE, names.DIRECTION_TRANSMIT):
                self._messages.labels(record.route, direction)  # so that the first message is an increase
        self._open.add(record)

    def closed(self, record: ConnectionRecord) -> None:
        """Count what has not been counted of its messages."""
        self._open.discard(record)
        self._count_messages(record)

    def ended(self, record: ConnectionRecord) -> None:
        """Count its duration."""
        self._duration.labels(
            record.route, record.status_code or "", _close_code_label(record), record.error_type
        ).observe(record.duration_ns / 1e9)

    def _count(self) -> None:
        """Bring gauge and counter up to date, before they are read: a message pays for neither."""
        if not self._routes:
            return
        connections = tuple(self._open)
        counts = Counter(record.route for record in connections)
        for route in tuple(self._routes):
            self._active.labels(route).set(counts[route])
        for record in connections:
            self._count_messages(record)

    def _count_messages(self, record: ConnectionRecord) -> None:
        with self._lock:  # a scrape in another thread may be at it
            received = record.messages_received - record.counted_received
            sent = record.messages_sent - record.counted_sent
            record.counted_received += received
            record.counted_sent += sent
        if received:
            self._messages.labels(record.route, names.DIRECTION_RECEIVE).inc(received)
        if sent:
            self._messages.labels(record.route, names.DIRECTION_TRANSMIT).inc(sent)


class ConnectionLog(ConnectionRecorder):
    """One access line a connection, when it is over."""

    signal = "logs"

    def __init__(self, pipeline: LogPipeline) -> None:
        self._pipeline = pipeline

    def ended(self, record: ConnectionRecord) -> None:
        """Write the line."""
        pipeline = self._pipeline
        values = connection_values(record, pipeline.timestamp(record), pipeline.service_name)
        pipeline.write_access_line(record, values, is_error=record.is_failure)
        if record.departure is not None:  # what there is to say about it stands on this line: no server's own follows
            mark_recorded(record.departure)


def connection_values(record: ConnectionRecord, timestamp: str, service_name: str) -> dict[str, Any]:
    """Return the keys and values of a connection's access line, but for what was bound and the exception."""
    return {
        names.LOG_TIMESTAMP: timestamp,
        names.LOG_LEVEL: "error" if record.is_failure else "info",
        names.LOG_EVENT: names.WEBSOCKET_ACCESS_EVENT,
        names.LOG_LOGGER: names.ACCESS_LOGGER,
        names.LOG_SERVICE: service_name,
        names.LOG_TRACE_ID: record.trace_id,
        names.LOG_SPAN_ID: record.span_id,
        names.LOG_REQUEST_ID: record.request_id,
        names.LABEL_ROUTE: record.route,
        names.LABEL_STATUS_CODE: record.status_code or None,
        names.LABEL_ERROR_TYPE: record.error_type,
        names.LABEL_SCHEME: record.scheme,
        names.LOG_URL_PATH: record.path,
        names.LOG_DURATION: record.duration_ns / 1e9,
        names.LOG_CLOSE_CODE: record.close_code or None,
        names.LOG_MESSAGES_RECEIVED: record.messages_received,
        names.LOG_MESSAGES_SENT: record.messages_sent,
        names.LOG_RECEIVED_BYTES: record.received_bytes,
        names.LOG_SENT_BYTES: record.sent_bytes,
        names.LOG_CLIENT_ADDRESS: record.client_address,
        names.LOG_USER_AGENT: record.user_agent,
    }


def _close_code_label(record: ConnectionRecord) -> str:
    """Return the code, `_OTHER` for what a client may have invented, `""` where there is none."""
    if not record.close_code:
        return ""
    if record.is_application_code or record.close_code in names.KNOWN_CLOSE_CODES:
        return str(record.close_code)
    return names.OTHER
