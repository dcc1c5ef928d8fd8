"""Secrets: whatever is logged or asked for, what stands under a secret key leaves the process in no signal."""

import re
from collections import OrderedDict, deque
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, quote_plus

import httpx
import pydantic
import pytest
from fastapi import FastAPI, Request
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.datastructures import Headers

import obslib
from obslib import names
from obslib._logs import LogPipeline
from obslib.settings import REDACTED_KEYS, Settings
from obslib.testing import capture
from tests.obslib.asgi import call, http_scope
from tests.obslib.processes import run_python

SETTINGS = Settings(service_name="shop", extra_registries=())
log = obslib.get_logger("shop")


def camel(key: str) -> str:
    first, *others = key.split("_")
    return first + "".join(word.title() for word in others)


#: Ways in which services, headers and callers write the same key.
SPELLINGS = [
    str,
    str.upper,
    str.title,
    camel,
    lambda key: key.replace("_", "-").title(),
    lambda key: f"user_{key}",
    lambda key: f"X-{key.replace('_', '-')}",
    lambda key: f"http.request.header.{key}",
    lambda key: f"{key}[]",
    lambda key: key.replace("_", ""),
    lambda key: "".join(word.title() for word in key.split("_")),
]
SECRET_KEYS = st.builds(
    lambda key, spell: spell(key), st.sampled_from(sorted(REDACTED_KEYS)), st.sampled_from(SPELLINGS)
)
PLAIN_KEYS = st.sampled_from(["name", "author", "order_id", "tokens_used", "sessions", "keyboard", "größe", "1"])
#: Told apart when they come out: the one must not, the other must.
HIDDEN = st.integers(0, 999).map(lambda number: f"hidden-{number}-")
SHOWN = st.integers(0, 999).map(lambda number: f"shown-{number}-")
SECRET_ITEMS = st.tuples(SECRET_KEYS, HIDDEN)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return what can hold these, and secrets beside them."""
    items = st.lists(st.one_of(SECRET_ITEMS, st.tuples(PLAIN_KEYS, inner)), max_size=4)
    pairs = items.map(lambda found: [(key.encode(), value) for key, value in found])
    return st.one_of(
        items.map(dict),
        items.map(OrderedDict),
        items.map(lambda found: {key.encode(): value for key, value in found}),
        items.map(lambda found: dict(found).items()),
        items.map(lambda found: SimpleNamespace(**dict(found))),
        items,
        pairs,
        pairs.map(tuple),
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(deque),
    )


@given(st.recursive(SHOWN, containers, max_leaves=12))
@example([(b"authorization", "hidden-1-"), ("name", "shown-1-")])
@example({"nested": [{"clientSecret": "hidden-2-"}]})
async def test_nested_secrets_of_any_shape(value: Any) -> None:
    """In a line of a request and in its access line nothing hidden is left, and all that is not secret is there."""
    app = FastAPI()

    @app.get("/")
    async def root() -> None:
        obslib.bind(bound=value)
        log.info("seen", value=value)

    with capture(app, SETTINGS) as telemetry:
        await call(app, http_scope("/"))
        text = telemetry.text
    assert "hidden" not in text
    expected = set(re.findall("shown-[0-9]+-", repr(value)))
    if "…" not in text:  # too deep to be shown at all
        assert set(re.findall("shown-[0-9]+-", text)) == expected


@given(st.lists(st.one_of(SECRET_ITEMS, st.tuples(PLAIN_KEYS, SHOWN)), min_size=1, max_size=6))
async def test_secret_parameters(pairs: list[tuple[str, str]]) -> None:
    """In a query string each parameter keeps its place, and secret ones lose their values: in spans and lines."""
    app = FastAPI()
    query = "&".join(f"{quote_plus(key)}={value}" for key, value in pairs)

    @app.get("/")
    async def root(request: Request) -> None:
        event = f"GET {request.url} (again)"
        log.info(event, url=str(request.url), nested=[{"url": f"https://h/?{query}#top"}])

    with capture(app, SETTINGS) as telemetry:
        await call(app, http_scope("/", query_string=query.encode()))
        [span], text = telemetry.spans, telemetry.text
        [line] = [line for line in telemetry.lines if line["logger"] == "shop"]
    assert span.attributes is not None
    shown = str(span.attributes[names.ATTR_URL_QUERY])
    expected = [(key, "REDACTED" if value.startswith("hidden") else value) for key, value in pairs]
    assert parse_qsl(shown) == expected
    assert "hidden" not in text
    assert line["event"].endswith(f"/?{shown} (again)")
    assert line["nested"] == [{"url": f"https://h/?{shown}#top"}]


@given(st.text(st.characters(exclude_characters="?&@", codec="utf-8"), max_size=60))
@example("token=x")
@example("token: x, is it")
def test_other_texts_stay_as_they_are(text: str) -> None:
    """Only what stands in a URL's query is ever replaced."""
    with capture(FastAPI(), SETTINGS) as telemetry:
        log.info("seen", text=text, question="was it? token = x", empty="/?token=&a=1", mail="a:b@c.example")
        [line] = telemetry.lines
    assert (line["text"], line["question"], line["empty"]) == (text, "was it? token = x", "/?token=&a=1")
    assert line["mail"] == "a:b@c.example"


