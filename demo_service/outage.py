"""What to do while something optional is away: ask it rarely, count every time, say it once."""

import time
from collections.abc import Callable

import obslib

log = obslib.get_logger(__name__)


class Outage:
    """
    Remembers that a dependency failed, so that requests neither wait for it nor repeat the complaint.

    Args:
        name: The dependency, as logs and `/readyz` call it.
        pause_seconds: How long it is left alone after a failure.
        clock: Monotonic seconds.
    """

    def __init__(self, name: str, *, pause_seconds: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._until = 0.0
        self._failing = False

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._failing

    def paused(self) -> bool:
        """Tell whether the dependency should be left alone for now."""
        return self._failing and self._clock() < self._until

    def failed(self, error: Exception) -> None:
        """Note a failure; it is logged once a pause."""
        now = self._clock()
        if now >= self._until:
            self._until = now + self._pause_seconds
            log.warning("dependency_unavailable", dependency=self.name, error=repr(error.__cause__ or error))
        self._failing = True

    def worked(self) -> None:
        """Note a success."""
        if self._failing:
            self._failing = False
            self._until = 0.0
            log.info("dependency_recovered", dependency=self.name)
