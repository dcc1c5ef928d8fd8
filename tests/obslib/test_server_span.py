"""The lazy server span: what is sent of it, and of what users do to it, is what the SDK's own span would have sent."""

import gc
import weakref
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanContext, SpanKind, StatusCode, TraceFlags
from starlette.applications import Starlette

from obslib import names
from obslib._environment import SAMPLERS
from obslib._framework import switch_native_telemetry_off, wrap_app
from obslib._otlp import OtlpConfig, OtlpSpanProcessor
from obslib._otlp_encode import encode_span
from obslib._provider import Gate, ObslibTracerProvider, make_resource, make_sampler
from obslib._record import RequestRecord
from obslib._server_span import ServerSpan, bind_unsampled
from obslib._server_span_encode import ServerSpanEncoder
from obslib._span_attributes import _parse_host, describe_outcome, final_name, initial_name, start_attributes
from obslib._span_factory import make_factory
from obslib._span_ids import digits_of, make_child_ids, make_root_ids
from obslib._telemetry import Telemetry
from obslib.settings import Settings
from obslib.testing import FixedClock, SequentialIds
from tests.obslib.asgi import call, http_scope
from tests.obslib.collector import Collector, running_collector

REQUEST_ID = "http.response.header.x-request-id"


class Running:
    """An application whose spans go to a collector."""

    running = True

    def __init__(self, app: Starlette, settings: Settings, collector: Collector) -> None:
        self.app = app
        self.clock = FixedClock()
        self.collector = collector
        self.telemetry = Telemetry(
            settings,
            write=lambda _line, _is_error: None,
            now_unix_ns=self.clock,
            monotonic_ns=self.clock,
            new_request_id=lambda: "r-1",
        )
        self.provider = ObslibTracerProvider(make_resource(settings), Gate(make_sampler(settings)), SequentialIds())
        config = OtlpConfig(endpoint=f"{collector.endpoint}/v1/traces", headers={})
        self.processor = OtlpSpanProcessor(
            make_resource(settings),
            config,
            on_dropped=lambda *_: None,
            on_exported=lambda *_: None,
            on_error=lambda *_: None,
        )
        self.provider.add_span_processor(self.processor)
        switch_native_telemetry_off(app)
        wrap_app(app, lambda inner: self.telemetry.make_layer(inner, self.provider, self))

    def start(self) -> None: ...

    def startup_complete(self) -> None: ...

    def pause(self) -> None: ...

    def spans(self) -> list[SpanMessage]:
        """Send what there is; return all that has arrived."""
        assert self.processor.close(30)
        return self.collector.spans


@contextmanager
def served(app: Starlette, **settings: Any) -> Any:
    with running_collector() as collector:
        yield Running(app, Settings(service_name="shop", extra_registries=(), **settings), collector)


def app_that(handle: Callable[[], object]) -> FastAPI:
    app = FastAPI()

    @app.get("/items/{item_id}")
    async def item(item_id: int) -> None:
        handle()

    return app


def attributes(span: SpanMessage) -> dict[str, object]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in span.attributes}


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_a_span_does_not_outlive_its_request(ratio: float) -> None:
    """Though requests wait to be recorded together: what lives on makes the next requests slower."""
    seen: list[weakref.ref[trace.Span]] = []
    app = app_that(lambda: seen.append(weakref.ref(trace.get_current_span())))
    with served(app, traces_sampler="parentbased_traceidratio", traces_sampler_ratio=ratio) as running:
        running.telemetry.backlog.open()
        await call(running.app, http_scope("/items/1"))
        assert [span() for span in seen] == [None]
        assert running.telemetry.backlog.flush(1)
        assert len(running.spans()) == ratio


async def test_untouched_span() -> None:
    """An ordinary request's span arrives with name, kind, times and attributes, and was never made in full."""
    seen: list[trace.Span] = []
    with served(app_that(lambda: seen.append(trace.get_current_span()))) as running:
        await call(
            running.app,
            http_scope(
                "/items/1", headers=[(b"host", b"shop:80"), (b"user-agent", b"ua")], query_string=b"a=1&token=t"
            ),
        )
        [span] = running.spans()
    assert isinstance(seen[0], ServerSpan)
    assert "_attributes" not in vars(seen[0])
    assert (span.name, span.kind) == ("GET /items/{item_id}", SpanMessage.SPAN_KIND_SERVER)
    assert attributes(span) == {
        "http.request.method": "GET", "url.scheme": "http", "network.protocol.version": "1.1", "server.address": "shop",
        "server.port": 80, "url.path": "/items/1", "client.address": "192.0.2.7", "user_agent.original": "ua",
        "url.query": "a=1&token=REDACTED", "http.response.status_code": 200, "http.route": "/items/{item_id}",
        "http.request.body.size": 0, "http.response.body.size": 4, REQUEST_ID: attributes(span)[REQUEST_ID],
    }  # fmt: skip


