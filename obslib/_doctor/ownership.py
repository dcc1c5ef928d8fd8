"""Who else observes an application: requests are recorded once, or the figures disagree and cost twice."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Mount

from obslib._contrib import CONTRIB_MARK
from obslib._doctor.diagnosis import AGENT
from obslib._doctor.report import Finding
from obslib._framework import NATIVE_PROVIDERS, NATIVE_SIGNALS
from obslib._observability import APP_ATTRIBUTE, Observability
from obslib._provider import ObslibTracerProvider
from obslib.settings import Settings

#: Packages whose middleware measures, or names, every request, too: what it does → what obslib has for it.
_OTHERS: Final = {
    "prometheus_fastapi_instrumentator": "measures requests",
    "starlette_exporter": "measures requests",
    "starlette_prometheus": "measures requests",
    "aioprometheus": "measures requests",
    "asgi_correlation_id": "names requests",
    "opentelemetry.instrumentation": "makes spans of requests",
    "starlette.middleware.opentelemetry": "makes spans of requests",
}
_MAX_DEPTH: Final = 8


def observability_of(app: Starlette) -> Observability | None:
    """Return what `instrument()` made of an application, if it was called."""
    found = vars(app).get(APP_ATTRIBUTE)
    return found if isinstance(found, Observability) else None


def ownership_findings(app: Starlette) -> Iterator[Finding]:
    """Say who observes an application: nobody, obslib, others beside it, or some twice."""
    observability = observability_of(app)
    settings = None if observability is None else observability.settings
    mounted = [*_mounted(app.routes, 0)]
    if observability is None:
        yield Finding(
            level="warning",
            code="not_instrumented",
            what="obslib does not instrument this application, as far as importing it goes.",
            fix="Call obslib.instrument(app) where it is made.",
        )
    instrumented = [inner for inner in mounted if observability_of(inner) is not None]
    if instrumented and observability is not None:
        yield Finding(
            level="warning",
            code="instrumented_twice",
            what=f"A mounted application is instrumented, too ({_titles(instrumented)}); the outermost records.",
            fix="Call obslib.instrument() for the outermost application only.",
        )
    yield from _native_findings(app, is_instrumented=observability is not None)
    yield from _contrib_findings([app, *mounted], settings)
    yield from _middleware_findings([app, *mounted])
    yield from _metrics_path_findings(app, settings)


def provider_findings() -> Iterator[Finding]:
    """Say who made the global tracer provider, if it was not obslib."""
    if AGENT in sys.modules:
        yield Finding(
            level="warning",
            code="agent_loaded",
            what="OpenTelemetry's zero-code agent is loaded: it instruments FastAPI itself, and owns the provider.",
            fix="Start without opentelemetry-instrument, or set "
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=fastapi,starlette,asgi.",
        )
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | ObslibTracerProvider):
        return
    kind = f"{type(provider).__module__}.{type(provider).__qualname__}"
    if not isinstance(provider, TracerProvider):
        yield Finding(
            level="warning",
            code="foreign_tracer_provider",
            what=f"The global tracer provider is a {kind}: obslib makes spans with it, but cannot send them.",
            fix="See that it exports them, or give Settings global_tracer_provider=False.",
        )
        return
    exporters = [*_exporters(provider)]
    exports, twice = "", ""
    if exporters:
        exports = f" and exports with {', '.join(exporters)}"
        twice = "Take that exporter out, or set OBSLIB_TRACES_EXPORTER=none: each span is sent twice. "
    yield Finding(
        level="warning",
        code="foreign_tracer_provider",
        what=f"Somebody else's tracer provider ({kind}) is global: it samples, describes the service{exports}.",
        fix=f"{twice}To have obslib's sampler and resource, set no global provider.",
    )


def _exporters(provider: TracerProvider) -> Iterator[str]:
    """Yield what the provider's processors export with, where they are the SDK's own."""
    for processor in getattr(provider._active_span_processor, "_span_processors", ()):  # noqa: SLF001 -- no public way
        exporter = getattr(processor, "span_exporter", None)
        exporter = getattr(getattr(processor, "_batch_processor", None), "_exporter", None) or exporter
        if exporter is not None:
            yield type(exporter).__name__


def _native_findings(app: Starlette, *, is_instrumented: bool) -> Iterator[Finding]:
    config = getattr(app, "_telemetry", None)
    if not isinstance(config, dict):
        return
    given = [name for name in NATIVE_PROVIDERS if config.get(name) is not None]
    automatic = os.environ.get("FASTAPI_OTEL_AUTO_CONFIGURE", "").lower() in {"1", "true", "yes", "on"}
    if is_instrumented:
        active = [name for name in NATIVE_SIGNALS if config.get(name)]
        if active:
            yield Finding(
                level="error",
                code="native_telemetry",
                what=f"FastAPI's own {', '.join(active)} were switched on again: each request is recorded twice.",
                fix="Do not change app._telemetry after obslib.instrument(app).",
            )
    elif given or automatic:
        source = f"telemetry={{{given[0]!r}: …}}" if given else "FASTAPI_OTEL_AUTO_CONFIGURE"
        yield Finding(
            level="warning",
            code="native_telemetry",
            what=f"FastAPI's own telemetry is configured ({source}): obslib cannot record the same requests beside it.",
            fix="Leave it out: obslib makes these signals.",
        )


def _contrib_findings(apps: Iterable[Starlette], settings: Settings | None) -> Iterator[Finding]:
    marked = [app for app in apps if getattr(app, CONTRIB_MARK, False)]
    if not marked or settings is None or settings.engine == "contrib":
        return
    yield Finding(
        level="error",
        code="contrib_instrumented",
        what="opentelemetry-instrumentation-fastapi instruments this application, too: several spans for each request.",
        fix="Remove FastAPIInstrumentor, or let obslib call it: OBSLIB_ENGINE=contrib.",
    )


def _middleware_findings(apps: Iterable[Starlette]) -> Iterator[Finding]:
    for module in dict.fromkeys(entry.cls.__module__ for app in apps for entry in app.user_middleware):
        for package, doing in _OTHERS.items():
            if f"{module}.".startswith(f"{package}."):
                yield Finding(
                    level="warning",
                    code="others_middleware",
                    what=f"A middleware of {package} {doing}, too.",
                    fix="Remove it; docs/migrating.md says what takes its place.",
                )


def _metrics_path_findings(app: Starlette, settings: Settings | None) -> Iterator[Finding]:
    if settings is None or not settings.metrics_enabled or settings.metrics_port is not None:
        return
    if settings.metrics_path and settings.metrics_path in {getattr(route, "path", "") for route in app.routes}:
        yield Finding(
            level="warning",
            code="metrics_path_taken",
            what=f"The application has a route {settings.metrics_path}, which is never reached: obslib answers there.",
            fix="Remove that route, or set OBSLIB_METRICS_PATH or OBSLIB_METRICS_PORT.",
        )


def _mounted(routes: Iterable[BaseRoute], depth: int) -> Iterator[Starlette]:
    """Yield the applications mounted below these routes."""
    for route in routes if depth < _MAX_DEPTH else ():
        if isinstance(route, Mount | Host):
            if isinstance(route.app, Starlette):
                yield route.app
            yield from _mounted(route.routes or (), depth + 1)


def _titles(apps: Iterable[Any]) -> str:
    return ", ".join(str(getattr(app, "title", type(app).__name__)) for app in apps)
