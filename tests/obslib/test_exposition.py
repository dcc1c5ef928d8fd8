"""`/metrics`: both formats, as their own parsers read them."""

import asyncio
import gzip
from collections.abc import Iterable

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as parse_text

from obslib import names
from obslib._exposition import OPENMETRICS, TEXT, accepts_gzip, negotiate
from obslib.settings import Settings
from obslib.testing import capture
from tests.obslib.asgi import call, client_of, http_scope


def parse_openmetrics(text: str) -> list[Metric]:
    return list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def an_app() -> FastAPI:
    app = FastAPI()

    @app.get("/items/{item_id}")
    async def item(item_id: int) -> int:
        return item_id

    return app


async def scrape(app: FastAPI, accept: str = "", **headers: str) -> tuple[str, str]:
    async with client_of(app) as client:
        response = await client.get("/metrics", headers={"accept": accept, **headers})
    assert response.status_code == 200
    return response.headers["content-type"], response.text


async def test_text() -> None:
    """The text format is read by prometheus_client's parser and has what was counted."""
    app = an_app()
    with capture(app, Settings(service_name="shop")) as telemetry:
        async with client_of(app) as client:
            await client.get("/items/1")
        content_type, text = await scrape(app)
        assert telemetry.samples(f"{names.HTTP_SERVER_REQUEST_DURATION}_count")
    families = {family.name: family for family in parse_text(text)}
    assert content_type == TEXT
    assert families[names.HTTP_SERVER_REQUEST_DURATION].type == "histogram"
    assert "process_cpu_seconds" in families
    workers = {sample.labels[names.LABEL_WORKER] for family in families.values() for sample in family.samples}
    assert workers == {"0"}
    assert "# {" not in text


async def test_openmetrics() -> None:
    """OpenMetrics is read by its strict parser, ends with EOF and has the exemplar of each bucket."""
    app = an_app()
    with capture(app, Settings(service_name="shop")) as telemetry:
        async with client_of(app) as client:
            await client.get("/items/1")
        content_type, text = await scrape(app, "application/openmetrics-text; version=1.0.0,text/plain;q=0.5")
        [line] = telemetry.access_lines
    assert content_type == OPENMETRICS
    families = {family.name: family for family in parse_openmetrics(text)}
    samples = families[names.HTTP_SERVER_REQUEST_DURATION].samples
    [exemplar] = [sample.exemplar for sample in samples if sample.exemplar]
    assert exemplar.labels == {"trace_id": line[names.LOG_TRACE_ID], "span_id": line[names.LOG_SPAN_ID]}
    assert families["target"].type == "info"
    assert families["obslib_build"].type == "info"


async def test_both_formats_agree_with_the_registry() -> None:
    """What the registry's own collectors say and what is scraped are the same numbers."""
    app = an_app()
    with capture(app, Settings(service_name="shop", extra_registries=())) as telemetry:
        async with client_of(app) as client:
            await client.get("/items/1")
        _, text = await scrape(app)
        collected = {
            (sample.name, tuple(sorted({**sample.labels, names.LABEL_WORKER: "0"}.items()))): sample.value
            for family in telemetry.registry.collect()
            for sample in family.samples
        }
    scraped = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }
    assert scraped == collected


async def test_no_created_series() -> None:
    """`_created` series are off, for foreign registries, too."""
    registry = CollectorRegistry()
    Counter("orders", "Orders.", registry=registry).inc()
    app = an_app()
    with capture(app, Settings(service_name="shop", extra_registries=(registry,))):
        _, text = await scrape(app, "application/openmetrics-text")
        _, plain = await scrape(app)
    assert "orders_total" in text
    assert "_created" not in text + plain


async def test_gzip() -> None:
    """A scraper that takes gzip gets gzip."""
    app = an_app()
    with capture(app, Settings(service_name="shop")):
        exchange = await call(app, http_scope("/metrics", headers=[(b"accept-encoding", b"br, gzip;q=0.8")]))
        plain = await call(app, http_scope("/metrics", headers=[(b"accept-encoding", b"gzip;q=0")]))
    assert exchange.headers[b"content-encoding"] == b"gzip"
    assert b"# TYPE obslib_build_info gauge" in gzip.decompress(exchange.body)
    assert b"content-encoding" not in plain.headers


async def test_scrapes_are_not_recorded() -> None:
    """`/metrics` leaves nothing in any signal, and is in no OpenAPI document."""
    app = an_app()
    with capture(app, Settings(service_name="shop", extra_registries=())) as telemetry:
        await scrape(app)
        assert telemetry.spans == []
        assert telemetry.lines == []
        assert "/metrics" not in app.openapi()["paths"]


