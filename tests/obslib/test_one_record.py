"""The three signals say the same about every request, because they are told by one record."""

import asyncio
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import StatusCode
from starlette.middleware.base import BaseHTTPMiddleware

import obslib
from obslib import names
from obslib.settings import Settings
from obslib.testing import Captured, capture
from tests.obslib.asgi import call, client_of, http_scope

ENGINES = ["obslib", "contrib"]


def settings_for(engine: str) -> Settings:
    return Settings(service_name="shop", engine=engine, extra_registries=())  # type: ignore[arg-type]


def assert_signals_agree(telemetry: Captured) -> dict[str, Any]:
    """Assert that there is one span, one access line and one observation, and that they say the same."""
    [span] = [span for span in telemetry.spans if span.kind.name == "SERVER"]
    [line] = telemetry.access_lines
    assert span.attributes is not None
    assert span.context is not None
    assert line[names.LOG_TRACE_ID] == format(span.context.trace_id, "032x")
    assert line[names.LOG_SPAN_ID] == format(span.context.span_id, "016x")
    assert line[names.LABEL_ROUTE] == span.attributes.get(names.ATTR_ROUTE, "")
    assert line[names.LABEL_METHOD] == span.attributes[names.ATTR_METHOD]
    assert line[names.LABEL_STATUS_CODE] == span.attributes.get(names.ATTR_STATUS_CODE)
    labels = {
        names.LABEL_METHOD: line[names.LABEL_METHOD],
        names.LABEL_ROUTE: line[names.LABEL_ROUTE],
        names.LABEL_STATUS_CODE: str(line[names.LABEL_STATUS_CODE] or ""),
        names.LABEL_SCHEME: "http",
        names.LABEL_ERROR_TYPE: line[names.LABEL_ERROR_TYPE],
    }
    assert telemetry.sample(f"{names.HTTP_SERVER_REQUEST_DURATION}_count", labels) == 1
    seconds = telemetry.sample(f"{names.HTTP_SERVER_REQUEST_DURATION}_sum", labels)
    assert seconds == line[names.LOG_DURATION]
    assert span.start_time is not None
    assert span.end_time is not None
    return {"span": span, "line": line, "labels": labels}


@pytest.mark.parametrize("engine", ENGINES)
async def test_success(engine: str) -> None:
    """A request that succeeds is one span, one observation and one line, alike in everything."""
    app = FastAPI()

    @app.get("/items/{item_id}")
    async def item(item_id: int) -> dict[str, int]:
        return {"id": item_id}

    with capture(app, settings_for(engine)) as telemetry:
        async with client_of(app) as client:
            assert (await client.get("/items/7")).json() == {"id": 7}
        said = assert_signals_agree(telemetry)
    assert said["span"].name == "GET /items/{item_id}"
    assert said["line"][names.LABEL_STATUS_CODE] == 200
    assert said["line"][names.LABEL_ERROR_TYPE] == ""


async def test_duration_is_one_clock_reading() -> None:
    """Span, observation, exemplar and access line report the same nanoseconds."""
    app = FastAPI()
    with capture(app, settings_for("obslib")) as telemetry:

        @app.get("/slow")
        async def slow() -> None:
            telemetry.clock.advance(0.123456789)

        async with client_of(app) as client:
            await client.get("/slow")
        said = assert_signals_agree(telemetry)
        text = telemetry.metrics_text(openmetrics=True)
    assert said["span"].end_time - said["span"].start_time == 123_456_789
    assert said["line"][names.LOG_DURATION] == 0.123456789
    trace_id, span_id = said["line"][names.LOG_TRACE_ID], said["line"][names.LOG_SPAN_ID]
    assert f'# {{trace_id="{trace_id}",span_id="{span_id}"}} 0.123456789 1767225600.123' in text


