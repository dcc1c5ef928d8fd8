"""The traces: a Recorder that makes one SERVER span a request."""

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import Final

from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from obslib._headers import joined
from obslib._late_spans import LateSpans
from obslib._record import RequestRecord, Scope
from obslib._redaction import Redactor
from obslib._server_span import ServerSpan
from obslib._span_attributes import describe_outcome, final_name, initial_name, start_attributes
from obslib._span_factory import SpanFactory
from obslib._span_ids import digits_of
from obslib.exceptions import MissingExtraError
from obslib.settings import Settings

_NO_CONTEXT: Final = Context()
#: The key under which a context has its span.
[_SPAN_KEY] = trace.set_span_in_context(trace.INVALID_SPAN, _NO_CONTEXT)
_W3C: Final = ("tracecontext", "baggage")
_W3C_HEADERS: Final = (b"traceparent", b"tracestate", b"baggage")
#: https://www.w3.org/TR/trace-context/#traceparent-header, as far as version 00 goes; others take the long way.
_TRACEPARENT: Final = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class TracesRecorder:
    """
    Makes the server span of a request, starts it first and ends it with the record's clock reading.

    Args:
        tracer: Makes the spans that the factory does not.
        factory: Makes ordinary spans for a fraction of the cost; None to let the tracer make all of them.
        late_spans: Makes those of requests that failed or were slow; None to keep none.
        redactor: Hides query parameters that must not be shown.
    """

    signal: Final = "traces"

    def __init__(
        self,
        tracer: trace.Tracer,
        factory: SpanFactory | None,
        propagator: TextMapPropagator,
        settings: Settings,
        redactor: Redactor,
        request_id_attribute: str,
        late_spans: LateSpans | None,
    ) -> None:
        self._tracer = tracer
        self._factory = factory
        self._propagator = propagator
        self._reads_w3c_only = settings.propagators in {_W3C, _W3C[:1]}
        self._trusts_callers = settings.trust_incoming_context
        self._redactor = redactor
        self._request_id_attribute = request_id_attribute
        self._late_spans = late_spans

    def started(self, record: RequestRecord, scope: Scope) -> Context:
        """Start the span, and return the context in which the application is to run."""
        if query := scope.get("query_string"):
            record.query = self._redactor.query(query.decode("latin-1"))
        headers, factory = record.headers, self._factory
        if b"traceparent" in headers or b"baggage" in headers or not self._reads_w3c_only:
            return self._start_for_caller(record, scope)
        span = None if factory is None else factory.start(record, None)
        if span is None:
            span = self._start_stock_span(record, _NO_CONTEXT, None, None)
        record.span = span
        return Context({_SPAN_KEY: span})  # as set_span_in_context, without its two copies

    def _start_for_caller(self, record: RequestRecord, scope: Scope) -> Context:
        headers = record.headers
        if len(headers) != len(scope["headers"]):
            headers = joined(scope["headers"])
        incoming, caller = self._incoming(headers, scope)
        links = None
        if caller is not None and not self._trusts_callers:
            links, caller, incoming = [Link(caller)], None, _NO_CONTEXT
        record.caller = caller
        span = None if self._factory is None or links is not None else self._factory.start(record, caller)
        record.span = span or self._start_stock_span(record, incoming, caller, links)
        return trace.set_span_in_context(record.span, incoming)

    def _start_stock_span(
        self, record: RequestRecord, incoming: Context, caller: SpanContext | None, links: list[Link] | None
    ) -> trace.Span:
        if caller is not None and incoming is _NO_CONTEXT:
            incoming = trace.set_span_in_context(NonRecordingSpan(caller), incoming)
        attributes = start_attributes(record)
        kind, start_time = SpanKind.SERVER, record.start_unix_ns
        span = self._tracer.start_span(initial_name(record), incoming, kind, attributes, links, start_time)
        context = span.get_span_context()
        record.sampled, record.id_digits = context.trace_flags.sampled, digits_of(context)
        return span

    def ended(self, record: RequestRecord) -> None:
        """Complete the span and end it where the record ends; one that nobody has touched is encoded later."""
        span = record.span
        if span is None or not span.is_recording():
            if not record.sampled:
                if self._late_spans is not None:
                    self._late_spans.consider(record)
                record.span = None  # what lives on, though nobody needs it, makes the next requests slower
            return
        failed = record.rare is not None and record.exception is not None
        if self._factory is not None and isinstance(span, ServerSpan) and not failed:
            ended = self._factory.end(span, record.start_unix_ns + record.duration_ns)
            if ended:
                record.span = None  # likewise: the record says all that it would say
                return
        if record.route and getattr(span, "name", "") == initial_name(record):  # unless the user has renamed it
            span.update_name(final_name(record))
        describe_outcome(span, record, self._request_id_attribute, self._redactor.text)
        span.end(record.start_unix_ns + record.duration_ns)

    def finished(self, records: Iterable[RequestRecord]) -> None:
        """Encode the spans of which that is left to do."""
        if self._factory is None:
            return
        encode = self._factory.encode
        for record in records:
            if record.sampled and record.span is None:
                encode(record)

    def hand_over(self) -> None:
        """Queue the encoded spans."""
        if self._factory is not None:
            self._factory.send()

    def _incoming(self, headers: Mapping[bytes, bytes], scope: Scope) -> tuple[Context, SpanContext | None]:
        """Return the context and the span the caller sent, never those that happen to be current."""
        if self._reads_w3c_only:
            if b"tracestate" not in headers and b"baggage" not in headers:
                match = _TRACEPARENT.fullmatch(headers[b"traceparent"])
                if match is not None:
                    return _NO_CONTEXT, _remote_context(int(match[1], 16), int(match[2], 16), int(match[3], 16))
            carrier = {name.decode(): headers[name].decode("latin-1") for name in _W3C_HEADERS if name in headers}
        else:
            carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        context = self._propagator.extract(carrier, _NO_CONTEXT)
        caller = trace.get_current_span(context).get_span_context()
        return context, caller if caller.is_valid else None


def _remote_context(trace_id: int, span_id: int, flags: int) -> SpanContext | None:
    if not trace_id or not span_id:
        return None
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))


def make_propagator(names_of_propagators: tuple[str, ...]) -> TextMapPropagator:
    """
    Return the propagator for the names that `OTEL_PROPAGATORS` lists.

    Raises:
        MissingExtraError: One of them is in a package that is not installed.
    """
    built_in: dict[str, TextMapPropagator] = {
        "tracecontext": TraceContextTextMapPropagator(),
        "baggage": W3CBaggagePropagator(),
        "none": CompositePropagator([]),
    }
    chosen: list[TextMapPropagator] = []
    for name in names_of_propagators:
        if name in built_in:
            chosen.append(built_in[name])
            continue
        found = next(iter(entry_points(group="opentelemetry_propagator", name=name)), None)
        if found is None:
            package = {"b3multi": "b3", "ottrace": "ot-trace", "xray": "aws-xray"}.get(name, name)
            raise MissingExtraError(
                f"The propagator {name!r} is not installed: pip install opentelemetry-propagator-{package}"
            )
        chosen.append(found.load()())
    return CompositePropagator(chosen)