@pytest.mark.parametrize(
    "value",
    [
        [(b"cookie", b"s3cret")],
        {b"x-api-key": b"s3cret"},
        [["authorization", "s3cret"]],
        {"user": {"accessToken": "s3cret"}},
        {"XApiKey": "s3cret", "PassWord": "s3cret", "csrftoken": "s3cret", "APIkey": "s3cret"},
        [{"type": "string_too_short", "loc": ("body", "password"), "input": "s3cret", "ctx": {"given": "s3cret"}}],
        Headers({"authorization": "s3cret"}),
        Request(http_scope("/", headers=[(b"authorization", b"s3cret")], query_string=b"a=1&token=s3cret")),
        Request(http_scope("/", query_string=b"a=1&token=s3cret")).url,
        httpx.URL("https://h/?token=s3cret"),
        pydantic.PostgresDsn("postgresql://u:s3cret@db/x"),
        LookupError("https://h/?token=s3cret"),
        b"GET http://h/?token=s3cret",
        type("Markup", (str,), {})("https://h/?token=s3cret"),
        "redis://:p@s3cret@h/0",
        "https://app.example/cb#access_token=s3cret",
        deque([{"password": "s3cret"}]),
        {"password": "s3cret"}.items(),
        SimpleNamespace(password="s3cret"),
        "https://user@shop.example/?user[password]=s3cret&a=1",
        "cannot reach redis://:s3cret@cache.example:6379/0, or postgresql+psycopg://shop:s3cret@db/shop",
        ["https://minio.example/bucket?AWSAccessKeyId=s3cret"],
    ],
    ids=lambda value: type(value).__name__,
)
def test_shapes_in_which_secrets_come(value: object) -> None:
    """Lists of headers, other words' separators, views and namespaces hide nothing from the redaction."""
    with capture(FastAPI(), SETTINGS) as telemetry:
        log.info("seen", value=value)
        assert "s3cret" not in telemetry.text
        assert "REDACTED" in telemetry.text


async def test_many_parameters_cost_no_more_than_some() -> None:
    """Of a query string with thousands of parameters the first are shown, and what is long is not remembered."""
    app = FastAPI()
    with capture(app, SETTINGS) as telemetry:
        for number in range(3):
            query = "&".join(["token=s3cret", *(f"a{number}-{place}=1" for place in range(5000))])
            await call(app, http_scope("/", query_string=query.encode()))
        shown = [str((span.attributes or {})[names.ATTR_URL_QUERY]) for span in telemetry.spans]
    for number, query in enumerate(shown):
        parameters = query.split("&")
        assert parameters[:2] == ["token=REDACTED", f"a{number}-0=1"]
        assert (len(parameters), parameters[-1]) == (257, "…")


