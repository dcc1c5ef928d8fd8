"""Starlette without FastAPI: the three signals agree, whichever version it is. Nothing in here imports FastAPI."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Host, Mount, Route, Router

from obslib import names
from obslib.settings import Settings
from obslib.testing import Captured, capture
from tests.obslib.asgi import call, client_of, http_scope

SETTINGS = Settings(service_name="shop", extra_registries=())


async def endpoint(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("here")


async def boom(_request: Request) -> PlainTextResponse:
    raise RuntimeError("broken")


async def stream(_request: Request) -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 10

    return StreamingResponse(chunks())


async def raw(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 202, "headers": []})
    await send({"type": "http.response.body", "body": b""})


class Refusing:
    """A middleware that answers before anything is routed."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/refused":
            await PlainTextResponse("no", 401)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def an_app() -> Starlette:
    inner = Starlette(routes=[Route("/plain/{x:int}", endpoint)])
    return Starlette(
        routes=[
            Route("/items/{item_id}", endpoint, methods=["GET"]),
            Route("/boom", boom),
            Route("/stream", stream),
            Route("/files/{rest:path}", endpoint),
            Mount("/below/{name}", routes=[Route("/leaf/{x}", endpoint), Mount("/again", inner)]),
            Mount("/raw", raw),
            Host("{shop}.example.org", Router([Route("/hosted/{x}", endpoint)])),
        ],
        middleware=[Middleware(Refusing)],
    )


def agreed(telemetry: Captured) -> dict[str, Any]:
    """Return the access line, if there is one of each and they say the same."""
    [span] = [span for span in telemetry.spans if span.kind.name == "SERVER"]
    [line] = telemetry.access_lines
    assert span.context is not None
    assert span.attributes is not None
    assert line[names.LOG_TRACE_ID] == format(span.context.trace_id, "032x")
    assert line[names.LABEL_ROUTE] == span.attributes.get(names.ATTR_ROUTE, "")
    assert line[names.LABEL_STATUS_CODE] == span.attributes[names.ATTR_STATUS_CODE]
    counts = telemetry.samples(f"{names.HTTP_SERVER_REQUEST_DURATION}_count")
    [observed] = [dict(labels) for labels, count in counts.items() if count]
    assert observed[names.LABEL_ROUTE] == line[names.LABEL_ROUTE]
    assert observed[names.LABEL_STATUS_CODE] == str(line[names.LABEL_STATUS_CODE])
    return line


@pytest.mark.parametrize(
    ("method", "path", "status", "template"),
    [
        ("GET", "/items/3", 200, "/items/{item_id}"),
        ("PUT", "/items/3", 405, "/items/{item_id}"),
        ("GET", "/boom", 500, "/boom"),
        ("GET", "/stream", 200, "/stream"),
        ("GET", "/files/a/b", 200, "/files/{rest}"),
        ("GET", "/below/acme/leaf/1", 200, "/below/{name}/leaf/{x}"),
        ("GET", "/below/acme/again/plain/1", 200, "/below/{name}/again/plain/{x}"),
        ("GET", "/below/acme/none", 404, "/below/{name}/{path}"),
        ("GET", "/raw/anything", 202, "/raw/{path}"),
        ("GET", "/refused", 401, ""),
        ("GET", "/none", 404, ""),
    ],
)
async def test_one_of_each(method: str, path: str, status: int, template: str) -> None:
    """Each kind of route makes one span, one observation and one line, with its whole template."""
    app = an_app()
    with capture(app, SETTINGS) as telemetry:
        async with client_of(app) as client:
            assert (await client.request(method, path)).status_code == status
        line = agreed(telemetry)
    assert (line[names.LABEL_STATUS_CODE], line[names.LABEL_ROUTE]) == (status, template)


@pytest.mark.parametrize("path", ["/one", "/two/{x}", "/three/{x}", "/below/four/{x}", "/below/five/{x}"])
async def test_one_endpoint_behind_several_paths(path: str) -> None:
    """The template is that of the path that matched, not of the first route with this endpoint."""
    below = [Route("/four/{x}", endpoint), Route("/five/{x}", endpoint)]
    flat = [Route("/one", endpoint), Route("/two/{x}", endpoint), Route("/three/{x}", endpoint)]
    app = Starlette(routes=[*flat, Mount("/below", Starlette(routes=below))])
    with capture(app, SETTINGS) as telemetry:
        await call(app, http_scope(path.replace("{x}", "v")))
        assert agreed(telemetry)[names.LABEL_ROUTE] == path


async def test_host_adds_nothing() -> None:
    """Host routing leaves the template as it is."""
    app = an_app()
    with capture(app, SETTINGS) as telemetry:
        async with client_of(app) as client:
            await client.get("/hosted/1", headers={"host": "acme.example.org"})
        assert agreed(telemetry)[names.LABEL_ROUTE] == "/hosted/{x}"


async def test_one_endpoint_below_a_host_and_beside_it() -> None:
    """A route that is only told by its endpoint is found below Host routing, too."""
    hosted = Host("api.example.org", Router([Route("/hosted/{y}", endpoint)]))
    app = Starlette(routes=[Mount("/m", Router([hosted, Route("/beside/{x}", endpoint)]))])
    with capture(app, SETTINGS) as telemetry:
        await call(app, http_scope("/m/hosted/1", headers=[(b"host", b"api.example.org")]))
        assert agreed(telemetry)[names.LABEL_ROUTE] == "/m/hosted/{y}"


async def test_exception_once() -> None:
    """An exception nobody handles is on span and line, once each."""
    app = an_app()
    with capture(app, SETTINGS) as telemetry:
        async with client_of(app) as client:
            await client.get("/boom")
        line = agreed(telemetry)
    assert line[names.LOG_EXCEPTION_TYPE] == "RuntimeError"
    assert [event.name for event in telemetry.spans[0].events] == ["exception"]


async def test_duration_ends_with_the_last_byte() -> None:
    """What runs in the background after the response is not part of the request's duration."""
    with capture(app := Starlette(), SETTINGS) as telemetry:

        async def later(_request: Request) -> PlainTextResponse:
            return PlainTextResponse("x", background=BackgroundTask(telemetry.clock.advance, 5))

        app.router.routes.append(Route("/", later))
        await call(app, http_scope("/"))
        assert agreed(telemetry)[names.LOG_DURATION] == 0


async def test_metrics_and_health() -> None:
    """`/metrics` is answered by the layer, and zero children of all routes are there."""
    app = an_app()
    with capture(app, SETTINGS) as telemetry:
        exchange = await call(app, http_scope("/metrics"))
        assert exchange.sent[0]["status"] == 200
        assert telemetry.access_lines == []
        routes = {
            dict(labels)[names.LABEL_ROUTE]
            for labels in telemetry.samples(f"{names.HTTP_SERVER_REQUEST_DURATION}_count")
        }
    assert "/below/{name}/again/plain/{x}" in routes
