"""Whatever a caller sends: the response is what the bare application would have sent, but for the request id."""

from typing import Any

from fastapi import FastAPI, Request
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.routing import Route

from obslib import Settings, names
from obslib._middleware import _VALID_REQUEST_ID
from obslib.testing import capture
from tests.obslib.asgi import Exchange, Message, http_scope

OURS = b"x-request-id"
NAMES = st.sampled_from(
    [
        b"host", b"traceparent", b"tracestate", b"baggage", b"content-length", b"content-type", b"accept", b"cookie",
        b"user-agent", b"x-request-id", b"x-forwarded-for", b"accept-encoding", b"authorization", b"\xff\xfe", b"",
    ]
)  # fmt: skip
VALUES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01",
            b"ff-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"00-short", b"-1", b"99999999999999999999", b"a=1;b=2,c",
            b"k=" + b"v" * 9000, b"text/plain; version=9", b"\xff\xfe", b"a\r\nset-cookie: x=1", b"[::1", b"{" * 300,
        ]
    ),
)  # fmt: skip
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=8)
PATHS = st.one_of(st.sampled_from(["/echo", "/items/1", "/items/x", "/boom", "", "//", "/echo/"]), st.text(max_size=30))


def app() -> FastAPI:
    app = FastAPI()

    @app.post("/echo")
    async def echo(request: Request) -> dict[str, Any]:
        return {"body": (await request.body()).decode("latin-1"), "cookies": request.cookies}

    @app.get("/items/{item_id}")
    async def item(item_id: int, q: str = "") -> dict[str, Any]:
        return {"item_id": item_id, "q": q}

    @app.get("/boom")
    async def boom() -> None:
        raise LookupError("boom")

    return app


async def answer(app: FastAPI, scope: dict[str, Any], body: bytes) -> tuple[list[Message], str]:
    """Return what is sent, and the type of what is raised."""
    exchange = Exchange({"type": "http.request", "body": body, "more_body": False})
    try:
        await app(scope, exchange.receive, exchange.send)
    except Exception as error:  # noqa: BLE001 -- whatever it is, it must be the same
        return exchange.sent, type(error).__name__
    return exchange.sent, ""


def without_request_id(sent: list[Message]) -> list[Message]:
    return [
        {**message, "headers": [header for header in message["headers"] if header[0] != OURS]}
        if "headers" in message
        else message
        for message in sent
    ]


BARE = app()
OBSERVED = app()


@given(
    st.sampled_from(["GET", "POST", "BREW", "", "get"]), PATHS, st.binary(max_size=40), HEADERS, st.binary(max_size=40),
    st.sampled_from(["http", "https", "gopher", ""]), st.sampled_from([None, ("192.0.2.7", 1), ("", 0)]),
)  # fmt: skip
@example("GET", "/items/1", b"q=%ff&token=x", [(OURS, b"\xff")], b"", "http", None)
@example("POST", "/echo", b"", [(OURS, b"good-1"), (OURS, b"good-2")], b"x", "http", None)
async def test_the_response_is_the_bare_applications(
    method: str,
    path: str,
    query: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    scheme: str,
    client: tuple[str, int] | None,
) -> None:
    """Header bytes, paths, methods and queries of any kind change nothing that the caller or the server sees."""

    def scope() -> dict[str, Any]:
        return http_scope(path, method, headers, query_string=query, scheme=scheme, client=client, raw_path=None)

    expected = await answer(BARE, scope(), body)
    with capture(OBSERVED, Settings(service_name="s", extra_registries=(), metrics_path="")) as captured:
        sent, raised = await answer(OBSERVED, scope(), body)
        assert (without_request_id(sent), raised) == expected
        [line] = captured.access_lines
        assert captured.sample("obslib_internal_errors_total", {"signal": "traces"}) == 0
        assert captured.sample("obslib_internal_errors_total", {"signal": "logs"}) == 0
    if sent:
        [request_id] = [value for name, value in sent[0]["headers"] if name == OURS]
        assert _VALID_REQUEST_ID.fullmatch(request_id)
        assert line["request_id"].encode() == request_id


@given(
    st.lists(
        st.tuples(st.one_of(st.sampled_from(["GET", "POST", "BREW"]), st.text(max_size=9)), PATHS, HEADERS), max_size=12
    )
)
async def test_labels_are_never_a_callers_words(requests: list[tuple[str, str, list[tuple[bytes, bytes]]]]) -> None:
    """Whatever callers send: labels are templates, known methods, statuses and few words of obslib's own."""
    with capture(OBSERVED, Settings(service_name="s", extra_registries=(), metrics_path="")) as captured:
        for method, path, headers in requests:
            await answer(OBSERVED, http_scope(path, method, headers, scheme=path[:4] or "http", raw_path=None), b"")
        series = captured.samples(f"{names.HTTP_SERVER_REQUEST_DURATION}_count")
    assert sum(series.values()) == len(requests)
    routes = {"", *(route.path for route in OBSERVED.routes if isinstance(route, Route))}
    for labels in map(dict, series):
        assert labels[names.LABEL_ROUTE] in routes
        assert labels[names.LABEL_METHOD] in {*names.KNOWN_METHODS, names.OTHER}
        assert labels[names.LABEL_SCHEME] in {"http", "https", names.OTHER}
        assert labels[names.LABEL_STATUS_CODE] in {"200", "307", "404", "405", "422", "500"}
        assert labels[names.LABEL_ERROR_TYPE] in {"", "500", names.ERROR_EXCEPTION}
