"""Requests that servers and applications make rarely: each is recorded once, and none is harmed."""

import contextvars
import itertools
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import NonRecordingSpan, NoOpTracerProvider, SpanContext, TraceFlags
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from obslib import names
from obslib._beside_the_loop import in_own_thread
from obslib._errors import ErrorReporter
from obslib._outbound import _hooks, instrument_libraries
from obslib._redaction import Redactor
from obslib.settings import Settings
from obslib.testing import capture
from tests.obslib.asgi import Exchange, call, http_scope

SETTINGS = Settings(service_name="shop", extra_registries=())


def raw_app(*messages: dict[str, Any]) -> Starlette:
    """Return an application that sends just these messages."""

    async def raw(_scope: Any, _receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return Starlette(routes=[Mount("/raw", raw)])


START = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}


async def test_trailers() -> None:
    """A response with trailers ends with them, not with its body."""
    app = raw_app(
        {**START, "trailers": True},
        {"type": "http.response.body", "body": b"x"},
        {"type": "http.response.trailers", "headers": [], "more_trailers": True},
        {"type": "http.response.trailers", "headers": []},
    )
    with capture(app, SETTINGS) as telemetry:
        exchange = Exchange()
        recorded: list[int] = []

        async def send(message: Any) -> None:
            recorded.append(len(telemetry.access_lines))
            await exchange.send(message)

        await app(http_scope("/raw/"), exchange.receive, send)
        assert (recorded, len(telemetry.access_lines)) == ([0, 0, 0, 0], 1)
        assert telemetry.access_lines[0][names.LABEL_ERROR_TYPE] == ""


async def test_pathsend() -> None:
    """A file that the server sends by itself ends the response."""
    app = raw_app(START, {"type": "http.response.pathsend", "path": "/x"})
    with capture(app, SETTINGS) as telemetry:
        await call(app, http_scope("/raw/"))
        assert telemetry.access_lines[0][names.LABEL_ERROR_TYPE] == ""


async def test_messages_of_extensions_pass() -> None:
    """Messages obslib does not know pass unchanged and end nothing."""
    push = {"type": "http.response.push", "path": "/x", "headers": []}
    app = raw_app(push, START, {"type": "http.response.body", "body": b""})
    with capture(app, SETTINGS) as telemetry:
        exchange = await call(app, http_scope("/raw/"))
        assert len(telemetry.access_lines) == 1
    assert exchange.sent[0] is push


async def test_messages_after_the_end() -> None:
    """What an application sends after the end is the server's to refuse; the request is recorded once."""
    body = {"type": "http.response.body", "body": b""}
    app = raw_app(START, body, body)
    with capture(app, SETTINGS) as telemetry:
        await call(app, http_scope("/raw/"))
        assert len(telemetry.access_lines) == 1


async def test_response_without_headers() -> None:
    """A response start without headers gets the request id, and nothing else."""
    app = raw_app({"type": "http.response.start", "status": 204}, {"type": "http.response.body"})
    with capture(app, SETTINGS):
        exchange = await call(app, http_scope("/raw/"))
    assert exchange.sent[0]["headers"] == [(b"x-request-id", b"request-1")]


async def test_headers_that_can_be_read_once() -> None:
    """The specification asks for an iterable: what the application sends arrives, whatever kind it is."""
    start = {"type": "http.response.start", "status": 204, "headers": iter([(b"a", b"1"), [b"b", b"2"]])}
    app = raw_app(start, {"type": "http.response.body"})
    with capture(app, SETTINGS):
        exchange = await call(app, http_scope("/raw/"))
    assert exchange.sent[0]["headers"] == [(b"a", b"1"), [b"b", b"2"], (b"x-request-id", b"request-1")]


@pytest.mark.parametrize(("name", "added"), [(b"a", [(b"x-request-id", b"request-1")]), (b"x-request-id", [])])
async def test_headers_that_servers_take_though_they_are_no_bytes(name: bytes, added: list[Any]) -> None:
    """A name in a bytearray is a name: one of ours is added, unless it is that."""
    headers = [(bytearray(name), b"1")]
    app = raw_app({"type": "http.response.start", "status": 204, "headers": headers}, {"type": "http.response.body"})
    with capture(app, SETTINGS) as telemetry:
        exchange = await call(app, http_scope("/raw/"))
        assert exchange.sent[0]["headers"] == [*headers, *added]
        assert telemetry.sample(names.INTERNAL_ERRORS, {names.LABEL_SIGNAL: "record"}) is None