USER_ACTIONS: dict[str, Callable[[Span], object]] = {
    "attribute": lambda span: span.set_attribute("user.plan", "gold"),
    "attributes": lambda span: span.set_attributes({"a": 1, "b": ("x", "y"), "url.path": "overwritten"}),
    "event": lambda span: span.add_event("cache_miss", {"key": "k"}, timestamp=7),
    "link": lambda span: span.add_link(SpanContext(5, 6, is_remote=False)),
    "status": lambda span: span.set_status(StatusCode.ERROR, "because"),
    "ok": lambda span: span.set_status(StatusCode.OK),
    "name": lambda span: span.update_name("checkout"),
    "read": lambda span: (span.attributes, span.events, span.links, span.status, span.resource, span.to_json()),
}


@pytest.mark.parametrize("action", USER_ACTIONS)
async def test_what_users_do_arrives(action: str) -> None:
    """Whatever user code does to the current span arrives, exactly as it would with the SDK's own span."""

    def handle() -> None:
        span = trace.get_current_span()
        assert isinstance(span, Span)
        USER_ACTIONS[action](span)

    arrived = []
    for is_stock in (False, True):
        with served(app_that(handle)) as running:
            if is_stock:  # a processor of somebody else's makes the SDK make the spans
                running.provider.add_span_processor(SpanProcessor())
            await call(running.app, http_scope("/items/1"))
            [span] = running.spans()
            arrived.append(span)
    assert arrived[0] == arrived[1]
    if action == "name":
        assert arrived[0].name == "checkout"


async def test_children() -> None:
    """Spans made below the server span are its children."""

    def handle() -> None:
        with current.provider.get_tracer("user").start_as_current_span("query"):
            pass

    with served(app_that(handle)) as running:
        current = running
        await call(running.app, http_scope("/items/1"))
        child, server = running.spans()
    assert (child.name, child.parent_span_id, child.trace_id) == ("query", server.span_id, server.trace_id)


async def test_user_ends_it() -> None:
    """A span that user code ends is sent once, as it then was, and is not ended again."""
    with served(app_that(lambda: trace.get_current_span().end())) as running:
        await call(running.app, http_scope("/items/1"))
        [span] = running.spans()
    assert span.name == "GET"
    assert "http.route" not in attributes(span)


async def test_touching_it_after_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """What is done to a span after its end is refused as the SDK refuses it."""
    seen: list[Span] = []
    with served(app_that(lambda: seen.append(trace.get_current_span()))) as running:  # type: ignore[arg-type]
        await call(running.app, http_scope("/items/1"))
        seen[0].set_attribute("late", 1)
        seen[0].add_event("late")
        [span] = running.spans()
    assert not seen[0].is_recording()
    assert "late" not in attributes(span)
    assert "ended span" in caplog.text


class FalseError(Exception):
    """One like a list of problems that is empty."""

    def __bool__(self) -> bool:
        return False


@pytest.mark.parametrize("error", [RuntimeError, FalseError])
async def test_exception(error: type[Exception]) -> None:
    """An exception's stack trace arrives as an event."""

    def handle() -> None:
        raise error()

    with served(app_that(handle)) as running:
        with pytest.raises(error):
            await call(running.app, http_scope("/items/1"))
        [span] = running.spans()
    assert [event.name for event in span.events] == ["exception"]
    assert span.status.code == SpanMessage().status.STATUS_CODE_ERROR


async def test_processor_added_while_a_request_runs() -> None:
    """A processor that is added in the middle of a request gets that request's span, too."""
    exporter = InMemorySpanExporter()
    with served(app_that(lambda: current.provider.add_span_processor(SimpleSpanProcessor(exporter)))) as running:
        current = running
        await call(running.app, http_scope("/items/1"))
        [sent] = running.spans()
    [kept] = exporter.get_finished_spans()
    assert kept.name == sent.name == "GET /items/{item_id}"
    assert isinstance(kept, ReadableSpan)


