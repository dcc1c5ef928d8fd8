"""The server span: a stock SDK span whose parts are made only when somebody asks for them.

What there is to say about a request stands in its record, so the span of an ordinary request is its ids and little
else, and is encoded from the record when it ends. As soon as user code touches it (an attribute, an event, a status, a
new name) or a processor of the user's wants it, the parts are made and the SDK's own code does the rest.
"""

import threading
from typing import Any, ClassVar, Final, Protocol, Self

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.trace import Span, SpanLimits, Tracer
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode

from obslib._record import RequestRecord
from obslib._span_attributes import start_attributes

#: Reentrant: a request may be thrown away at any allocation, and then it is recorded.
_MAKING_IDS: Final = threading.RLock()
_UNSET: Final = Status(StatusCode.UNSET)


class NewContext(Protocol):
    """Makes a span's ids and flags."""

    def __call__(self, parent: SpanContext | None, trace_id: int, sampled: bool, /) -> SpanContext:
        """Return them; a trace id of 0 is one that is yet to be made."""


class ServerSpan(Span):
    """
    One server span; `bind` makes the class for a tracer, whose spans `begin` makes.

    What all spans of a tracer share are attributes of that class, the parts come into being in `__getattr__`.
    """

    _kind = SpanKind.SERVER
    _end_time: int | None = None
    _status = _UNSET
    _trace_config = None
    _record_exception = True
    _set_status_on_exception = True
    _record_end_metrics = None
    new_context: ClassVar[NewContext]
    _context: SpanContext
    _limits: SpanLimits
    _request_record: RequestRecord
    #: The caller's, or one that was made to decide about sampling; 0 while there is none.
    known_trace_id: int
    has_ids = False
    #: Whether anybody has asked for a part, and may have changed it, or has renamed the span.
    is_touched = False
    #: Whether it has ended and is to be encoded from its record.
    is_unsent = False

    @classmethod
    def begin(cls, name: str, trace_id: int, parent: SpanContext | None, record: RequestRecord) -> Self:
        """Make a span. Not in `__init__`: the SDK's parts come later, and calling a class costs more than this does."""
        span = object.__new__(cls)
        span._name = name
        span.known_trace_id = trace_id
        span._parent = parent
        span._start_time = record.start_unix_ns
        span._request_record = record
        return span

    def __getattr__(self, name: str) -> Any:
        """Make a part that nobody has needed so far."""
        made: Any
        if name == "_context":
            return self.get_span_context()
        self.is_touched = True
        if name == "_lock":
            made = threading.Lock()
        elif name == "_attributes":
            limits = self._limits
            made = BoundedAttributes(
                limits.max_span_attributes,
                start_attributes(self._request_record),
                immutable=False,
                max_value_len=limits.max_span_attribute_length,
            )
        elif name == "_events":
            made = self._new_events()  # type: ignore[no-untyped-call]
        elif name == "_links":
            made = self._new_links(())
        else:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        # Two threads may come here at once: both must get the same lock.
        return self.__dict__.setdefault(name, made)

    def get_span_context(self) -> SpanContext:
        """Return the ids and flags, made now if nobody has asked for them before."""
        return self._context if self.has_ids else _make_ids(self, True)

    def update_name(self, name: str) -> None:
        """Rename the span, and note that somebody has touched it."""
        self.is_touched = True
        super().update_name(name)

    def end_unsent(self, end_time: int) -> None:
        """End the span, to be encoded from its record later; no processor is told."""
        self._end_time = end_time
        self.is_unsent = True


class UnsampledSpan(NonRecordingSpan):
    """The server span of a trace that is not sampled: ids, once somebody asks for them."""

    new_context: ClassVar[NewContext]
    _parent: SpanContext | None
    known_trace_id: int
    has_ids = False

    @classmethod
    def begin(cls, trace_id: int, parent: SpanContext | None) -> Self:
        """Make a span; see `ServerSpan.begin`."""
        span = object.__new__(cls)
        span._parent = parent
        span.known_trace_id = trace_id
        return span

    def get_span_context(self) -> SpanContext:
        """Return the ids and flags, made now if nobody has asked for them before."""
        return self._context if self.has_ids else _make_ids(self, False)

    def __getattr__(self, name: str) -> Any:
        """Make the ids for code that looks into the span."""
        if name != "_context":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self.get_span_context()


def _make_ids(span: ServerSpan | UnsampledSpan, sampled: bool) -> SpanContext:
    # Two threads may come here at once: both must get the same ids.
    with _MAKING_IDS:
        if not span.has_ids:
            span._context = span.new_context(span._parent, span.known_trace_id, sampled)  # noqa: SLF001 -- our own classes
            span.has_ids = True
    return span._context  # noqa: SLF001 -- likewise


def bind_unsampled(new_context: NewContext) -> type[UnsampledSpan]:
    """Return the class of unsampled server spans whose ids are made like that."""
    return type("UnsampledSpan", (UnsampledSpan,), {"new_context": staticmethod(new_context)})


def bind(tracer: Tracer, new_context: NewContext) -> type[ServerSpan]:
    """Return the class of a tracer's server spans, which the SDK's code cannot tell from its own."""
    return type(
        "ServerSpan",
        (ServerSpan,),
        {
            "__module__": ServerSpan.__module__,
            "new_context": staticmethod(new_context),
            "_sampler": tracer.sampler,
            "_resource": tracer.resource,
            "_span_processor": tracer.span_processor,
            "_limits": tracer._span_limits,  # noqa: SLF001 -- checked against a stock span at set-up
            "_instrumentation_info": tracer.instrumentation_info,
            "_instrumentation_scope": tracer._instrumentation_scope,  # noqa: SLF001 -- likewise
        },
    )
