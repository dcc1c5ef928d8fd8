"""The calls a service makes: counted for every library alike, once, bounded, and never at the call's expense."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.context import attach, detach, set_value
from opentelemetry.instrumentation.utils import suppress_http_instrumentation
from opentelemetry.trace import format_span_id, format_trace_id
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from sqlalchemy import create_engine, text
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import obslib
from obslib import _client_metrics, _httpx_calls, names
from obslib._method_patch import MethodPatch
from obslib.exceptions import ConfigurationError
from obslib.settings import Settings
from obslib.testing import Captured, capture
from tests.obslib.asgi import call, http_scope
from tests.obslib.processes import run_python
from tests.obslib.redis_cases import operations

SETTINGS = Settings(service_name="shop", extra_registries=(), instrumentations=("httpx", "sqlalchemy"))
DURATION = names.HTTP_CLIENT_REQUEST_DURATION


class _Peer(BaseHTTPRequestHandler):
    """Answers `/<status>` with that status."""

    def do_GET(self) -> None:
        status = int(self.path[1:])
        self.send_response(status)
        if status == 302:
            self.send_header("location", "/200")
        self.send_header("content-length", "0")
        self.end_headers()

    do_FETCH = do_GET  # noqa: N815 -- http.server looks for it

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def peer() -> Iterator[str]:
    """A server's URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Peer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def requests(telemetry: Captured) -> dict[tuple[str, ...], float]:
    """Return how many requests were counted: method, status, host, error type → count."""
    keys = names.LABEL_METHOD, names.LABEL_STATUS_CODE, names.LABEL_SERVER_ADDRESS, names.LABEL_ERROR_TYPE
    found = telemetry.samples(f"{DURATION}_count")
    return {tuple(dict(labels)[key] for key in keys): count for labels, count in found.items()}


ANSWERED = {
    ("GET", "200", "127.0.0.1", ""): 2,
    ("GET", "302", "127.0.0.1", ""): 1,
    ("GET", "404", "127.0.0.1", "404"): 1,
    ("GET", "503", "127.0.0.1", "503"): 1,
    ("_OTHER", "200", "127.0.0.1", ""): 1,
}


def test_requests_are_counted(peer: str) -> None:
    """Each request counts once, redirects one by one; errors of either side are error types; methods are bounded."""
    with capture(Starlette(), SETTINGS) as telemetry, httpx.Client(base_url=peer, follow_redirects=True) as client:
        for path in ("/200", "/302", "/404", "/503"):
            client.get(path)
        client.request("FETCH", "/200")
        assert requests(telemetry) == ANSWERED


async def test_requests_of_async_clients_are_counted(peer: str) -> None:
    """The same for AsyncClient."""
    with capture(Starlette(), SETTINGS) as telemetry:
        async with httpx.AsyncClient(base_url=peer, follow_redirects=True) as client:
            for path in ("/200", "/302", "/404", "/503"):
                await client.get(path)
            await client.request("FETCH", "/200")
        assert requests(telemetry) == ANSWERED


async def test_requests_without_a_response() -> None:
    """A request that nobody answers has no status, and the error as its type."""
    with capture(Starlette(), SETTINGS) as telemetry:
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ConnectError):
                await client.get("http://127.0.0.1:1/")
        assert requests(telemetry) == {("GET", "", "127.0.0.1", "ConnectError"): 1}


async def test_durations_are_seconds(peer: str) -> None:
    """A duration is what passed on the clock until the response's headers."""
    with capture(Starlette(), SETTINGS) as telemetry:

        async def wait(_request: httpx.Request) -> None:
            telemetry.clock.advance(0.5)

        async with httpx.AsyncClient(event_hooks={"request": [wait]}) as client:
            await client.get(f"{peer}/200", extensions={"trace": _advance(telemetry, 0.25)})
        assert list(telemetry.samples(f"{DURATION}_sum").values()) == [pytest.approx(0.25)]


def _advance(telemetry: Captured, seconds: float) -> Any:
    """Let time pass while the request is sent."""

    async def trace(event: str, _info: Any) -> None:
        if event == "http11.send_request_headers.started":
            telemetry.clock.advance(seconds)

    return trace


def exemplars(telemetry: Captured, metric: str) -> list[dict[str, str]]:
    """Return the labels of a histogram's exemplars."""
    families = {family.name: family for family in parse_openmetrics(telemetry.metrics_text(openmetrics=True))}  # type: ignore[no-untyped-call]
    return [sample.exemplar.labels for sample in families[metric].samples if sample.exemplar]