@pytest.mark.parametrize("engine", ENGINES)
async def test_unhandled_exception(engine: str) -> None:
    """An exception nobody handles is status 500 everywhere, and its stack trace is on span and line, once each."""
    app = FastAPI()

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("broken")

    with capture(app, settings_for(engine)) as telemetry:
        async with client_of(app) as client:
            assert (await client.get("/boom")).status_code == 500
        said = assert_signals_agree(telemetry)
    line, span = said["line"], said["span"]
    assert (line[names.LABEL_STATUS_CODE], line[names.LABEL_ERROR_TYPE], line[names.LOG_LEVEL]) == (500, "500", "error")
    assert line[names.LOG_EXCEPTION_TYPE] == "RuntimeError"
    assert line[names.LOG_EXCEPTION_MESSAGE] == "broken"
    assert 'raise RuntimeError("broken")' in line[names.LOG_EXCEPTION_STACKTRACE]
    assert [event.name for event in span.events] == ["exception"]
    assert "in boom" in span.events[0].attributes["exception.stacktrace"]
    assert span.attributes[names.ATTR_ERROR_TYPE] == "RuntimeError"
    assert span.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("engine", ENGINES)
async def test_exception_an_error_handler_answers(engine: str) -> None:
    """A 5xx that an exception handler makes keeps the exception that it answers."""
    app = FastAPI()

    @app.exception_handler(KeyError)
    async def handle(_request: Request, _error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "no stock"}, 503)

    @app.get("/stock")
    async def stock() -> None:
        raise KeyError("sku")

    with capture(app, settings_for(engine)) as telemetry:
        async with client_of(app) as client:
            assert (await client.get("/stock")).status_code == 503
        said = assert_signals_agree(telemetry)
    assert said["line"][names.LOG_EXCEPTION_TYPE] == "KeyError"
    assert said["line"][names.LABEL_ERROR_TYPE] == "503"


@pytest.mark.parametrize("engine", ENGINES)
async def test_deliberate_5xx(engine: str) -> None:
    """An HTTPException is an answer, not an accident: no stack trace."""
    app = FastAPI()

    @app.get("/away")
    async def away() -> None:
        raise HTTPException(503, "later")

    with capture(app, settings_for(engine)) as telemetry:
        async with client_of(app) as client:
            assert (await client.get("/away")).status_code == 503
        said = assert_signals_agree(telemetry)
    assert said["span"].events == ()
    assert names.LOG_EXCEPTION_TYPE not in said["line"]
    assert said["span"].attributes[names.ATTR_ERROR_TYPE] == "503"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("path", "method", "status", "route"),
    [
        ("/none", "GET", 404, ""),
        ("/items/1", "PUT", 405, "/items/{item_id}"),
        ("/items/x", "GET", 422, "/items/{item_id}"),
    ],
)
async def test_client_errors(engine: str, path: str, method: str, status: int, route: str) -> None:
    """A 4xx is no error of the service, and an unknown path never becomes a label."""
    app = FastAPI()

    @app.get("/items/{item_id}")
    async def item(item_id: int) -> int:
        return item_id

    with capture(app, settings_for(engine)) as telemetry:
        async with client_of(app) as client:
            assert (await client.request(method, path)).status_code == status
        said = assert_signals_agree(telemetry)
    assert said["line"][names.LABEL_ROUTE] == route
    assert said["line"][names.LABEL_ERROR_TYPE] == ""
    assert said["span"].status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("engine", ENGINES)
async def test_streaming_is_one_span(engine: str) -> None:
    """However many chunks a response has, it is one span, and its size is what was sent."""
    app = FastAPI()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> Any:
            for _ in range(5):
                yield b"x" * 100

        return StreamingResponse(chunks())

    with capture(app, settings_for(engine)) as telemetry:
        async with client_of(app) as client:
            assert len((await client.get("/stream")).content) == 500
        said = assert_signals_agree(telemetry)
    assert len(telemetry.spans) == 1
    assert said["line"][names.LOG_RESPONSE_BODY_SIZE] == 500
    assert said["span"].attributes[names.ATTR_RESPONSE_BODY_SIZE] == 500


