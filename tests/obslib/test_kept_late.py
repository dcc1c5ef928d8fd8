"""Requests that failed or were slow, though their traces were not drawn: the server span alone is kept."""

from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.responses import PlainTextResponse

from obslib import Settings, names
from obslib._late_spans import make_late_spans
from obslib.exceptions import ConfigurationError
from obslib.testing import Captured, capture
from tests.obslib.asgi import call, http_scope

TRACEPARENT = [(b"traceparent", b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-00")]


def settings(**values: Any) -> Settings:
    return Settings(service_name="s", extra_registries=(), traces_sampler="parentbased_always_off", **values)


async def kept(captured_settings: Settings, headers: Any = ()) -> tuple[Captured, list[str]]:
    """Serve a good, a slow and a failing request; return what was captured, and the ids each handed on."""
    seen: list[str] = []
    captured: Captured
    app = FastAPI()

    @app.get("/{kind}")
    async def endpoint(kind: str) -> None:
        context = trace.get_current_span().get_span_context()
        seen.append(f"{context.trace_id:032x} {context.span_id:016x} {context.trace_flags:x}")
        with trace.get_tracer("user").start_as_current_span("child"):
            pass
        if kind == "slow":
            captured.clock.advance(3)
        if kind == "bad":
            raise LookupError("no")

    with capture(app, captured_settings) as captured:
        for kind in ("good", "slow"):
            await call(app, http_scope(f"/{kind}", headers=headers))
        with pytest.raises(LookupError):
            await call(app, http_scope("/bad", headers=headers))
    return captured, seen


async def test_off_by_default() -> None:
    """A trace that is not drawn sends nothing."""
    captured, _ = await kept(settings())
    assert captured.spans == []


async def test_errors_and_slow_ones() -> None:
    """Each bound keeps what it says: one span, complete, marked, with the ids that were given on."""
    captured, seen = await kept(settings(traces_keep_errors=True, traces_keep_slower_than_seconds=2.0))
    slow, bad = captured.spans
    for span, ids in ((slow, seen[1]), (bad, seen[2])):
        assert ids == f"{span.context.trace_id:032x} {span.context.span_id:016x} 0"
        assert span.name == "GET /{kind}"
        assert (span.attributes or {})[names.ATTR_KEPT_LATE] is True
    assert [event.name for event in bad.events] == ["exception"]
    assert (slow.end_time or 0) - (slow.start_time or 0) == 3_000_000_000
    assert [line["trace_id"] for line in captured.access_lines[1:]] == [ids[:32] for ids in seen[1:]]
    assert "trace_id" not in captured.metrics_text(openmetrics=True)  # no exemplar for what was not drawn


@pytest.mark.parametrize(
    ("values", "names_kept"),
    [({"traces_keep_errors": True}, ["/bad"]), ({"traces_keep_slower_than_seconds": 2.0}, ["/slow"])],
)
async def test_one_of_both(values: dict[str, Any], names_kept: list[str]) -> None:
    """Errors and slow ones are chosen apart."""
    captured, _ = await kept(settings(**values))
    assert [(span.attributes or {})["url.path"] for span in captured.spans] == names_kept


async def test_below_a_caller_who_did_not_draw_it() -> None:
    """The kept span continues the caller's trace."""
    captured, _ = await kept(settings(traces_keep_errors=True), TRACEPARENT)
    [span] = captured.spans
    assert f"{span.context.trace_id:032x}" == "ab" * 16
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "cd" * 8


async def test_a_span_that_the_application_ends_itself_is_one_span() -> None:
    """Its trace is drawn, so it is on its way already: nothing is to be kept."""
    app = FastAPI()

    @app.get("/")
    async def endpoint() -> PlainTextResponse:
        trace.get_current_span().end()
        return PlainTextResponse("", 500)

    with capture(app, Settings(service_name="s", extra_registries=(), traces_keep_errors=True)) as captured:
        await call(app, http_scope("/"))
    assert len(captured.spans) == 1


async def test_a_processor_of_the_users_sees_them() -> None:
    """Who listens to spans is told of one that is kept late: its start and its end."""
    app = FastAPI()
    started: list[str] = []

    class Listening(SimpleSpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            started.append(span.name)

    with capture(app, settings(traces_keep_slower_than_seconds=0.0)) as captured:
        exporter = InMemorySpanExporter()
        captured.tracer_provider.add_span_processor(Listening(exporter))
        app.get("/")(lambda: captured.clock.advance(1))
        await call(app, http_scope("/"))
    assert started == ["GET /"]
    assert [span.name for span in exporter.get_finished_spans()] == ["GET /"]


async def test_after_shutdown() -> None:
    """A provider that was shut down keeps nothing."""
    app = FastAPI()
    with capture(app, settings(traces_keep_slower_than_seconds=0.0)) as captured:
        app.get("/")(lambda: captured.clock.advance(1))
        captured.tracer_provider.gate.is_open = False
        await call(app, http_scope("/"))
    assert captured.spans == []


def test_a_provider_that_makes_no_spans_of_the_sdk() -> None:
    """Nothing could be kept there, which is said at once."""
    with pytest.raises(ConfigurationError, match="need a tracer provider of opentelemetry-sdk"):
        make_late_spans(trace.NoOpTracerProvider(), Settings(traces_keep_errors=True), "x")


def test_settings_that_cannot_work() -> None:
    """The contrib engine makes its spans itself."""
    with pytest.raises(ConfigurationError, match="engine"):
        Settings(engine="contrib", traces_keep_errors=True)
    with pytest.raises(ConfigurationError, match="between 0 and 86400"):
        Settings(traces_keep_slower_than_seconds=-1)
    assert Settings.from_env({"OBSLIB_TRACES_KEEP_SLOWER_THAN_SECONDS": "1.5"}).traces_keep_slower_than_seconds == 1.5
    with pytest.raises(ConfigurationError, match="must be a number"):
        Settings.from_env({"OBSLIB_TRACES_KEEP_SLOWER_THAN_SECONDS": "soon"})
