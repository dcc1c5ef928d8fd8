"""Context in and out, request ids, sampling, redaction in spans."""

import dataclasses
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry import baggage, trace
from opentelemetry.trace import SpanKind
from starlette.responses import PlainTextResponse

import obslib
from obslib import names
from obslib.exceptions import MissingExtraError
from obslib.settings import Settings
from obslib.testing import capture
from tests.obslib.asgi import call, client_of, http_scope

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"


def settings(**values: Any) -> Settings:
    return Settings(service_name="shop", extra_registries=(), **values)


def an_app() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def root() -> str:
        return str(baggage.get_baggage("tenant"))

    return app


@pytest.mark.parametrize("engine", ["obslib", "contrib"])
async def test_incoming_context_is_continued(engine: str) -> None:
    """The caller's trace goes on, its tracestate and baggage included."""
    app = an_app()
    headers = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01", "tracestate": "a=1", "baggage": "tenant=acme"}
    with capture(app, settings(engine=engine)) as telemetry:
        async with client_of(app) as client:
            assert (await client.get("/", headers=headers)).json() == "acme"
        [span] = telemetry.spans
        [line] = telemetry.access_lines
    assert span.kind is SpanKind.SERVER
    assert span.parent is not None
    assert (format(span.parent.trace_id, "032x"), format(span.parent.span_id, "016x")) == (TRACE_ID, SPAN_ID)
    assert span.context is not None
    assert span.context.trace_state.get("a") == "1"
    assert line[names.LOG_TRACE_ID] == TRACE_ID


async def test_baggage_without_a_trace() -> None:
    """Baggage is taken in even where the caller has no trace."""
    app = an_app()
    with capture(app, settings()):
        async with client_of(app) as client:
            assert (await client.get("/", headers={"baggage": "tenant=acme"})).json() == "acme"


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "garbage",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        "00-" + "x" * 5000,
        f"00-{TRACE_ID}-{SPAN_ID}-01\x7f",
    ],
)
async def test_invalid_traceparent(traceparent: str) -> None:
    """An invalid traceparent starts a new trace; the response is what it would have been."""
    app = an_app()
    with capture(app, settings()) as telemetry:
        exchange = await call(app, http_scope("/", headers=[(b"traceparent", traceparent.encode())]))
        [span] = telemetry.spans
    assert exchange.sent[0]["status"] == 200
    assert span.parent is None


async def test_repeated_traceparent_is_invalid() -> None:
    """Two traceparents are none."""
    app = an_app()
    header = (b"traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01".encode())
    with capture(app, settings()) as telemetry:
        await call(app, http_scope("/", headers=[header, header]))
        assert telemetry.spans[0].parent is None


async def test_current_span_is_not_the_parent() -> None:
    """A span that happens to be current where the server runs is nobody's parent."""
    app = an_app()
    with capture(app, settings()) as telemetry:
        with telemetry.tracer_provider.get_tracer("test").start_as_current_span("outer"):
            await call(app, http_scope("/"))
            assert trace.get_current_span().get_span_context().is_valid
        server = next(span for span in telemetry.spans if span.kind is SpanKind.SERVER)
    assert server.parent is None


async def test_untrusted_context_is_linked() -> None:
    """Without trust a new trace begins that links to the caller's; neither its baggage nor its request id is taken over."""
    app = an_app()
    headers = [
        (b"traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01".encode()),
        (b"baggage", b"tenant=acme"),
        (b"x-request-id", b"theirs"),
    ]
    with capture(app, settings(trust_incoming_context=False)) as telemetry:
        exchange = await call(app, http_scope("/", headers=headers))
        [span] = telemetry.spans
    assert span.parent is None
    assert [format(link.context.trace_id, "032x") for link in span.links] == [TRACE_ID]
    assert exchange.body == b'"None"'
    assert exchange.headers[b"x-request-id"] == b"request-1"


async def test_unsampled_request() -> None:
    """An unsampled request has ids in its lines, and neither a span nor an exemplar; metrics stay exact."""
    app = an_app()
    with capture(app, settings(traces_sampler="parentbased_always_off")) as telemetry:
        await call(app, http_scope("/"))
        assert telemetry.spans == []
        assert telemetry.access_lines[0][names.LOG_TRACE_ID] != ""
        text = telemetry.metrics_text(openmetrics=True)
    assert "# {" not in text
    assert (
        'http_server_request_duration_seconds_count{http_request_method="GET",http_route="/",http_response_status_code="200"'
        in text
    )


@pytest.mark.parametrize(
    ("sampler", "ratio", "flags", "sampled"),
    [
        ("always_on", 1.0, "00", True),
        ("always_off", 1.0, "01", False),
        ("traceidratio", 0.0, "01", False),
        ("traceidratio", 1.0, "00", True),
        ("parentbased_traceidratio", 0.0, "01", True),
        ("parentbased_always_on", 1.0, "00", False),
    ],
)
async def test_samplers(sampler: str, ratio: float, flags: str, sampled: bool) -> None:
    """Samplers decide as the specification says, with or against the caller."""
    app = an_app()
    with capture(app, settings(traces_sampler=sampler, traces_sampler_ratio=ratio)) as telemetry:
        await call(app, http_scope("/", headers=[(b"traceparent", f"00-{TRACE_ID}-{SPAN_ID}-{flags}".encode())]))
        assert bool(telemetry.spans) is sampled


