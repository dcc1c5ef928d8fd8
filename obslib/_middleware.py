"""The layer around the application: it times a request, fills its record and tells each recorder, guarded."""

import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, Protocol

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from obslib import names
from obslib._backlog import Backlog
from obslib._beside_the_loop import in_own_thread
from obslib._connection_record import ConnectionRecord, ConnectionRecorder
from obslib._current_context import CURRENT_CONTEXT
from obslib._exchange import Desk, bind_exchange
from obslib._exposition import Exposition
from obslib._framework import SCOPE_NATIVE_TELEMETRY, SCOPE_RECORD, ASGIApp, Message, Receive, Send
from obslib._headers import joined
from obslib._record import (
    TRACE_PART,
    Recorder,
    RequestRecord,
    Scope,
    SpanRecorder,
    TaskRecorder,
    bind_record,
    current_record,
    random_request_id,
)
from obslib._websocket import Connections
from obslib.settings import Settings

#: What a caller's request id may be made of; anything else is replaced by one of ours.
_VALID_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._~+/=:@-]{1,128}")
#: One call for what every request's scope has.
_PARTS: Final = itemgetter("method", "path", "root_path", "scheme", "http_version", "headers", "client")
#: To call a global costs less than to look a method up.
_set_record, _reset_record = current_record.set, current_record.reset
_set_context, _reset_context = CURRENT_CONTEXT.set, CURRENT_CONTEXT.reset
_KNOWN_METHODS: Final = names.KNOWN_METHODS
_SCHEMES: Final = frozenset({"http", "https"})
_WEBSOCKET_SCHEMES: Final = frozenset({"ws", "wss"})
_LIFESPAN_OVER: Final = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed"})
#: opentelemetry-api's key; instrumentation libraries make no spans where it is set.
_SUPPRESS: Final = otel_context._SUPPRESS_INSTRUMENTATION_KEY  # noqa: SLF001


class Lifetime(Protocol):
    """What starts with the first event that reaches the application, and ends with its lifespan."""

    running: bool

    def start(self) -> None:
        """Start threads and sockets, in this process."""

    def startup_complete(self) -> None:
        """Called when the application's own start is over."""

    def pause(self) -> None:
        """Flush and stop them, within the shutdown deadline."""