@pytest.mark.parametrize(("ratio", "sent"), [(1.0, 3), (0.0, 0)])
async def test_a_ratio_decides_by_the_trace_id_that_is_sent(ratio: float, sent: int) -> None:
    """The id that the sampler saw is the one the span has, and the one user code sees."""
    seen: list[int] = []

    def handle() -> None:
        seen.append(trace.get_current_span().get_span_context().trace_id)

    settings = {"traces_sampler": "parentbased_traceidratio", "traces_sampler_ratio": ratio}
    with served(app_that(handle), **settings) as running:
        for number in range(3):
            await call(running.app, http_scope(f"/items/{number}"))
        assert [int.from_bytes(span.trace_id, "big") for span in running.spans()] == seen[:sent]
    assert len(set(seen)) == 3


async def test_processor_added_between_two_requests() -> None:
    """A processor that is added later gets the spans from then on, start and end."""
    exporter = InMemorySpanExporter()
    with served(app_that(lambda: None)) as running:
        await call(running.app, http_scope("/items/1"))
        running.provider.add_span_processor(SimpleSpanProcessor(exporter))
        await call(running.app, http_scope("/items/2"))
        assert len(running.spans()) == 2
    [kept] = exporter.get_finished_spans()
    assert dict(kept.attributes or {})["url.path"] == "/items/2"


def test_ids_of_another_generator() -> None:
    """Whoever brings a generator gets its ids; a caller's trace is continued."""

    class Ours(RandomIdGenerator):
        def generate_trace_id(self) -> int:
            return 7

        def generate_span_id(self) -> int:
            return 9

    parent = SpanContext(5, 6, is_remote=True)
    assert make_root_ids(Ours())() == f"{7:032x}{9:016x}"
    assert make_child_ids(Ours())(parent) == f"{5:032x}{9:016x}"
    root_ids, child_ids = make_root_ids(RandomIdGenerator()), make_child_ids(RandomIdGenerator())
    assert child_ids(parent)[:32] == f"{5:032x}"
    assert {len(root_ids()), len(child_ids(parent))} == {48}
    assert len({root_ids()[:32] for _ in range(100)} | {child_ids(parent)[32:] for _ in range(100)}) == 200


def test_code_that_looks_into_an_unsampled_span() -> None:
    """Its ids are there for whoever prints it."""
    span = bind_unsampled(0).begin("a" * 48, None)
    assert repr(SpanContext(int("a" * 32, 16), int("a" * 16, 16), is_remote=False)) in repr(span)


def test_a_span_that_is_none_has_no_ids() -> None:
    """A tracer that is switched off makes a span without ids: the lines then have none, rather than zeros."""
    assert digits_of(trace.INVALID_SPAN.get_span_context()) == ""


async def test_incoming_parent() -> None:
    """A caller's trace is continued with its state, and its parent is marked as remote."""
    seen: list[SpanContext] = []

    def handle() -> None:
        seen.append(trace.get_current_span().get_span_context())

    for headers in ([], [(b"tracestate", b"a=1")]):
        with served(app_that(handle)) as running:
            traceparent = (b"traceparent", b"00-" + b"4b" * 16 + b"-" + b"0f" * 8 + b"-01")
            await call(running.app, http_scope("/items/1", headers=[traceparent, *headers]))
            [span] = running.spans()
        assert (span.trace_id.hex(), span.parent_span_id.hex(), span.flags) == ("4b" * 16, "0f" * 8, 0x300)
        assert span.trace_state == ("a=1" if headers else "")
        assert digits_of(seen[-1]) == (span.trace_id + span.span_id).hex()
        assert (seen[-1].trace_state.to_header(), seen[-1].trace_flags) == (span.trace_state, 1)


async def test_gate_closed() -> None:
    """After shutdown nothing is recorded, and requests go on."""
    with served(app_that(lambda: None)) as running:
        running.provider.gate.is_open = False
        exchange = await call(running.app, http_scope("/items/1"))
        assert exchange.sent[0]["status"] == 200
        assert running.spans() == []


TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)
RECORDS: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    method=st.sampled_from(["GET", "POST", names.OTHER]),
    path=TEXTS.map(lambda text: f"/{text}"),
    version=st.sampled_from(["1.1", "2"]),
    host=st.sampled_from([None, b"shop", b"shop:8080", b"[::1]:1", b"\xff", b"a b"]),
    client=st.sampled_from(["", "192.0.2.1"]),
    user_agent=st.binary(max_size=40),
    query=TEXTS,
    route=st.sampled_from(["", "/items/{item_id}"]),
    status=st.sampled_from([0, 200, 404, 500, 503]),
    error_type=st.sampled_from(["", "500", names.ERROR_CLIENT_DISCONNECT, names.ERROR_INCOMPLETE_RESPONSE]),
    sizes=st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)),
    request_id=st.text("abcdef0123456789-", min_size=1, max_size=128),
    duration_ns=st.integers(0, 2**50),
    first_byte_ns=st.sampled_from([0, 1, 2**40]),
    parent=st.sampled_from(
        [
            None,
            SpanContext(9, 8, is_remote=True, trace_flags=TraceFlags(1)),
            SpanContext(9, 7, is_remote=False, trace_flags=TraceFlags(1)),
        ]
    ),
)

ENCODER = ServerSpanEncoder(REQUEST_ID)


def a_record(values: dict[str, Any]) -> RequestRecord:
    record = RequestRecord.begin(
        values["method"], values["path"], "http", values["version"], {}, "", "", 0, 1_700_000_000_000_000_000
    )
    if record.method == names.OTHER:
        record.original_method = "PURGE"
    headers = {b"host": values["host"], b"user-agent": values["user_agent"]}
    record.headers = {name: value for name, value in headers.items() if value is not None}
    record.client_address, record.query = values["client"], values["query"]
    record.route, record.status_code, record.error_type = values["route"], values["status"], values["error_type"]
    record.request_body_bytes, record.response_body_bytes = values["sizes"]
    record.request_id, record.duration_ns = values["request_id"], values["duration_ns"]
    record.time_to_first_byte_ns = values.get("first_byte_ns", 0)
    return record


class Keep(SpanProcessor):
    span: ReadableSpan

    def on_end(self, span: ReadableSpan) -> None:
        self.span = span


KEEP = Keep()
PROVIDER = ObslibTracerProvider(make_resource(Settings()), Gate(make_sampler(Settings())))
PROVIDER.add_span_processor(KEEP)


@given(RECORDS)
def test_encoded_from_the_record_is_encoded_from_the_span(values: dict[str, Any]) -> None:
    """For any request the bytes made from its record are those made from the SDK's own span."""
    record = a_record(values)
    parent = values["parent"]
    context = None if parent is None else trace.set_span_in_context(trace.NonRecordingSpan(parent))
    stock = PROVIDER.get_tracer("t").start_span(
        initial_name(record), context, SpanKind.SERVER, start_attributes(record), None, record.start_unix_ns
    )
    end_unix_ns = record.start_unix_ns + record.duration_ns
    record.id_digits = digits_of(stock.get_span_context())
    ours = ENCODER.encode(record, parent, end_unix_ns)
    stock.update_name(final_name(record))
    describe_outcome(stock, record, REQUEST_ID)
    stock.end(end_unix_ns)
    assert ours == encode_span(KEEP.span)


@given(st.sampled_from(sorted(SAMPLERS)), st.floats(0, 1), st.integers(1, 2**128 - 1), st.sampled_from([None, 0, 1]))
def test_decisions_are_the_samplers(name: str, ratio: float, trace_id: int, parent_flags: int | None) -> None:
    """For any trace the quick decision is the one that the SDK's sampler makes."""
    settings = Settings(traces_sampler=name, traces_sampler_ratio=ratio)
    parent = (
        None if parent_flags is None else SpanContext(trace_id, 1, is_remote=True, trace_flags=TraceFlags(parent_flags))
    )
    context = None if parent is None else trace.set_span_in_context(trace.NonRecordingSpan(parent))
    stock = make_sampler(settings).should_sample(context, trace_id, "x")

    class Given(RandomIdGenerator):
        def generate_trace_id(self) -> int:
            return trace_id

    provider = ObslibTracerProvider(make_resource(settings), Gate(make_sampler(settings)), Given())
    factory = make_factory(provider, provider.get_tracer("t"), settings, REQUEST_ID)
    record = RequestRecord.begin("GET", "/", "http", "1.1", {}, "", "", 0, 1)
    span = None if factory is None else factory.start(record, parent)
    assert span is not None
    assert record.sampled is (stock.decision is Decision.RECORD_AND_SAMPLE)
    assert span.get_span_context().trace_flags.sampled is record.sampled


