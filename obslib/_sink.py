"""Where log lines go: a bounded buffer and one writer thread, so that a stalled stdout never stalls a request."""

import os
import select
import sys
import threading
import time
from collections.abc import Callable
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
        self._changed = threading.Condition()
        self._direct = threading.Lock()
        self._wake = threading.Event()
        self._urgent = threading.Event()
        self._lines: list[bytes] = []
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

    def write(self, line: bytes, is_error: bool = False) -> None:
        """Accept one line that ends in a newline. Does not raise."""
        if self._thread is None:
            self._write_directly(line)
            return
        size = len(line)
        limit = self._buffer_bytes if is_error else self._ordinary_bytes
        with self._changed:
            if self._pending_bytes + size > limit and not self._wait_for_room(size, limit):
                self._on_dropped(names.DROPPED_BUFFER_FULL, 1)
                return
            if self._thread is None:
                self._write_directly(line)  # type: ignore[unreachable]  # by another thread, which closed it meanwhile
                return
            self._pending_bytes += size
            lines = self._lines
            first = not lines
            lines.append(line)
        if first:
            self._wake.set()
        if is_error:
            self._urgent.set()

    def expect(self) -> None:
        """Make the writer thread come round after its interval, though there is no line yet."""
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
            left = len(self._lines)
            self._lines = []
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
            with self._changed:
                lines, self._lines = self._lines, []
            self._write_batch(lines)
            if self._closing and not lines:
                return

    def _write_batch(self, lines: list[bytes]) -> None:
        data = memoryview(b"".join(lines))
        try:
            for start in range(0, len(data), _WRITE_BYTES):
                piece = data[start : start + _WRITE_BYTES]
                _write_stdout(piece)
                self._written(len(piece))
        except (OSError, ValueError):
            self._on_dropped(names.DROPPED_WRITE_FAILED, len(lines))
            self._written(len(data) - start)
        if self._closing:
            self._wake.set()

    def _written(self, size: int) -> None:
        with self._changed:
            self._pending_bytes = max(0, self._pending_bytes - size)
            self._changed.notify_all()

    def _write_directly(self, line: bytes) -> None:
        if self._abandoned:
            self._on_dropped(names.DROPPED_SHUTDOWN, 1)
            return
        with self._direct:
            try:
                _write_stdout(memoryview(line))
            except (OSError, ValueError):
                self._on_dropped(names.DROPPED_WRITE_FAILED, 1)


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
