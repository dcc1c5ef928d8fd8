"""One request and its response, as they pass the layer: counts bytes, sees the end, and tells the recorders."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Final, Self

from starlette.exceptions import HTTPException

from obslib import names
from obslib._backlog import Backlog
from obslib._framework import Message, Receive, Send, route_template
from obslib._record import RequestRecord, Scope, SpanRecorder

#: Extensions of the ASGI specification with which an application names a file instead of sending it.
_FILE_KINDS: Final = frozenset({"http.response.pathsend", "http.response.zerocopysend"})


class Desk:
    """What every exchange of an application needs, made once."""

    __slots__ = ("backlog", "clock_ns", "on_error", "request_id_header", "spans")

    def __init__(
        self,
        spans: SpanRecorder | None,
        backlog: Backlog,
        on_error: Callable[[str, BaseException], None],
        clock_ns: Callable[[], int],
        request_id_header: bytes,
    ) -> None:
        self.spans = spans
        self.backlog = backlog
        self.on_error = on_error
        self.clock_ns = clock_ns
        self.request_id_header = request_id_header


class Exchange:
    """One request and its response, as they pass the layer; `bind_exchange` makes the class for an application."""

    __slots__ = ("_receive", "_record", "_scope", "_send", "is_finished")

    desk: ClassVar[Desk]

    _record: RequestRecord
    _scope: Scope
    _receive: Receive
    _send: Send
    is_finished: bool

    @classmethod
    def begin(cls, record: RequestRecord, scope: Scope, receive: Receive, send: Send) -> Self:
        """Make the exchange of a request that begins; see `RequestRecord.begin`."""
        exchange = object.__new__(cls)
        exchange._record = record
        exchange._scope = scope
        exchange._receive = receive
        exchange._send = send
        exchange.is_finished = False
        return exchange

    async def receive(self) -> Message:
        """Pass on what the client sends, counting its bytes."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._record.request_body_bytes += len(message.get("body", b""))
        elif message["type"] == "http.disconnect" and not self.is_finished:
            self._record.client_disconnected = True
        return message

    async def send(self, message: Message) -> None:
        """Pass on what the application sends; the last byte ends the record."""
        record, send = self._record, self._send  # to call a slot's value is slower than to call a variable's
        kind = message["type"]
        try:
            if kind == "http.response.body":
                if body := message.get("body"):
                    record.response_body_bytes += len(body)
                await send(message)
                if message.get("more_body"):
                    if body and not record.time_to_first_byte_ns:
                        record.time_to_first_byte_ns = self.desk.clock_ns() - record.start_clock_ns
                elif record.rare is None or not record.has_trailers:
                    self._finish()
            elif kind == "http.response.start":
                record.status_code = message["status"]
                if "trailers" in message:
                    record.has_trailers = bool(message["trailers"])
                await send(self._with_request_id(message) if record.request_id else message)
            else:
                await self._send_unusual(kind, message)
        except OSError:
            # The ASGI specification: sending to a client that has gone may raise one.
            record.client_disconnected = True
            raise

    async def _send_unusual(self, kind: str, message: Message) -> None:
        """Pass on trailers, or the name of a file."""
        record, is_last = self._record, False
        if kind == "http.response.trailers":
            is_last = not message.get("more_trailers", False)
        elif kind in _FILE_KINDS:
            record.response_body_bytes += _file_bytes(message)
            is_last = not message.get("more_body") and not record.has_trailers
        await self._send(message)
        if is_last:
            self._finish()

    def end(self) -> None:
        """The application has returned before its response was complete: that is what there is to say."""
        record = self._record
        record.is_urgent = True
        if record.status_code:
            record.error_type = names.ERROR_INCOMPLETE_RESPONSE
        elif not record.client_disconnected:
            record.status_code = 500  # what servers answer for an application that has sent nothing
        self._finish()

    def break_off(self, error: BaseException) -> None:
        """The application has raised."""
        if self.is_finished:
            return
        record = self._record
        record.is_urgent = True
        if isinstance(error, Exception):
            record.exception = error
        if not record.client_disconnected:
            if record.status_code or not isinstance(error, Exception):
                record.error_type = names.ERROR_INCOMPLETE_RESPONSE
            else:
                record.status_code = 500
        self._finish()

    def _finish(self) -> None:
        """Complete the record, end the span, and leave the rest to the backlog."""
        if self.is_finished:
            return
        self.is_finished = True
        record, desk = self._record, self.desk
        clock_ns, spans = desk.clock_ns, desk.spans
        record.duration_ns = clock_ns() - record.start_clock_ns
        try:
            record.route = route_template(record, self._scope)
        except Exception as error:  # noqa: BLE001 -- the guard: a framework's new version must not fail requests
            desk.on_error("record", error)
        if record.status_code >= 500:
            _explain_failure(record)
        elif record.rare is not None and record.client_disconnected:
            record.error_type = names.ERROR_CLIENT_DISCONNECT
            record.is_urgent = True
        if spans is not None:
            try:
                spans.ended(record)
            except Exception as error:  # noqa: BLE001 -- the guard: one failing recorder never silences another
                desk.on_error(spans.signal, error)
        desk.backlog.add(record)

    def _with_request_id(self, message: Message) -> Message:
        """Return the message with the request's id, unless the application has set another."""
        name = self.desk.request_id_header
        headers = [*message.get("headers", ())]
        try:
            for key, _ in headers:
                if key == name:  # in lower case, as the ASGI specification demands
                    break
            else:
                headers.append((name, self._record.request_id.encode()))
        except Exception as error:  # noqa: BLE001 -- the guard: the server is to say what is wrong with them
            self.desk.on_error("record", error)
        return {**message, "headers": headers}


def bind_exchange(desk: Desk) -> type[Exchange]:
    """Return the class of an application's exchanges."""
    return type("Exchange", (Exchange,), {"__slots__": (), "desk": desk})


def _file_bytes(message: Message) -> int:
    """Return how much of a file the server is told to send, which it does by itself."""
    try:
        if "count" in message:
            return int(message["count"])
        if "path" in message:
            return Path(message["path"]).stat().st_size
        descriptor = message["file"].fileno()
        offset = message.get("offset")
        return os.fstat(descriptor).st_size - (os.lseek(descriptor, 0, os.SEEK_CUR) if offset is None else offset)
    except (OSError, ValueError, TypeError):  # the server meets the same, and answers for it
        return 0


def _explain_failure(record: RequestRecord) -> None:
    """Fill the error type of a 5xx, and the exception that an error handler is answering, if one is."""
    record.is_urgent = True
    if not record.error_type:
        record.error_type = str(record.status_code)
    if record.exception is None:
        # Starlette answers from inside its `except` blocks, so the exception is the one being handled right now.
        handled = sys.exception()
        if isinstance(handled, Exception) and not isinstance(handled, HTTPException):
            record.exception = handled
