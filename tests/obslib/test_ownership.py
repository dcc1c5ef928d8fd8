"""Whoever else records requests: there is one SERVER span, one observation and one access line of each."""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import pytest
from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from obslib import names
from obslib.exceptions import ConfigurationError
from obslib.settings import Settings
from obslib.testing import Captured, capture
from tests.obslib.asgi import call, http_scope
from tests.obslib.processes import DEADLINE_SECONDS, environment, run_python

HAS_NATIVE = hasattr(FastAPI(), "_telemetry")
Engine = Literal["obslib", "contrib"]


def settings_for(engine: Engine) -> Settings:
    return Settings(service_name="shop", engine=engine, extra_registries=())


def an_app() -> FastAPI:
    app = FastAPI()

    @app.get("/items/{item_id}")
    async def item(item_id: int) -> int:
        return item_id

    return app


def observations(telemetry: Captured) -> float:
    return sum(telemetry.samples(f"{names.HTTP_SERVER_REQUEST_DURATION}_count").values())


def counted(*telemetries: Captured, others: InMemorySpanExporter | None = None) -> tuple[int, float, int]:
    """Return how many SERVER spans, observations and access lines there are, wherever they went."""
    spans = [span for telemetry in telemetries for span in telemetry.spans]
    spans += others.get_finished_spans() if others is not None else ()
    return (
        len([span for span in spans if span.kind.name == "SERVER"]),
        sum(observations(telemetry) for telemetry in telemetries),
        sum(len(telemetry.access_lines) for telemetry in telemetries),
    )


def their_provider() -> tuple[TracerProvider, InMemorySpanExporter]:
    provider, exporter = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


# --- mounted applications --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["obslib", "contrib"])
@pytest.mark.parametrize("inner_engine", ["", "obslib", "contrib"])
@pytest.mark.parametrize("mounted", ["first", "between", "last"])
@pytest.mark.parametrize("inner_first", [False, True])
async def test_mounts_in_every_order(engine: Engine, inner_engine: Engine, mounted: str, *, inner_first: bool) -> None:
    """Of applications in each other the outermost records, in whichever order they are instrumented and mounted."""
    outer, inner = FastAPI(), an_app()
    steps: list[tuple[FastAPI, Engine]] = [(outer, engine)]
    if inner_engine:
        steps.insert(0 if inner_first else 1, (inner, inner_engine))
    telemetries: dict[int, Captured] = {}
    with ExitStack() as stack:
        if mounted == "first":
            outer.mount("/in/{tenant}", inner)
        for app, of_engine in steps:
            telemetries[id(app)] = stack.enter_context(capture(app, settings_for(of_engine)))
            if mounted == "between" and len(telemetries) == 1:
                outer.mount("/in/{tenant}", inner)
        if mounted == "last":
            outer.mount("/in/{tenant}", inner)
        exchange = await call(outer, http_scope("/in/acme/items/3"))
        assert exchange.body == b"3"
        assert counted(*telemetries.values()) == (1, 1, 1)
        [line] = telemetries[id(outer)].access_lines
        assert line[names.LABEL_ROUTE] == "/in/{tenant}/items/{item_id}"


@pytest.mark.parametrize("engine", ["obslib", "contrib"])
async def test_only_the_mounted_application_is_instrumented(engine: Engine) -> None:
    """An instrumented application in one that is not records what reaches it."""
    outer, inner = FastAPI(), an_app()
    outer.mount("/in", inner)
    with capture(inner, settings_for(engine)) as telemetry:
        await call(outer, http_scope("/in/items/3"))
        assert counted(telemetry) == (1, 1, 1)
        assert telemetry.access_lines[0][names.LABEL_ROUTE] == "/items/{item_id}"


class Holding:
    """A middleware that answers once the application has returned."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        held: list[Any] = []

        async def hold(message: Any) -> None:
            held.append(message)

        await self.app(scope, receive, hold if scope["type"] == "http" else send)
        for message in held:
            await send(message)


@pytest.mark.parametrize("engine", ["obslib", "contrib"])
async def test_an_answer_that_the_outer_application_holds_back(engine: Engine) -> None:
    """The request ends when the outer application has answered, not when a mounted one with contrib's engine has."""
    outer, inner = FastAPI(), an_app()
    outer.add_middleware(Holding)
    outer.mount("/in", inner)
    with capture(outer, settings_for(engine)) as outside, capture(inner, settings_for("contrib")) as inside:
        await call(outer, http_scope("/in/items/3"))
        assert counted(outside, inside) == (1, 1, 1)
        [line] = outside.access_lines
    assert (line[names.LABEL_STATUS_CODE], line[names.LABEL_ERROR_TYPE]) == (200, "")


@pytest.mark.parametrize("engine", ["obslib", "contrib"])
async def test_an_exception_in_a_mounted_application(engine: Engine) -> None:
    """It is recorded once, by the outer application, and goes on to the server."""
    outer, inner = an_app(), an_app()

    @inner.get("/boom")
    async def boom() -> None:
        raise KeyError("inside")

    outer.mount("/in", inner)
    with capture(outer, settings_for(engine)) as outside, capture(inner, settings_for("contrib")) as inside:
        with pytest.raises(KeyError):
            await call(outer, http_scope("/in/boom"))
        assert counted(outside, inside) == (1, 1, 1)
        assert outside.access_lines[0][names.LABEL_STATUS_CODE] == 500


