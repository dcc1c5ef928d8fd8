"""Spans of the calls that libraries make, through OpenTelemetry's instrumentation packages.

Calls are counted without them: see `_call_sources`.
"""

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

from opentelemetry import trace

from obslib._call_sources import is_installed
from obslib._redaction import Redactor
from obslib.exceptions import ConfigurationError

#: Setting name → the library's module, its instrumentation's module, and the class in there.
LIBRARIES: Final = {
    "httpx": ("httpx", "opentelemetry.instrumentation.httpx", "HTTPXClientInstrumentor"),
    "sqlalchemy": ("sqlalchemy", "opentelemetry.instrumentation.sqlalchemy", "SQLAlchemyInstrumentor"),
    "redis": ("redis", "opentelemetry.instrumentation.redis", "RedisInstrumentor"),
    "celery": ("celery", "opentelemetry.instrumentation.celery", "CeleryInstrumentor"),
}
#: Where a client's span has the URL it asked for, by the stable conventions and by the old ones.
_URL_ATTRIBUTES: Final = ("url.full", "http.url")
_OPT_IN: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"
_STABLE: Final = "http,database"


def instrument_libraries(
    chosen: tuple[str, ...], provider: trace.TracerProvider, redactor: Redactor
) -> Callable[[], None]:
    """
    Instrument the chosen libraries that are installed together with their instrumentation package; return the undo.

    What somebody else has instrumented already is left alone.

    Args:
        chosen: As `Settings.instrumentations`.
        provider: Makes the spans.
        redactor: Hides secrets in the URLs that spans have.

    Raises:
        ConfigurationError: A name is not one of `LIBRARIES`.
    """
    check_names(chosen)
    undo_conventions = demand_stable_conventions()
    undos: list[Callable[[], None]] = []
    for name in chosen:
        library, package, class_name = LIBRARIES[name]
        if not is_installed(library) or not is_installed(package):
            continue
        instrumentor = getattr(import_module(package), class_name)()
        if not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument(tracer_provider=provider, **_hooks(name, redactor))
            undos.append(instrumentor.uninstrument)

    def undo() -> None:
        for uninstrument in reversed(undos):
            uninstrument()
        undo_conventions()

    return undo


def _hooks(name: str, redactor: Redactor) -> dict[str, Callable[..., Any]]:
    """Return what a library's instrumentation is to call when a span has started."""
    if name != "httpx":
        return {}

    def hide(span: trace.Span, _request: object) -> None:
        attributes = getattr(span, "attributes", None)
        if not isinstance(attributes, Mapping):
            return
        for key in _URL_ATTRIBUTES:
            url = attributes.get(key)
            if isinstance(url, str) and (shown := redactor.text(url)) != url:
                span.set_attribute(key, shown)

    async def hide_asynchronously(span: trace.Span, request: object) -> None:
        hide(span, request)

    return {"request_hook": hide, "async_request_hook": hide_asynchronously}


def check_names(chosen: tuple[str, ...]) -> None:
    """
    Check `Settings.instrumentations`.

    Raises:
        ConfigurationError: A name is not one of `LIBRARIES`.
    """
    unknown = sorted(set(chosen) - set(LIBRARIES))
    if unknown:
        raise ConfigurationError(
            f"Settings.instrumentations: {unknown[0]!r} is unknown; obslib knows {', '.join(LIBRARIES)}."
        )


def demand_stable_conventions() -> Callable[[], None]:
    """Choose the stable conventions for packages that still default to the old ones; a choice made already stays."""
    if os.environ.get(_OPT_IN):
        return lambda: None
    os.environ[_OPT_IN] = _STABLE

    def undo() -> None:
        if os.environ.get(_OPT_IN) == _STABLE:
            del os.environ[_OPT_IN]

    return undo