@pytest.mark.parametrize("ratio", [1.0, 0.0], ids=["sampled", "unsampled"])
async def test_a_traced_call_has_its_trace_as_exemplar(peer: str, ratio: float) -> None:
    """Of HTTP requests and of operations alike: the span that it was made in; none where nothing is drawn."""

    async def endpoint(_request: Request) -> Response:
        async with httpx.AsyncClient() as client:
            await client.get(f"{peer}/200")
        with create_engine("sqlite://").connect() as connection:
            connection.execute(text("SELECT 1"))
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/", endpoint)])
    settings = replace(SETTINGS, traces_sampler="traceidratio", traces_sampler_ratio=ratio)
    with capture(app, settings) as telemetry:
        await call(app, http_scope("/"))
        for metric in (DURATION, names.DB_CLIENT_OPERATION_DURATION):
            found = exemplars(telemetry, metric)
            if not ratio:
                assert found == []
                continue
            [labels] = found
            [server_span] = [span for span in telemetry.spans if span.name == "GET /"]
            assert labels[names.EXEMPLAR_TRACE_ID] == format_trace_id(server_span.context.trace_id)
            assert labels[names.EXEMPLAR_SPAN_ID] in {format_span_id(span.context.span_id) for span in telemetry.spans}


def test_a_call_without_a_trace_has_no_exemplar(peer: str) -> None:
    """Nothing that could be opened is offered."""
    with capture(Starlette(), SETTINGS) as telemetry, httpx.Client() as client:
        client.get(f"{peer}/200")
        assert exemplars(telemetry, DURATION) == []


def test_labels_are_bounded() -> None:
    """32 hosts, then `_OTHER`; statuses nobody defines, operations and errors beyond a budget likewise; each is counted."""
    with capture(Starlette(), SETTINGS) as telemetry:
        metrics = telemetry._telemetry.client_metrics
        assert metrics is not None
        for number in range(40):
            metrics.http_request("GET", f"host-{number}", 200, 1, None)
        for number in range(100):
            metrics.db_operation("redis", f"OP{number}", 1, None)
            metrics.db_operation("redis", "GET", 1, type(f"Error{number}", (Exception,), {})())
        metrics.http_request("GET", "host-0", 999, 1, None)
        hosts = {key[2] for key in requests(telemetry)}
        assert hosts == {*(f"host-{number}" for number in range(32)), "_OTHER"}
        assert requests(telemetry)["GET", "200", "_OTHER", ""] == 8
        assert requests(telemetry)["GET", "_OTHER", "host-0", "_OTHER"] == 1
        counted = operations(telemetry)
        assert counted["redis", "_OTHER", ""] == 101 - _client_metrics.MAX_DB_OPERATIONS
        assert sum(count for key, count in counted.items() if key[2] == "_OTHER") == 100 - 32
        overflowed = telemetry.samples(names.LABEL_SETS_OVERFLOWED)
        assert {dict(labels)[names.LABEL_METRIC]: count for labels, count in overflowed.items()} == {
            DURATION: 8,
            names.DB_CLIENT_OPERATION_DURATION: 37 + 68,
        }


def get_route(peer: str) -> Route:
    async def endpoint(_request: Request) -> Response:
        async with httpx.AsyncClient() as client:
            await client.get(f"{peer}/200")
        return PlainTextResponse("x")

    return Route("/{path:path}", endpoint)


@pytest.mark.parametrize("overrides", [{"traces_sampler": "always_off"}, {"traces_enabled": False}])
async def test_calls_count_whether_or_not_traces_do(peer: str, overrides: dict[str, Any]) -> None:
    """Neither an unsampled trace nor traces that are off make a call uncounted."""
    settings = Settings(service_name="shop", extra_registries=(), **overrides)
    app = Starlette(routes=[get_route(peer)])
    with capture(app, settings) as telemetry:
        await call(app, http_scope("/"))
        assert telemetry.spans == []
        assert requests(telemetry) == {("GET", "200", "127.0.0.1", ""): 1}


@pytest.mark.parametrize("traces_enabled", [True, False])
async def test_calls_of_excluded_routes_leave_no_trace(peer: str, *, traces_enabled: bool) -> None:
    """What a health check does is in no metric either."""
    settings = Settings(
        service_name="shop", extra_registries=(), excluded_paths=("/healthz",), traces_enabled=traces_enabled
    )
    app = Starlette(routes=[get_route(peer)])
    with capture(app, settings) as telemetry:
        await call(app, http_scope("/healthz"))
        assert requests(telemetry) == {}
        await call(app, http_scope("/other"))
        assert requests(telemetry) == {("GET", "200", "127.0.0.1", ""): 1}


