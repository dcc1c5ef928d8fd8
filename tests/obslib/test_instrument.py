"""`instrument()`: set up once, undone completely, and loud about what cannot work. Globals are real: each in a process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, SpanProcessor, TracerProvider
from opentelemetry.sdk.version import __version__ as sdk_version
from starlette.applications import Starlette

import obslib
from obslib._provider import make_resource, remove_processor
from obslib.exceptions import ConfigurationError
from obslib.settings import Settings
from obslib.testing import capture
from tests.obslib.collector import running_collector
from tests.obslib.processes import run_python

PRELUDE = """
import json, logging, sys, threading
import structlog
from fastapi import FastAPI
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider
import obslib
from obslib import Settings, exceptions
def say(**values): print(json.dumps(values), flush=True)
"""

#: Requests as a server without a lifespan would make them.
GET = """
import asyncio
def get(app, *paths):
    async def receive(): return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message): pass
    async def all_of_them():
        for path in paths:
            await app({"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
                "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
                "headers": [], "client": None, "server": None}, receive, send)
    asyncio.run(all_of_them())
"""


def run(code: str, **env: str) -> dict[str, object]:
    """Run code after the prelude; return what it said last."""
    return run_python(PRELUDE + code, **env)[-1]


def test_second_call_returns_the_same_object() -> None:
    """Equal settings give the same object; different ones raise with the way out."""
    said = run("""
app = FastAPI()
first = obslib.instrument(app)
same = obslib.instrument(app) is first
try:
    obslib.instrument(app, Settings(service_name="other"))
except exceptions.AlreadyInstrumentedError as error:
    sentence = str(error)
first.shutdown()
say(same=same, sentence=sentence)
""")
    assert said["same"] is True
    assert "shutdown()" in str(said["sentence"])


async def test_in_a_lifespan_or_later_it_is_refused() -> None:
    """What is put around an application that runs already does not see its end; the start fails and says why."""
    refused: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with pytest.raises(ConfigurationError) as raised:
            obslib.instrument(app, Settings(service_name="shop"))
        refused.append(str(raised.value))
        yield

    app = Starlette(lifespan=lifespan)
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(messages)

    async def send(_message: Any) -> None: ...

    await app({"type": "lifespan", "app": app, "state": {}}, receive, send)

    [sentence] = refused
    assert "right after the application is made" in sentence
    with pytest.raises(ConfigurationError):
        obslib.instrument(app, Settings(service_name="shop"))


def test_nothing_starts_before_the_first_event() -> None:
    """Set-up starts no thread and opens no socket."""
    said = run("""
import os
before = set(os.listdir("/proc/self/fd"))
observability = obslib.instrument(FastAPI(), Settings.from_env(traces_exporter="otlp", metrics_port=1))
say(threads=threading.active_count(), opened=sorted(set(os.listdir("/proc/self/fd")) - before))
observability.shutdown()
say(threads=threading.active_count(), opened=sorted(set(os.listdir("/proc/self/fd")) - before))
""")
    assert said == {"threads": 1, "opened": []}


def test_shutdown_puts_everything_back() -> None:
    """After shutdown the application, structlog, logging, warnings and the propagator are as they were."""
    said = run("""
import os, warnings
from starlette.routing import Mount
handler = logging.StreamHandler(sys.stdout)
logging.getLogger().addHandler(handler)
logging.getLogger("uvicorn").addHandler(handler)
logging.getLogger("uvicorn").propagate = False
def state():
    return [
        type(app).__call__ is FastAPI.__call__, type(app) is FastAPI, dict(getattr(app, '_telemetry', {})), structlog.is_configured(),
        [id(h) for h in logging.getLogger().handlers], logging.getLogger().level, logging.getLogger("uvicorn").propagate,
        [id(h) for h in logging.getLogger("uvicorn").handlers], logging.getLogger("uvicorn.access").disabled,
        id(warnings.showwarning), id(propagate.get_global_textmap()), id(Mount.handle),
        os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN"), sorted(vars(app)),
    ]