async def test_traces_off() -> None:
    """Without traces the other two signals go on, with empty ids."""
    app = an_app()
    with capture(app, settings(traces_enabled=False)) as telemetry:
        await call(app, http_scope("/"))
        assert telemetry.spans == []
        assert telemetry.access_lines[0][names.LOG_TRACE_ID] == ""


async def test_excluded_paths() -> None:
    """An excluded path leaves nothing in any signal, and neither do its children."""
    app = FastAPI()

    @app.get("/healthz")
    @app.get("/internal/deep")
    @app.get("/internalx")
    async def healthz() -> None:
        with trace.get_tracer("user").start_as_current_span("query") as span:
            assert not span.is_recording()

    with capture(app, settings(excluded_paths=("/healthz", "/internal/*"))) as telemetry:
        provider = telemetry.tracer_provider

        @app.get("/internal")
        async def internal() -> None:
            with provider.get_tracer("user").start_as_current_span("query") as span:
                assert not span.is_recording()

        for path in ("/healthz", "/internal", "/internal/deep"):
            exchange = await call(app, http_scope(path))
            assert exchange.sent[0]["status"] == 200
            assert b"x-request-id" not in exchange.headers
        assert (telemetry.spans, telemetry.lines) == ([], [])
        await call(app, http_scope("/internalx"))
        assert len(telemetry.access_lines) == 1


@pytest.mark.parametrize(
    ("given", "echoed"),
    [
        (b"abc-123_~.=+/:@", b"abc-123_~.=+/:@"),
        (b"x" * 128, b"x" * 128),
        (b"x" * 129, b"request-1"),
        (b"y" * 10_240, b"request-1"),
        (b"a b", b"request-1"),
        (b"a\r\nset-cookie: x", b"request-1"),
        ("é".encode("latin-1"), b"request-1"),
        (b"", b"request-1"),
    ],
)
async def test_request_id(given: bytes, echoed: bytes) -> None:
    """A valid request id is kept and echoed; anything else is replaced by one of ours."""
    app = an_app()
    with capture(app, settings()) as telemetry:
        exchange = await call(app, http_scope("/", headers=[(b"x-request-id", given)]))
        [span] = telemetry.spans
        [line] = telemetry.access_lines
    assert exchange.headers[b"x-request-id"] == echoed
    assert line[names.LOG_REQUEST_ID] == echoed.decode()
    assert span.attributes is not None
    assert span.attributes["http.response.header.x-request-id"] == (echoed.decode(),)


@pytest.mark.parametrize(
    ("path", "given", "echoed", "body"),
    [
        ("/", [], None, b""),
        ("/asks", [], b"request-1", b"request-1request-1"),
        ("/", [(b"x-request-id", b"theirs")], b"theirs", b""),
    ],
)
async def test_request_id_that_would_lead_nowhere(
    path: str, given: list[tuple[bytes, bytes]], echoed: bytes | None, body: bytes
) -> None:
    """With metrics alone no line and no span says it: one is made, and sent, only for code that asks for it."""
    app = FastAPI()

    @app.get("/")
    def root() -> PlainTextResponse:
        return PlainTextResponse("")

    @app.get("/asks")
    def asks() -> PlainTextResponse:
        return PlainTextResponse(obslib.request_id() + obslib.request_id())

    with capture(app, settings(logs_enabled=False, traces_enabled=False)):
        exchange = await call(app, http_scope(path, headers=given))
    assert exchange.headers.get(b"x-request-id") == echoed
    assert exchange.body == body


async def test_request_id_of_the_application_stays() -> None:
    """A response that has the header already keeps its own."""
    app = FastAPI()

    @app.get("/")
    async def root() -> PlainTextResponse:
        return PlainTextResponse("x", headers={"X-Request-Id": "mine"})

    with capture(app, settings()):
        exchange = await call(app, http_scope("/"))
    assert [value for name, value in exchange.sent[0]["headers"] if name.lower() == b"x-request-id"] == [b"mine"]


