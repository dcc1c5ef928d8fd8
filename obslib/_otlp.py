"""
The span processor that sends: spans are encoded when they end, and a daemon thread compresses and posts them.

Retries, deadlines and partial success follow https://opentelemetry.io/docs/specs/otlp/#otlphttp-response.
"""

import http.client
import os
import random
import struct
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Final
from weakref import WeakSet

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from obslib import names
from obslib._otlp_encode import encode_batch, encode_resource, encode_span
from obslib._otlp_http import Answer, CollectorConnection, OtlpConfig, tls_context
from obslib._otlp_queue import QueuedSpan, SpanQueue
from obslib.exceptions import ConfigurationError

__all__ = ["OtlpConfig", "OtlpSpanProcessor"]

_RETRYABLE: Final = frozenset({429, 502, 503, 504})
_TOO_LARGE: Final = 413
_FIRST_PAUSE_SECONDS: Final = 1.0
_SHUTDOWN_TIMEOUT_SECONDS: Final = 3.0
#: What a span that breaks the SDK's promises about types can raise while it is encoded.
_ENCODING_ERRORS: Final = (
    ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, struct.error,
)  # fmt: skip


class OtlpSpanProcessor(SpanProcessor):
    """
    Encodes each sampled span as it ends and sends batches of them from a daemon thread of its own.

    There is no thread and no socket before `start`; spans that end before it wait. No method raises after set-up, and
    none but `force_flush`, `close` and `shutdown` waits.

    Args:
        resource: Who emits the spans; sent with each batch.
        config: Where to and how.
        on_dropped: Called with a reason (`names.DROPPED_*`) and a number of spans.
        on_exported: Called with a number of spans that the collector accepted.
        on_error: Called with a sentence for each attempt that fails; the caller limits the rate.

    Raises:
        ConfigurationError: A certificate or key file cannot be used.
    """

    def __init__(
        self,
        resource: Resource,
        config: OtlpConfig,
        *,
        on_dropped: Callable[[str, int], None],
        on_exported: Callable[[int], None],
        on_error: Callable[[str], None],
    ) -> None:
        if config.certificate_file or config.client_certificate_file:
            try:
                tls_context(config)
            except OSError as error:
                raise ConfigurationError(
                    "certificate_file, client_certificate_file and client_key_file must be PEM files that can be read: "
                    f"{error}"
                ) from error
        self._resource = encode_resource(resource)
        self._config = config
        self._on_dropped = on_dropped
        self._on_exported = on_exported
        self._on_error = on_error
        self._is_shut_down = False
        self.reset_after_fork()
        _live.add(self)

    def reset_after_fork(self) -> None:
        """Forget the parent's thread and spans: the parent sends them."""
        self._lock = threading.Lock()
        self._queue = SpanQueue(self._config)
        self._sender: _Sender | None = None

    def on_end(self, span: ReadableSpan) -> None:
        """Encode a sampled span and queue it."""
        context = span.get_span_context()
        if self._is_shut_down or context is None or not context.trace_flags.sampled:
            return
        queue = self._queue
        if len(queue.spans) >= queue.max_spans:
            self._on_dropped(names.DROPPED_QUEUE_FULL, 1)
            return
        try:
            encoded = encode_span(span)
        except _ENCODING_ERRORS as error:
            self._on_dropped(names.DROPPED_ENCODING_FAILED, 1)
            self._on_error(f"A span could not be encoded: {_describe(error)}")
            return
        self.enqueue([(span.instrumentation_scope, encoded)])

    def enqueue(self, spans: Sequence[QueuedSpan]) -> None:
        """Queue spans that `encode_span`, or its equal, encoded."""
        if self._is_shut_down:
            return
        left_out = len(spans) - self._queue.put(spans)
        if left_out:
            self._on_dropped(names.DROPPED_QUEUE_FULL, left_out)

    def start(self) -> None:
        """Start this process' sender thread, unless it runs."""
        with self._lock:
            if self._sender is None and not self._is_shut_down:
                self._sender = self._start_sender(self._queue)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Wait until every span that ended so far is sent or given up; tell whether that was in time."""
        queue = self._queue
        if self._sender is None:
            return not queue.spans
        return queue.flush(timeout_millis / 1000)

    def close(self, timeout_seconds: float) -> bool:
        """
        Send what is queued and end the thread; `start` may be called again afterwards.

        What cannot be sent in time is dropped. A thread that the network holds is left behind.

        Args:
            timeout_seconds: For everything.

        Returns:
            Whether nothing was dropped for want of time, or of a collector.
        """
        deadline_seconds = time.monotonic() + timeout_seconds
        with self._lock:
            sender, queue = self._sender, self._queue
            self._sender, self._queue = None, SpanQueue(self._config)
            queue.close(deadline_seconds)
            if sender is None and queue.spans:
                sender = self._start_sender(queue)
        if sender is not None:
            sender.thread.join(max(0.0, deadline_seconds - time.monotonic()))
        left = queue.abandon()
        if left:
            self._on_dropped(names.DROPPED_SHUTDOWN, left)
            if sender is not None and sender.thread.is_alive():  # one that has given up has said why
                self._on_error(f"Not sent before the end, for which there were {timeout_seconds:g} s: {left} spans.")
        return not left

    def shutdown(self, timeout_seconds: float = _SHUTDOWN_TIMEOUT_SECONDS) -> None:
        """Close for good: spans that end afterwards are ignored."""
        self._is_shut_down = True
        self.close(timeout_seconds)

    def _start_sender(self, queue: SpanQueue) -> "_Sender | None":
        sender = _Sender(self._resource, self._config, queue, self._on_dropped, self._on_exported, self._on_error)
        try:
            sender.thread.start()
        except RuntimeError as error:
            # No more threads, or an interpreter that is ending.
            self._on_error(f"The sender thread could not start: {_describe(error)}")
            return None
        return sender


class _Sender:
    """A thread that sends one queue's spans until the queue closes."""

    def __init__(
        self,
        resource: bytes,
        config: OtlpConfig,
        queue: SpanQueue,
        on_dropped: Callable[[str, int], None],
        on_exported: Callable[[int], None],
        on_error: Callable[[str], None],
    ) -> None:
        self._resource = resource
        self._config = config
        self._queue = queue
        self._on_dropped = on_dropped
        self._on_exported = on_exported
        self._on_error = on_error
        self._connection: CollectorConnection | None = None
        self._failure: Exception | None = None
        self.thread = threading.Thread(target=self._run, name="obslib-span-sender", daemon=True)

    def _run(self) -> None:
        go_on = True
        while go_on:
            try:
                go_on = self._step()
            except Exception as error:  # noqa: BLE001 -- the guard: the thread outlives whatever happens in it
                self._failure = error
                self._queue.pause(_FIRST_PAUSE_SECONDS)
        if self._connection is not None:
            self._connection.close()

    def _step(self) -> bool:
        """Send one batch; False when there will be none any more."""
        if self._failure is not None:
            reason, self._failure = _describe(self._failure), None
            self._report(self._queue.in_flight, exported=0, reason=names.DROPPED_EXPORT_FAILED)
            self._on_error(f"The sender thread failed: {reason}")
        batch = self._queue.next_batch()
        if not batch:
            return False
        deadline_seconds = time.monotonic() + self._config.timeout_seconds
        answer = self._send(batch, deadline_seconds)
        if answer is None or answer.status != _TOO_LARGE or len(batch) == 1:
            return self._conclude(batch, answer)
        half = len(batch) // 2
        parts = batch[:half], batch[half:]
        return all(self._conclude(part, self._send(part, deadline_seconds)) for part in parts)

    def _send(self, batch: list[QueuedSpan], deadline_seconds: float) -> Answer | None:
        """Post a batch until there is a final answer; None if there is none in time."""
        body = encode_batch(self._resource, batch)
        if self._config.compression == "gzip":
            body = zlib.compress(body, level=1, wbits=31)
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            answer = self._attempt(body, min(deadline_seconds, self._queue.deadline_seconds))
            if answer is not None and answer.status not in _RETRYABLE:
                return answer
            asked_seconds = answer and answer.retry_after_seconds
            wait_seconds = pause_seconds * random.uniform(0.8, 1.2) if asked_seconds is None else asked_seconds
            if time.monotonic() + wait_seconds >= min(deadline_seconds, self._queue.deadline_seconds):
                return None
            self._queue.pause(wait_seconds)
            pause_seconds *= 2

    def _attempt(self, body: bytes, deadline_seconds: float) -> Answer | None:
        if self._connection is None:
            self._connection = CollectorConnection(self._config)
        try:
            answer = self._connection.post(body, deadline_seconds)
        except (OSError, http.client.HTTPException) as error:
            self._on_error(_describe(error))
            return None
        if not 200 <= answer.status < 300:
            self._on_error(f"The collector answered {answer.status} {answer.reason}")
        elif answer.rejected_spans or answer.message:
            self._on_error(f"The collector rejected {answer.rejected_spans} spans: {answer.message}")
        return answer

    def _conclude(self, batch: list[QueuedSpan], answer: Answer | None) -> bool:
        """Report what became of a batch; False to give up what is left, too."""
        spans = len(batch)
        if answer is None and self._queue.is_closing:
            return False
        if answer is not None and 200 <= answer.status < 300:
            exported = spans - min(spans, answer.rejected_spans)
            self._report(spans, exported=exported, reason=names.DROPPED_REJECTED)
        elif answer is not None and answer.status == _TOO_LARGE:
            self._report(spans, exported=0, reason=names.DROPPED_TOO_LARGE)
        elif answer is not None and 400 <= answer.status < 500:
            self._report(spans, exported=0, reason=names.DROPPED_REJECTED)
        else:
            self._report(spans, exported=0, reason=names.DROPPED_EXPORT_FAILED)
        return True

    def _report(self, spans: int, *, exported: int, reason: str) -> None:
        if not self._queue.claim(spans):
            return
        try:
            if exported:
                self._on_exported(exported)
            if spans > exported:
                self._on_dropped(reason, spans - exported)
        finally:
            self._queue.settle(spans)


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


_live: Final[WeakSet[OtlpSpanProcessor]] = WeakSet()


def _reset_after_fork() -> None:  # pragma: no cover -- runs in children, which tests end by os._exit
    for processor in _live:
        processor.reset_after_fork()


os.register_at_fork(after_in_child=_reset_after_fork)
