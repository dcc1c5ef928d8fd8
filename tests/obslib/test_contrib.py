"""`engine="contrib"`: what cannot work is refused with the fix, and shutdown restores the application."""

import sys
from typing import Any, Literal

import pytest
from fastapi import FastAPI, Request, Response, WebSocket
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from starlette.applications import Starlette

from obslib import names
from obslib.exceptions import ConfigurationError, MissingExtraError
from obslib.settings import Settings
from obslib.testing import capture
from tests.obslib.asgi import call, client_of, connect, http_scope, websocket_scope
from tests.obslib.processes import run_python

CONTRIB = Settings(service_name="payments", extra_registries=(), engine="contrib", excluded_paths=("/healthz", "/in/*"))


def refused(app: Starlette) -> str:
    with pytest.raises((ConfigurationError, MissingExtraError)) as raised, capture(app, CONTRIB):
        pass
    assert not type(app).__dict__.get("__call__", None).__qualname__.startswith("wrap_app")
    return str(raised.value)


def test_starlette_alone() -> None:
    """contrib's package is for FastAPI."""
    assert 'engine="obslib"' in refused(Starlette())


def test_package_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the sentence names the extra."""
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.fastapi", None)
    assert 'pip install "obslib-fastapi[contrib]"' in refused(FastAPI())


def test_instrumented_already() -> None:
    """An application contrib has instrumented already would get two server spans."""
    app = FastAPI()
    FastAPIInstrumentor.instrument_app(app)
    try:
        assert "Remove that call" in refused(app)
    finally:
        FastAPIInstrumentor.uninstrument_app(app)


async def test_too_late() -> None:
    """After the first event contrib would silently do nothing."""
    app = FastAPI()
    await call(app, http_scope("/"))
    assert "first event" in refused(app)


@pytest.mark.parametrize(
    ("before", "opt_in"),
    [("", "database"), ("FastAPIInstrumentor.instrument_app(FastAPI())", "")],
    ids=["demanded", "decided by another package"],
)
def test_old_conventions(before: str, opt_in: str) -> None:
    """A process that uses the retired conventions is refused, whoever chose them."""
    said = run_python(
        f"""
        import json
        from fastapi import FastAPI
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
        import obslib
        {before}
        try:
            obslib.instrument(FastAPI(), obslib.Settings.from_env(engine="contrib"))
        except obslib.exceptions.ConfigurationError as error:
            print(json.dumps({{"sentence": str(error)}}))
        """,
        OTEL_SEMCONV_STABILITY_OPT_IN=opt_in,
    )
    assert "OTEL_SEMCONV_STABILITY_OPT_IN=http" in said[-1]["sentence"]


async def test_excluded_paths() -> None:
    """Excluded paths make no span with contrib either, and their likes do."""
    app = FastAPI()
    with capture(app, CONTRIB) as telemetry:
        async with client_of(app) as client:
            for path in ("/healthz", "/in", "/in/side"):
                await client.get(path)
            assert (telemetry.spans, telemetry.lines) == ([], [])
            await client.get("/inside")
        assert len(telemetry.spans) == len(telemetry.access_lines) == 1


async def test_application_is_restored() -> None:
    """Afterwards the application is what it was, and takes middleware again."""
    app = FastAPI()
    before = {name: list(value) if isinstance(value, list) else value for name, value in vars(app).items()}
    with capture(app, CONTRIB):
        await call(app, http_scope("/"))
    assert {**vars(app), "_native_telemetry": None} == {**before, "_native_telemetry": None}
    assert type(app) is FastAPI

    @app.middleware("http")
    async def late(request: object, call_next: object) -> None: ...


async def test_unsampled() -> None:
    """An unsampled request of contrib's has ids in its lines, and no span."""
    app = FastAPI()
    settings = Settings(service_name="payments", extra_registries=(), engine="contrib", traces_sampler="always_off")
    with capture(app, settings) as telemetry:
        await call(app, http_scope("/"))
        assert telemetry.spans == []
        assert telemetry.access_lines[0]["trace_id"] != ""


#: What contrib raises for: a query string and a header that are not UTF-8, the latter nor any other text to it.
UNREADABLE: dict[str, dict[str, Any]] = {
    "query": {"query_string": b"q=\xff&x=\xc3"},
    "header": {"headers": [(b"user-agent", b"\xff\\x")]},
}


def echoing() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def root(request: Request) -> Response:
        return Response(request.scope["query_string"] + request.scope["path"].encode())

    @app.get("/boom")
    async def boom() -> None:
        raise KeyError("broken")

    return app