app = FastAPI()
before = str(state())
observability = obslib.instrument(app, Settings(service_name="x", traces_exporter="none", propagators=("tracecontext",)))
during = str(state())
first, second = observability.shutdown(), observability.shutdown()
say(changed=during != before, restored=str(state()) == before, first=first, second=second)
""")
    assert said == {"changed": True, "restored": True, "first": True, "second": True}


def test_user_configuration_of_structlog_comes_back() -> None:
    """A structlog configuration of the user's own is restored."""
    said = run("""
structlog.configure(processors=[structlog.processors.JSONRenderer()])
before = structlog.get_config()["processors"]
with obslib.instrument(FastAPI()):
    during = structlog.get_config()["processors"]
say(restored=structlog.get_config()["processors"] == before, changed=during != before)
""")
    assert said == {"restored": True, "changed": True}


def test_lines_come_out_once_and_alike() -> None:
    """structlog, the standard library, servers and warnings come out in one shape, once each."""
    lines = run_python(
        PRELUDE
        + """
import warnings
logging.basicConfig(stream=sys.stdout)
uvicorn = logging.getLogger("uvicorn")
uvicorn.addHandler(logging.StreamHandler(sys.stdout))
uvicorn.propagate = False
observability = obslib.instrument(FastAPI())
structlog.get_logger().info("one")
logging.getLogger("lib").error("two")
logging.getLogger("uvicorn.error").info("three")
logging.getLogger("uvicorn.access").info("never")
warnings.simplefilter("default")
warnings.warn("four")
logging.getLogger("lib").debug("never")
observability.shutdown()
"""
    )
    assert [line["event"].partition("UserWarning: ")[2].strip() or line["event"] for line in lines] == [
        "one",
        "two",
        "three",
        'four\n  warnings.warn("four")' if "warnings.warn" in lines[-1]["event"] else "four",
    ]
    assert [line["logger"] for line in lines] == ["", "lib", "uvicorn.error", "py.warnings"]
    assert {line["service"] for line in lines} == {"tested"}


def test_no_service_name_warns_once() -> None:
    """Without a service name there is one warning that says what to set."""
    lines = run_python(PRELUDE + "obslib.instrument(FastAPI()).shutdown()", OTEL_SERVICE_NAME="")
    assert [(line["event"], line["level"], line["service"]) for line in lines] == [
        ("obslib_service_name_missing", "warning", "unknown_service")
    ]
    assert "OTEL_SERVICE_NAME" in lines[0]["fix"]


def test_ignored_settings_are_said() -> None:
    """An invalid `OTEL_*` value is ignored with a warning."""
    [line] = run_python(PRELUDE + "obslib.instrument(FastAPI()).shutdown()", OTEL_BSP_SCHEDULE_DELAY="soon")
    assert line["event"] == "obslib_setting_ignored"
    assert "OTEL_BSP_SCHEDULE_DELAY='soon'" in line["reason"]


def test_global_provider() -> None:
    """Where none is set obslib's provider becomes the global one, and records nothing after shutdown."""
    said = run("""
observability = obslib.instrument(FastAPI())
is_ours = trace.get_tracer_provider() is observability.tracer_provider
during = trace.get_tracer("user").start_span("x").is_recording()
observability.shutdown()
after = trace.get_tracer("user").start_span("x").is_recording()
again = obslib.instrument(FastAPI())
say(is_ours=is_ours, during=during, after=after, again=trace.get_tracer("user").start_span("x").is_recording())
""")
    assert said == {"is_ours": True, "during": True, "after": False, "again": True}


def test_global_provider_of_another_service() -> None:
    """A second service in one process has its own provider; the first keeps the global one."""
    said = run("""
first = obslib.instrument(FastAPI(), Settings.from_env(service_name="first"))
second = obslib.instrument(FastAPI(), Settings.from_env(service_name="second"))
say(
    first=trace.get_tracer_provider() is first.tracer_provider,
    second=second.tracer_provider.resource.attributes["service.name"],
)
""")
    assert said == {"first": True, "second": "second"}


def test_global_provider_can_be_left_alone() -> None:
    """With `global_tracer_provider=False` nothing global is set."""
    said = run("""
obslib.instrument(FastAPI(), Settings.from_env(global_tracer_provider=False))
say(kind=type(trace.get_tracer_provider()).__name__)
""")
    assert said == {"kind": "ProxyTracerProvider"}


