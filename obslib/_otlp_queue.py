"""The spans that wait for a sender thread: bounded in spans and bytes, taken in batches."""

import threading
import time
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from obslib._otlp_http import OtlpConfig

#: A span's scope, and the span as `encode_span` returns it.
QueuedSpan = tuple[InstrumentationScope | None, bytes]


class SpanQueue:
    """
    Spans from any thread, for one sender thread.

    It lives as long as that thread: open, then closing (`close`), then abandoned (`abandon`). Whatever the thread still
    does with a batch afterwards counts for nothing.
    """

    def __init__(self, config: OtlpConfig) -> None:
        self.max_spans: Final = config.queue_max_spans
        self._max_bytes = config.queue_max_bytes
        # Large spans are sent before they fill the queue, however few they are.
        self._half_bytes = config.queue_max_bytes // 2
        self._batch_max_spans = config.batch_max_spans
        self._interval_seconds = config.flush_interval_seconds
        # Reentrant: a finalizer or a signal handler may end a span while this very thread holds it.
        self._lock = threading.RLock()
        self._settled = threading.Condition(self._lock)
        # Rung by release, heard by acquire: in contrast to an Event that is one step, which nothing can interrupt.
        self._bell = threading.Lock()
        self._closing = threading.Event()
        self.spans: list[QueuedSpan] = []
        self._bytes = 0
        self._first_seconds = 0.0
        #: Spans taken and not yet settled; spans settled since the beginning; as many as somebody waits for.
        self._in_flight = 0
        self._settled_spans = 0
        self._flush_target = 0
        self._is_abandoned = False
        #: When the sender must have ended, on the clock of `time.monotonic`.
        self.deadline_seconds = float("inf")

    def put(self, spans: Sequence[QueuedSpan]) -> int:
        """Append spans as long as there is room; return how many were."""
        with self._lock:
            if self._is_abandoned:
                return 0
            before, bytes_before = len(self.spans), self._bytes
            if before + len(spans) > self.max_spans:
                spans = spans[: max(0, self.max_spans - before)]
            size = _bytes_of(spans)
            if bytes_before + size > self._max_bytes:
                spans = self._fitting(spans)
                size = _bytes_of(spans)
            self.spans += spans
            self._bytes += size
            if not before:
                self._first_seconds = time.monotonic()
            fills_batch = before < self._batch_max_spans <= len(self.spans)
            passes_half = bytes_before < self._half_bytes <= self._bytes
        if not before or fills_batch or passes_half:
            self._ring()
        return len(spans)

    def next_batch(self) -> list[QueuedSpan]:
        """Wait until a batch is due, and take it; an empty one when the queue is closing and nothing is left."""
        while True:
            with self._lock:
                due_seconds = self._due_seconds()
                if due_seconds is None and (self.is_closing or self._is_abandoned):
                    return []
                if due_seconds is not None and due_seconds <= 0:
                    return self._take()
            self._bell.acquire(timeout=-1 if due_seconds is None else due_seconds)

    def claim(self, spans: int) -> bool:
        """Take spans out of flight to report what became of them; False if they were reported as given up."""
        with self._lock:
            if not self._is_abandoned:
                self._in_flight -= spans
            return not self._is_abandoned

    def settle(self, spans: int) -> None:
        """Wake those who wait for claimed spans, now that they are reported."""
        with self._lock:
            self._settled_spans += spans
            self._settled.notify_all()

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until every span put so far is settled; tell whether it is."""
        with self._lock:
            target = self._settled_spans + self._in_flight + len(self.spans)
            self._flush_target = max(self._flush_target, target)
            self._ring()
            self._settled.wait_for(lambda: self._settled_spans >= target or self._is_abandoned, timeout_seconds)
            return self._settled_spans >= target

    def pause(self, seconds: float) -> None:
        """Let the sender wait; `close` ends the wait."""
        if self.is_closing:
            time.sleep(seconds)
        else:
            self._closing.wait(seconds)

    def close(self, deadline_seconds: float) -> None:
        """Make everything due, to be sent before the deadline."""
        self.deadline_seconds = deadline_seconds
        self._closing.set()
        self._ring()

    def abandon(self) -> int:
        """Take no more spans and let none out; return how many are given up."""
        with self._lock:
            left = len(self.spans) + self._in_flight
            self._is_abandoned = True
            self.spans = []
            self._in_flight = 0
            self._settled.notify_all()
        self._ring()
        return left

    @property
    def is_closing(self) -> bool:
        return self._closing.is_set()

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def _fitting(self, spans: Sequence[QueuedSpan]) -> Sequence[QueuedSpan]:
        """Return the first spans, as many as there is room for their bytes."""
        room_bytes = self._max_bytes - self._bytes
        return spans[: sum(end <= room_bytes for end in accumulate(len(encoded) for _, encoded in spans))]

    def _due_seconds(self) -> float | None:
        """Return in how many seconds the next batch is due; None while there is none."""
        if not self.spans:
            return None
        is_wanted = self.is_closing or self._flush_target > self._settled_spans + self._in_flight
        if is_wanted or len(self.spans) >= self._batch_max_spans or self._bytes >= self._half_bytes:
            return 0
        return self._first_seconds + self._interval_seconds - time.monotonic()

    def _take(self) -> list[QueuedSpan]:
        batch = self.spans[: self._batch_max_spans]
        del self.spans[: self._batch_max_spans]
        self._bytes -= _bytes_of(batch)
        self._in_flight += len(batch)
        self._first_seconds = time.monotonic()
        return batch

    def _ring(self) -> None:
        try:
            self._bell.release()
        except RuntimeError:
            # Rung already.
            return


def _bytes_of(spans: Sequence[QueuedSpan]) -> int:
    return sum([len(encoded) for _, encoded in spans])