class ObservedLayer:
    """
    An ASGI layer that records HTTP requests and WebSockets and answers `/metrics`; everything else passes through.

    Args:
        spans: The recorder of traces; None where there is none.
        recorders: The others; the backlog tells all of them.
        connection_recorders: Told of WebSockets.
        backlog: Takes the records of requests that are over, and tells the recorders.
        log_pipeline: Where lines logged while a request is served go.
        background: Told of background tasks.
        exposition: Answers `Settings.metrics_path`; None where metrics are off or have a port of their own.
        on_error: Told the signal and the exception when telemetry fails; must not raise.
        new_request_id: Makes an id for a request that brings none.
        clock_ns: Monotonic clock.
        now_unix_ns: Wall clock.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        spans: SpanRecorder | None,
        recorders: Sequence[Recorder],
        connection_recorders: Sequence[ConnectionRecorder],
        backlog: Backlog,
        log_pipeline: object,
        background: TaskRecorder | None,
        exposition: Exposition | None,
        lifetime: Lifetime,
        on_error: Callable[[str, BaseException], None],
        new_request_id: Callable[[], str] | None = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        now_unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._app = app
        self._exposition = exposition
        self._lifetime = lifetime
        self._new_request_id = new_request_id or random_request_id
        #: Makes the id when a request begins. None where its trace's is taken, and where neither a line nor a span
        #: would say it: then an id is made for those who ask, see `request_id`.
        self._first_request_id = new_request_id or (random_request_id if spans is None else None)
        if spans is None and not settings.logs_enabled:
            self._first_request_id = None
        self._clock_ns = clock_ns
        self._now_unix_ns = now_unix_ns
        self._request_id_header = settings.request_id_header.lower().encode("latin-1")
        backlog.recorders = (*recorders,) if spans is None else (spans, *recorders)
        in_common = (log_pipeline, background, self._new_request_id)
        self._begin_record = bind_record(RequestRecord, *in_common).begin
        self._begin_connection_record = bind_record(ConnectionRecord, *in_common).begin_connection
        self._in_flight = backlog.in_flight
        self._desk = Desk(spans, backlog, on_error, clock_ns, self._request_id_header)
        self._begin_exchange = bind_exchange(self._desk).begin
        self._connections = Connections(
            app, self._begin_connection, connection_recorders, on_error, clock_ns, self._request_id_header
        )
        self._metrics_path = settings.metrics_path
        #: Paths of requests that are not recorded, and with what longer ones begin.
        self._special = {path.removesuffix("/*") for path in settings.excluded_paths}
        if exposition is not None:
            self._special.add(settings.metrics_path)
        self._excluded_prefixes = tuple(path[:-1] for path in settings.excluded_paths if path.endswith("/*"))
        self._trusts_callers = settings.trust_incoming_context

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection. One coroutine for the ordinary request: a chain of them has its price."""
        if not self._lifetime.running:
            self._lifetime.start()
        if scope["type"] != "http" or SCOPE_RECORD in scope:
            await self._serve_unrecorded(scope, receive, send)
            return
        scope[SCOPE_NATIVE_TELEMETRY] = None
        context, spans = None, self._desk.spans
        try:
            record = self._begin(scope)
        except Exception as error:  # noqa: BLE001 -- the guard: telemetry never reaches the request
            self._desk.on_error("record", error)
            await self._app(scope, receive, send)
            return
        if record is None:
            await self._serve_special(scope, receive, send)
            return
        if spans is not None:
            try:
                context = spans.started(record, scope)
            except Exception as error:  # noqa: BLE001 -- the guard: one failing recorder never silences another
                self._desk.on_error(spans.signal, error)
            if not record.request_id:
                # No other request is in a trace that begins with this one: its id will do for both.
                trace_id = record.id_digits[TRACE_PART] if record.caller is None else ""
                record.request_id = trace_id or self._new_request_id()
        app, begin_exchange = self._app, self._begin_exchange  # to call an attribute costs more than a variable
        exchange = begin_exchange(record, scope, receive, send)
        record_token = _set_record(record)
        context_token = None if context is None else _set_context(context)
        try:
            await app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            exchange.break_off(error)
            raise
        finally:
            if not exchange.is_finished:
                exchange.end()
            try:
                _reset_record(record_token)
                if context_token is not None:
                    _reset_context(context_token)
            except ValueError:
                # A coroutine that is thrown away is closed in somebody else's context, where nothing is to be undone.
                pass
            # Whoever keeps the scope would keep the record, and a scope that is served again would pass for recorded.
            scope.pop(SCOPE_RECORD, None)

    async def _serve_unrecorded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what is no HTTP request, or one that a layer outside of this one records."""
        if scope["type"] == "lifespan":
            await self._serve_lifespan(scope, receive, send)
            return
        scope[SCOPE_NATIVE_TELEMETRY] = None
        if scope["type"] != "websocket" or SCOPE_RECORD in scope:
            await self._app(scope, receive, send)
            return
        if self._is_special(scope.get("root_path", ""), scope["path"]):
            await self._serve_silently(scope, receive, send)
            return
        await self._connections.serve(scope, receive, send)

    def _begin(self, scope: Scope) -> RequestRecord | None:
        """Make the record of a request; None for one that is not recorded."""
        try:
            method, path, root_path, scheme, http_version, pairs, client = _PARTS(scope)
        except KeyError:
            method, path, root_path, scheme, http_version, pairs, client = _parts_of(scope)
        if (path in self._special or root_path or self._excluded_prefixes) and self._is_special(root_path, path):
            return None
        headers = dict(pairs)
        if self._request_id_header in headers:
            request_id = self._request_id(headers if len(headers) == len(pairs) else joined(pairs))
        else:
            new_request_id = self._first_request_id  # to call an attribute costs more than a variable
            request_id = "" if new_request_id is None else new_request_id()
        begin_record, clock_ns, now_unix_ns = self._begin_record, self._clock_ns, self._now_unix_ns
        record = begin_record(
            method,
            path,
            scheme if scheme in _SCHEMES else names.OTHER,
            http_version,
            headers,
            client[0] if client else "",
            request_id,
            clock_ns(),
            now_unix_ns(),
        )
        if method not in _KNOWN_METHODS:
            record.method, record.original_method = names.OTHER, method
        scope[SCOPE_RECORD] = record
        self._in_flight.add(record)
        return record

    def _is_special(self, root_path: str | None, path: str) -> bool:
        """Tell whether requests for a path are not recorded."""
        path = _below(root_path, path)
        return path in self._special or path.startswith(self._excluded_prefixes)

    def _request_id(self, headers: Mapping[bytes, bytes]) -> str:
        """Return the caller's request id if it is one, else one of ours if it would be seen."""
        request_id = headers.get(self._request_id_header)
        if request_id and self._trusts_callers and _VALID_REQUEST_ID.fullmatch(request_id):
            return request_id.decode()
        return "" if self._first_request_id is None else self._first_request_id()

    def _begin_connection(self, scope: Scope) -> ConnectionRecord:
        """Make the record of a WebSocket, as `_begin` does of a request, whose every call counts."""
        scheme, client, headers = scope.get("scheme", "ws"), scope.get("client"), joined(scope["headers"])
        return self._begin_connection_record(
            scope["path"],
            scheme if scheme in _WEBSOCKET_SCHEMES else names.OTHER,
            scope.get("http_version", "1.1"),
            headers,
            client[0] if client else "",
            self._request_id(headers) or self._new_request_id(),
            self._desk.clock_ns(),
            self._now_unix_ns(),
        )

    async def _serve_special(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a scrape, or a request that leaves no trace."""
        path = _below(scope.get("root_path", ""), scope["path"])
        if path == self._metrics_path and self._exposition is not None:
            await self._exposition.serve(scope, send)
            return
        await self._serve_silently(scope, receive, send)

    async def _serve_silently(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what leaves no trace: its children are unsampled, instrumentation suppressed."""
        scope[SCOPE_RECORD] = None
        silent = SpanContext(random.getrandbits(127) + 1, random.getrandbits(63) + 1, is_remote=False, trace_flags=_OFF)
        context = trace.set_span_in_context(NonRecordingSpan(silent), otel_context.Context())
        token = otel_context.attach(otel_context.set_value(_SUPPRESS, value=True, context=context))
        try:
            await self._app(scope, receive, send)
        finally:
            otel_context.detach(token)

    async def _serve_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_order(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._lifetime.startup_complete()
            elif message["type"] in _LIFESPAN_OVER:
                await in_own_thread(self._lifetime.pause)
            await send(message)

        await self._app(scope, receive, send_in_order)


_OFF: Final = TraceFlags(TraceFlags.DEFAULT)


def _below(root_path: str | None, path: str) -> str:
    """Return a path as the application's routes see it."""
    return path.removeprefix(root_path or "") or "/"


def _parts_of(scope: Scope) -> tuple[Any, ...]:
    """Return the parts of a scope without those that the ASGI specification makes optional."""
    parts: tuple[Any, ...] = _PARTS({"root_path": "", "scheme": "http", "http_version": "1.1", "client": None, **scope})
    return parts
