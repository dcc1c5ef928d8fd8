"""WebSockets: a connection is one span, one line and a few numbers, however it ends and however much it carries."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, WebSocket, WebSocketException
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

import obslib
from obslib import Settings, _framework, names
from obslib.testing import Captured, capture
from tests.obslib.asgi import call, connect, http_scope, websocket_scope

SETTINGS = Settings(service_name="rooms", extra_registries=())
TEXT = {"type": "websocket.receive", "text": "hi"}
LOST = {"type": "websocket.disconnect", "code": 1006}
GONE = {"type": "websocket.disconnect", "code": 1000, "reason": ""}
DURATION_COUNT = f"{names.WEBSOCKET_SERVER_CONNECTION_DURATION}_count"
ROOM = {names.LABEL_ROUTE: "/rooms/{room}"}

Endpoint = Callable[[WebSocket], Awaitable[None]]


def app_of(endpoint: Endpoint) -> FastAPI:
    app = FastAPI()
    app.websocket("/rooms/{room}")(endpoint)
    return app


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


def outcome(captured: Captured) -> tuple[Any, ...]:
    """Return what the line says, and see that the other signals agree with it."""
    [line] = captured.access_lines
    [span] = captured.spans
    attributes = span.attributes or {}
    status, code = line["http_response_status_code"], line["websocket_close_code"]
    error_type = line["error_type"]
    assert attributes.get(names.ATTR_STATUS_CODE) == status
    assert attributes.get(names.ATTR_CLOSE_CODE) == code
    is_failure = error_type not in {"", "client_disconnect"}
    assert (span.status.status_code is StatusCode.ERROR) == is_failure == (line["level"] == "error")
    labels = {
        names.LABEL_ROUTE: line["http_route"],
        names.LABEL_STATUS_CODE: "" if status is None else str(status),
        names.LABEL_CLOSE_CODE: "" if code is None else str(code),
        names.LABEL_ERROR_TYPE: error_type,
    }
    assert captured.sample(DURATION_COUNT, labels) == 1
    assert sum(captured.samples(names.WEBSOCKET_SERVER_ACTIVE_CONNECTIONS).values()) == 0
    return status, code, error_type


async def test_one_connection_in_three_signals() -> None:
    """One line and one span say all there is to say, in the shape of a request's."""
    captured: Captured

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        captured.clock.advance(90)
        await websocket.send_bytes(await websocket.receive_bytes())
        await websocket.send_text(await websocket.receive_text())
        await websocket.receive()
        captured.clock.advance(5)

    app = app_of(endpoint)
    parent = b"00-0000000000000000000000000000abcd-000000000000ef01-01"
    headers = [(b"host", b"example.org:8443"), (b"user-agent", b"a"), (b"traceparent", parent)]
    with capture(app, SETTINGS) as captured:
        await connect(
            app,
            websocket_scope("/rooms/1", headers, scheme="wss", query_string=b"token=hunter2&page=2"),
            {"type": "websocket.receive", "bytes": b"\x00\x01\x02", "text": None},
            {"type": "websocket.receive", "text": "gr\u00fcn"},
        )
        assert captured.access_lines == [
            {
                "timestamp": "2026-01-01T00:01:30.000000Z",
                "level": "info",
                "event": "websocket_connection",
                "logger": "obslib.access",
                "service": "rooms",
                "trace_id": "0000000000000000000000000000abcd",
                "span_id": "0000000000000001",
                "request_id": "request-1",
                "http_route": "/rooms/{room}",
                "http_response_status_code": 101,
                "error_type": "",
                "url_scheme": "wss",
                "url_path": "/rooms/1",
                "duration_seconds": 90.0,
                "websocket_close_code": 1001,
                "websocket_messages_received": 2,
                "websocket_messages_sent": 2,
                "websocket_received_bytes": 8,
                "websocket_sent_bytes": 8,
                "client_address": "192.0.2.7",
                "user_agent_original": "a",
            }
        ]
        [span] = captured.spans
        assert (span.name, span.kind) == ("WS /rooms/{room}", SpanKind.SERVER)
        assert span.parent is not None
        assert span.parent.span_id == 0xEF01
        assert (span.end_time or 0) - (span.start_time or 0) == 90_000_000_000
        assert dict(span.attributes or {}) == {
            "url.scheme": "wss",
            "url.path": "/rooms/1",
            "url.query": "token=REDACTED&page=2",
            "network.protocol.name": "websocket",
            "server.address": "example.org",
            "server.port": 8443,
            "client.address": "192.0.2.7",
            "user_agent.original": "a",
            "http.route": "/rooms/{room}",
            "http.response.status_code": 101,
            "http.response.header.x-request-id": ("request-1",),
            "obslib.websocket.close_code": 1001,
            "obslib.websocket.messages_received": 2,
            "obslib.websocket.messages_sent": 2,
            "obslib.websocket.received_bytes": 8,
            "obslib.websocket.sent_bytes": 8,
        }
        assert outcome(captured) == (101, 1001, "")
        assert captured.sample(f"{names.HTTP_SERVER_REQUEST_DURATION}_count") is None
    buckets = captured.samples(f"{names.WEBSOCKET_SERVER_CONNECTION_DURATION}_bucket")
    assert {dict(labels)["le"] for labels, count in buckets.items() if count == 0} == {
        "0.1", "1.0", "5.0", "15.0", "60.0",
    }  # fmt: skip


