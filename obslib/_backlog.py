"""Requests that are over and not yet recorded: sixteen are recorded in a row, which halves what each costs.

Between a server's code and a framework's, that of the recorders has left the processor's caches each time it is needed.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Final

from obslib._record import Recorder, RequestRecord

#: A scrape, a flush, an error and the log writer's interval do not wait for that many.
BATCH_REQUESTS: Final = 16


class Backlog:
    """
    Keeps finished records until a batch is together, then tells each recorder. Until `open` nothing waits.

    Args:
        on_error: Told the signal and the exception when a recorder fails; must not raise.
        on_first: Told when something begins to wait: whoever is told calls `work_off` before long.
    """

    def __init__(self, on_error: Callable[[str, BaseException], None], on_first: Callable[[], None]) -> None:
        self._on_error = on_error
        self._on_first = on_first
        self.recorders: Sequence[Recorder] = ()
        #: Requests that have begun and are not recorded yet; whoever begins one adds it.
        self.in_flight: Final[set[RequestRecord]] = set()
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Forget the parent's requests: the parent records them."""
        self.in_flight.clear()
        self._waiting: list[RequestRecord] = []
        self._lock = threading.Lock()
        self._limit = 1

    def open(self) -> None:
        """Let requests wait from now on."""
        self._limit = BATCH_REQUESTS

    def close(self, timeout_seconds: float) -> bool:
        """Record what waits, and let nothing wait from now on; tell whether all was recorded in time."""
        self._limit = 1
        return self.flush(timeout_seconds)

    def add(self, record: RequestRecord) -> None:
        """
        Take a record that is complete.

        One that is urgent is recorded now, with those before it: what is the user's may change, and errors do not wait.
        """
        waiting = self._waiting
        waiting.append(record)
        size = len(waiting)
        if record.rare is not None and record.is_urgent:
            self.work_off()
        elif size >= self._limit:
            self._row_is_full(size)
        elif size == 1:
            self._on_first()

    def _row_is_full(self, size: int) -> None:
        """Record the row when the loop comes round: first the response that filled it goes out to its client."""
        if self._limit == 1 or size >= 2 * self._limit:
            self.work_off()
        elif size == self._limit:  # beyond it the loop has been told
            try:
                # In a context of its own: what is current is the request's.
                asyncio.get_running_loop().call_soon(self.work_off, context=Context())
            except RuntimeError:  # no loop of asyncio's
                self.work_off()

    def work_off(self) -> None:
        """
        Record what waits; in any thread.

        Where another thread is at it, or a frame below this one (a coroutine may be thrown away at any allocation), the
        rest is left to that.
        """
        while self._waiting and self._lock.acquire(blocking=False):
            try:
                self._record_all()
            finally:
                self._lock.release()

    def flush(self, timeout_seconds: float) -> bool:
        """Record what waits, after a thread that is at it; tell whether all is recorded."""
        if not self._lock.acquire(timeout=timeout_seconds):
            return False
        try:
            self._record_all()
        finally:
            self._lock.release()
        return True

    def _record_all(self) -> None:
        waiting = self._waiting
        while waiting:
            records = waiting[:]
            del waiting[: len(records)]  # others may have been added meanwhile
            self._record(records)

    def _record(self, records: list[RequestRecord]) -> None:
        for recorder in self.recorders:
            left = iter(records)
            for _ in records:
                try:
                    recorder.finished(left)
                    break
                except Exception as error:  # noqa: BLE001 -- the guard: one failing recorder never silences another
                    # What it failed on is taken from the iterator: the next call goes on behind it.
                    self._on_error(recorder.signal, error)
            try:
                recorder.hand_over()
            except Exception as error:  # noqa: BLE001 -- likewise
                self._on_error(recorder.signal, error)
        self.in_flight.difference_update(records)
        for record in records:
            # They refer to the record, or to frames that do: without this a request would be cyclic garbage.
            record.span = None
            if record.rare is not None:
                record.exception = None
