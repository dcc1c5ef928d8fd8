"""Route templates: whole, bounded, and never looked for twice."""

from dataclasses import replace
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router

from obslib import names
from obslib.settings import Settings
from obslib.testing import capture
from tests.obslib.asgi import call, client_of, http_scope
from tests.obslib.sites import ROUTERS_KEEP_MOUNTS

SETTINGS = Settings(service_name="shop", extra_registries=())


async def endpoint(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("here")


async def raw(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def fastapi_app() -> FastAPI:
    app = FastAPI()
    inner, outer, reused = APIRouter(prefix="/inner"), APIRouter(prefix="/outer"), APIRouter()

    @inner.get("/leaf/{leaf_id}")
    async def leaf(leaf_id: int) -> int:
        return leaf_id

    @reused.get("/shared")
    async def shared() -> str:
        return "shared"

    @app.get("/files/{rest:path}")
    async def files(rest: str) -> str:
        return rest

    outer.include_router(inner)
    outer.mount("/below/{name}", Starlette(routes=[Route("/plain/{x}", endpoint)]))
    app.include_router(outer, prefix="/v1")
    app.include_router(reused, prefix="/a")
    app.include_router(reused, prefix="/b")
    sub = FastAPI()

    @sub.get("/items/{item_id}")
    async def item(tenant: str, item_id: int) -> int:
        return item_id

    sub.include_router(inner, prefix="/included")
    app.mount("/tenants/{tenant}", sub)
    app.mount("/raw", raw)
    app.router.routes.append(Route("/plain/{number:int}", endpoint))
    app.router.routes.append(Host("{shop}.example.org", Router([Route("/hosted/{x}", endpoint)])))
    return app


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/v1/outer/inner/leaf/3", "/v1/outer/inner/leaf/{leaf_id}"),
        ("/v1/below/acme/plain/3", "/v1/below/{name}/plain/{x}"),
        ("/v1/below/acme/none", "/v1/below/{name}/{path}"),
        ("/a/shared", "/a/shared"),
        ("/b/shared", "/b/shared"),
        ("/files/a/b/c", "/files/{rest}"),
        ("/tenants/acme/items/1", "/tenants/{tenant}/items/{item_id}"),
        ("/tenants/acme/included/inner/leaf/1", "/tenants/{tenant}/included/inner/leaf/{leaf_id}"),
        ("/tenants/acme/none", "/tenants/{tenant}/{path}"),
        ("/raw/any/thing", "/raw/{path}"),
        ("/plain/3", "/plain/{number}"),
        ("/a/shared/", "/a/shared"),
        ("/none", ""),
        ("/plain/x", ""),
    ],
)
async def test_template(path: str, template: str) -> None:
    """Every kind of route reports its whole template, and what matches nothing reports none."""
    app = fastapi_app()
    with capture(app, SETTINGS) as telemetry:
        async with client_of(app) as client:
            await client.get(path, follow_redirects=False)
        [line] = telemetry.access_lines
    if path.startswith("/v1/below") and not ROUTERS_KEEP_MOUNTS:
        template = ""
    if path == "/a/shared/":
        assert line[names.LABEL_STATUS_CODE] == 307
        assert line[names.LABEL_ROUTE] in {"", template}
    else:
        assert line[names.LABEL_ROUTE] == template


async def test_host_adds_nothing() -> None:
    """Host routing leaves the template as it is."""
    app = fastapi_app()
    with capture(app, SETTINGS) as telemetry:
        async with client_of(app) as client:
            await client.get("/hosted/1", headers={"host": "acme.example.org"})
        [line] = telemetry.access_lines
    assert line[names.LABEL_ROUTE] == "/hosted/{x}"


@pytest.mark.parametrize(
    ("path", "template"),
    [("/one/3", "/one/{x}"), ("/m/acme/two", "/m/{name}/two"), ("/m/acme/none", "/m/{name}/{path}"), ("/none", "")],
)
async def test_starlette_alone(path: str, template: str) -> None:
    """Starlette without FastAPI reports the same templates."""
    app = Starlette(routes=[Route("/one/{x}", endpoint), Mount("/m/{name}", routes=[Route("/two", endpoint)])])
    with capture(app, SETTINGS) as telemetry:
        async with client_of(app) as client:
            await client.get(path)
        [line] = telemetry.access_lines
    assert line[names.LABEL_ROUTE] == template


async def test_mount_at_the_root() -> None:
    """What a mounted application does with the rest is its own: the template ends there, on any Starlette."""
    app = Starlette(routes=[Mount("/", raw)])
    with capture(app, SETTINGS) as telemetry:
        async with client_of(app) as client:
            await client.get("/any/thing")
        [line] = telemetry.access_lines
    assert line[names.LABEL_ROUTE] == "/{path}"