def gauge(captured: Captured) -> float | None:
    return captured.sample(names.WEBSOCKET_SERVER_ACTIVE_CONNECTIONS, ROOM)


def messages(captured: Captured) -> tuple[float | None, float | None]:
    received, sent = (
        captured.sample(names.WEBSOCKET_SERVER_MESSAGES, {**ROOM, names.LABEL_DIRECTION: direction})
        for direction in (names.DIRECTION_RECEIVE, names.DIRECTION_TRANSMIT)
    )
    return received, sent


async def test_numbers_of_a_connection_that_is_open() -> None:
    """Gauge and message counter follow while it is open: a connection may last for days."""
    seen: list[Any] = []
    captured: Captured

    async def endpoint(websocket: WebSocket) -> None:
        seen.append((gauge(captured), messages(captured)))
        await websocket.accept()
        seen.append((gauge(captured), messages(captured)))
        await websocket.send_text(await websocket.receive_text())
        await websocket.send_text("again")
        seen.append((gauge(captured), messages(captured)))
        await websocket.send_text("last")
        await websocket.close()
        seen.append((gauge(captured), messages(captured)))

    app = app_of(endpoint)
    with capture(app, SETTINGS) as captured:
        await connect(app, websocket_scope("/rooms/1"), TEXT)
        assert messages(captured) == (1, 3)
    assert seen == [(None, (None, None)), (1, (0, 0)), (1, (1, 2)), (0, (1, 3))]


async def raise_late(websocket: WebSocket) -> None:
    await websocket.accept()
    raise ValueError("broken")


async def raise_early(websocket: WebSocket) -> None:
    raise ValueError("broken")


async def return_early(websocket: WebSocket) -> None:
    return


async def return_late(websocket: WebSocket) -> None:
    await websocket.accept()


async def cancel_late(websocket: WebSocket) -> None:
    await websocket.accept()
    raise asyncio.CancelledError


async def cancel_early(websocket: WebSocket) -> None:
    raise asyncio.CancelledError