def test_provider_of_the_user_is_used() -> None:
    """A provider that the user made global is used, with our processor added, and never replaced."""
    said = run(
        """
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
theirs, exporter = TracerProvider(), InMemorySpanExporter()
theirs.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(theirs)
import asyncio, httpx
app = FastAPI()
observability = obslib.instrument(app, Settings.from_env(access_log=False, shutdown_timeout_seconds=0.1))
async def main():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        await client.get("/")
asyncio.run(main())
kept = trace.get_tracer_provider() is theirs and observability.tracer_provider is theirs
names = [span.name for span in exporter.get_finished_spans() if span.kind.name == "SERVER"]
observability.shutdown()
say(kept=kept, names=names, still=trace.get_tracer("user").start_span("x").is_recording())
""",
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
    )
    assert said == {"kept": True, "names": ["GET"], "still": True}


def test_spans_that_are_recorded_and_not_sampled() -> None:
    """A sampler of the user's may want spans for processors only: these see them complete, and ended."""
    said = run(
        GET
        + """
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
class RecordOnly(Sampler):
    def should_sample(self, *_, **__): return SamplingResult(Decision.RECORD_ONLY)
    def get_description(self): return "record only"
class Kept(SpanProcessor):
    def on_end(self, span): say(name=span.name, status=span.attributes["http.response.status_code"])
theirs = TracerProvider(sampler=RecordOnly())
theirs.add_span_processor(Kept())
trace.set_tracer_provider(theirs)
app = FastAPI()
obslib.instrument(app, Settings.from_env(access_log=False, traces_exporter="none", shutdown_timeout_seconds=0.1))
get(app, "/")
"""
    )
    assert said == {"name": "GET", "status": 404}


def test_provider_that_is_not_the_sdks() -> None:
    """A global provider of another kind is used as it is."""
    said = run("""
class Theirs(trace.TracerProvider):
    def get_tracer(self, *args, **kwargs):
        return trace.NoOpTracer()
trace.set_tracer_provider(Theirs())
observability = obslib.instrument(FastAPI())
say(kind=type(observability.tracer_provider).__name__, stopped=observability.shutdown())
""")
    assert said == {"kind": "Theirs", "stopped": True}


@pytest.mark.parametrize("given", [object(), lambda: None, "main:app"])
def test_what_is_no_application(given: object) -> None:
    """Anything but FastAPI and Starlette is refused."""
    with pytest.raises(ConfigurationError, match="FastAPI and Starlette"):
        obslib.instrument(given, Settings())  # type: ignore[arg-type]


def test_wrapped_application() -> None:
    """A wrapped application is refused with the hint to instrument what is inside."""

    class Wrapper:
        app = Starlette()

    with pytest.raises(ConfigurationError, match="inside it"):
        obslib.instrument(Wrapper(), Settings())  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(FastAPI(), "_telemetry"), reason="this FastAPI records nothing itself")
def test_native_telemetry_with_a_provider() -> None:
    """FastAPI's own telemetry with a provider of its own would record twice: refused with the fix, nothing left changed."""
    app = FastAPI(telemetry={"tracer_provider": TracerProvider(shutdown_on_exit=False)})
    with pytest.raises(ConfigurationError, match="Leave that argument out"), capture(app):
        pass
    assert type(app) is FastAPI


def test_unknown_instrumentation() -> None:
    """A library nobody can instrument is refused by name, and what was set up until then is undone."""
    said = run("""
app = FastAPI()
try:
    obslib.instrument(app, Settings.from_env(instrumentations=("htpx",)))
except exceptions.ConfigurationError as error:
    say(sentence=str(error), restored=type(app) is FastAPI and not structlog.is_configured())
""")
    assert said["restored"] is True
    assert "'htpx'" in str(said["sentence"])


def test_metric_factories() -> None:
    """Metrics made by the handle are in its registry, and refuse names that are taken."""
    said = run("""
observability = obslib.instrument(FastAPI())
observability.counter("orders_total", "Orders.", ("status",)).labels("paid").inc()
observability.gauge("depth", "Depth.").set(2)
observability.histogram("took_seconds", "Took.").observe(0.1)
value = observability.registry.get_sample_value
say(
    orders=value("orders_total", {"status": "paid"}), depth=value("depth"), took=value("took_seconds_count"),
    flushed=observability.flush(),
)
""")
    assert said == {"orders": 1, "depth": 2, "took": 1, "flushed": True}


def test_libraries_are_instrumented_and_restored() -> None:
    """httpx gets client spans and context while obslib is there, and loses them with it."""
    said = run("""
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
import os
state = lambda: HTTPXClientInstrumentor().is_instrumented_by_opentelemetry
with obslib.instrument(FastAPI()):
    during, conventions = state(), os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"]
say(during=during, after=state(), conventions=conventions)
""")
    assert said == {"during": True, "after": False, "conventions": "http,database"}


