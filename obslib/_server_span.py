"""The server span: a stock SDK span whose parts are made only when somebody asks for them.

What there is to say about a request stands in its record, so the span of an ordinary request is its ids and little
else, and is encoded from the record when it ends. As soon as user code touches it (an attribute, an event, a status, a
new name) or a processor of the user's wants it, the parts are made and the SDK's own code does the rest.
"""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Final, Self

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.trace import Span, SpanLimits, Tracer
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import DEFAULT_TRACE_STATE

from obslib._record import TRACE_DIGITS, RequestRecord
from obslib._span_attributes import initial_name, start_attributes

_UNSET: Final = Status(StatusCode.UNSET)
_RANDOM: Final = getattr(TraceFlags, "RANDOM_TRACE_ID", 0)
_FLAGS: Final = tuple(TraceFlags(number) for number in range(4))
#: What `SpanContext.__new__` does once it has found the ids valid; see `contexts_are_equal`.
_make_context: Final = partial(tuple.__new__, SpanContext)


class _part:  # noqa: N801 -- a decorator
    """A part that is made when it is asked for, and then is an attribute as any other."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make
        self._name = make.__name__

    def __get__(self, span: Any, _owner: type) -> Any:
        # Two threads may come here at once: both must get the same lock.
        return span.__dict__.setdefault(self._name, self._make(span))


class _LazyContext:
    """The part of our spans that makes a context when somebody asks for it."""

    #: The flags of a trace that begins here.
    root_flags: ClassVar[int]
    is_sampled: ClassVar[bool]
    #: See `_span_ids`.
    _id_digits: str
    _parent: SpanContext | None

    @_part
    def _context(self) -> SpanContext:
        digits, parent = self._id_digits, self._parent
        if parent is None:
            flags, trace_state = self.root_flags, DEFAULT_TRACE_STATE
        else:
            flags, trace_state = parent.trace_flags & _RANDOM, parent.trace_state
        trace_id, span_id = int(digits[:TRACE_DIGITS], 16), int(digits[TRACE_DIGITS:], 16)
        return _make_context((trace_id, span_id, False, _FLAGS[flags | self.is_sampled], trace_state, True))


class ServerSpan(_LazyContext, Span):
    """
    One server span; `bind` makes the class for a tracer, whose spans `begin` makes.

    What all spans of a tracer share are attributes of that class.
    """

    _kind = SpanKind.SERVER
    _end_time: int | None = None
    _status = _UNSET
    _trace_config = None
    _record_exception = True
    _set_status_on_exception = True
    _record_end_metrics = None
    is_sampled = True
    _limits: SpanLimits
    _request_record: RequestRecord
    #: Whether anybody has asked for a part, and may have changed it, or has renamed the span.
    is_touched = False

    @classmethod
    def begin(cls, id_digits: str, parent: SpanContext | None, record: RequestRecord) -> Self:
        """Make a span. Not in `__init__`: the SDK's parts come later, and calling a class costs more than this does."""
        span = object.__new__(cls)
        span._id_digits = id_digits
        span._parent = parent
        span._request_record = record
        return span

    @_part
    def _name(self) -> str:
        return initial_name(self._request_record)

    @_part
    def _start_time(self) -> int:
        return self._request_record.start_unix_ns

    @_part
    def _lock(self) -> threading.Lock:
        self.is_touched = True
        return threading.Lock()

    @_part
    def _attributes(self) -> BoundedAttributes:
        self.is_touched = True
        limits = self._limits
        return BoundedAttributes(
            limits.max_span_attributes,
            start_attributes(self._request_record),
            immutable=False,
            max_value_len=limits.max_span_attribute_length,
        )

    @_part
    def _events(self) -> Any:
        self.is_touched = True
        return self._new_events()  # type: ignore[no-untyped-call]

    @_part
    def _links(self) -> Any:
        self.is_touched = True
        return self._new_links(())

    def update_name(self, name: str) -> None:
        """Rename the span, and note that somebody has touched it."""
        self.is_touched = True
        super().update_name(name)

    def end_unsent(self, end_time: int) -> None:
        """End the span, to be encoded from its record later; no processor is told."""
        self._end_time = end_time


class UnsampledSpan(_LazyContext, NonRecordingSpan):
    """The server span of a trace that is not sampled: ids, and a context once somebody asks for it."""

    is_sampled = False

    @classmethod
    def begin(cls, id_digits: str, parent: SpanContext | None) -> Self:
        """Make a span; see `ServerSpan.begin`."""
        span = object.__new__(cls)
        span._id_digits = id_digits
        span._parent = parent
        return span


def bind_unsampled(root_flags: int) -> type[UnsampledSpan]:
    """Return the class of unsampled server spans, in new traces with such flags."""
    return type("UnsampledSpan", (UnsampledSpan,), {"root_flags": root_flags})


def bind(tracer: Tracer, root_flags: int) -> type[ServerSpan]:
    """Return the class of a tracer's server spans, which the SDK's code cannot tell from its own."""
    return type(
        "ServerSpan",
        (ServerSpan,),
        {
            "__module__": ServerSpan.__module__,
            "root_flags": root_flags,
            "_sampler": tracer.sampler,
            "_resource": tracer.resource,
            "_span_processor": tracer.span_processor,
            "_limits": tracer._span_limits,  # noqa: SLF001 -- checked against a stock span at set-up
            "_instrumentation_info": tracer.instrumentation_info,
            "_instrumentation_scope": tracer._instrumentation_scope,  # noqa: SLF001 -- likewise
        },
    )


def contexts_are_equal() -> bool:
    """Make a stock context and one of ours, and compare all they say."""
    flags = TraceFlags(1)
    stock, ours = SpanContext(1, 2, False, flags), _make_context((1, 2, False, flags, DEFAULT_TRACE_STATE, True))
    parts = ("trace_id", "span_id", "is_remote", "trace_flags", "trace_state", "is_valid")
    return tuple(stock) == tuple(ours) and all(getattr(stock, part) == getattr(ours, part) for part in parts)