async def cancel_after_close(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()
    raise asyncio.CancelledError


async def refuse(websocket: WebSocket) -> None:
    raise WebSocketException(1008)


async def refuse_and_raise(websocket: WebSocket) -> None:
    await websocket.close()
    raise ValueError("broken")


async def read_on(websocket: WebSocket) -> None:
    await websocket.accept()
    while True:
        await websocket.receive_text()


async def read_in_group(websocket: WebSocket) -> None:
    await websocket.accept()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(websocket.receive_text())


async def raise_in_group(websocket: WebSocket) -> None:
    await websocket.accept()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(websocket.receive_text())
        tasks.create_task(raise_early(websocket))


async def clean_up_badly(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        await websocket.receive_text()
    except WebSocketDisconnect:
        raise ValueError("broken") from None


async def close_with(websocket: WebSocket, code: int) -> None:
    await websocket.accept()
    await websocket.close(code)


async def close_as_failed(websocket: WebSocket) -> None:
    await close_with(websocket, 1011)


async def close_as_failed_and_raise(websocket: WebSocket) -> None:
    await close_with(websocket, 1011)
    raise ValueError("broken")


async def close_privately(websocket: WebSocket) -> None:
    await close_with(websocket, 4321)


async def close_twice(websocket: WebSocket) -> None:
    await close_with(websocket, 1000)
    await websocket._send({"type": "websocket.close", "code": 1011})


async def wait_for_handshake(websocket: WebSocket) -> None:
    await websocket.receive()
    await websocket.receive()


async def wait_and_raise(websocket: WebSocket) -> None:
    await wait_for_handshake(websocket)
    raise ValueError("broken")


async def deny(websocket: WebSocket) -> None:
    await websocket.send_denial_response(PlainTextResponse("no", 429))


async def deny_as_failed(websocket: WebSocket) -> None:
    await websocket.send_denial_response(PlainTextResponse("no", 503))


async def deny_incompletely(websocket: WebSocket) -> None:
    await websocket.receive()
    await websocket.send({"type": "websocket.http.response.start", "status": 401, "headers": []})
    await websocket.send({"type": "websocket.http.response.body", "body": b"n", "more_body": True})


@pytest.mark.parametrize(
    ("endpoint", "incoming", "expected", "raises"),
    [
        (echo, [TEXT], (101, 1001, ""), None),
        (echo, [TEXT, GONE], (101, 1000, ""), None),
        (echo, [LOST], (101, 1006, "client_disconnect"), None),
        (echo, [{"type": "websocket.disconnect", "code": 1005, "reason": ""}], (101, 1005, ""), None),
        (echo, [{"type": "websocket.disconnect", "code": 1005}], (101, 1006, "client_disconnect"), None),
        (echo, [{"type": "websocket.disconnect", "code": 1012}], (101, 1012, ""), None),
        (read_on, [TEXT, GONE], (101, 1000, ""), WebSocketDisconnect),
        (read_on, [LOST], (101, 1006, "client_disconnect"), WebSocketDisconnect),
        (read_in_group, [GONE], (101, 1000, ""), ExceptionGroup),
        (raise_in_group, [GONE], (101, 1000, "exception"), ExceptionGroup),
        (clean_up_badly, [GONE], (101, 1000, "exception"), ValueError),
        (clean_up_badly, [LOST], (101, 1006, "exception"), ValueError),
        (close_privately, [], (101, 4321, ""), None),
        (close_as_failed, [], (101, 1011, "1011"), None),
        (close_as_failed_and_raise, [], (101, 1011, "1011"), ValueError),
        (close_twice, [], (101, 1000, ""), None),
        (raise_late, [], (101, 1006, "exception"), ValueError),
        (raise_early, [], (500, None, "500"), ValueError),
        (return_late, [], (101, 1006, "incomplete_response"), None),
        (return_early, [], (500, None, "500"), None),
        (cancel_late, [], (101, 1006, "cancelled"), asyncio.CancelledError),
        (cancel_early, [], (None, None, "cancelled"), asyncio.CancelledError),
        (cancel_after_close, [], (101, 1000, ""), asyncio.CancelledError),
        (refuse, [], (403, None, ""), None),
        (refuse_and_raise, [], (403, None, "exception"), ValueError),
        (wait_for_handshake, [LOST], (None, None, "client_disconnect"), None),
        (wait_and_raise, [LOST], (None, None, "exception"), ValueError),
        (deny, [], (429, None, ""), None),
        (deny_as_failed, [], (503, None, "503"), None),
        (deny_incompletely, [], (401, None, "incomplete_response"), None),
    ],
)
async def test_every_end(
    endpoint: Endpoint,
    incoming: list[dict[str, Any]],
    expected: tuple[int | None, int | None, str],
    raises: type[BaseException] | None,
) -> None:
    """However it ends, the three signals say the same of it, and what is raised goes on to the server."""
    app = app_of(endpoint)
    scope = websocket_scope("/rooms/1", extensions={"websocket.http.response": {}})
    with capture(app, SETTINGS) as captured:
        if raises is None:
            await connect(app, scope, *incoming)
        else:
            with pytest.raises(raises):
                await connect(app, scope, *incoming)
        assert outcome(captured) == expected
        assert sum(captured.samples(names.INTERNAL_ERRORS).values()) == 0
    assert _framework.SCOPE_RECORD not in scope


async def test_exception() -> None:
    """The span has it with its stack trace, the line, too, and the metric only that there was one."""
    app = app_of(raise_late)
    with capture(app, SETTINGS) as captured, pytest.raises(ValueError, match="broken"):
        await connect(app, websocket_scope("/rooms/1"))
    [span] = captured.spans
    [event] = span.events
    assert "in raise_late" in str((event.attributes or {})["exception.stacktrace"])
    assert (span.attributes or {})["error.type"] == "ValueError"
    [line] = captured.access_lines
    assert (line["exception_type"], line["error_type"]) == ("ValueError", "exception")


async def test_a_departure_is_no_exception() -> None:
    """That a client has left is said by the close code, not by a stack trace."""
    app = app_of(read_on)
    with capture(app, SETTINGS) as captured, pytest.raises(WebSocketDisconnect):
        await connect(app, websocket_scope("/rooms/1"), GONE)
    assert captured.spans[0].events == ()
    assert "exception_type" not in captured.access_lines[0]


async def test_exception_behind_a_close_code() -> None:
    """An exception that a handler answers by 1011 stands on span and line, as that of a 5xx does."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            raise ValueError("broken")
        except ValueError:
            await websocket.close(1011)

    app = app_of(endpoint)
    with capture(app, SETTINGS) as captured:
        await connect(app, websocket_scope("/rooms/1"))
        assert outcome(captured) == (101, 1011, "1011")
    assert captured.access_lines[0]["exception_type"] == "ValueError"


async def test_exception_that_is_only_an_answer() -> None:
    """What frameworks answer by a close code is no exception to report."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        raise WebSocketException(1013)

    app = app_of(endpoint)
    with capture(app, SETTINGS) as captured:
        await connect(app, websocket_scope("/rooms/1"))
        assert outcome(captured) == (101, 1013, "1013")
    assert "exception_type" not in captured.access_lines[0]


@pytest.mark.parametrize("kind", ["websocket.accept", "websocket.send", "websocket.close"])
async def test_client_gone_while_something_is_sent(kind: str) -> None:
    """What a server raises then is the client's departure, not the service's failure."""
    app = raw_app(
        {"type": "websocket.accept"},
        {"type": "websocket.send", "text": "hi"},
        {"type": "websocket.close", "code": 1000},
    )

    async def send(message: Any) -> None:
        if message["type"] == kind:
            raise ConnectionError("gone")

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    with capture(app, SETTINGS) as captured:
        with pytest.raises(ConnectionError, match="gone"):
            await app(websocket_scope("/"), receive, send)
        is_open = kind != "websocket.accept"
        assert outcome(captured) == (101 if is_open else None, 1006 if is_open else None, "client_disconnect")
        assert captured.spans[0].events == ()


async def test_sending_to_a_client_that_has_said_goodbye() -> None:
    """The first word about the end counts; what the server raises afterwards adds nothing to it."""
    app = raw_app({"type": "websocket.accept"}, {"type": "websocket.send", "text": "hi"}, listens=True)

    async def send(message: Any) -> None:
        await asyncio.sleep(0)
        if message["type"] == "websocket.send":
            raise ConnectionError("gone")

    async def receive() -> Any:
        await asyncio.sleep(0)
        return {"type": "websocket.disconnect", "code": 1000, "reason": ""}

    with capture(app, SETTINGS) as captured:
        with pytest.raises(ConnectionError, match="gone"):
            await app(websocket_scope("/"), receive, send)
        assert outcome(captured) == (101, 1000, "")


async def test_other_os_errors_are_failures() -> None:
    """A database that is gone is no client that is gone."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive()
        raise ConnectionError("no database")

    app = app_of(endpoint)
    with capture(app, SETTINGS) as captured:
        with pytest.raises(ConnectionError):
            await connect(app, websocket_scope("/rooms/1"), LOST)
        assert outcome(captured) == (101, 1006, "exception")


async def test_a_close_that_the_server_refuses() -> None:
    """A code that cannot be sent has closed nothing."""
    app = raw_app({"type": "websocket.accept"}, {"type": "websocket.close", "code": 7})

    async def send(message: Any) -> None:
        if message["type"] == "websocket.close":
            raise ValueError("no code")

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    with capture(app, SETTINGS) as captured:
        with pytest.raises(ValueError, match="no code"):
            await app(websocket_scope("/"), receive, send)
        assert outcome(captured) == (101, 1006, "exception")


async def test_a_disconnect_that_answers_our_close() -> None:
    """A server that waits for the client's echo may hand it to another task meanwhile: the close is ours."""
    app = raw_app({"type": "websocket.accept"}, {"type": "websocket.close", "code": 4000}, listens=True)
    echoed = asyncio.Event()

    async def send(message: Any) -> None:
        if message["type"] == "websocket.close":
            echoed.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def receive() -> Any:
        await echoed.wait()
        return LOST

    with capture(app, SETTINGS) as captured:
        await app(websocket_scope("/"), receive, send)
        assert outcome(captured) == (101, 4000, "")


def raw_app(*to_send: dict[str, Any], listens: bool = False) -> Starlette:
    async def raw(_scope: Any, receive: Any, send: Any) -> None:
        listener = asyncio.create_task(receive()) if listens else None
        for message in to_send:
            await send(message)
        if listener is not None:
            await listener

    class Raw(Starlette):
        def build_middleware_stack(self) -> Any:
            return raw

    return Raw()


@pytest.mark.parametrize(("code", "label"), [(1002, "1002"), (3000, "3000"), (4321, "_OTHER"), (3999, "_OTHER")])
async def test_codes_of_clients_are_bounded(code: int, label: str) -> None:
    """A client may send any of two thousand codes; those of no standard share one series."""
    app = app_of(echo)
    with capture(app, SETTINGS) as captured:
        await connect(app, websocket_scope("/rooms/1"), {"type": "websocket.disconnect", "code": code, "reason": ""})
        [labels] = captured.samples(DURATION_COUNT)
    assert dict(labels)[names.LABEL_CLOSE_CODE] == label
    assert captured.access_lines[0]["websocket_close_code"] == code


def routed_app() -> FastAPI:
    app, sub, router = FastAPI(), FastAPI(), APIRouter(prefix="/inner")
    router.websocket("/a/{x}")(echo)
    sub.websocket("/s/{y}")(echo)
    app.include_router(router, prefix="/v1")
    app.mount("/t/{name}", sub)
    app.router.routes.append(WebSocketRoute("/plain/{number:int}", echo))
    app.router.routes.append(Mount("/m/{z}", routes=[WebSocketRoute("/leaf", echo), Route("/leaf2", echo)]))
    return app


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/v1/inner/a/1", "/v1/inner/a/{x}"),
        ("/t/acme/s/1", "/t/{name}/s/{y}"),
        ("/t/acme/none", "/t/{name}/{path}"),
        ("/plain/3", "/plain/{number}"),
        ("/plain/x", ""),
        ("/m/1/leaf", "/m/{z}/leaf"),
        ("/none", ""),
    ],
)
async def test_route(path: str, template: str) -> None:
    """Routes are whole templates, with prefixes and mounts."""
    app = routed_app()
    with capture(app, SETTINGS) as captured:
        await connect(app, websocket_scope(path))
        assert captured.access_lines[0]["http_route"] == template
    assert captured.spans[0].name == f"WS {template}".strip()