@pytest.mark.parametrize("engine", ENGINES)
async def test_sizes_are_counted(engine: str) -> None:
    """Body sizes are the bytes that passed, not what a header promises."""
    app = FastAPI()

    @app.post("/echo")
    async def echo(request: Request) -> dict[str, int]:
        return {"size": len(await request.body())}

    with capture(app, settings_for(engine)) as telemetry:
        await call(
            app,
            http_scope("/echo", "POST", [(b"content-length", b"999999")]),
            {"type": "http.request", "body": b"ab", "more_body": True},
            {"type": "http.request", "body": b"cde", "more_body": False},
        )
        said = assert_signals_agree(telemetry)
    assert said["line"][names.LOG_REQUEST_BODY_SIZE] == 5
    sizes = {names.LABEL_METHOD: "POST", names.LABEL_ROUTE: "/echo"}
    assert telemetry.sample(f"{names.HTTP_SERVER_REQUEST_BODY_SIZE}_sum", sizes) == 5
    assert telemetry.sample(f"{names.HTTP_SERVER_RESPONSE_BODY_SIZE}_sum", sizes) == len(b'{"size":5}')


@pytest.mark.parametrize("engine", ENGINES)
async def test_client_gone(engine: str) -> None:
    """A client that leaves is neither a success nor an error of the service, and is never lost."""
    app = FastAPI()

    @app.get("/wait")
    async def wait(request: Request) -> None:
        await request.body()
        assert await request.is_disconnected()

    with capture(app, settings_for(engine)) as telemetry:
        await call(app, http_scope("/wait"), {"type": "http.request", "body": b""}, {"type": "http.disconnect"})
        said = assert_signals_agree(telemetry)
    assert said["line"][names.LABEL_ERROR_TYPE] == names.ERROR_CLIENT_DISCONNECT
    assert said["line"][names.LOG_LEVEL] == "info"
    assert said["span"].status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("engine", ENGINES)
async def test_stream_that_breaks(engine: str) -> None:
    """A response that breaks after its start is incomplete: not the 200 it began as."""
    app = FastAPI()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> Any:
            yield b"begun"
            raise OSError("disk")

        return StreamingResponse(chunks())

    with capture(app, settings_for(engine)) as telemetry:
        async with client_of(app) as client:
            await client.get("/stream")
        said = assert_signals_agree(telemetry)
    assert said["line"][names.LABEL_ERROR_TYPE] == names.ERROR_INCOMPLETE_RESPONSE
    assert said["line"][names.LOG_LEVEL] == "error"
    assert said["line"][names.LOG_EXCEPTION_TYPE] == "OSError"
    assert said["span"].status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("engine", ENGINES)
async def test_application_that_answers_nothing(engine: str) -> None:
    """An application that returns without an answer is the 500 that servers send in its place."""
    app = FastAPI()

    async def silent(_scope: Any, _receive: Any, _send: Any) -> None:
        return None

    app.mount("/raw", silent)
    with capture(app, settings_for(engine)) as telemetry:
        await call(app, http_scope("/raw/x"))
        said = assert_signals_agree(telemetry)
    assert said["line"][names.LABEL_STATUS_CODE] == 500
    assert said["line"][names.LABEL_ERROR_TYPE] == "500"


@pytest.mark.parametrize("engine", ENGINES)
async def test_cancelled_request(engine: str) -> None:
    """A request that its server cancels is recorded, as incomplete, and the cancellation goes on."""
    app = FastAPI()
    entered = asyncio.Event()

    @app.get("/hang")
    async def hang() -> None:
        entered.set()
        await asyncio.Event().wait()

    with capture(app, settings_for(engine)) as telemetry:
        task = asyncio.create_task(call(app, http_scope("/hang")))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        said = assert_signals_agree(telemetry)
    assert said["line"][names.LABEL_ERROR_TYPE] == names.ERROR_INCOMPLETE_RESPONSE
    assert said["line"][names.LABEL_STATUS_CODE] is None


def test_an_idle_replica_says_that_nothing_is_in_flight() -> None:
    """From the start, by method: a sum over replicas must be able to tell idle from silent, or nothing ever scales in."""
    app = FastAPI()
    app.post("/orders")(lambda: None)

    with capture(app) as telemetry:
        methods = {dict(key)[names.LABEL_METHOD] for key in telemetry.samples(names.HTTP_SERVER_ACTIVE_REQUESTS)}

        assert methods == {"GET", "POST"}
        assert set(telemetry.samples(names.HTTP_SERVER_ACTIVE_REQUESTS).values()) == {0}
    with capture(FastAPI(openapi_url=None)) as telemetry:
        assert telemetry.samples(names.HTTP_SERVER_ACTIVE_REQUESTS)