def test_suppressed_calls_are_not_counted(peer: str, tmp_path: Path) -> None:
    """OpenTelemetry's two switches hold: all calls, or those over HTTP alone."""
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    with capture(Starlette(), SETTINGS) as telemetry, httpx.Client() as client:
        with suppress_http_instrumentation(), engine.connect() as connection:
            client.get(f"{peer}/200")
            connection.execute(text("SELECT 1"))
        assert (requests(telemetry), operations(telemetry)) == ({}, {("sqlite", "SELECT", ""): 1})
        token = attach(set_value(_suppress_key(), value=True))
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        detach(token)
        assert operations(telemetry) == {("sqlite", "SELECT", ""): 1}
    engine.dispose()


def _suppress_key() -> str:
    from opentelemetry import context

    return context._SUPPRESS_INSTRUMENTATION_KEY


def test_a_counter_that_fails_does_not_reach_the_call(peer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call succeeds, and the error is counted as ours."""

    def fail(*_arguments: Any) -> None:
        raise RuntimeError("telemetry is broken")

    monkeypatch.setattr(_client_metrics.ClientMetrics, "http_request", fail)
    with capture(Starlette(), SETTINGS) as telemetry, httpx.Client() as client:
        assert client.get(f"{peer}/200").status_code == 200
        assert telemetry.sample(names.INTERNAL_ERRORS, {names.LABEL_SIGNAL: "metrics"}) == 1


def test_a_pool_that_fails_does_not_reach_the_scrape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool that cannot say how it is costs its own gauges and nothing else."""
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    with capture(Starlette(), SETTINGS) as telemetry:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        monkeypatch.setattr(type(engine.pool), "checkedout", None)
        assert operations(telemetry) == {("sqlite", "SELECT", ""): 1}
        errors = telemetry.sample(names.INTERNAL_ERRORS, {names.LABEL_SIGNAL: "metrics"})
        assert errors is not None
        assert errors > 0
        monkeypatch.undo()
    engine.dispose()


def test_a_library_that_cannot_be_joined_does_not_fail_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that lacks what we need is reported; the application starts."""

    def fail() -> None:
        raise AttributeError("no such method any more")

    monkeypatch.setattr(_httpx_calls, "install", fail)
    with capture(Starlette(), SETTINGS) as telemetry:
        assert telemetry.sample(names.INTERNAL_ERRORS, {names.LABEL_SIGNAL: "metrics"}) == 1


def test_unknown_libraries_are_refused_without_traces() -> None:
    """A name nobody knows is a mistake whichever signals are on."""
    settings = Settings(service_name="shop", instrumentations=("htpx",), traces_enabled=False, metrics_enabled=False)
    with pytest.raises(ConfigurationError, match="htpx"), capture(Starlette(), settings):
        pass


def test_without_metrics_nothing_is_patched() -> None:
    """With metrics off the libraries are left alone."""
    before = vars(httpx.HTTPTransport)["handle_request"]
    settings = Settings(service_name="shop", metrics_enabled=False)
    with capture(Starlette(), settings):
        assert vars(httpx.HTTPTransport)["handle_request"] is before


# --- several applications --------------------------------------------------------------------------------------------


async def test_two_applications_count_their_own(peer: str) -> None:
    """A call counts for the application whose request it is made for, background tasks included; else for the first."""

    async def ask() -> None:
        async with httpx.AsyncClient() as client:
            await client.get(f"{peer}/404")

    async def later(_request: Request) -> Response:
        return PlainTextResponse("x", background=BackgroundTask(ask))

    first, second = (Starlette(routes=[Route("/later", later), get_route(peer)]) for _ in range(2))
    ok, not_found = ("GET", "200", "127.0.0.1", ""), ("GET", "404", "127.0.0.1", "404")
    with capture(first, SETTINGS) as one:
        with capture(second, SETTINGS) as two:
            await call(second, http_scope("/"))
            await call(second, http_scope("/later"))
            assert (requests(one), requests(two)) == ({}, {ok: 1, not_found: 1})
            await call(first, http_scope("/"))
            await ask()
            assert (requests(one), requests(two)) == ({ok: 1, not_found: 1}, {ok: 1, not_found: 1})
            await call(Starlette(routes=[get_route(peer)]), http_scope("/"))
            assert requests(one) == {ok: 2, not_found: 1}
        await ask()
    assert (requests(one), requests(two)) == ({ok: 2, not_found: 2}, {ok: 1, not_found: 1})


async def test_an_application_counts_only_what_it_has_chosen(peer: str) -> None:
    """What another application wants counted is not counted for one that has not chosen it."""
    settings = Settings(service_name="shop", extra_registries=(), instrumentations=("sqlalchemy",))
    with capture(Starlette(), settings) as chose_not, capture(Starlette(), SETTINGS) as chose:
        async with httpx.AsyncClient() as client:
            await client.get(f"{peer}/200")
        assert (len(requests(chose_not)), len(requests(chose))) == (0, 1)


async def test_calls_of_a_request_that_nobody_counts(peer: str) -> None:
    """What an application that does not count does for its requests is not put down to another."""
    silent = Settings(service_name="shop", extra_registries=(), metrics_enabled=False)
    app = Starlette(routes=[get_route(peer)])
    with capture(Starlette(), SETTINGS) as other, capture(app, silent):
        await call(app, http_scope("/"))
        assert requests(other) == {}


# --- beside other people's wrappers ----------------------------------------------------------------------------------


class Called:
    """A class with a method."""

    def method(self) -> str:
        return "called"


def test_a_patch_beneath_somebodys_wrapper(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays while it cannot be taken out, is not put in twice, and goes when it can."""
    original = vars(Called)["method"]

    def counting(inner: Any) -> Any:
        return lambda self: f"{inner(self)}+1"

    def theirs(self: Called) -> str:
        return f"<{ours(self)}>"

    patch = MethodPatch(Called, "method", counting)
    patch.put_in()
    ours = vars(Called)["method"]
    theirs.__wrapped__ = ours  # type: ignore[attr-defined]
    monkeypatch.setattr(Called, "method", theirs)
    patch.take_out()
    patch.put_in()
    assert Called().method() == "<called+1>"
    monkeypatch.setattr(Called, "method", ours)
    patch.take_out()
    assert vars(Called)["method"] is original


PROGRAM = """
import asyncio, http.server, json, sys, threading
import obslib
from obslib import Settings, names
from starlette.applications import Starlette
def say(**values): print(json.dumps(values), flush=True)
class Peer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        seen.append(self.headers.get("traceparent"))
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *arguments): pass
seen = []
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Peer)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_address[1]}"
def count(observability):
    found = [s for f in observability.registry.collect() for s in f.samples
             if s.name == names.HTTP_CLIENT_REQUEST_DURATION + "_count"]
    return sum(sample.value for sample in found)
async def event(app, path="/"):
    async def receive(): return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message): pass
    await app({"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": b"/", "query_string": b"", "root_path": "", "headers": [], "client": None,
        "server": None}, receive, send)
SETTINGS = Settings(service_name="tested", extra_registries=(), logs_enabled=False, traces_exporter="none")
"""


def run(code: str) -> dict[str, Any]:
    """Run code after the program's beginning; return what it said."""
    return run_python(PROGRAM + code)[-1]


@pytest.mark.parametrize("order", ["first, second", "second, first"])
def test_spans_and_counts_together_are_undone_in_any_order(order: str) -> None:
    """With the instrumentation package each call has a span and a count; after both shutdowns nothing is left."""
    said = run(f"""
import httpx
before = vars(httpx.HTTPTransport)["handle_request"]
first, second = (obslib.instrument(Starlette(), SETTINGS) for _ in range(2))
httpx.get(url)
counts = [count(first), count(second)]
for observability in ({order}):
    observability.shutdown()
httpx.get(url)
say(counts=counts, traced=[value is not None for value in seen], now=[count(first), count(second)],
    restored=vars(httpx.HTTPTransport)["handle_request"] is before)
""")
    assert said == {"counts": [1, 0], "traced": [True, False], "now": [1, 0], "restored": True}


def test_a_library_without_its_package_is_joined_when_imported() -> None:
    """Set-up imports no library for counting; one the application has imported by its first event is counted."""
    said = run("""
from obslib import _call_sources
_call_sources.is_instrumentable = lambda library: False
import dataclasses
observability = obslib.instrument(app := Starlette(), dataclasses.replace(SETTINGS, traces_enabled=False))
at_set_up = [library in sys.modules for library in ("httpx", "redis", "sqlalchemy")]
import httpx
asyncio.run(event(app))
httpx.get(url)
say(at_set_up=at_set_up, counted=count(observability))
observability.shutdown()
""")
    assert said == {"at_set_up": [False, False, False], "counted": 1}


def test_our_own_sender_is_not_counted() -> None:
    """Sending spans is no call of the service's."""
    said = run("""
import dataclasses, httpx
settings = dataclasses.replace(SETTINGS, traces_exporter="otlp", otlp_traces_endpoint=url + "/v1/traces")
observability = obslib.instrument(app := Starlette(), settings)
asyncio.run(event(app))
flushed = observability.flush()
say(flushed=flushed, exported=observability.registry.get_sample_value(names.SPANS_EXPORTED), counted=count(observability))
observability.shutdown()
""")
    assert said == {"flushed": True, "exported": 1.0, "counted": 0}


def test_public_names() -> None:
    """What dashboards read is spelled as the conventions spell it."""
    assert obslib.names.HTTP_CLIENT_REQUEST_DURATION == "http_client_request_duration_seconds"
    assert obslib.names.DB_CLIENT_OPERATION_DURATION == "db_client_operation_duration_seconds"
