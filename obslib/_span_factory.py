"""Makes and ends ordinary server spans without the SDK's machinery, as long as nobody but obslib wants them."""

from typing import Any, Final

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, SynchronousMultiSpanProcessor, Tracer, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanContext, SpanKind, StatusCode, TraceFlags

from obslib._otlp import OtlpSpanProcessor
from obslib._otlp_encode import encode_span
from obslib._otlp_queue import QueuedSpan
from obslib._provider import ObslibTracerProvider
from obslib._record import RequestRecord
from obslib._server_span import ServerSpan, bind, bind_unsampled, contexts_are_equal
from obslib._server_span_encode import ServerSpanEncoder
from obslib._span_attributes import describe_outcome, final_name, initial_name, start_attributes
from obslib._span_ids import digits_of, make_child_ids, make_root_ids
from obslib.settings import Settings

#: The digits of a trace id's lower 64 bits.
_LOW_HALF: Final = slice(16, 32)
#: Greater than any digits.
_BEYOND_DIGITS: Final = "g"


class SpanFactory:
    """
    Makes the spans of one tracer.

    Args:
        processor: Takes the encoded spans; None where nothing is sent.
    """

    def __init__(
        self,
        provider: ObslibTracerProvider,
        tracer: Tracer,
        processor: OtlpSpanProcessor | None,
        settings: Settings,
        request_id_attribute: str,
    ) -> None:
        self._gate = provider.gate
        self._processors: Any = tracer.span_processor
        self._expected = _processors_of(provider)
        self._processor = processor
        self._new_root_ids = make_root_ids(provider.id_generator)
        self._new_child_ids = make_child_ids(provider.id_generator)
        self._sampled_below = _sampled_below(settings)
        self._follows_callers = settings.traces_sampler.startswith("parentbased_")
        root_flags = _root_flags(provider.id_generator)
        self._begin_sampled = bind(tracer, root_flags).begin
        self._begin_unsampled = bind_unsampled(root_flags).begin
        self._scope = tracer._instrumentation_scope  # noqa: SLF001 -- checked against a stock span
        self._encoder = ServerSpanEncoder(request_id_attribute)
        self._encoded: list[QueuedSpan] = []

    def start(self, record: RequestRecord, parent: SpanContext | None) -> trace.Span | None:
        """Start a server span, or a span without a record if the trace is not sampled; None if it is the SDK's turn."""
        if self._processors._span_processors is not self._expected or not self._gate.is_open:  # noqa: SLF001 -- replaced when added to
            return None
        record.id_digits = digits = self._new_root_ids() if parent is None else self._new_child_ids(parent)
        if parent is None or not self._follows_callers:
            is_sampled = digits[_LOW_HALF] < self._sampled_below
        else:
            is_sampled = parent.trace_flags.sampled
        if is_sampled:
            record.sampled = True
            return self._begin_sampled(digits, parent, record)
        return self._begin_unsampled(digits, parent)

    def end(self, span: ServerSpan, end_unix_ns: int) -> bool:
        """End a span that nobody has touched, and that nobody else is to see; tell whether that was so."""
        if span.is_touched or self._processors._span_processors is not self._expected:  # noqa: SLF001 -- see start
            return False
        span.end_unsent(end_unix_ns)
        return True

    def encode(self, record: RequestRecord) -> None:
        """Encode the span, which has ended untouched, of a record; `send` sends it."""
        if self._processor is not None:
            end_unix_ns = record.start_unix_ns + record.duration_ns
            encoded = self._encoder.encode(record, record.caller, end_unix_ns)
            self._encoded.append((self._scope, encoded))

    def send(self) -> None:
        """Send what has been encoded."""
        if self._encoded and self._processor is not None:
            spans, self._encoded = self._encoded, []
            self._processor.enqueue(spans)


def make_factory(
    provider: trace.TracerProvider, tracer: trace.Tracer, settings: Settings, request_id_attribute: str
) -> SpanFactory | None:
    """
    Return the factory for a provider's spans; None where the SDK has to make them.

    That is: the provider, a processor or the limits are somebody else's, or this version of the SDK is not one whose
    spans ours are equal to, which is tried on two spans here and now.
    """
    if not isinstance(provider, ObslibTracerProvider) or not isinstance(tracer, Tracer):
        return None
    processors = _processors_of(provider)
    if processors is None or not all(isinstance(processor, OtlpSpanProcessor) for processor in processors):
        return None
    limits = tracer._span_limits  # noqa: SLF001 -- what OTEL_SPAN_* variables say
    if limits.max_span_attribute_length is not None:
        return None
    if len(processors) > 1 or not contexts_are_equal() or not _spans_are_equal(settings, request_id_attribute):
        return None
    processor = processors[0] if processors else None
    return SpanFactory(provider, tracer, processor, settings, request_id_attribute)