async def test_route_of_old_starlette(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 1.7 only the endpoint is in the scope; the route is found by it."""
    original = WebSocketRoute.handle

    async def handle(self: WebSocketRoute, scope: Any, receive: Any, send: Any) -> None:
        scope.pop("route", None)
        await original(self, scope, receive, send)

    monkeypatch.setattr(WebSocketRoute, "handle", handle)
    app = Starlette(routes=[WebSocketRoute("/plain/{number:int}", echo)])
    with capture(app, SETTINGS) as captured:
        await connect(app, websocket_scope("/plain/3"))
    assert captured.access_lines[0]["http_route"] == "/plain/{number}"


async def test_context_is_current() -> None:
    """Lines, children and `bind` belong to the connection while its endpoint runs, and to nothing afterwards."""
    captured: Captured

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        obslib.bind(user="u1", token="hunter2")
        captured.tracer_provider.get_tracer("t").start_span("child").end()
        obslib.get_logger("room").info("joined")
        assert obslib.request_id() == "request-1"
        await websocket.close()

    app = app_of(endpoint)
    with capture(app, SETTINGS) as captured:
        await connect(app, websocket_scope("/rooms/1"))
        assert trace.get_current_span() is trace.INVALID_SPAN
        assert obslib.request_id() == ""
    child, span = captured.spans
    assert child.parent is not None
    assert child.parent.span_id == span.context.span_id
    joined, access = captured.lines
    for key in ("trace_id", "span_id", "request_id", "user"):
        assert joined[key] == access[key] != ""
    assert access["token"] == "[REDACTED]"


async def test_request_id() -> None:
    """The answer to a handshake has the id, the caller's if it sent one, unless the application has set its own."""

    async def endpoint(websocket: WebSocket) -> None:
        own = websocket.query_params.get("own")
        await websocket.accept(headers=[(b"X-Request-ID", b"mine"), (b"a", b"b")] if own else None)

    app = app_of(endpoint)
    header = (b"x-request-id", b"from-caller")
    with capture(app, SETTINGS) as captured:
        accepts = [
            (await connect(app, websocket_scope("/rooms/1", headers, query_string=query)))[0]["headers"]
            for headers, query in (([], b""), ([header], b""), ([], b"own=1"), ([(b"x-request-id", b"\x00")], b""))
        ]
    assert accepts == [
        [(b"x-request-id", b"request-1")],
        [header],
        [(b"X-Request-ID", b"mine"), (b"a", b"b")],
        [(b"x-request-id", b"request-3")],
    ]
    assert [line["request_id"] for line in captured.access_lines] == [
        "request-1", "from-caller", "request-2", "request-3",
    ]  # fmt: skip


async def test_request_id_of_a_denial() -> None:
    """A response to the handshake has it, too."""
    app = app_of(deny)
    with capture(app, SETTINGS):
        start, body = await connect(app, websocket_scope("/rooms/1", extensions={"websocket.http.response": {}}))
    assert (b"x-request-id", b"request-1") in start["headers"]
    assert body["body"] == b"no"


@pytest.mark.parametrize("path", ["/rooms/healthz", "/rooms/internal/x", "/metrics"])
async def test_excluded_paths(path: str) -> None:
    """They leave no trace, children included; a WebSocket on the path of the metrics is not answered by them."""
    captured: Captured
    app = FastAPI()

    @app.websocket("/{rest:path}")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        captured.tracer_provider.get_tracer("t").start_span("child").end()
        await websocket.close()

    settings = replace(SETTINGS, excluded_paths=("/rooms/healthz", "/rooms/internal/*"))
    with capture(app, settings) as captured:
        scope = websocket_scope(f"/root{path}", root_path="/root")
        sent = await connect(app, scope)
        assert (captured.spans, captured.lines) == ([], [])
        assert captured.samples(DURATION_COUNT) == {}
    assert sent[0] == {"type": "websocket.accept", "subprotocol": None, "headers": []}


async def test_nested_applications_record_once() -> None:
    """The outermost layer records; one inside of it passes everything on."""
    app, sub = FastAPI(), app_of(echo)
    app.mount("/sub", sub)
    with capture(sub, SETTINGS) as inner, capture(app, SETTINGS) as outer:
        await connect(app, websocket_scope("/sub/rooms/1"), TEXT)
        assert (inner.spans, inner.access_lines) == ([], [])
        assert outcome(outer) == (101, 1001, "")
    assert outer.access_lines[0]["http_route"] == "/sub/rooms/{room}"


async def test_native_telemetry_is_off() -> None:
    """FastAPI's own makes no second span of a connection, mounted applications included."""
    app, sub = FastAPI(), app_of(echo)
    app.mount("/sub", sub)
    seen: list[object] = []

    class Watch:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope.get("fastapi.telemetry", "missing"))
            await self.app(scope, receive, send)

    sub.add_middleware(Watch)
    with capture(app, SETTINGS):
        await connect(app, websocket_scope("/sub/rooms/1"))
    assert seen == [None]