@pytest.mark.parametrize("headers", [[(b"a", b"1", b"2")], [(b"a",)], ["a"], [None], [(b"a", b"1"), 2]])
async def test_headers_that_are_none(headers: list[Any]) -> None:
    """The server is to say what is wrong with them: it gets what the application has sent, and we say that we cannot."""
    app = raw_app({"type": "http.response.start", "status": 204, "headers": headers}, {"type": "http.response.body"})
    with capture(app, SETTINGS) as telemetry:
        exchange = await call(app, http_scope("/raw/"))
        assert exchange.sent[0]["headers"] == headers
        assert telemetry.sample(names.INTERNAL_ERRORS, {names.LABEL_SIGNAL: "record"}) == 1
        assert len(telemetry.access_lines) == 1


async def test_scope_with_nothing_optional() -> None:
    """What the specification lets a server leave out has the value it says."""
    app = raw_app(START, {"type": "http.response.body"})
    scope = http_scope("/raw/")
    for key in ("scheme", "http_version", "client", "server", "root_path"):
        scope.pop(key, None)
    with capture(app, SETTINGS) as telemetry:
        await call(app, scope)
        [line] = telemetry.access_lines
        [span] = telemetry.spans
    assert (line[names.LABEL_SCHEME], line[names.LOG_CLIENT_ADDRESS]) == ("http", "")
    assert dict(span.attributes or {})[names.ATTR_PROTOCOL_VERSION] == "1.1"


async def test_send_to_a_client_that_has_gone() -> None:
    """A server that raises because the client has gone makes it a disconnect."""
    app = raw_app(START, {"type": "http.response.body", "body": b"x"})

    async def send(_message: Any) -> None:
        raise OSError("gone")

    with capture(app, SETTINGS) as telemetry:
        with pytest.raises(OSError, match="gone"):
            await app(http_scope("/raw/"), Exchange().receive, send)
        assert telemetry.access_lines[0][names.LABEL_ERROR_TYPE] == names.ERROR_CLIENT_DISCONNECT


async def test_client_gone_before_any_response() -> None:
    """An application that gives up because its client has gone answered nothing, and failed nobody."""

    async def raw(_scope: Any, receive: Any, _send: Any) -> None:
        assert (await receive())["type"] == "http.disconnect"

    app = Starlette(routes=[Mount("/raw", raw)])
    with capture(app, SETTINGS) as telemetry:
        await call(app, http_scope("/raw/"), {"type": "http.disconnect"})
        [line] = telemetry.access_lines
    assert (line[names.LABEL_ERROR_TYPE], line[names.LABEL_STATUS_CODE]) == (names.ERROR_CLIENT_DISCONNECT, None)


async def test_incomplete_response() -> None:
    """A response that starts and never ends is incomplete."""
    app = raw_app(START)
    with capture(app, SETTINGS) as telemetry:
        await call(app, http_scope("/raw/"))
        [line] = telemetry.access_lines
    assert (line[names.LABEL_ERROR_TYPE], line[names.LABEL_STATUS_CODE]) == (names.ERROR_INCOMPLETE_RESPONSE, 200)


