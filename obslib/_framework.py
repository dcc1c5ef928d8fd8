"""The only file that knows versions of FastAPI and Starlette: the way in, native telemetry off, route templates.

What each version leaves in the scope after routing was tried on FastAPI 0.115 to 0.165 and Starlette 0.46 to 1.10:

- FastAPI ≥ 0.137: `scope["fastapi"]["effective_route_context"]` has the whole template of an API route; of a plain
  Starlette route below an included router only its `starlette_route` has it. It goes stale when a mount is entered.
- FastAPI before that: `scope["route"].path_format` is the whole template below the last mount.
- Starlette alone sets `scope["route"]` from 1.7 on; before, only the endpoint is there.
- A mount's template is nowhere, so `Mount.handle` is made to note it.
"""

import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from types import MethodType
from typing import Any, Final, Protocol

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Mount, Route, WebSocketRoute

from obslib._method_patch import MethodPatch, Wrap
from obslib._record import Mounts, RequestRecord, Scope
from obslib.exceptions import ConfigurationError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Where the scope of a request that is being recorded holds its record.
SCOPE_RECORD: Final = "obslib.record"
#: The presence of this key makes FastAPI ≥ 0.142 leave a request alone, mounted applications included.
SCOPE_NATIVE_TELEMETRY: Final = "fastapi.telemetry"
#: Where the scope has the last mount that was entered.
_SCOPE_MOUNT: Final = "obslib.mount"
NATIVE_SIGNALS: Final = ("tracing", "metrics", "logs")
NATIVE_PROVIDERS: Final = ("tracer_provider", "meter_provider", "logger_provider")


# --- the way in ------------------------------------------------------------------------------------------------------


class Layer(Protocol):
    """What goes around an application."""

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""


def wrap_app(app: Starlette, make_layer: Callable[[ASGIApp], Layer]) -> Callable[[], None]:
    """
    Put a layer around everything the application does, its server-error handling included; return the undo.

    A middleware cannot be that layer (one added later is outside of it, and FastAPI's own telemetry is outside of all
    of them), so the application gets a subclass of its class that overrides `__call__` and nothing else: by the layer's
    bound method, so that no call lies in between.
    """
    original = type(app)
    layer = make_layer(MethodType(original.__call__, app))
    instrumented = type(original.__name__, (original,), {"__call__": layer.serve, "__module__": original.__module__})
    instrumented.__qualname__ = original.__qualname__
    app.__class__ = instrumented

    def undo() -> None:
        if type(app) is instrumented:
            app.__class__ = original

    return undo


def check_app(app: object) -> Starlette:
    """
    Return the application if it is one obslib can instrument.

    Raises:
        ConfigurationError: It is not a FastAPI or Starlette application.
    """
    if isinstance(app, Starlette):
        return app
    inner = getattr(app, "app", None)
    hint = " Instrument the application inside it, before it is wrapped." if isinstance(inner, Starlette) else ""
    raise ConfigurationError(
        f"obslib instruments FastAPI and Starlette applications, not {type(app).__name__!r} objects.{hint}"
    )


def is_fastapi(app: Starlette) -> bool:
    """Tell whether this is a FastAPI application, without importing FastAPI."""
    return any(cls.__module__ == "fastapi.applications" for cls in type(app).__mro__)


def switch_native_telemetry_off(app: Starlette) -> Callable[[], None]:
    """
    Stop FastAPI ≥ 0.142 from making signals of its own; return the undo.

    Raises:
        ConfigurationError: The application was given a provider for them, so that somebody wants them.
    """
    config = getattr(app, "_telemetry", None)
    if not isinstance(config, dict):
        return lambda: None
    chosen = [name for name in NATIVE_PROVIDERS if config.get(name) is not None]
    if chosen:
        raise ConfigurationError(
            f"This application was made with FastAPI(telemetry={{{chosen[0]!r}: …}}): FastAPI would record every "
            "request a second time. Leave that argument out, because obslib makes these signals, or do not instrument "
            "this application."
        )
    before = {name: config[name] for name in (*NATIVE_SIGNALS, "auto_configure") if name in config}
    config.update(dict.fromkeys(before, False))

    def undo() -> None:
        config.update(before)

    return undo


# --- mounts ----------------------------------------------------------------------------------------------------------


class SharedPatch:
    """
    Replaces a method of a framework's class while anybody needs it.

    Args:
        owner: The class.
        name: The method's name.
        replace: Returns what takes the original's place.
    """

    def __init__(self, owner: type, name: str, replace: Wrap) -> None:
        self._patch = MethodPatch(owner, name, replace)
        self._lock = threading.Lock()
        self._users = 0

    def acquire(self) -> None:
        """Need it: the first to do so puts it in place."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._patch.put_in()

    def release(self) -> None:
        """Need it no longer: the last to do so puts the original back."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._patch.take_out()