# --- FastAPI's own telemetry -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not HAS_NATIVE, reason="this FastAPI records nothing itself")
@pytest.mark.parametrize("signal", ["tracer_provider", "meter_provider", "logger_provider"])
def test_native_telemetry_with_a_provider(signal: str) -> None:
    """Who gave FastAPI a provider wants its signals: that is refused, with the fix, and nothing is changed."""
    app = FastAPI(telemetry={signal: TracerProvider(shutdown_on_exit=False)})  # type: ignore[arg-type]  # its key is not a literal
    before = type(app)
    with pytest.raises(ConfigurationError, match="Leave that argument out"), capture(app, settings_for("obslib")):
        pass
    assert type(app) is before


@pytest.mark.skipif(not HAS_NATIVE, reason="this FastAPI records nothing itself")
@pytest.mark.parametrize("engine", ["obslib", "contrib"])
async def test_mounted_application_with_native_telemetry(engine: Engine) -> None:
    """A mounted application whose FastAPI was given a provider makes no second span below an instrumented one."""
    provider, exporter = their_provider()
    outer, inner = FastAPI(), FastAPI(telemetry={"tracer_provider": provider})
    outer.mount("/in", inner)
    with capture(outer, settings_for(engine)) as telemetry:
        await call(outer, http_scope("/in/none"))
        assert counted(telemetry, others=exporter) == (1, 1, 1)


# --- contrib's instrumentor, called by somebody else -----------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("path", ["/items/3", "/items/x", "/none"])
async def test_contrib_applied_by_somebody_else(when: str, path: str) -> None:
    """The layer is outside of contrib's middleware, so that its span is an internal one, and a child of ours."""
    app = an_app()
    provider, exporter = their_provider()
    with ExitStack() as stack:
        if when == "before":
            FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
        telemetry = stack.enter_context(capture(app, settings_for("obslib")))
        if when == "after":
            FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
        stack.callback(FastAPIInstrumentor.uninstrument_app, app)
        await call(app, http_scope(path))
        assert counted(telemetry, others=exporter) == (1, 1, 1)
        [ours] = telemetry.spans
        theirs = exporter.get_finished_spans()
    assert theirs
    assert ours.context is not None
    assert {span.context.trace_id for span in theirs if span.context} == {ours.context.trace_id}


#: Instruments an application in a process, asks it once, and says what there is of it.
PROGRAM = """
import asyncio, json, logging, sys
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import obslib
exporter = InMemorySpanExporter()
{before}
app = FastAPI()
@app.get("/items/{{item_id}}")
async def item(item_id: int):
    return item_id
observability = obslib.instrument(app)
provider = trace.get_tracer_provider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
async def receive(): return {{"type": "http.request", "body": b"", "more_body": False}}
async def send(message): pass
asyncio.run(app({{"type": "http", "asgi": {{"version": "3.0"}}, "http_version": "1.1", "method": "GET", "scheme": "http",
    "path": "/items/3", "raw_path": b"/items/3", "query_string": b"", "root_path": "", "headers": [], "client": None,
    "server": ("127.0.0.1", 80)}}, receive, send))
observability.flush()
labels = {{"http_request_method": "GET", "http_route": "/items/{{item_id}}", "http_response_status_code": "200",
    "url_scheme": "http", "error_type": ""}}
print(json.dumps({{
    "kinds": sorted(span.kind.name for span in exporter.get_finished_spans()),
    "observed": observability.registry.get_sample_value("http_server_request_duration_seconds_count", labels),
    "theirs": {is_theirs}, "class": type(app).__mro__[1].__name__,
}}), flush=True)
observability.shutdown()
"""


def test_global_provider_of_somebody_else() -> None:
    """A provider that is global already stays, and gets our processor in addition."""
    said = run_python(
        PROGRAM.format(
            before="theirs = TracerProvider(shutdown_on_exit=False); trace.set_tracer_provider(theirs)",
            is_theirs="provider is theirs and len(theirs._active_span_processor._span_processors) == 2",
        ),
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
        OBSLIB_SHUTDOWN_TIMEOUT_SECONDS="0.1",
    )
    [outcome] = [line for line in said if "kinds" in line]
    assert (outcome["kinds"], outcome["observed"], outcome["theirs"]) == (["SERVER"], 1, True)
    assert len([line for line in said if line.get("logger") == "obslib.access"]) == 1


def test_zero_code_agent() -> None:
    """Under `opentelemetry-instrument` there is one SERVER span, too; the agent's is internal."""
    code = PROGRAM.format(before="", is_theirs='FastAPI.__name__ == "_InstrumentedFastAPI"')
    agent = Path(sys.executable).with_name("opentelemetry-instrument")
    done = subprocess.run(
        [agent, sys.executable, "-c", code],
        env=environment(PYTHONWARNINGS="default", OTEL_METRICS_EXPORTER="none", OTEL_LOGS_EXPORTER="none"),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    [outcome] = [line for line in said if "kinds" in line]
    assert outcome["theirs"], "the agent has not reached FastAPI: this proves nothing"
    assert [kind for kind in outcome["kinds"] if kind == "SERVER"] == ["SERVER"]
    assert "INTERNAL" in outcome["kinds"]
    assert outcome["observed"] == 1
    assert len([line for line in said if line.get("logger") == "obslib.access"]) == 1


@pytest.mark.parametrize("engine", ["obslib", "contrib"])
async def test_a_server_that_was_started_inside_a_span(engine: Engine) -> None:
    """A span that happens to be current is neither the parent nor taken for the request's own."""
    app = an_app()
    provider, _ = their_provider()
    with capture(app, settings_for(engine)) as telemetry:
        with provider.get_tracer("theirs").start_as_current_span("start"):
            await call(app, http_scope("/items/3"))
        assert counted(telemetry) == (1, 1, 1)
        assert telemetry.spans[-1].parent is None