async def test_failure_after_the_end() -> None:
    """An application that fails when its response is complete changes nothing about it, and the error goes on."""

    async def raw(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": b""})
        raise RuntimeError("late")

    app = Starlette(routes=[Mount("/raw", raw)])
    with capture(app, SETTINGS) as telemetry:
        with pytest.raises(RuntimeError, match="late"):
            await call(app, http_scope("/raw/"))
        [line] = telemetry.access_lines
    assert (line[names.LABEL_STATUS_CODE], line[names.LABEL_ERROR_TYPE]) == (200, "")


async def test_exception_with_nothing_sent() -> None:
    """An exception that leaves the application before any response is status 500 everywhere."""

    class Unhandled(Starlette):
        def build_middleware_stack(self) -> Any:
            return self.router

    async def boom(_request: Request) -> PlainTextResponse:
        raise RuntimeError("boom")

    app = Unhandled(routes=[Route("/boom", boom)])
    with capture(app, SETTINGS) as telemetry:
        with pytest.raises(RuntimeError, match="boom"):
            await call(app, http_scope("/boom"))
        [line] = telemetry.access_lines
        [span] = telemetry.spans
    assert (line[names.LABEL_STATUS_CODE], line[names.LABEL_ERROR_TYPE]) == (500, "500")
    assert span.attributes is not None
    assert span.attributes[names.ATTR_STATUS_CODE] == 500
    assert [event.name for event in span.events] == ["exception"]


async def test_framework_that_has_changed() -> None:
    """When the route cannot be read the request is served and recorded without one, and the failure is counted."""

    class Odd(Route):
        @property
        def path_format(self) -> str:
            raise RuntimeError("renamed")

        @path_format.setter
        def path_format(self, _value: str) -> None: ...

    async def endpoint(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("fine")

    app = Starlette(routes=[Odd("/odd", endpoint)])
    with capture(app, SETTINGS) as telemetry:
        exchange = await call(app, http_scope("/odd"))
        [line] = telemetry.access_lines
        assert telemetry.sample(names.INTERNAL_ERRORS, {names.LABEL_SIGNAL: "record"}) == 1
        assert telemetry.sample(names.INTERNAL_ERRORS, {names.LABEL_SIGNAL: "metrics"}) == 1
    assert (exchange.body, line[names.LABEL_ROUTE]) == (b"fine", "")


def test_coroutine_that_is_thrown_away() -> None:
    """A request whose coroutine is closed in another context resets nothing there, and is recorded."""
    app = FastAPI()

    class Forever:
        def __await__(self) -> Any:
            yield None

    @app.get("/")
    async def root() -> None:
        await Forever()

    with capture(app, SETTINGS) as telemetry:
        exchange = Exchange()
        serving = app(http_scope("/"), exchange.receive, exchange.send)
        contextvars.copy_context().run(serving.send, None)
        contextvars.copy_context().run(serving.close)
        assert telemetry.access_lines[0][names.LABEL_ERROR_TYPE] == names.ERROR_INCOMPLETE_RESPONSE


def test_errors_that_cannot_be_logged(capsys: pytest.CaptureFixture[str]) -> None:
    """When the logs themselves fail, stderr is told; what was silenced in a window is said with the next line."""
    counted: list[str] = []

    def log(_level: str, _event: str, _values: dict[str, Any]) -> None:
        raise OSError("no disk")

    reporter = ErrorReporter(counted.append, log)
    for _ in range(3):
        reporter.internal("logs", ValueError("x"))
    assert counted == ["logs"] * 3
    assert capsys.readouterr().err.count("could not be logged") == 1


def test_silenced_errors_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first line of a new window says how many were left out before it."""
    seconds = itertools.count(0.0, 40.0)
    monkeypatch.setattr("obslib._errors.time.monotonic", lambda: next(seconds))
    said: list[dict[str, Any]] = []
    reporter = ErrorReporter(lambda _signal: None, lambda _level, _event, values: said.append(values))
    for _ in range(3):
        reporter.report("export", "obslib_spans_not_exported", {})
    assert said == [{}, {"silenced_before": 1}]


async def test_function_beside_the_loop() -> None:
    """A blocking function runs beside the event loop, and its end is awaited even if it fails."""
    ran: list[int] = []
    await in_own_thread(lambda: ran.append(1))
    assert ran == [1]


def test_collector_described_by_the_registry() -> None:
    """A registry refuses a second metric of a name obslib has taken."""
    with capture(Starlette(), SETTINGS) as telemetry:
        taken: Iterable[str] = telemetry.registry._names_to_collectors
        assert isinstance(telemetry.registry, CollectorRegistry)
        assert names.HTTP_SERVER_REQUEST_DURATION in taken


async def test_recorder_that_fails_at_the_end() -> None:
    """A span processor that raises when a span ends harms neither the request nor its other signals."""

    class Raising(SpanProcessor):
        def on_end(self, span: Any) -> None:
            raise RuntimeError("on_end")

    app = raw_app(START, {"type": "http.response.body", "body": b"x"})
    with capture(app, SETTINGS) as telemetry:
        telemetry.tracer_provider.add_span_processor(Raising())
        exchange = await call(app, http_scope("/raw/"))
        assert telemetry.sample(names.INTERNAL_ERRORS, {names.LABEL_SIGNAL: "traces"}) == 1
        assert len(telemetry.access_lines) == 1
    assert exchange.body == b"x"


async def test_5xx_that_breaks_off() -> None:
    """A 5xx whose body breaks off is incomplete, which says more than its status."""

    async def raw(_scope: Any, _receive: Any, send: Any) -> None:
        await send({**START, "status": 503})
        raise RuntimeError("cable")

    app = Starlette(routes=[Mount("/raw", raw)])
    with capture(app, SETTINGS) as telemetry:
        with pytest.raises(RuntimeError):
            await call(app, http_scope("/raw/"))
        [line] = telemetry.access_lines
    assert (line[names.LABEL_ERROR_TYPE], line[names.LABEL_STATUS_CODE]) == (names.ERROR_INCOMPLETE_RESPONSE, 503)


async def test_server_that_knows_no_client() -> None:
    """Behind a unix socket there is no client's address."""
    app = raw_app(START, {"type": "http.response.body", "body": b""})
    with capture(app, SETTINGS) as telemetry:
        await call(app, http_scope("/raw/", client=None))
        assert telemetry.access_lines[0][names.LOG_CLIENT_ADDRESS] == ""


async def test_start_that_fails() -> None:
    """A lifespan whose start fails says so to the server, as without obslib."""

    async def connect() -> None:
        raise RuntimeError("no database")

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await connect()
        yield

    app = Starlette(lifespan=lifespan)
    exchange = Exchange({"type": "lifespan.startup"})
    with capture(app, SETTINGS), pytest.raises(RuntimeError, match="no database"):
        await app({"type": "lifespan", "asgi": {}, "state": {}}, exchange.receive, exchange.send)
    assert [message["type"] for message in exchange.sent] == ["lifespan.startup.failed"]


@pytest.mark.parametrize("off", ["metrics_enabled", "logs_enabled", "traces_enabled"])
async def test_one_signal_off(off: str) -> None:
    """Each signal can be turned off alone; the others go on, and so does the request when telemetry fails."""
    app = raw_app(START, {"type": "http.response.body", "body": b"x"})
    settings = Settings(service_name="shop", extra_registries=(), **{off: False})  # type: ignore[arg-type]
    with capture(app, settings) as telemetry:
        assert (await call(app, http_scope("/raw/"))).body == b"x"
        assert (await call(app, {**http_scope("/raw/"), "client": 3})).body == b"x"
        assert bool(telemetry.access_lines) is (off != "logs_enabled")
        assert bool(telemetry.spans) is (off != "traces_enabled")
        requests = [
            family for family in telemetry.registry.collect() if family.name == names.HTTP_SERVER_REQUEST_DURATION
        ]
        assert bool(requests) is (off != "metrics_enabled")


def test_libraries_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library or instrumentation package that is not installed is passed over."""
    missing = {
        "ghost": ("no_such_library", "opentelemetry.instrumentation.httpx", "X"),
        "half": ("httpx", "opentelemetry.instrumentation.no_such_package", "X"),
        "none": ("httpx", "no_such_namespace.package", "X"),
    }
    monkeypatch.setattr("obslib._outbound.LIBRARIES", missing)
    monkeypatch.delenv("OTEL_SEMCONV_STABILITY_OPT_IN", raising=False)
    undo = instrument_libraries(tuple(missing), NoOpTracerProvider(), Redactor(()))
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "chosen/meanwhile")
    undo()
    assert os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] == "chosen/meanwhile"


async def test_clients_spans_of_another_sdk() -> None:
    """A span that does not show its attributes is left as it is, and the call goes on."""
    hooks = _hooks("httpx", Redactor(()))
    assert hooks["request_hook"](object(), None) is None
    assert await hooks["async_request_hook"](object(), None) is None
    assert _hooks("redis", Redactor(())) == {}


async def test_other_propagators(monkeypatch: pytest.MonkeyPatch) -> None:
    """A propagator from another package reads its own headers."""

    class Theirs(TextMapPropagator):
        def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Context:
            span_context = SpanContext(int(carrier["x-their-trace"], 16), 5, is_remote=True, trace_flags=TraceFlags(1))
            return trace.set_span_in_context(NonRecordingSpan(span_context), context)

        def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None: ...

        @property
        def fields(self) -> set[str]:
            return set()

    class Point:
        @staticmethod
        def load() -> type[Theirs]:
            return Theirs

    monkeypatch.setattr("obslib._traces.entry_points", lambda **_query: [Point()])
    app = raw_app(START, {"type": "http.response.body", "body": b""})
    settings = Settings(service_name="shop", service_version="2", extra_registries=(), propagators=("jaeger",))
    with capture(app, settings) as telemetry:
        await call(app, http_scope("/raw/", headers=[(b"x-their-trace", b"ab")]))
        [span] = telemetry.spans
    assert span.parent is not None
    assert span.parent.trace_id == 0xAB
    assert span.resource.attributes["service.version"] == "2"