def _sampled_below(settings: Settings) -> str:
    """Return the lower half of a trace id below which `make_sampler`'s sampler draws a trace that begins here."""
    is_off = settings.traces_sampler.endswith("always_off")
    ratio = settings.traces_sampler_ratio if settings.traces_sampler.endswith("traceidratio") else float(not is_off)
    # https://opentelemetry.io/docs/specs/otel/trace/sdk/#traceidratiobased, as the SDK's own sampler has it: of digits
    # of one length the smaller number is the smaller text.
    return f"{round(ratio * (1 << 64)):016x}" if ratio < 1 else _BEYOND_DIGITS


def _root_flags(generator: IdGenerator) -> int:
    """Return the flags that the SDK gives to traces which begin here."""
    is_random = getattr(generator, "is_trace_id_random", None)
    return getattr(TraceFlags, "RANDOM_TRACE_ID", 0) if is_random is not None and is_random() else 0


def _processors_of(provider: TracerProvider) -> Any:
    multi = provider._active_span_processor  # noqa: SLF001 -- there is no public way to see who listens
    return multi._span_processors if isinstance(multi, SynchronousMultiSpanProcessor) else None  # noqa: SLF001 -- likewise


# --- the check at set-up ---------------------------------------------------------------------------------------------


class _Keep(SpanProcessor):
    """Keeps the span that ended last."""

    span: ReadableSpan | None = None

    def on_end(self, span: ReadableSpan) -> None:
        self.span = span


def _spans_are_equal(settings: Settings, request_id_attribute: str) -> bool:
    """Make a stock span and one of ours, untouched and touched, and compare what is sent of them."""
    try:
        keep = _Keep()
        provider = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
        provider.add_span_processor(keep)
        tracer = provider.get_tracer("obslib", settings.service_version or "0")
        span_class = bind(tracer, _root_flags(provider.id_generator))  # type: ignore[arg-type]  # the SDK's provider makes the SDK's tracers
        for touch in (_leave_alone, _touch):
            record = _example()
            stock = tracer.start_span(
                initial_name(record), None, SpanKind.SERVER, start_attributes(record), None, record.start_unix_ns
            )
            record.id_digits = digits_of(stock.get_span_context())
            ours = span_class.begin(record.id_digits, None, record)
            sent = []
            for span in (stock, ours):
                touch(span)
                span.update_name(final_name(record))
                describe_outcome(span, record, request_id_attribute)
                span.end(record.start_unix_ns + 5)
                sent.append(encode_span(keep.span))  # type: ignore[arg-type]  # ended spans are kept
                keep.span = None
            if sent[0] != sent[1]:
                return False
        encoder = ServerSpanEncoder(request_id_attribute)
        untouched = span_class.begin(record.id_digits, None, record)
        expected = span_class.begin(record.id_digits, None, record)
        describe_outcome(expected, record, request_id_attribute)
        expected.update_name(final_name(record))
        expected.end(record.start_unix_ns + 5)
        encoded = encoder.encode(record, None, record.start_unix_ns + 5)
        return not untouched.is_touched and encoded == encode_span(keep.span)  # type: ignore[arg-type]  # likewise
    except Exception:  # noqa: BLE001 -- whatever another SDK does differently: then its own spans are used
        return False


def _leave_alone(_span: trace.Span) -> None:
    return


def _touch(span: trace.Span) -> None:
    span.set_attribute("a", 1)
    span.set_attributes({"b": ("x",), "c": True})
    span.add_event("e", {"d": 1.5}, timestamp=3)
    span.add_link(SpanContext(1, 2, is_remote=True))
    span.set_status(StatusCode.ERROR, "why")
    span.update_name("renamed")


def _example() -> RequestRecord:
    headers = {b"host": b"example.org:8080", b"user-agent": b"check"}
    record = RequestRecord.begin("GET", "/a/1", "http", "1.1", headers, "192.0.2.1", "id-1", 0, 1)
    record.query, record.route, record.status_code = "q=1", "/a/{b}", 503
    record.error_type = "503"
    record.response_body_bytes = 300
    return record