async def test_invented_methods_share_a_label() -> None:
    """A method that nobody knows is `_OTHER` in the metric, and its own in the span."""
    app = fastapi_app()
    with capture(app, SETTINGS) as telemetry:
        async with client_of(app) as client:
            for method in ("FOO", "BAR"):
                await client.request(method, "/a/shared")
        spans = telemetry.spans
        assert {line[names.LABEL_METHOD] for line in telemetry.access_lines} == {names.OTHER}
    assert [span.attributes[names.ATTR_METHOD_ORIGINAL] for span in spans if span.attributes] == ["FOO", "BAR"]
    assert {span.name for span in spans} == {"HTTP /a/shared"}


async def test_root_path_is_not_part_of_it() -> None:
    """A prefix that a proxy strips is in no template, and `/metrics` is found below it."""
    app = FastAPI()

    @app.get("/items")
    async def items() -> None: ...

    with capture(app, SETTINGS) as telemetry:
        await call(app, http_scope("/shop/items", root_path="/shop"))
        exchange = await call(app, http_scope("/shop/metrics", root_path="/shop"))
        assert exchange.sent[0]["status"] == 200
        [line] = telemetry.access_lines
    assert line[names.LABEL_ROUTE] == "/items"


def test_every_known_route_has_a_zero_child() -> None:
    """Each route and method has a duration series with status 500 before its first request, mounts included."""
    app = fastapi_app()
    with capture(app, SETTINGS) as telemetry:
        series = telemetry.samples(f"{names.HTTP_SERVER_REQUEST_DURATION}_count")
    routes = {dict(labels)[names.LABEL_ROUTE] for labels in series}
    assert {
        "/v1/outer/inner/leaf/{leaf_id}",
        *(["/v1/below/{name}/plain/{x}"] if ROUTERS_KEEP_MOUNTS else []),
        "/tenants/{tenant}/items/{item_id}",
        "/a/shared",
        "/b/shared",
        "/plain/{number}",
        "/hosted/{x}",
    } <= routes
    assert set(series.values()) == {0}
    assert {dict(labels)[names.LABEL_STATUS_CODE] for labels in series} == {"500"}


@pytest.mark.parametrize(("max_label_sets", "made"), [(100_000, 500), (2000, 500), (40, 10)])
def test_zero_children_are_bounded(max_label_sets: int, made: int) -> None:
    """No more than 500 of them are made, and of a metric's label sets they take no more than a quarter."""
    app = Starlette(routes=[Route(f"/r{number}", endpoint) for number in range(700)])
    with capture(app, replace(SETTINGS, max_label_sets=max_label_sets)) as telemetry:
        assert len(telemetry.samples(f"{names.HTTP_SERVER_REQUEST_DURATION}_count")) == made
        assert telemetry.samples(names.LABEL_SETS_OVERFLOWED) == {}


def test_routes_in_routes_in_routes() -> None:
    """Mounts within mounts are followed to a depth that no service has, and no further."""
    app = Starlette(routes=[Route("/leaf", endpoint)])
    for _ in range(20):
        app = Starlette(routes=[Mount("/m", app)])
    with capture(app, SETTINGS) as telemetry:
        assert telemetry.samples(f"{names.HTTP_SERVER_REQUEST_DURATION}_count") == {}


async def test_mounts_of_other_applications() -> None:
    """While one application is instrumented, mounts of others go on as before."""
    other = Starlette(routes=[Mount("/m", routes=[Route("/two", endpoint)])])
    with capture(fastapi_app(), SETTINGS) as telemetry:
        assert (await call(other, http_scope("/m/two"))).body == b"here"
        assert telemetry.access_lines == []


def test_class_that_somebody_else_changed() -> None:
    """An application whose class was changed after us keeps that class."""
    app = Starlette()
    with capture(app, SETTINGS):

        class Theirs(type(app)):  # type: ignore[misc]
            pass

        app.__class__ = Theirs
    assert type(app) is Theirs


@pytest.mark.parametrize("path", ["/one", "/two/{x}", "/below/three/{x}", "/below/four/{x}"])
async def test_one_endpoint_behind_several_paths(path: str) -> None:
    """The template is that of the path that matched, not of the first route with this endpoint."""
    app, below = FastAPI(), FastAPI()
    app.add_api_route("/one", endpoint)
    app.router.routes.append(Route("/two/{x}", endpoint))
    below.router.routes.extend([Route("/three/{x}", endpoint), Route("/four/{x}", endpoint)])
    app.mount("/below", below)
    with capture(app, SETTINGS) as telemetry:
        await call(app, http_scope(path.replace("{x}", "v")))
        [line] = telemetry.access_lines
    assert line[names.LABEL_ROUTE] == path
