"""Where log lines go: a bounded buffer and one writer thread, so that a stalled stdout never stalls a request."""

import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, Literal

from obslib import names

#: Part of the buffer that only errors may use, so that they are the last lines to be dropped.
_ERROR_RESERVE: Final = 8
_WRITE_BYTES: Final = 64 * 1024


class LineSink:
    """
    Takes rendered lines and writes them to stdout.

    Until `start` and after `close` each line is written by the caller. In between a daemon thread writes what has
    gathered for `flush_interval_seconds`, at once after an error line. Beyond `buffer_bytes` lines are dropped, newest
    first, errors last, or (`overflow="block"`) the caller waits.

    Args:
        on_dropped: Called with a reason of `names.LOG_LINES_DROPPED` and a number of lines.
        before_writing: Called in the writer thread, so that lines which wait elsewhere come now; must not raise.
    """

    def __init__(
        self,
        *,
        buffer_bytes: int,
        overflow: Literal["drop", "block"],
        flush_interval_seconds: float,
        on_dropped: Callable[[str, int], None],
        before_writing: Callable[[], None] = lambda: None,
    ) -> None:
        self._buffer_bytes = buffer_bytes
        self._ordinary_bytes = buffer_bytes - buffer_bytes // _ERROR_RESERVE
        self._overflow = overflow
        self._flush_interval_seconds = flush_interval_seconds
        self._on_dropped = on_dropped
        self._before_writing = before_writing
        self._reset()

    def _reset(self) -> None:
        # Reentrant: a signal handler may log while this very thread holds it.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._direct = threading.Lock()
        self._wake = threading.Event()
        self._urgent = threading.Event()
        self._pending: list[bytes] = []
        #: Bytes accepted and not yet written, those in the writer's hands included.
        self._pending_bytes = 0
        self._thread: threading.Thread | None = None
        self._closing = False
        self._abandoned = False

    def start(self) -> None:
        """Start this process' writer thread, unless it runs."""
        with self._changed:
            if self._thread is not None:
                return
            self._closing = False
            self._thread = threading.Thread(target=self._run, name="obslib-log-writer", daemon=True)
            self._thread.start()

    def write(self, lines: bytes, is_error: bool = False) -> None:
        """Accept a line, or several, each with a newline at its end. Does not raise."""
        if self._thread is None:
            self._write_directly(lines)
            return
        size = len(lines)
        limit = self._buffer_bytes if is_error else self._ordinary_bytes
        with self._lock:
            if self._pending_bytes + size > limit and not self._wait_for_room(size, limit):
                self._on_dropped(names.DROPPED_BUFFER_FULL, _count([lines]))
                return
            if self._thread is None:
                self._write_directly(lines)  # type: ignore[unreachable]  # by another thread, which closed it meanwhile
                return
            self._pending_bytes += size
            pending = self._pending
            first = not pending
            pending.append(lines)
        if first:
            self.expect()
        if is_error:
            self._urgent.set()

    def expect(self) -> None:
        """Make the writer thread come round after its interval, though there is no line yet."""
        # To wake it costs ten times as much. It is told no more before it looks for what waits.
        if not self._wake.is_set():
            self._wake.set()

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until everything accepted so far is written; tell whether it is."""
        deadline = time.monotonic() + timeout_seconds
        self._urgent.set()
        with self._changed:
            return self._changed.wait_for(
                lambda: self._pending_bytes == 0 or self._thread is None, max(0.0, deadline - time.monotonic())
            )

    def close(self, timeout_seconds: float) -> bool:
        """Write what is left, end the thread, and write directly from now on; tell whether all was written in time."""
        thread = self._thread
        if thread is None:
            return True
        with self._changed:
            self._closing = True
        self._wake.set()
        self._urgent.set()
        thread.join(timeout_seconds)
        with self._changed:
            self._thread = None
            left = _count(self._pending)
            self._pending = []
            self._pending_bytes = 0
            # A thread that hangs in write(2) would meet every later line there: those are given up, too.
            self._abandoned = thread.is_alive()
            self._changed.notify_all()
        if left:
            self._on_dropped(names.DROPPED_SHUTDOWN, left)
        return not self._abandoned

    def reset_after_fork(self) -> None:
        """Forget the parent's thread and lines: the parent writes them."""
        self._reset()

    def _wait_for_room(self, size: int, limit: int) -> bool:
        if self._overflow == "drop" or size > limit:
            return False
        if threading.current_thread() is self._thread:
            return True  # the writer, bringing lines that waited elsewhere: nobody else could make room for them
        self._urgent.set()
        self._changed.wait_for(lambda: self._pending_bytes + size <= limit or self._thread is None)
        return True

    def _run(self) -> None:
        while True:
            self._wake.wait()
            if not self._closing:
                self._urgent.wait(self._flush_interval_seconds)
            self._wake.clear()
            self._urgent.clear()
            self._before_writing()
            with self._lock:
                pending, self._pending = self._pending, []
            self._write_batch(pending)
            if self._closing and not pending:
                return

    def _write_batch(self, pending: list[bytes]) -> None:
        data = memoryview(b"".join(pending))
        try:
            for start in range(0, len(data), _WRITE_BYTES):
                piece = data[start : start + _WRITE_BYTES]
                _write_stdout(piece)
                self._written(len(piece))
        except (OSError, ValueError):
            self._on_dropped(names.DROPPED_WRITE_FAILED, _count(pending))
            self._written(len(data) - start)
        if self._closing:
            self._wake.set()

    def _written(self, size: int) -> None:
        with self._changed:
            self._pending_bytes = max(0, self._pending_bytes - size)
            self._changed.notify_all()

    def _write_directly(self, lines: bytes) -> None:
        if self._abandoned:
            self._on_dropped(names.DROPPED_SHUTDOWN, _count([lines]))
            return
        with self._direct:
            try:
                _write_stdout(memoryview(lines))
            except (OSError, ValueError):
                self._on_dropped(names.DROPPED_WRITE_FAILED, _count([lines]))


def _count(pending: Iterable[bytes]) -> int:
    return sum(lines.count(b"\n") for lines in pending)


def _write_stdout(data: memoryview) -> None:
    """Write it to whatever stdout is now: a descriptor, or an object that stands in for one (pytest, notebooks)."""
    stream = sys.stdout
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError, ValueError):
        if stream is not None:
            stream.write(bytes(data).decode("utf-8", "replace"))
            stream.flush()
        return
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            # Somebody made stdout non-blocking (a shared terminal, a pipe of node's): wait until it takes more.
            select.select([], [descriptor], [])