@pytest.mark.parametrize("part", UNREADABLE)
@pytest.mark.parametrize("engine", ["obslib", "contrib"])
async def test_requests_that_contrib_cannot_read(engine: Literal["obslib", "contrib"], part: str) -> None:
    """A request is served as it came whatever its bytes are, and recorded once."""
    app = echoing()
    with capture(app, Settings(service_name="payments", extra_registries=(), engine=engine)) as telemetry:
        exchange = await call(app, http_scope("/", **UNREADABLE[part]))
        [line] = telemetry.access_lines
        spans = len(telemetry.spans)
        errors = telemetry.sample(names.INTERNAL_ERRORS, {names.LABEL_SIGNAL: "traces"})
    assert exchange.sent[0]["status"] == 200
    assert exchange.body == UNREADABLE[part].get("query_string", b"") + b"/"
    assert (line[names.LABEL_STATUS_CODE], line[names.LABEL_ROUTE]) == (200, "/")
    assert (spans, errors) == ((0, 1) if (engine, part) == ("contrib", "header") else (1, 0))


async def test_the_applications_exception_stays_its_own() -> None:
    """Where contrib cannot read a request whose endpoint raises, that exception goes on."""
    app = echoing()
    with capture(app, CONTRIB) as telemetry:
        with pytest.raises(KeyError, match="broken"):
            await call(app, http_scope("/boom", **UNREADABLE["header"]))
        assert telemetry.access_lines[0][names.LOG_EXCEPTION_TYPE] == "KeyError"


async def test_contrib_that_fails_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """What contrib raises after the application, or in its exception's place, is counted; the answer and the exception stay."""

    def fail(*_args: object) -> str:
        raise RuntimeError("a new version")

    monkeypatch.setattr("opentelemetry.instrumentation.asgi._collect_target_attribute", fail)
    app = echoing()
    with capture(app, CONTRIB) as telemetry:
        assert (await call(app, http_scope("/"))).body == b"/"
        with pytest.raises(KeyError, match="broken"):
            await call(app, http_scope("/boom"))
        assert telemetry.sample(names.INTERNAL_ERRORS, {names.LABEL_SIGNAL: "traces"}) == 2
        assert [line[names.LABEL_STATUS_CODE] for line in telemetry.access_lines] == [200, 500]


async def test_contrib_that_builds_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where contrib's middleware is not in the stack there is nothing to guard, and requests are served."""
    app = echoing()
    with capture(app, CONTRIB) as telemetry:
        monkeypatch.setattr("opentelemetry.instrumentation.asgi.OpenTelemetryMiddleware", type("Renamed", (), {}))
        assert (await call(app, http_scope("/"))).body == b"/"
        assert len(telemetry.access_lines) == 1


async def test_websockets() -> None:
    """contrib's span of a connection says what our record says, and is one however many messages there are."""
    app = FastAPI()

    @app.websocket("/rooms/{room}")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    scope = websocket_scope("/rooms/1", query_string=b"token=hunter2")
    with capture(app, CONTRIB) as telemetry:
        await connect(app, scope, *({"type": "websocket.receive", "text": "hi"} for _ in range(3)))
        [line] = telemetry.access_lines
        [span] = telemetry.spans
    attributes = span.attributes or {}
    assert (span.name, line["span_id"]) == ("WS /rooms/{room}", f"{span.context.span_id:016x}")
    assert (attributes[names.ATTR_MESSAGES_SENT], attributes[names.ATTR_CLOSE_CODE]) == (3, 1001)
    assert attributes[names.ATTR_URL_QUERY] == "token=REDACTED"


async def test_websocket_that_fails() -> None:
    """contrib has ended its span when a connection's exception reaches us: it has that (twice) and the route."""
    app = FastAPI()

    @app.websocket("/rooms/{room}")
    async def fail(websocket: WebSocket) -> None:
        await websocket.accept()
        raise ValueError("broken")

    with capture(app, CONTRIB) as telemetry:
        with pytest.raises(ValueError, match="broken"):
            await connect(app, websocket_scope("/rooms/1"))
        [line] = telemetry.access_lines
        [span] = telemetry.spans
    assert (span.name, line["error_type"]) == ("WS /rooms/{room}", "exception")
    assert {event.name for event in span.events} == {"exception"}
    assert names.ATTR_MESSAGES_SENT not in (span.attributes or {})


async def test_websocket_without_a_route() -> None:
    """What a middleware accepts by itself keeps the name that contrib gives it."""

    class AcceptAll:
        def __init__(self, app: Any) -> None: ...

        async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})

    app = FastAPI()
    app.add_middleware(AcceptAll)
    with capture(app, CONTRIB) as telemetry:
        await connect(app, websocket_scope("/any"))
        [span] = telemetry.spans
    assert names.ATTR_ROUTE not in (span.attributes or {})
    assert (span.attributes or {})[names.ATTR_CLOSE_CODE] == 1000


async def test_websocket_refused() -> None:
    """A refused handshake has contrib's span, with the answer."""
    app = FastAPI()
    with capture(app, CONTRIB) as telemetry:
        await connect(app, websocket_scope("/none"))
        [span] = telemetry.spans
    assert (span.attributes or {})[names.ATTR_STATUS_CODE] == 403