async def test_request_id_is_known_inside() -> None:
    """`request_id()` returns the id that the response will carry."""
    app = FastAPI()

    @app.get("/")
    def root() -> str:
        return obslib.request_id()

    with capture(app, settings(request_id_header="X-Correlation-Id")):
        exchange = await call(app, http_scope("/", headers=[(b"x-correlation-id", b"c-1")]))
    assert exchange.body == b'"c-1"'
    assert exchange.headers[b"x-correlation-id"] == b"c-1"


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_request_id_of_a_trace_that_begins_here(ratio: float) -> None:
    """It is the trace's, sampled or not: no other request has it. One that goes on with a trace has an id of its own."""
    app = FastAPI()

    @app.get("/")
    def root() -> PlainTextResponse:
        trace_id = trace.get_current_span().get_span_context().trace_id
        return PlainTextResponse(f"{trace_id:032x} {obslib.request_id()}")

    quiet = settings(traces_exporter="none", logs_enabled=False, global_tracer_provider=False, instrumentations=())
    observability = obslib.instrument(
        app, dataclasses.replace(quiet, traces_sampler="parentbased_traceidratio", traces_sampler_ratio=ratio)
    )
    first, second, continued = [
        await call(app, http_scope("/", headers=headers))
        for headers in ([], [], [(b"traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01".encode())])
    ]
    observability.shutdown()

    ids = [exchange.headers[b"x-request-id"].decode() for exchange in (first, second, continued)]
    assert (first.body.decode(), second.body.decode()) == (f"{ids[0]} {ids[0]}", f"{ids[1]} {ids[1]}")
    assert continued.body.decode() == f"{TRACE_ID} {ids[2]}"
    assert len({*ids, TRACE_ID}) == 4


async def test_random_request_ids() -> None:
    """Generated ids are 32 hexadecimal digits, another one each time."""
    from obslib._record import random_request_id

    assert len({random_request_id() for _ in range(100)}) == 100
    assert len(random_request_id()) == 32


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        (b"a=1&b=2", "a=1&b=2"),
        (b"token=t&a=1&token=u", "token=REDACTED&a=1&token=REDACTED"),
        (b"X-Amz-Signature=s", "X-Amz-Signature=REDACTED"),
        (b"api%5Fkey=k", "api%5Fkey=REDACTED"),
        (b"password", "password"),
        (b"\xff=1", "ÿ=1"),
    ],
)
async def test_query_redaction(query: bytes, shown: str) -> None:
    """Secrets in a query string never reach a span."""
    app = an_app()
    with capture(app, settings()) as telemetry:
        await call(app, http_scope("/", query_string=query))
        [span] = telemetry.spans
    assert span.attributes is not None
    assert span.attributes[names.ATTR_URL_QUERY] == shown


@pytest.mark.parametrize("engine", ["obslib", "contrib"])
async def test_query_redaction_of_both_engines(engine: str) -> None:
    """No attribute has a secret of the query string, whoever makes the span."""
    app = an_app()
    with capture(app, settings(engine=engine)) as telemetry:
        await call(app, http_scope("/", query_string=b"token=s3cret&a=1"))
        [span] = telemetry.spans
    assert span.attributes is not None
    assert span.attributes[names.ATTR_URL_QUERY] == "token=REDACTED&a=1"
    assert "s3cret" not in str(span.to_json())


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [
        (b"shop.example:8443", "shop.example", 8443),
        (b"shop.example", "shop.example", None),
        (b"[::1]:80", "::1", 80),
        (b"user@evil/path", None, None),
        (b"\xff\xfe", "ÿþ", None),
    ],
)
async def test_host(host: bytes, address: str | None, port: int | None) -> None:
    """Server address and port come from the Host header, if it is one."""
    app = an_app()
    with capture(app, settings()) as telemetry:
        for _ in range(2):
            await call(app, http_scope("/", headers=[(b"host", host)]))
        span = telemetry.spans[1]
    assert span.attributes is not None
    assert span.attributes.get(names.ATTR_SERVER_ADDRESS) == address
    assert span.attributes.get(names.ATTR_SERVER_PORT) == port


@pytest.mark.parametrize(
    ("name", "package"),
    [("b3", "b3"), ("b3multi", "b3"), ("jaeger", "jaeger"), ("xray", "aws-xray"), ("ottrace", "ot-trace")],
)
async def test_other_propagators_are_named(name: str, package: str) -> None:
    """A propagator whose package is missing raises with the line that installs it."""
    with (
        pytest.raises(MissingExtraError, match=f"pip install opentelemetry-propagator-{package}$"),
        capture(an_app(), settings(propagators=(name,))),
    ):
        pass


@pytest.mark.parametrize("propagators", [(), ("none",)])
async def test_no_propagators(propagators: tuple[str, ...]) -> None:
    """With no propagator, or that of the name `none`, the caller's context is not read."""
    app = an_app()
    with capture(app, settings(propagators=propagators)) as telemetry:
        await call(app, http_scope("/", headers=[(b"traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01".encode())]))
        assert telemetry.spans[0].parent is None


async def test_odd_scheme() -> None:
    """A scheme that nobody knows is `_OTHER`."""
    app = an_app()
    with capture(app, settings()) as telemetry:
        await call(app, http_scope("/", scheme="gopher"))
        assert telemetry.access_lines[0][names.LABEL_SCHEME] == names.OTHER


async def test_nested_instrumented_apps() -> None:
    """Where one instrumented application is mounted in another, the outermost records."""
    outer, inner = FastAPI(), an_app()
    outer.mount("/inner", inner)
    with capture(outer, settings()) as outside, capture(inner, settings()) as inside:
        await call(outer, http_scope("/inner/"))
        assert len(outside.spans) == len(outside.access_lines) == 1
        assert outside.access_lines[0][names.LABEL_ROUTE] == "/inner/"
        assert (inside.spans, inside.access_lines) == ([], [])