@pytest.mark.parametrize(
    ("sampler", "flags", "spans"),
    [("parentbased_always_on", "00", 0), ("parentbased_always_on", "01", 1), ("always_off", "01", 0)],
)
async def test_sampling(sampler: str, flags: str, spans: int) -> None:
    """Connections are sampled as requests are; lines have the ids anyway."""
    app = app_of(echo)
    traceparent = f"00-0000000000000000000000000000abcd-000000000000ef01-{flags}".encode()
    with capture(app, replace(SETTINGS, traces_sampler=sampler)) as captured:
        await connect(app, websocket_scope("/rooms/1", [(b"traceparent", traceparent)]))
    assert len(captured.spans) == spans
    assert captured.access_lines[0]["trace_id"] == "0000000000000000000000000000abcd"


async def test_spans_kept_late() -> None:
    """The span of a connection that failed is kept; one that only lasted is not slow."""
    captured: Captured

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        captured.clock.advance(3600)
        if websocket.path_params["room"] == "2":
            raise ValueError("broken")
        await websocket.close()

    app = app_of(endpoint)
    settings = replace(
        SETTINGS, traces_sampler="always_off", traces_keep_errors=True, traces_keep_slower_than_seconds=1.0
    )
    with capture(app, settings) as captured:
        await connect(app, websocket_scope("/rooms/1"))
        assert captured.spans == []
        with pytest.raises(ValueError, match="broken"):
            await connect(app, websocket_scope("/rooms/2"))
    [span] = captured.spans
    assert span.name == "WS /rooms/{room}"
    assert (span.attributes or {})["network.protocol.name"] == "websocket"