def test_libraries_that_somebody_else_instrumented() -> None:
    """What was instrumented before is left alone, also at the end."""
    said = run("""
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
HTTPXClientInstrumentor().instrument()
with obslib.instrument(FastAPI()):
    pass
say(after=HTTPXClientInstrumentor().is_instrumented_by_opentelemetry)
""")
    assert said == {"after": True}


def test_application_and_process() -> None:
    """A program may instrument an application and itself; starting twice, or after the end, does nothing."""
    said = run("""
app = obslib.instrument(FastAPI())
process = obslib.instrument_process()
process.start()
threads = threading.active_count()
process.shutdown()
process.start()
say(apart=process is not app, threads=threads, after=threading.active_count(), running=process.running)
""")
    assert said == {"apart": True, "threads": 2, "after": 1, "running": False}


def test_logs_off() -> None:
    """Without logs nothing about logging changes."""
    said = run("""
with obslib.instrument(FastAPI(), Settings.from_env(logs_enabled=False)) as observability:
    observability.start()
    observability.startup_complete()
    say(structlog=structlog.is_configured(), handlers=len(logging.getLogger().handlers))
""")
    assert said == {"structlog": False, "handlers": 0}


def test_warnings_that_were_captured_before() -> None:
    """Warnings that the program captured itself stay captured afterwards."""
    said = run("""
import warnings
logging.captureWarnings(True)
before = warnings.showwarning
obslib.instrument(FastAPI()).shutdown()
say(same=warnings.showwarning is before)
""")
    assert said == {"same": True}


def test_resource() -> None:
    """Spans and `target_info` describe the process alike: the fields of `Settings` win, and nothing reads the environment."""
    settings = Settings(
        service_name="shop",
        service_version="2",
        resource_attributes={"service.name": "other", "service.version": "1", "deployment.environment.name": "test"},
        extra_registries=(),
    )
    with pytest.MonkeyPatch.context() as environment, capture(FastAPI(), settings) as telemetry:
        environment.setenv("OTEL_RESOURCE_ATTRIBUTES", "telemetry.sdk.name=forged")
        resource = dict(make_resource(settings).attributes)
        [labels] = telemetry.samples("target_info")
    described = {"service.name": "shop", "service.version": "2", "deployment.environment.name": "test"}
    sdk = {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": sdk_version,
    }
    assert resource == {**described, **sdk}
    assert dict(labels) == {**{name.replace(".", "_"): value for name, value in described.items()}, "worker": "0"}


def test_shutdown_has_one_deadline() -> None:
    """No step of a shutdown may wait for longer than the whole of it may take, whatever ended before the start."""
    said = run(
        """
from obslib._otlp import OtlpSpanProcessor
close, waits = OtlpSpanProcessor.close, []
def spy(self, timeout_seconds):
    waits.append(timeout_seconds)
    return close(self, timeout_seconds)
OtlpSpanProcessor.close = spy
observability = obslib.instrument(FastAPI())
trace.get_tracer("user").start_span("early").end()
observability.shutdown(0.1)
say(closed=bool(waits), within=max(waits) <= 0.1)
""",
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
    )
    assert said == {"closed": True, "within": True}


def test_second_instrumentation_is_as_fast_as_the_first() -> None:
    """A provider that is opened again has one processor of ours, so that ordinary spans are still made without the SDK."""
    said = run(
        """
import asyncio, httpx
obslib.instrument(FastAPI()).shutdown()
app, kinds = FastAPI(), []
@app.get("/")
async def root():
    kinds.append(type(trace.get_current_span()).__name__)
observability = obslib.instrument(app, Settings.from_env(access_log=False, shutdown_timeout_seconds=0.1))
async def main():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        await client.get("/")
asyncio.run(main())
processors = len(observability.tracer_provider._active_span_processor._span_processors)
observability.shutdown()
say(
    same=observability.tracer_provider is trace.get_tracer_provider(), processors=processors, kinds=kinds,
    left=len(observability.tracer_provider._active_span_processor._span_processors),
)
""",
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
    )
    assert said == {"same": True, "processors": 1, "kinds": ["ServerSpan"], "left": 0}


