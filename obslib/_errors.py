"""What happens to an error inside telemetry: it is counted, and logged once a window. It never reaches a request."""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

#: At most one line for each kind of error in this many seconds.
WINDOW_SECONDS: Final = 60.0


class ErrorReporter:
    """
    Counts errors of telemetry, and logs the first of each window.

    Args:
        count: Counts one error of a signal.
        log: Writes one line: level, event and values.
    """

    def __init__(self, count: Callable[[str], None], log: Callable[[str, str, dict[str, Any]], None]) -> None:
        self._count = count
        self._log = log
        self._lock = threading.Lock()
        self._last_seconds: dict[str, float] = {}
        self._silenced: dict[str, int] = {}

    def internal(self, signal: str, error: BaseException) -> None:
        """Report an exception inside telemetry. Does not raise."""
        self._count(signal)
        self.report(
            f"internal:{signal}",
            "obslib_internal_error",
            {"signal": signal, "exc_info": error},
        )

    def report(self, kind: str, event: str, values: dict[str, Any]) -> None:
        """Log a warning unless one of this kind was logged within the window. Does not raise."""
        now = time.monotonic()
        with self._lock:
            if now - self._last_seconds.get(kind, -WINDOW_SECONDS) < WINDOW_SECONDS:
                self._silenced[kind] = self._silenced.get(kind, 0) + 1
                return
            self._last_seconds[kind] = now
            silenced = self._silenced.pop(kind, 0)
        try:
            self._log("warning", event, {**values, **({"silenced_before": silenced} if silenced else {})})
        except Exception as error:  # noqa: BLE001 -- the logs themselves are what fails; stderr is all that is left
            print(f"obslib: {event} {values!r}; and it could not be logged: {error!r}", file=sys.stderr)  # noqa: T201