@pytest.mark.parametrize("off", ["traces_enabled", "metrics_enabled", "logs_enabled", "access_log"])
async def test_signals_that_are_off(off: str) -> None:
    """The others go on."""
    app = app_of(echo)
    change: dict[str, Any] = {off: False}
    with capture(app, replace(SETTINGS, **change)) as captured:
        await connect(app, websocket_scope("/rooms/1"), TEXT)
        said = (len(captured.spans), len(captured.access_lines), len(captured.samples(DURATION_COUNT)))
    assert (
        said
        == {
            "traces_enabled": (0, 1, 1),
            "metrics_enabled": (1, 1, 0),
            "logs_enabled": (1, 0, 1),
            "access_log": (1, 0, 1),
        }[off]
    )


async def test_a_thrown_away_connection() -> None:
    """A coroutine that is closed from outside is recorded, and disturbs nobody's context."""
    app = app_of(echo)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(_message: Any) -> None:
        await asyncio.Event().wait()

    with capture(app, SETTINGS) as captured:
        coroutine: Any = app(websocket_scope("/rooms/1"), receive, send)

        async def begin() -> None:
            coroutine.send(None)

        await asyncio.create_task(begin())
        coroutine.close()
        assert outcome(captured) == (None, None, "cancelled")


class Broken:
    """Raises wherever it is asked something."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise OSError("broken")

    def _on_ending(self, span: Any) -> None: ...

    def on_end(self, span: Any) -> None:
        raise OSError("broken")


async def test_a_recorder_that_raises() -> None:
    """It is counted, and neither the connection nor the other signals notice."""
    app = app_of(echo)
    with capture(app, SETTINGS) as captured:
        captured.tracer_provider.add_span_processor(Broken())  # type: ignore[arg-type]
        sent = await connect(app, websocket_scope("/rooms/1"), TEXT)
        assert captured.sample(names.INTERNAL_ERRORS, {names.LABEL_SIGNAL: "traces"}) == 1
        assert captured.sample(DURATION_COUNT, {
            **ROOM, names.LABEL_STATUS_CODE: "101", names.LABEL_CLOSE_CODE: "1001", names.LABEL_ERROR_TYPE: ""
        }) == 1  # fmt: skip
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send"]
    assert len(captured.access_lines) == 1


@pytest.mark.parametrize(
    ("to_send", "incoming", "errors"),
    [
        ([{"type": "websocket.accept", "headers": 7}], [], 1),
        ([{"type": "websocket.accept"}, {"type": "websocket.send", "text": 7}], [], 1),
        ([{"type": "websocket.accept"}, {"type": "websocket.close", "code": []}], [], 0),
        ([{"type": "websocket.accept"}, {"type": "websocket.close", "code": [7]}], [], 1),
        ([{"type": "websocket.accept"}], [{"type": "websocket.receive", "text": 7}], 1),
        ([{"type": "of tomorrow"}], [{"type": "of tomorrow"}], 0),
    ],
)
async def test_messages_that_make_no_sense(
    to_send: list[dict[str, Any]], incoming: list[dict[str, Any]], errors: int
) -> None:
    """They reach whom they are for as they are: it is not for telemetry to refuse them."""
    received: list[Any] = []

    class Raw(Starlette):
        def build_middleware_stack(self) -> Any:
            async def raw(_scope: Any, receive: Any, send: Any) -> None:
                for message in to_send:
                    await send(message)
                await receive()
                received.extend([await receive() for _ in incoming])

            return raw

    app = Raw()
    with capture(app, SETTINGS) as captured:
        sent = await connect(app, websocket_scope("/"), *incoming)
        assert captured.sample(names.INTERNAL_ERRORS, {names.LABEL_SIGNAL: "record"}) == (errors or None)
        assert len(captured.access_lines) == 1
    assert [message["type"] for message in sent] == [message["type"] for message in to_send]
    assert received == incoming


async def test_a_scope_that_cannot_be_recorded() -> None:
    """The application serves it."""
    app = raw_app({"type": "websocket.accept"})
    scope = websocket_scope("/")
    del scope["headers"]
    with capture(app, SETTINGS) as captured:
        assert await connect(app, scope) == [{"type": "websocket.accept"}]
        assert captured.sample(names.INTERNAL_ERRORS, {names.LABEL_SIGNAL: "record"}) == 1


async def test_a_route_that_cannot_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new version of the framework costs the template, nothing else."""

    def fail(*_args: object) -> str:
        raise AttributeError("new")

    app = app_of(echo)
    monkeypatch.setattr("obslib._websocket.route_template", fail)
    with capture(app, SETTINGS) as captured:
        await connect(app, websocket_scope("/rooms/1"), TEXT)
        assert outcome(captured) == (101, 1001, "")
    assert captured.access_lines[0]["http_route"] == ""


