"""Libraries that call others: httpx, SQLAlchemy, redis, Celery, through OpenTelemetry's instrumentation packages."""

import os
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from opentelemetry import trace

from obslib.exceptions import ConfigurationError

#: Setting name → the library's module, its instrumentation's module, and the class in there.
LIBRARIES: Final = {
    "httpx": ("httpx", "opentelemetry.instrumentation.httpx", "HTTPXClientInstrumentor"),
    "sqlalchemy": ("sqlalchemy", "opentelemetry.instrumentation.sqlalchemy", "SQLAlchemyInstrumentor"),
    "redis": ("redis", "opentelemetry.instrumentation.redis", "RedisInstrumentor"),
    "celery": ("celery", "opentelemetry.instrumentation.celery", "CeleryInstrumentor"),
}
_OPT_IN: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"
_STABLE: Final = "http,database"


def instrument_libraries(chosen: tuple[str, ...], provider: trace.TracerProvider) -> Callable[[], None]:
    """
    Instrument the chosen libraries that are installed together with their instrumentation package; return the undo.

    What somebody else has instrumented already is left alone.

    Raises:
        ConfigurationError: A name is not one of `LIBRARIES`.
    """
    unknown = sorted(set(chosen) - set(LIBRARIES))
    if unknown:
        raise ConfigurationError(
            f"Settings.instrumentations: {unknown[0]!r} is unknown; obslib knows {', '.join(LIBRARIES)}."
        )
    undo_conventions = demand_stable_conventions()
    undos: list[Callable[[], None]] = []
    for name in chosen:
        library, package, class_name = LIBRARIES[name]
        if find_spec(library) is None or not _is_installed(package):
            continue
        instrumentor = getattr(import_module(package), class_name)()
        if not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument(tracer_provider=provider)
            undos.append(instrumentor.uninstrument)

    def undo() -> None:
        for uninstrument in reversed(undos):
            uninstrument()
        undo_conventions()

    return undo


def demand_stable_conventions() -> Callable[[], None]:
    """Choose the stable conventions for packages that still default to the old ones; a choice made already stays."""
    if os.environ.get(_OPT_IN):
        return lambda: None
    os.environ[_OPT_IN] = _STABLE

    def undo() -> None:
        if os.environ.get(_OPT_IN) == _STABLE:
            del os.environ[_OPT_IN]

    return undo


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # not even opentelemetry.instrumentation is there
        return False