async def test_catch_all_route_does_not_shadow_it() -> None:
    """`/metrics` is answered before any route of the application."""
    app = FastAPI()

    @app.get("/{everything:path}")
    async def catch_all(everything: str) -> str:
        return everything

    with capture(app, Settings(service_name="shop")):
        content_type, _ = await scrape(app)
    assert content_type == TEXT


async def test_methods() -> None:
    """HEAD answers without a body; anything that would write is refused."""
    app = an_app()
    with capture(app, Settings(service_name="shop")):
        head = await call(app, http_scope("/metrics", "HEAD"))
        post = await call(app, http_scope("/metrics", "POST"))
    assert (head.sent[0]["status"], head.body) == (200, b"")
    assert (post.sent[0]["status"], post.headers[b"allow"]) == (405, b"GET, HEAD")


@pytest.mark.parametrize(
    ("authorization", "status"), [("", 401), ("Bearer wrong", 401), ("Basic s3cret", 401), ("Bearer s3cret", 200)]
)
async def test_token(authorization: str, status: int) -> None:
    """With a token set, nobody reads the metrics without it."""
    app = an_app()
    with capture(app, Settings(service_name="shop", metrics_token="s3cret")):
        exchange = await call(app, http_scope("/metrics", headers=[(b"authorization", authorization.encode())]))
    assert exchange.sent[0]["status"] == status


async def test_metrics_off() -> None:
    """Without metrics the path is the application's own."""
    app = an_app()
    with capture(app, Settings(service_name="shop", metrics_enabled=False)) as telemetry:
        async with client_of(app) as client:
            assert (await client.get("/metrics")).status_code == 404
        assert len(telemetry.access_lines) == 1


async def test_concurrent_scrapes_share_one_rendering() -> None:
    """Scrapes that arrive together cost one collection."""
    collections = 0

    class Counting:
        def collect(self) -> Iterable[Metric]:
            nonlocal collections
            collections += 1
            return []

    registry = CollectorRegistry()
    registry.register(Counting())
    collections = 0
    app = an_app()
    with capture(app, Settings(service_name="shop", extra_registries=(registry,))):
        answers = await asyncio.gather(*(call(app, http_scope("/metrics")) for _ in range(5)))
    assert {answer.sent[0]["status"] for answer in answers} == {200}
    assert collections == 1


async def test_foreign_collector_that_raises() -> None:
    """A collector that raises costs its registry, not the scrape; it is counted and logged."""

    class Raising:
        def describe(self) -> Iterable[Metric]:
            return []

        def collect(self) -> Iterable[Metric]:
            raise RuntimeError("database away")

    registry, good = CollectorRegistry(), CollectorRegistry()
    registry.register(Raising())
    Counter("fine", "Fine.", registry=good)
    app = an_app()
    with capture(app, Settings(service_name="shop", extra_registries=(registry, good))) as telemetry:
        _, text = await scrape(app)
        assert telemetry.sample(names.INTERNAL_ERRORS, {names.LABEL_SIGNAL: "metrics"}) == 1
    assert "fine_total" in text


async def test_names_that_two_registries_have() -> None:
    """A family appears once, obslib's before a foreign one, so that the answer stays valid."""
    one, two = CollectorRegistry(), CollectorRegistry()
    Counter("same", "One.", registry=one).inc(1)
    Counter("same", "Two.", registry=two).inc(2)
    Counter(names.SPANS_DROPPED, "Forged.", registry=two)
    app = an_app()
    with capture(app, Settings(service_name="shop", extra_registries=(one, two))):
        _, text = await scrape(app, "application/openmetrics-text")
    families = [family.name for family in parse_openmetrics(text)]
    assert families.count("same") == 1
    assert families.count("obslib_spans_dropped") == 1


async def test_own_registry_is_served_once() -> None:
    """Giving obslib its own registry back changes nothing."""
    app = an_app()
    with capture(app, Settings(service_name="shop", extra_registries=())) as telemetry:
        before = telemetry.metrics_text()
    assert before.count("# TYPE target_info") == 1


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/plain", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", OPENMETRICS),
        ("application/openmetrics-text; version=1.0.0; q=0.2, text/plain; q=0.7", TEXT),
        ("application/openmetrics-text; version=2.0.0", TEXT),
        ("application/openmetrics-text; q=0", TEXT),
        ("application/openmetrics-text; q=high", TEXT),
        ("nonsense;;;=,", TEXT),
    ],
)
def test_negotiation(accept: str, content_type: str) -> None:
    """The format is the one that the Accept header prefers, and text when in doubt."""
    assert negotiate(accept) == content_type


@pytest.mark.parametrize(
    ("accept_encoding", "accepted"), [("", False), ("gzip", True), ("*", True), ("br", False), ("gzip;q=0.0", False)]
)
def test_gzip_negotiation(accept_encoding: str, accepted: bool) -> None:
    """gzip is used where it is allowed by name or by `*`."""
    assert accepts_gzip(accept_encoding) is accepted