async def test_an_exception_that_takes_no_mark() -> None:
    """Exceptions with slots are recorded all the same."""

    class Slotted(WebSocketDisconnect):
        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            raise AttributeError("none")

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive()
        raise Slotted(1000)

    app = app_of(endpoint)
    with capture(app, SETTINGS) as captured:
        with pytest.raises(Slotted):
            await connect(app, websocket_scope("/rooms/1"), GONE)
        assert outcome(captured) == (101, 1000, "")


async def test_requests_beside_connections() -> None:
    """An open connection is no request in flight."""
    captured: Captured
    seen: list[float] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        seen.append(sum(captured.samples(names.HTTP_SERVER_ACTIVE_REQUESTS).values()))

    app = app_of(endpoint)
    app.router.routes.append(Mount("/r", app=Router()))
    with capture(app, SETTINGS) as captured:
        await call(app, http_scope("/none"))
        await connect(app, websocket_scope("/rooms/1"))
    assert seen == [0]
    assert [line["event"] for line in captured.access_lines] == ["http_request", "websocket_connection"]


async def test_open_connections_stay_with_the_parent_of_a_fork() -> None:
    """What a child does first: it forgets them, so that nobody counts them twice."""
    captured: Captured
    seen: list[float | None] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        seen.append(gauge(captured))
        captured._telemetry.reset_after_fork()
        seen.append(gauge(captured))
        await websocket.close()

    app = app_of(endpoint)
    with capture(app, SETTINGS) as captured:
        await connect(app, websocket_scope("/rooms/1"))
    assert seen == [1, 0]


async def test_a_server_that_knows_no_client() -> None:
    """Behind a unix socket there is no address to tell."""
    app = FastAPI()
    with capture(app) as telemetry:
        await connect(app, websocket_scope("/none", client=None))
        assert telemetry.access_lines[0][names.LOG_CLIENT_ADDRESS] == ""
