"""Background tasks: outside of the request's duration, timed, children of its span, and never lost when they fail."""

import asyncio
import functools
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse

import obslib
from obslib import Settings, names
from obslib.testing import Captured, capture
from tests.obslib.asgi import call, http_scope

DURATION_COUNT = f"{names.BACKGROUND_TASK_DURATION}_count"
DURATION_SUM = f"{names.BACKGROUND_TASK_DURATION}_sum"


def labels(function: str, error_type: str = "") -> dict[str, str]:
    return {names.LABEL_FUNCTION: function, names.LABEL_ERROR_TYPE: error_type}


class Mailer:
    """Work with a name of its own."""

    def __init__(self) -> None:
        self.captured: Captured

    async def send(self, _to: str) -> None:
        self.captured.clock.advance(2)
        obslib.get_logger("mail").info("sent")

    def count(self) -> None:
        self.captured.clock.advance(1)


def app_with(mailer: Mailer) -> FastAPI:
    app = FastAPI()

    @app.get("/orders")
    async def orders(tasks: BackgroundTasks) -> None:
        mailer.captured.clock.advance(0.5)
        tasks.add_task(mailer.send, "secret@example.org")
        tasks.add_task(functools.partial(mailer.count))

    return app


async def test_a_task_is_timed_apart_from_its_request() -> None:
    """The request's duration ends with the response; each task has its own, by the function's name."""
    mailer = Mailer()
    app = app_with(mailer)
    with capture(app) as mailer.captured:
        await call(app, http_scope("/orders"))
    captured = mailer.captured
    assert captured.sample(f"{names.HTTP_SERVER_REQUEST_DURATION}_sum", REQUEST) == 0.5
    assert captured.sample(DURATION_SUM, labels("Mailer.send")) == 2
    assert captured.sample(DURATION_SUM, labels("Mailer.count")) == 1
    assert "secret@example.org" not in captured.metrics_text() + captured.text


REQUEST = {
    names.LABEL_METHOD: "GET",
    names.LABEL_ROUTE: "/orders",
    names.LABEL_STATUS_CODE: "200",
    names.LABEL_SCHEME: "http",
    names.LABEL_ERROR_TYPE: "",
}


async def test_a_task_is_a_child_of_its_requests_span() -> None:
    """Its span begins and ends with the work, below the server span, and lines it logs carry its ids."""
    mailer = Mailer()
    app = app_with(mailer)
    with capture(app) as mailer.captured:
        await call(app, http_scope("/orders"))
    server, send, count = mailer.captured.spans
    assert [server.name, send.name, count.name] == ["GET /orders", "background Mailer.send", "background Mailer.count"]
    for span in (send, count):
        assert span.parent is not None
        assert span.parent.span_id == server.context.span_id
    assert dict(send.attributes or {}) == {names.ATTR_CODE_FUNCTION_NAME: "Mailer.send"}
    [line] = [line for line in mailer.captured.lines if line["event"] == "sent"]
    assert line["span_id"] == format(send.context.span_id, "016x")
    assert line["request_id"] == mailer.captured.access_lines[0]["request_id"]


def failing_app(error: BaseException) -> FastAPI:
    app = FastAPI()

    async def fail() -> None:
        raise error

    @app.get("/orders")
    async def orders(tasks: BackgroundTasks) -> None:
        tasks.add_task(fail)

    return app


NAME = "failing_app.<locals>.fail"


async def test_a_task_that_raises() -> None:
    """Metric, span and log say so, the request stays a success, and the error goes on to the server."""
    app = failing_app(LookupError("no such order"))
    with capture(app) as captured, pytest.raises(LookupError):
        await call(app, http_scope("/orders"))
    assert captured.sample(DURATION_COUNT, labels(NAME, names.ERROR_EXCEPTION)) == 1
    assert captured.access_lines[0][names.LABEL_STATUS_CODE] == 200
    assert captured.access_lines[0][names.LABEL_ERROR_TYPE] == ""
    [line] = [line for line in captured.lines if line["event"] == names.BACKGROUND_FAILED_EVENT]
    span = captured.spans[-1]
    assert (line["level"], line["exception_message"], line[names.LABEL_FUNCTION]) == ("error", "no such order", NAME)
    assert line["span_id"] == format(span.context.span_id, "016x")
    assert [event.name for event in span.events] == ["exception"]
    assert span.attributes is not None
    assert span.attributes[names.ATTR_ERROR_TYPE] == "LookupError"
    assert not span.status.is_ok