@pytest.mark.parametrize("value", [True, None])
def test_names_of_secrets_are_no_secrets(value: object) -> None:
    """The names of fields, and whether there is a value, say nothing that must not be said."""
    with capture(FastAPI(), SETTINGS) as telemetry:
        log.info("invalid", missing=["password", "token"], place=("cookie", "theme"), has_password=value)
        [line] = telemetry.lines
    assert (line["missing"], line["place"]) == (["password", "token"], ["cookie", "theme"])
    assert line["has_password"] is value


def test_what_is_logged_instead_of_an_event() -> None:
    """An exception in the place of the event, and people's lines, are read as carefully."""
    with capture(FastAPI(), SETTINGS) as telemetry:
        log.info(LookupError("https://h/?token=s3cret"))  # type: ignore[arg-type]
        assert "REDACTED" in telemetry.text
        assert "s3cret" not in telemetry.text
    for_people = LogPipeline(replace(SETTINGS, log_format="console"), lambda line, _: lines.append(line))
    lines: list[bytes] = []
    for_people.emit("info", "shop", "called", {"url": httpx.URL("https://h/?token=s3cret")})
    assert b"REDACTED" in lines[0]
    assert b"s3cret" not in lines[0]


@pytest.mark.parametrize("query", ["next=/cb?token=s3cret", "url=https://u:s3cret@h/"])
async def test_urls_in_a_query_string(query: str) -> None:
    """What a parameter leads to is looked at, too, in spans and under a key that says that it is a query."""
    app = FastAPI()

    @app.get("/")
    async def root(request: Request) -> None:
        log.info("seen", query=request.url.query)

    with capture(app, SETTINGS) as telemetry:
        await call(app, http_scope("/", query_string=query.encode()))
        [span] = telemetry.spans
        assert "s3cret" not in telemetry.text
    assert span.attributes is not None
    assert str(span.attributes[names.ATTR_URL_QUERY]) == query.replace("s3cret", "REDACTED")


async def test_exceptions_with_urls() -> None:
    """What an HTTP client's exception says of its URL comes out without the secret in it, on the span as in the line."""
    app = FastAPI()

    @app.get("/")
    async def root() -> None:
        url = "https://api.example/v1?api_key=s3cret&page=2"
        raise LookupError(f"404 for url '{url}'")

    with capture(app, SETTINGS) as telemetry:
        with pytest.raises(LookupError):
            await call(app, http_scope("/"))
        [line], [span] = telemetry.access_lines, telemetry.spans
        [event] = span.events
        assert event.attributes is not None
        assert event.attributes["exception.message"] == line[names.LOG_EXCEPTION_MESSAGE]
        assert event.attributes["exception.type"] == "LookupError"
        assert "s3cret" not in str(event.attributes)
        assert line[names.LOG_EXCEPTION_MESSAGE] == "404 for url 'https://api.example/v1?api_key=REDACTED&page=2'"
        assert "s3cret" not in telemetry.text


def test_urls_that_clients_ask_for() -> None:
    """Neither httpx's spans nor its lines have the secrets of the URLs it asks for."""
    [said] = run_python("""
import asyncio, json
import httpx
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import obslib
exporter = InMemorySpanExporter()
urls = "http://127.0.0.1:9/a?token=s3cret&page=2", "http://127.0.0.1:9/b?page=3"
def attempt(call):
    try:
        call()
    except httpx.ConnectError:
        pass
async def get(url):
    async with httpx.AsyncClient() as client:
        await client.get(url)
with obslib.instrument(FastAPI(), obslib.Settings(service_name="s", traces_exporter="none", log_format="json")):
    trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
    for url in urls:
        attempt(lambda: httpx.get(url))
        attempt(lambda: asyncio.run(get(url)))
print(json.dumps({"urls": [span.attributes["url.full"] for span in exporter.get_finished_spans()]}))
""")
    hidden = "http://127.0.0.1:9/a?token=REDACTED&page=2"
    assert said["urls"] == [hidden, hidden, "http://127.0.0.1:9/b?page=3", "http://127.0.0.1:9/b?page=3"]
