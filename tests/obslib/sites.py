"""Generated applications: trees of routers, mounts and routes, each with the requests that reach it and the template."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import fastapi
from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.routing import APIRoute
from hypothesis import strategies as st
from opentelemetry.instrumentation import fastapi as contrib
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Host, Mount, Route, Router
from starlette.staticfiles import StaticFiles

#: Before, `include_router` left out the mounts of a router.
ROUTERS_KEEP_MOUNTS: Final = tuple(int(part) for part in fastapi.__version__.split(".")[:2]) >= (0, 137)
#: Older releases lie inside of what answers unhandled exceptions: see docs/comparison.md.
CONTRIB_IS_OUTERMOST: Final = hasattr(contrib, "ServerErrorMiddleware")
_HOST: Final = "api.example.org"

Endpoint = Callable[[Request], Awaitable[Response]]
Tree = Any  # ("ok",), or ("include", [trees]): typing knows no recursive union of tuples
Into = FastAPI | APIRouter | Starlette


@dataclass(frozen=True)
class Target:
    """A path that is served, and the template that telemetry has to say."""

    path: str
    template: str
    host: str = "testserver"

    def below(self, prefix: str, template: str = "") -> "Target":
        """Return it as it is under a prefix."""
        return replace(self, path=prefix + self.path, template=(template or prefix) + self.template)


# --- what a site consists of -------------------------------------------------------------------------------------


async def _ok(_request: Request) -> Response:
    return PlainTextResponse("x" * 2000)


async def _boom(_request: Request) -> Response:
    raise RuntimeError("broken")


async def _away(_request: Request) -> Response:
    raise HTTPException(503, "later")


async def _missing(_request: Request) -> Response:
    raise HTTPException(404, "no such thing")


async def _stream(_request: Request) -> Response:
    async def chunks() -> Any:
        for _ in range(3):
            yield b"x" * 10

    return StreamingResponse(chunks())


async def _break(_request: Request) -> Response:
    async def chunks() -> Any:
        yield b"begun"
        raise OSError("disk")

    return StreamingResponse(chunks())


async def _typed(x: int) -> int:
    return x


async def _raw(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 202, "headers": []})
    await send({"type": "http.response.body", "body": b"raw"})


class _Custom(APIRoute):
    """A route class of the user's own, as FastAPI's documentation describes it."""

    def get_route_handler(self) -> Any:
        handle = super().get_route_handler()

        async def handle_with_header(request: Request) -> Response:
            response: Response = await handle(request)
            response.headers["x-custom"] = "yes"
            return response

        return handle_with_header


#: Path after the number, a path that matches it, template, endpoint.
_ENDPOINTS: Final[dict[str, tuple[str, str, str, Endpoint]]] = {
    "ok": ("", "", "", _ok),
    "parameter": ("/{x}", "/v", "/{x}", _ok),
    "int": ("/{x:int}", "/7", "/{x}", _ok),
    "path": ("/{rest:path}", "/a/b", "/{rest}", _ok),
    "boom": ("", "", "", _boom),
    "away": ("", "", "", _away),
    "missing": ("", "", "", _missing),
    "stream": ("/stream", "/stream", "/stream", _stream),
    "break": ("", "", "", _break),
}
_LEAVES: Final = (
    *(kind for kind in _ENDPOINTS if kind != "boom" or CONTRIB_IS_OUTERMOST),
    "plain",
    "typed",
    "custom",
    "raw",
    "static",
)
_CONTAINERS: Final = ("include", "reused", "fastapi", "starlette", "tenants", "host")


def _trees(depth: int) -> st.SearchStrategy[Tree]:
    """Return routes, or containers of so many levels below which there are routes."""
    leaves: st.SearchStrategy[Tree] = st.sampled_from(_LEAVES).map(lambda kind: (kind,))
    if not depth:
        return leaves
    return leaves | st.tuples(st.sampled_from(_CONTAINERS), st.lists(_trees(depth - 1), min_size=1, max_size=2))


TREES: Final = st.lists(_trees(3), min_size=1, max_size=4)
MIDDLEWARES: Final = st.sets(st.sampled_from(("base", "gzip", "refusing")))
Variation = Literal["as it is", "method", "slash", "deeper", "secret", "refused", "odd"]
VARIATIONS: Final = st.sampled_from(("as it is", "method", "slash", "deeper", "secret", "refused", "odd"))


class _Refusing:
    """Answers before anything is routed."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (b"x-refuse", b"yes") in scope["headers"]:
            await PlainTextResponse("no", 401)(scope, receive, send)
            return
        await self.app(scope, receive, send)