def test_processor_of_a_provider_that_looks_different() -> None:
    """Where the user's provider keeps its processors in another way, ours stays."""
    processors = ConcurrentMultiSpanProcessor(1)
    provider, ours = TracerProvider(active_span_processor=processors, shutdown_on_exit=False), SpanProcessor()
    provider.add_span_processor(ours)
    remove_processor(provider, ours)
    assert processors._span_processors == (ours,)
    provider.shutdown()


def test_flush_sends_and_writes_what_waits() -> None:
    """Requests that wait to be recorded together, spans and lines: after `flush` all of it is out."""
    with running_collector() as collector:
        said = run_python(
            PRELUDE
            + GET
            + """
app = FastAPI()
observability = obslib.instrument(app)
get(app, "/0", "/1", "/2")
flushed = observability.flush()
say(flushed=flushed)
observability.shutdown()
""",
            OTEL_TRACES_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_SERVICE_NAME="shop",
        )
        assert len(collector.spans) == 3
    lines = [line.get("url_path") for line in said if line.get("logger") == "obslib.access"]
    assert lines == ["/0", "/1", "/2"]
    assert said[-1] == {"flushed": True}


def test_people_read_lines_in_the_order_of_events() -> None:
    """On a console an access line does not wait for others: it stands before what the next request logs."""
    said = run(
        GET
        + """
import io
app = FastAPI()
@app.get("/{number}")
def root(number: int):
    obslib.get_logger("shop").info("inside", number=number)
sys.stdout, console = io.StringIO(), sys.stdout
observability = obslib.instrument(app, Settings(service_name="shop", log_format="console", traces_exporter="none"))
get(app, "/0", "/1", "/2")
observability.shutdown()
text, sys.stdout = sys.stdout.getvalue(), console
say(events=["inside" if "inside" in line else "access" for line in text.splitlines() if "number" in line or "/{" in line])
"""
    )
    assert said == {"events": ["inside", "access"] * 3}


def test_a_fork_without_metrics() -> None:
    """A child whose parent records no metrics starts afresh like any other."""
    said = run("""
import os
observability = obslib.instrument_process(Settings(service_name="shop", metrics_enabled=False, traces_exporter="none"))
sys.stdout.flush()
if not os.fork():
    obslib.get_logger("shop").info("child")
    os._exit(0 if observability.flush() or observability.shutdown() else 1)
say(status=os.wait()[1])
observability.shutdown()
""")
    assert said == {"status": 0}


def test_log_level_that_is_none() -> None:
    """A wrong level says which ones there are; a right one is undone with the rest, and touches nothing where logs are off."""
    said = run("""
observability = obslib.instrument(FastAPI())
observability.set_log_level("error")
during = logging.getLogger().level
try:
    observability.set_log_level("LOUD")
except exceptions.ConfigurationError as error:
    sentence = str(error)
observability.shutdown()
observability.set_log_level("error")
silent = obslib.instrument(FastAPI(), Settings(service_name="s", logs_enabled=False))
silent.set_log_level("error")
say(sentence=sentence, levels=[during, logging.getLogger().level])
""")
    assert said["sentence"] == "The log level must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL, not 'LOUD'."
    assert said["levels"] == [40, 30]


def test_log_level_decides_about_every_line() -> None:
    """Every logger follows it at once: ours, structlog's that were used before, and the standard library's."""
    lines = run_python(
        PRELUDE
        + """
observability = obslib.instrument(FastAPI(), Settings(service_name="s", log_format="json", log_level="WARNING"))
loggers = (obslib.get_logger("ours"), structlog.get_logger().bind(logger="theirs"), logging.getLogger("stdlib"))
for level in ("WARNING", "DEBUG", "ERROR"):
    observability.set_log_level(level)
    for logger in loggers:
        logger.debug(level)
        logger.warning(level)
observability.shutdown()
"""
    )
    assert [(line["event"], line["level"], line["logger"]) for line in lines if line["logger"] in {"ours", "theirs", "stdlib"}] == [
        ("WARNING", "warning", "ours"), ("WARNING", "warning", "theirs"), ("WARNING", "warning", "stdlib"),
        ("DEBUG", "debug", "ours"), ("DEBUG", "warning", "ours"), ("DEBUG", "debug", "theirs"),
        ("DEBUG", "warning", "theirs"), ("DEBUG", "debug", "stdlib"), ("DEBUG", "warning", "stdlib"),
    ]  # fmt: skip