def test_samplers_by_name() -> None:
    """`make_sampler` builds what the specification's names mean."""
    assert isinstance(make_sampler(Settings(traces_sampler="parentbased_traceidratio")), ParentBased)
    assert isinstance(make_sampler(Settings(traces_sampler="traceidratio")), TraceIdRatioBased)
    assert Gate(make_sampler(Settings())).get_description().startswith("ParentBased")


def factory_of(provider: trace.TracerProvider) -> object:
    return make_factory(provider, provider.get_tracer("t"), Settings(), REQUEST_ID)


def test_when_the_sdk_makes_the_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another provider, another processor, or limits below what a server span needs leave the work to the SDK."""
    settings = Settings()

    def provider() -> ObslibTracerProvider:
        return ObslibTracerProvider(make_resource(settings), Gate(make_sampler(settings)))

    assert factory_of(provider()) is not None
    assert factory_of(trace.NoOpTracerProvider()) is None
    foreign = provider()
    foreign.add_span_processor(SpanProcessor())
    assert factory_of(foreign) is None
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "5")
    assert factory_of(provider()) is None
    monkeypatch.delenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "5")
    assert factory_of(provider()) is None


@pytest.mark.parametrize("broken", ["_new_events", "set_status", "end"])
def test_sdk_that_has_changed(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """Where our span is not equal to the SDK's, which is tried at set-up, the SDK makes the spans."""

    def fail(*_args: object, **_values: object) -> None:
        raise TypeError("renamed")

    monkeypatch.setattr(ServerSpan, broken, fail)
    assert factory_of(ObslibTracerProvider(make_resource(Settings()), Gate(make_sampler(Settings())))) is None


def test_sdk_that_says_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A difference in what is sent is noticed, not only an error."""
    monkeypatch.setattr(ServerSpan, "update_name", lambda _span, _name: None)
    assert factory_of(ObslibTracerProvider(make_resource(Settings()), Gate(make_sampler(Settings())))) is None


async def test_unsampled() -> None:
    """An unsampled request has ids and a context, and nothing is made or sent."""
    seen: list[trace.Span] = []
    with served(app_that(lambda: seen.append(trace.get_current_span())), traces_sampler="always_off") as running:
        await call(running.app, http_scope("/items/1"))
        assert running.spans() == []
    assert seen[0].get_span_context().is_valid
    assert not seen[0].is_recording()


def test_pieces_without_end() -> None:
    """Paths, hosts and routes that never repeat leave the encoder's memory bounded."""
    encoder = ServerSpanEncoder(REQUEST_ID)
    for number in range(1500):
        values = {
            "method": "GET", "path": f"/{number}" + "x" * (number % 300), "version": "1.1", "host": b"h%d" % number,
            "client": f"{number}", "user_agent": b"u" * (number % 300), "query": "", "route": f"/{number}", "status": 200,
            "error_type": "", "sizes": (number, 0), "request_id": "r" * (number % 128 + 1), "duration_ns": 0,
        }  # fmt: skip
        encoder.encode(a_record(values), None, 5)
    kept = [value for value in vars(encoder).values() if isinstance(value, dict)]
    assert len(kept) == 6
    assert max(map(len, kept)) <= 512


async def test_requests_leave_no_cyclic_garbage() -> None:
    """What a request leaves behind goes at once: nothing of it waits for the garbage collector."""

    async def raw(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    class Bare(Starlette):
        def build_middleware_stack(self) -> Any:
            return raw

    with served(Bare()) as running:
        await call(running.app, http_scope("/"))
        gc.collect()
        gc.disable()
        try:
            for _ in range(100):
                await call(running.app, http_scope("/"))
            assert gc.collect() < 100
        finally:
            gc.enable()
        assert len(running.spans()) == 101


def test_long_hosts_are_not_kept() -> None:
    """A caller who invents long Host headers fills no memory with them; his spans say what they say."""
    _parse_host.cache_clear()
    encoder = ServerSpanEncoder(REQUEST_ID)
    for size, kept in ((257, 0), (256, 1)):
        record = RequestRecord.begin("GET", "/", "http", "1.1", {}, "", "", 0, 1)
        record.headers = {b"host": b"h" * size}
        assert ("h" * size).encode() in encoder.encode(record, None, 5)
        assert (len(encoder._starts), _parse_host.cache_info().currsize) == (kept, kept)
