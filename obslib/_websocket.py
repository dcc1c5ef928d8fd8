"""One WebSocket as it passes the layer: counts messages, sees how it ends, and tells the recorders."""

import sys
from collections.abc import Callable, Sequence
from typing import Final

from starlette.exceptions import HTTPException, WebSocketException
from starlette.websockets import WebSocketDisconnect

from obslib import names
from obslib._connection_record import ConnectionRecord, ConnectionRecorder
from obslib._current_context import CURRENT_CONTEXT
from obslib._framework import SCOPE_RECORD, ASGIApp, Message, Receive, Send, route_template
from obslib._record import Scope, current_record

_NO_STATUS_RECEIVED: Final = 1005
_ABNORMAL_CLOSURE: Final = 1006
#: What frameworks answer by a code or a status.
_ANSWERED: Final = (HTTPException, WebSocketException, WebSocketDisconnect)
#: What takes headers.
_BEGINNINGS: Final = frozenset({"websocket.accept", "websocket.http.response.start"})
_NO_FAILURES: Final = frozenset({"", names.ERROR_CLIENT_DISCONNECT})


class Connections:
    """
    Serves an application's WebSockets.

    Args:
        begin: Makes the record of a handshake.
        recorders: Told in this order, the recorder of traces first.
        on_error: Told the signal and the exception when telemetry fails; must not raise.
        clock_ns: Monotonic clock.
    """

    def __init__(
        self,
        app: ASGIApp,
        begin: Callable[[Scope], ConnectionRecord],
        recorders: Sequence[ConnectionRecorder],
        on_error: Callable[[str, BaseException], None],
        clock_ns: Callable[[], int],
        request_id_header: bytes,
    ) -> None:
        self._app = app
        self._begin = begin
        self._recorders = recorders
        self.on_error = on_error
        self.clock_ns = clock_ns
        self.request_id_header = request_id_header

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, from its handshake until the application is done with it."""
        try:
            record = self._begin(scope)
        except Exception as error:  # noqa: BLE001 -- the guard: telemetry never reaches the connection
            self.on_error("record", error)
            await self._app(scope, receive, send)
            return
        scope[SCOPE_RECORD] = record
        self.tell("started", record, scope)
        connection = Connection(self, record, scope, receive, send)
        record_token = current_record.set(record)
        context_token = None if record.otel_context is None else CURRENT_CONTEXT.set(record.otel_context)
        try:
            await self._app(scope, connection.receive, connection.send)
        except BaseException as error:
            connection.break_off(error)
            raise
        finally:
            connection.end()
            try:
                current_record.reset(record_token)
                if context_token is not None:
                    CURRENT_CONTEXT.reset(context_token)
            except ValueError:
                # A coroutine that is thrown away is closed in somebody else's context, where nothing is to be undone.
                pass
            # They refer to each other, or to frames that do: without this a connection would be cyclic garbage.
            scope.pop(SCOPE_RECORD, None)
            record.otel_context = record.span = record.exception = record.departure = None

    def tell(self, event: str, record: ConnectionRecord, *details: Scope) -> None:
        """Tell each recorder that something has happened, guarded."""
        for recorder in self._recorders:
            try:
                getattr(recorder, event)(record, *details)
            except Exception as error:  # noqa: BLE001 -- the guard: one failing recorder never silences another
                self.on_error(recorder.signal, error)


class Connection:
    """One connection's messages."""

    __slots__ = ("_desk", "_is_closed", "_loss", "_receive", "_record", "_scope", "_send")

    def __init__(self, desk: Connections, record: ConnectionRecord, scope: Scope, receive: Receive, send: Send) -> None:
        self._desk = desk
        self._record = record
        self._scope = scope
        self._receive = receive
        self._send = send
        #: Whether either side has ended it, by a code, by an answer to the handshake or by going away.
        self._is_closed = False
        #: What the server raised because the client had gone.
        self._loss: OSError | None = None

    async def receive(self) -> Message:
        """Pass on what the client sends, counting it."""
        message = await self._receive()
        try:
            kind = message["type"]
            if kind == "websocket.receive":
                record = self._record
                record.messages_received += 1
                record.received_bytes += _message_bytes(message)
            elif kind == "websocket.disconnect" and not self._is_closed:
                self._note_disconnect(message)
        except Exception as error:  # noqa: BLE001 -- the guard: telemetry never reaches the connection
            self._desk.on_error("record", error)
        return message

    async def send(self, message: Message) -> None:
        """Pass on what the application sends, counting it."""
        kind = message["type"]
        if kind == "websocket.close":
            await self._send_close(message)
            return
        if kind != "websocket.send":
            message = self._with_request_id(message)
        try:
            await self._send(message)
        except OSError as error:
            self._lose(error)
            raise
        try:
            if kind == "websocket.send":
                record = self._record
                record.messages_sent += 1
                record.sent_bytes += _message_bytes(message)
            else:
                self._note_answer(kind, message)
        except Exception as error:  # noqa: BLE001 -- the guard: telemetry never reaches the connection
            self._desk.on_error("record", error)

    def break_off(self, error: BaseException) -> None:
        """The application has raised."""
        record = self._record
        if self._is_closed and self._is_departure(error):
            record.departure = error
            return
        if not isinstance(error, Exception):
            if not self._is_closed:
                record.error_type = names.ERROR_CANCELLED
            return
        record.exception = error
        if not record.status_code and not record.client_disconnected:
            record.status_code = 500  # what servers answer
            record.error_type = "500"
        elif record.error_type in _NO_FAILURES:
            record.error_type = names.ERROR_EXCEPTION

    def end(self) -> None:
        """The application is done with it: the record is complete. Does not raise."""
        record = self._record
        if not self._is_closed:
            if not record.status_code and not record.error_type:
                record.status_code = 500  # what servers answer for an application that has sent nothing
                record.error_type = "500"
            if record.is_accepted:
                record.close_code = _ABNORMAL_CLOSURE  # what clients see of a server that hangs up
            if not record.error_type:
                record.error_type = names.ERROR_INCOMPLETE_RESPONSE
            self._close()
        self._desk.tell("ended", record)

    async def _send_close(self, message: Message) -> None:
        """Pass on the application's close, or its refusal of the handshake."""
        is_first = not self._is_closed
        # Before it is sent: the server may answer it by a disconnect, in another task, before it returns.
        self._is_closed = True
        try:
            await self._send(message)
        except BaseException as error:
            self._is_closed = not is_first
            if isinstance(error, OSError):
                self._lose(error)
            raise
        if is_first:
            try:
                self._note_close(message)
            except Exception as error:  # noqa: BLE001 -- the guard: telemetry never reaches the connection
                self._desk.on_error("record", error)

    def _note_answer(self, kind: str, message: Message) -> None:
        """Note that the application has accepted the handshake, or answers it by a response of its own."""
        record = self._record
        if kind == "websocket.accept":
            record.status_code = 101
            self._find_route()
            self._desk.tell("accepted", record)
        elif kind == "websocket.http.response.start":
            record.status_code = message["status"]
            if record.status_code >= 500:
                self._explain_failure(record.status_code)
        elif kind == "websocket.http.response.body" and not message.get("more_body") and not self._is_closed:
            self._close()

    def _note_close(self, message: Message) -> None:
        record = self._record
        if record.is_accepted:
            record.close_code = message.get("code") or 1000
            record.is_application_code = True
            if record.close_code in names.FAILURE_CLOSE_CODES:
                self._explain_failure(record.close_code)
        else:
            record.status_code = 403  # what servers answer
        self._close()

    def _note_disconnect(self, message: Message) -> None:
        record = self._record
        code = message.get("code") or _NO_STATUS_RECEIVED
        if code == _NO_STATUS_RECEIVED and "reason" not in message:
            # uvicorn says so of a lost connection; to a close frame without a code it adds an empty reason.
            code = _ABNORMAL_CLOSURE
        if record.is_accepted:
            record.close_code = code
        if code == _ABNORMAL_CLOSURE or not record.is_accepted:
            self._note_loss()
        self._close()

    def _lose(self, error: OSError) -> None:
        """Note what the ASGI specification lets servers raise when something is sent to a client that has gone."""
        self._loss = error
        if not self._is_closed:
            if self._record.is_accepted:
                self._record.close_code = _ABNORMAL_CLOSURE
            self._note_loss()
            self._close()

    def _note_loss(self) -> None:
        self._record.client_disconnected = True
        self._record.error_type = names.ERROR_CLIENT_DISCONNECT

    def _close(self) -> None:
        """Note that nothing can be sent or received any more."""
        self._is_closed = True
        record = self._record
        record.duration_ns = self._desk.clock_ns() - record.start_clock_ns
        self._find_route()
        self._desk.tell("closed", record)

    def _find_route(self) -> None:
        try:
            self._record.route = route_template(self._record, self._scope)
        except Exception as error:  # noqa: BLE001 -- the guard: a framework's new version must not fail connections
            self._desk.on_error("record", error)

    def _explain_failure(self, code: int) -> None:
        """Fill the error type, and the exception that an error handler is answering, if one is."""
        record = self._record
        record.error_type = str(code)
        handled = sys.exception()
        if isinstance(handled, Exception) and not isinstance(handled, _ANSWERED):
            record.exception = handled

    def _is_departure(self, error: BaseException) -> bool:
        """Tell whether an exception says only that the connection is over."""
        if isinstance(error, BaseExceptionGroup):
            return all(self._is_departure(inner) for inner in error.exceptions)
        return error is self._loss or isinstance(error, WebSocketDisconnect)

    def _with_request_id(self, message: Message) -> Message:
        """Return what begins an answer to the handshake with our request id, unless the application has set one."""
        if message["type"] not in _BEGINNINGS:
            return message
        ours = self._desk.request_id_header
        try:
            headers = list(message.get("headers") or ())
            # Starlette passes the headers of an accept on as the application has spelled them.
            if not any(name.lower() == ours for name, _ in headers):
                headers.append((ours, self._record.request_id.encode("latin-1")))
        except Exception as error:  # noqa: BLE001 -- the guard: the server is to say what is wrong with them
            self._desk.on_error("record", error)
            return message
        return {**message, "headers": headers}


def _message_bytes(message: Message) -> int:
    text = message.get("text")
    if text is None:
        return len(message.get("bytes") or b"")
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