@pytest.mark.parametrize("engine", ENGINES)
async def test_active_requests_return_to_zero(engine: str) -> None:
    """Requests in flight are counted while they are served, and no longer."""
    app = FastAPI()
    seen: list[float | None] = []
    with capture(app, settings_for(engine)) as telemetry:
        labels = {names.LABEL_METHOD: "GET", names.LABEL_SCHEME: "http"}

        @app.get("/")
        async def root() -> None:
            seen.append(telemetry.sample(names.HTTP_SERVER_ACTIVE_REQUESTS, labels))

        async with client_of(app) as client:
            await client.get("/")
        assert seen == [1]
        assert telemetry.sample(names.HTTP_SERVER_ACTIVE_REQUESTS, labels) == 0


@pytest.mark.parametrize("engine", ENGINES)
async def test_bound_values_reach_the_access_line(engine: str) -> None:
    """What `bind` is given in a sync dependency, a thread or below BaseHTTPMiddleware comes out on the access line."""
    app = FastAPI()

    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            return await call_next(request)

    app.add_middleware(Passing)

    def user() -> None:
        obslib.bind(user="u1")

    @app.get("/", dependencies=[Depends(user)])
    def root() -> None:
        obslib.bind(order="o1", api_key="sk-1")

    with capture(app, settings_for(engine)) as telemetry:
        async with client_of(app) as client:
            await client.get("/")
        line = assert_signals_agree(telemetry)["line"]
    assert (line["user"], line["order"], line["api_key"]) == ("u1", "o1", "[REDACTED]")


async def test_bind_is_bounded() -> None:
    """A request keeps 32 bound keys, may still change those, and cannot overwrite what every line has."""
    app = FastAPI()

    @app.get("/")
    async def root() -> None:
        for number in range(40):
            obslib.bind(**{f"key_{number}": number})
        obslib.bind(key_0="changed", trace_id="forged")

    with capture(app, settings_for("obslib")) as telemetry:
        async with client_of(app) as client:
            await client.get("/")
        line = assert_signals_agree(telemetry)["line"]
    assert len([key for key in line if key.startswith("key_")]) == 32
    assert line["key_0"] == "changed"
    assert line["trace_id"] != "forged"


def test_bind_outside_a_request() -> None:
    """Outside a request there is nothing to bind to, and no id."""
    obslib.bind(a=1)
    assert obslib.request_id() == ""


class BrokenProcessor(SpanProcessor):
    """A user's span processor that always raises."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("on_start")

    def on_end(self, span: Any) -> None:
        raise RuntimeError("on_end")


async def test_failing_recorder_harms_nobody() -> None:
    """A signal that raises neither fails the request nor silences another one; it is counted, and logged once."""
    app = FastAPI()

    @app.get("/")
    async def root() -> str:
        return "fine"

    with capture(app, settings_for("obslib")) as telemetry:
        telemetry.tracer_provider.add_span_processor(BrokenProcessor())
        async with client_of(app) as client:
            for _ in range(3):
                assert (await client.get("/")).json() == "fine"
        errors = [line for line in telemetry.lines if line["event"] == "obslib_internal_error"]
        assert telemetry.sample(names.INTERNAL_ERRORS, {names.LABEL_SIGNAL: "traces"}) == 3
    assert len(telemetry.access_lines) == 3
    assert [error["exception_message"] for error in errors] == ["on_start"]


async def test_unreadable_scope_is_served() -> None:
    """A request that cannot be recorded at all is still served."""
    app = FastAPI()

    @app.get("/")
    async def root() -> str:
        return "fine"

    with capture(app, settings_for("obslib")) as telemetry:
        scope = http_scope("/")
        scope["client"] = 3  # no server sends this
        exchange = await call(app, scope)
        assert telemetry.sample(names.INTERNAL_ERRORS, {names.LABEL_SIGNAL: "record"}) == 1
    assert exchange.sent[0]["status"] == 200
