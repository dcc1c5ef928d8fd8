"""Requests that failed or were slow, though their traces were not drawn: the server span alone, made at the end."""

import math
import threading
from collections.abc import Callable
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanKind

from obslib import names
from obslib._provider import ObslibTracerProvider
from obslib._record import RequestRecord
from obslib._redaction import Redactor
from obslib._span_attributes import describe_outcome, final_name, start_attributes
from obslib._version import __version__
from obslib.exceptions import ConfigurationError
from obslib.settings import Settings

_NO_CONTEXT: Final = Context()


class _GivenIds(IdGenerator):
    """Gives a span the ids that its request has had all along."""

    def __init__(self) -> None:
        self.trace_id = self.span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class LateSpans:
    """
    Keeps spans of requests that are worth it.

    Args:
        provider: Its processors are told of them.
        keep_errors: Whether failures of the service are kept.
        keep_slower_than_seconds: Slower requests are kept, too; infinite for none.
        request_id_attribute: The name of the attribute with the request id.
        hide: Hides secrets in the texts of exceptions.
    """

    def __init__(
        self,
        provider: TracerProvider,
        *,
        keep_errors: bool,
        keep_slower_than_seconds: float,
        request_id_attribute: str,
        hide: Callable[[str], str],
    ) -> None:
        self._provider = provider
        self._hide = hide
        self._keep_errors = keep_errors
        self._keep_slower_than_ns = keep_slower_than_seconds * 1e9
        self._request_id_attribute = request_id_attribute
        self._ids = _GivenIds()
        self._lock = threading.Lock()
        # The same processors behind a sampler that has seen how it ended.
        twin = TracerProvider(
            sampler=ALWAYS_ON,
            resource=provider.resource,
            shutdown_on_exit=False,
            active_span_processor=provider._active_span_processor,  # noqa: SLF001 -- there is no public way to share them
            id_generator=self._ids,
        )
        self._tracer = twin.get_tracer("obslib", __version__)

    def consider(self, record: RequestRecord) -> None:
        """Send the server span of a request that is over and was not drawn, if it is worth it."""
        if not (self._keep_errors and record.is_failure) and record.duration_ns <= self._keep_slower_than_ns:
            return
        is_open = not isinstance(self._provider, ObslibTracerProvider) or self._provider.gate.is_open
        if record.span is None or not is_open:
            return
        ids, caller = record.span.get_span_context(), record.caller
        context = _NO_CONTEXT if caller is None else trace.set_span_in_context(NonRecordingSpan(caller), _NO_CONTEXT)
        attributes = {**start_attributes(record), names.ATTR_KEPT_LATE: True}
        with self._lock:
            self._ids.trace_id, self._ids.span_id = ids.trace_id, ids.span_id
            span = self._tracer.start_span(
                final_name(record), context, SpanKind.SERVER, attributes, start_time=record.start_unix_ns
            )
        describe_outcome(span, record, self._request_id_attribute, self._hide)
        span.end(record.start_unix_ns + record.duration_ns)


def make_late_spans(provider: trace.TracerProvider, settings: Settings, request_id_attribute: str) -> LateSpans | None:
    """
    Return what keeps spans late; None where the settings keep none.

    Raises:
        ConfigurationError: The global provider is not the SDK's, so that nothing can be added to its spans.
    """
    slower_than_seconds = settings.traces_keep_slower_than_seconds
    if not settings.traces_keep_errors and slower_than_seconds is None:
        return None
    if not isinstance(provider, TracerProvider):
        raise ConfigurationError(
            "Settings.traces_keep_errors and traces_keep_slower_than_seconds need a tracer provider of "
            f"opentelemetry-sdk, and the global one is a {type(provider).__name__}: leave them out, or set "
            "Settings.global_tracer_provider to False."
        )
    return LateSpans(
        provider,
        keep_errors=settings.traces_keep_errors,
        keep_slower_than_seconds=math.inf if slower_than_seconds is None else slower_than_seconds,
        request_id_attribute=request_id_attribute,
        hide=Redactor(settings.redacted_keys).text,
    )
