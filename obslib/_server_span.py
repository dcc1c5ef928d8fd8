"""The server span: a stock SDK span whose parts are made only when somebody asks for them.

What there is to say about a request stands in its record, so the span of an ordinary request is its ids and little
else, and is encoded from the record when it ends. As soon as user code touches it (an attribute, an event, a status, a
new name) or a processor of the user's wants it, the parts are made and the SDK's own code does the rest.
"""

import threading
from collections.abc import Callable
from typing import Any, ClassVar, Final, Self

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.trace import Span, SpanLimits, Tracer
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from obslib._record import RequestRecord

_UNSET: Final = Status(StatusCode.UNSET)
#: What `__init__` puts into the span's dictionary; more of it means that somebody has touched the span.
UNTOUCHED_SIZE: Final = 5

StartAttributes = Callable[[RequestRecord], dict[str, AttributeValue]]


class ServerSpan(Span):
    """
    One server span; `bind` makes the class for a tracer.

    What all spans of a tracer share are attributes of that class, the parts come into being in `__getattr__`.
    """

    _kind = SpanKind.SERVER
    _end_time: int | None = None
    _status = _UNSET
    _trace_config = None
    _record_exception = True
    _set_status_on_exception = True
    _record_end_metrics = None
    _limits: SpanLimits
    start_attributes: ClassVar[StartAttributes]

    def __new__(cls, *_: object) -> Self:
        """Make an instance; the SDK's own way looks for instances of its class, to refuse them."""
        return object.__new__(cls)

    def __init__(self, name: str, context: SpanContext, parent: SpanContext | None, record: RequestRecord) -> None:
        # Not super().__init__(): what that makes is made when it is asked for.
        self._name = name
        self._context = context
        self._parent = parent
        self._start_time = record.start_unix_ns
        self._request_record = record

    def __getattr__(self, name: str) -> Any:
        """Make a part that nobody has needed so far."""
        made: Any
        if name == "_lock":
            made = threading.Lock()
        elif name == "_attributes":
            limits = self._limits
            made = BoundedAttributes(
                limits.max_span_attributes,
                type(self).start_attributes(self._request_record),
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

    def close(self, end_time: int) -> None:
        """End a span that has been encoded from its record: no processor is told."""
        self._end_time = end_time


def bind(tracer: Tracer, start_attributes: StartAttributes) -> type[ServerSpan]:
    """Return the class of a tracer's server spans, which the SDK's code cannot tell from its own."""
    return type(
        "ServerSpan",
        (ServerSpan,),
        {
            "__module__": ServerSpan.__module__,
            "_sampler": tracer.sampler,
            "_resource": tracer.resource,
            "_span_processor": tracer.span_processor,
            "_limits": tracer._span_limits,  # noqa: SLF001 -- checked against a stock span at set-up
            "_instrumentation_info": tracer.instrumentation_info,
            "_instrumentation_scope": tracer._instrumentation_scope,  # noqa: SLF001 -- likewise
            "start_attributes": staticmethod(start_attributes),
        },
    )
