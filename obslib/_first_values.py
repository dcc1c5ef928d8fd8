"""Labels whose values others choose: the first so many are kept."""

import threading

from obslib import names
from obslib._instruments import Instruments


class FirstValues:
    """
    The first so many values of a label; every further one is `_OTHER`.

    Args:
        metric_name: Whose label it is; each further value counts as an overflow of its.
    """

    def __init__(self, limit: int, instruments: Instruments, metric_name: str) -> None:
        self._limit = limit
        self._overflowed = instruments.overflowed
        self._metric_name = metric_name
        self._lock = threading.Lock()
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        """Return the value, if it is one of the first."""
        if value in self._known:
            return value
        with self._lock:
            if len(self._known) < self._limit:
                self._known.add(value)
                return value
        self._overflowed.labels(self._metric_name).inc()
        return names.OTHER