class _Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        return await call_next(request)


class Site:
    """One generated application; the same description gives the same site each time."""

    def __init__(self, trees: list[Tree], middlewares: Iterable[str]) -> None:
        self._number = 0
        self._hosts: list[Host] = []
        self.app = FastAPI()
        for name in sorted(middlewares):
            self.app.add_middleware({"base": _Passing, "gzip": GZipMiddleware, "refusing": _Refusing}[name])  # type: ignore[arg-type]
        self.targets = self._fill(self.app, trees)
        self.app.router.routes.extend(self._hosts)

    def _fill(self, into: Into, trees: list[Tree]) -> list[Target]:
        targets = []
        for tree in trees:
            self._number += 1
            kind = tree[0]
            targets += self._leaf(into, kind) if len(tree) == 1 else self._container(into, kind, tree[1])
        return targets

    def _leaf(self, into: Into, kind: str) -> list[Target]:
        name = f"/{kind}{self._number}"
        can_mount = not isinstance(into, APIRouter) or ROUTERS_KEEP_MOUNTS
        is_fastapi = isinstance(into, (FastAPI, APIRouter))
        if kind in {"raw", "static"} and can_mount:
            app = _raw if kind == "raw" else StaticFiles(directory=Path(__file__).parent)
            _mount(into, name, app)
            return [Target(f"{name}/conftest.py", f"{name}/{{path}}"), Target(f"{name}/none", f"{name}/{{path}}")]
        if kind == "typed" and isinstance(into, (FastAPI, APIRouter)):
            into.get(name + "/{x}")(_typed)
            return [Target(f"{name}/3", name + "/{x}"), Target(f"{name}/three", name + "/{x}")]
        if kind == "custom" and isinstance(into, (FastAPI, APIRouter)):
            router = APIRouter(route_class=_Custom)
            router.get("/leaf/{x}")(_typed)
            into.include_router(router, prefix=name)
            return [Target(f"{name}/leaf/3", name + "/leaf/{x}")]
        path, matching, template, endpoint = _ENDPOINTS.get(kind, _ENDPOINTS["parameter"])
        # Before 0.137 a plain route of an included router lost the prefixes between.
        if is_fastapi and (kind != "plain" or not can_mount):
            into.add_api_route(name + path, endpoint, methods=["GET"])  # type: ignore[union-attr]
        else:
            _add(into, Route(_own_prefix(into) + name + path, endpoint))
        return [Target(name + matching, name + template)]

    def _container(self, into: Into, kind: str, trees: list[Tree]) -> list[Target]:
        number = self._number
        is_fastapi = isinstance(into, (FastAPI, APIRouter))
        can_mount = not isinstance(into, APIRouter) or ROUTERS_KEEP_MOUNTS
        if kind == "host" and isinstance(into, FastAPI) and into is self.app:
            inner = Router()
            sub = Starlette()
            targets = self._fill(sub, trees)
            inner.routes.extend(sub.routes)
            self._hosts.append(Host(f"h{number}.{_HOST}", inner))
            return [replace(target, host=f"h{number}.{_HOST}") for target in targets]
        if is_fastapi and (kind in {"include", "reused", "host"} or not can_mount):
            router = APIRouter(prefix="/nested")
            targets = self._fill(router, trees)
            # The same prefix for each of them: siblings share it.
            prefixes = ("/v1",) if kind != "reused" else (f"/a{number}", f"/b{number}")
            for prefix in prefixes:
                into.include_router(router, prefix=prefix)  # type: ignore[union-attr]
            return [target.below(f"{prefix}/nested") for prefix in prefixes for target in targets]
        mounted: FastAPI | Starlette = FastAPI() if kind == "fastapi" else Starlette()
        targets = self._fill(mounted, trees)
        if kind == "tenants":
            _mount(into, f"/t{number}/{{tenant{number}}}", mounted)
            return [target.below(f"/t{number}/acme", f"/t{number}/{{tenant{number}}}") for target in targets]
        _mount(into, f"/m{number}", mounted)
        return [target.below(f"/m{number}") for target in targets]


def _own_prefix(into: Into) -> str:
    """Return what FastAPI would put before a path: it does not where plain routes and mounts are added."""
    return into.prefix if isinstance(into, APIRouter) else ""


def _add(into: Into, route: BaseRoute) -> None:
    (into.routes if isinstance(into, APIRouter) else into.router.routes).append(route)


def _mount(into: Into, path: str, app: Any) -> None:
    _add(into, Mount(_own_prefix(into) + path, app))
