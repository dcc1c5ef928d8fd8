"""The libraries whose calls can be counted, joined while any application counts them."""

import sys
import threading
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from obslib._client_metrics import ClientMetrics

#: Setting name, which is the library's module, too → the module here that joins it.
SOURCES: Final = {
    "httpx": "obslib._httpx_calls",
    "sqlalchemy": "obslib._sqlalchemy_calls",
    "redis": "obslib._redis_calls",
}


_LOCK: Final = threading.Lock()


def _join(library: str, metrics: ClientMetrics) -> None:
    """Let an application count a library's calls."""
    source: Any = import_module(SOURCES[library])
    with _LOCK:
        if not source.COUNTERS:
            source.install()
        source.COUNTERS.push(metrics)


def _leave(library: str, metrics: ClientMetrics) -> None:
    """Undo; the last one leaves the library as it was."""
    source: Any = import_module(SOURCES[library])
    with _LOCK:
        source.COUNTERS.remove(metrics)
        if not source.COUNTERS:
            source.uninstall()


class Subscription:
    """
    The libraries whose calls one application counts.

    One is joined as soon as it is imported: to import it only to count its calls would be dear. But where its
    instrumentation package is installed, somebody wants it, and it is joined first, beneath that package's wrappers.

    Args:
        chosen: `Settings.instrumentations`.
    """

    def __init__(self, chosen: tuple[str, ...], metrics: ClientMetrics) -> None:
        self._metrics = metrics
        self._missing = [library for library in chosen if library in SOURCES]
        self._joined: list[str] = []

    def join(self) -> None:
        """Join what can be joined now, and has not been."""
        for library in self._missing[:]:
            if library in sys.modules or (is_installed(library) and is_instrumentable(library)):
                _join(library, self._metrics)
                self._missing.remove(library)
                self._joined.append(library)

    def leave(self) -> None:
        """Undo."""
        self._missing.clear()
        while self._joined:
            _leave(self._joined.pop(), self._metrics)


def is_instrumentable(library: str) -> bool:
    """Tell whether a library's instrumentation package is installed."""
    return is_installed(f"opentelemetry.instrumentation.{library}")


def is_installed(module: str) -> bool:
    """Tell whether there is such a module, without importing it."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package around it is there
        return False