async def test_a_task_that_is_cancelled() -> None:
    """A server that stops is no failure of the task, and no success either."""
    app = failing_app(asyncio.CancelledError())
    with capture(app) as captured, pytest.raises(asyncio.CancelledError):
        await call(app, http_scope("/orders"))
    assert captured.sample(DURATION_COUNT, labels(NAME, names.ERROR_CANCELLED)) == 1
    assert [line for line in captured.lines if line["event"] == names.BACKGROUND_FAILED_EVENT] == []


async def test_a_task_below_a_middleware() -> None:
    """`BaseHTTPMiddleware` runs the application in another task: what it leaves behind belongs to the request still."""

    async def dispatch(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    mailer = Mailer()
    app = app_with(mailer)
    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    with capture(app) as mailer.captured:
        await call(app, http_scope("/orders"))
    assert mailer.captured.sample(DURATION_COUNT, labels("Mailer.send")) == 1


@pytest.mark.parametrize("signal", ["metrics_enabled", "logs_enabled", "traces_enabled"])
async def test_without_one_of_the_signals(signal: str) -> None:
    """Each signal can be off, and the others go on."""
    app = failing_app(LookupError("x"))
    settings = Settings(service_name="s", extra_registries=(), **{signal: False})  # type: ignore[arg-type]
    with capture(app, settings) as captured, pytest.raises(LookupError):
        await call(app, http_scope("/orders"))
    counted = captured.sample(DURATION_COUNT, labels(NAME, names.ERROR_EXCEPTION))
    logged = [line for line in captured.lines if line["event"] == names.BACKGROUND_FAILED_EVENT]
    assert counted == (None if signal == "metrics_enabled" else 1)
    assert len(logged) == (signal != "logs_enabled")
    assert len(captured.spans) == (0 if signal == "traces_enabled" else 2)


async def test_outside_of_requests_and_of_blocks() -> None:
    """A task that is run by hand, on an excluded path, or after the undo, is nobody's."""
    ran: list[int] = []
    app = FastAPI()

    @app.get("/healthz")
    async def healthz(tasks: BackgroundTasks) -> None:
        tasks.add_task(ran.append, 1)

    original = BackgroundTask.__call__
    with capture(app, Settings(service_name="s", extra_registries=(), excluded_paths=("/healthz",))) as captured:
        await BackgroundTask(ran.append, 2)()
        await call(app, http_scope("/healthz"))
        assert BackgroundTask.__call__ is not original
        assert captured.samples(DURATION_COUNT) == {}
    assert BackgroundTask.__call__ is original
    assert ran == [2, 1]


@pytest.mark.parametrize("broken", ["on_start", "on_end"])
async def test_a_processor_that_raises_fails_no_task(broken: str) -> None:
    """Telemetry that breaks costs nothing but itself."""
    ran: list[int] = []
    app = FastAPI()

    @app.get("/orders")
    async def orders() -> PlainTextResponse:
        return PlainTextResponse("x", background=BackgroundTask(ran.append, 1))

    with capture(app) as captured:

        class Broken:
            def on_start(self, span: Any, parent_context: Any = None) -> None:
                self.fail("on_start", span)

            def _on_ending(self, span: Any) -> None: ...

            def on_end(self, span: Any) -> None:
                self.fail("on_end", span)

            def fail(self, when: str, span: Any) -> None:
                if when == broken and span.name.startswith("background"):
                    raise OSError("broken")

        captured.tracer_provider.add_span_processor(Broken())  # type: ignore[arg-type]
        await call(app, http_scope("/orders"))
        errors = captured.sample(names.INTERNAL_ERRORS, {names.LABEL_SIGNAL: "traces"})
    assert (ran, errors) == ([1], 1)
    assert captured.sample(DURATION_COUNT, labels("list.append")) == 1


async def test_somebody_who_patches_the_same_method() -> None:
    """contrib instruments another application before, and lets go in between: neither is left behind, nor lost."""
    original = BackgroundTask.__call__
    other = FastAPI()
    FastAPIInstrumentor.instrument_app(other, tracer_provider=trace.NoOpTracerProvider())
    mailer = Mailer()
    app = app_with(mailer)
    with capture(app) as mailer.captured:
        FastAPIInstrumentor.uninstrument_app(other)
        await call(app, http_scope("/orders"))
    assert BackgroundTask.__call__ is original