def _noting(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def handle(self: Mount, scope: Scope, receive: Receive, send: Send) -> None:
        record = scope.get(SCOPE_RECORD)
        if record is not None:
            enter_mount(record, self, scope)
        await original(self, scope, receive, send)

    return handle


#: Makes `Mount.handle` note the mount's template in the record.
MOUNT_PATCH: Final = SharedPatch(Mount, "handle", _noting)


def enter_mount(record: RequestRecord, mount: Mount, scope: Scope) -> None:
    """Note a mount that is entered, and what is in the scope now: if it still is at the end, no leaf matched."""
    scope[_SCOPE_MOUNT] = mount
    passed = "" if record.mounts is None else record.mounts.template
    record.mounts = Mounts(passed + mount_template(mount), scope.get("route"), _effective_context(scope))


def mount_template(mount: Mount) -> str:
    """Return e.g. `/tenants/{tenant}` for `Mount("/tenants/{tenant:int}")`."""
    return mount.path_format.removesuffix("/{path}").rstrip("/")


# --- templates -------------------------------------------------------------------------------------------------------


def route_template(record: RequestRecord, scope: Scope) -> str:
    """Return the template of the route that matched, mounts included; `""` if none did."""
    if record.rare is None or record.mounts is None:
        try:  # the ordinary request, short
            fastapi = scope.get("fastapi")
            template: str = (scope["route"] if fastapi is None else fastapi["effective_route_context"]).path_format
            if template:
                return template
        except (KeyError, TypeError, AttributeError):
            pass
        return _leaf_template(scope, None, None) or ""
    mounts = record.mounts
    leaf = _leaf_template(scope, mounts.route, mounts.context)
    return mounts.template + ("/{path}" if leaf is None else leaf)


def _leaf_template(scope: Scope, mount_route: object, mount_context: object) -> str | None:
    context = _effective_context(scope)
    if context is not None and context is not mount_context:
        return str(context.path_format or context.starlette_route.path_format)
    route = scope.get("route")
    if route is None or route is mount_route or isinstance(route, (Mount, Host)):
        return _template_of_endpoint(scope)
    template = getattr(route, "path_format", None)
    return None if template is None else str(template)


def _effective_context(scope: Scope) -> Any:
    fastapi = scope.get("fastapi")
    return fastapi.get("effective_route_context") if isinstance(fastapi, dict) else None


def _template_of_endpoint(scope: Scope) -> str | None:
    """
    Find the route by its endpoint, below the last mount.

    Starlette before 1.7, and FastAPI with Starlette's own routes, leave nothing else in the scope.
    """
    endpoint = scope.get("endpoint")
    if endpoint is None:
        return None
    below: Any = scope.get(_SCOPE_MOUNT) or scope.get("router")
    found = [
        route
        for route in _plain_routes(getattr(below, "routes", None) or ())
        if route.endpoint is endpoint and _same_parameters(route, scope)
    ]
    if len(found) > 1:  # one endpoint behind several paths
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        found = [route for route in found if route.path_regex.match(path)]
    return found[0].path_format if found else None


def _plain_routes(routes: Iterable[BaseRoute]) -> Iterator[Route | WebSocketRoute]:
    for route in routes:
        if isinstance(route, Host):
            yield from _plain_routes(route.routes or ())
        elif isinstance(route, (Route, WebSocketRoute)):
            yield route


def _same_parameters(route: Route | WebSocketRoute, scope: Scope) -> bool:
    return set(route.param_convertors) <= set(scope.get("path_params", ()))


# --- what there is ---------------------------------------------------------------------------------------------------


def known_routes(app: Starlette) -> Iterator[tuple[str, str]]:
    """Yield method and template of every route there is, mounted applications included."""
    yield from _routes_below(app.routes, "", 0)


def _routes_below(routes: Iterable[BaseRoute], prefix: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > 8:
        return
    for route in routes:
        if isinstance(route, Mount):
            yield from _routes_below(route.routes or (), prefix + mount_template(route), depth + 1)
        elif isinstance(route, Host):
            yield from _routes_below(route.routes or (), prefix, depth + 1)
        elif hasattr(route, "effective_route_contexts"):  # FastAPI ≥ 0.137 keeps included routers as one entry
            yield from _included_routes(route, prefix, depth)
        elif isinstance(route, Route):
            for method in sorted(route.methods or ()):
                yield method, prefix + route.path_format


def _included_routes(included: Any, prefix: str, depth: int) -> Iterator[tuple[str, str]]:
    for context in included.effective_route_contexts():
        starlette_route = getattr(context, "starlette_route", None)
        if starlette_route is not None:
            yield from _routes_below((starlette_route,), prefix, depth + 1)
        else:
            for method in sorted(context.methods or ()):
                yield method, prefix + context.path_format
