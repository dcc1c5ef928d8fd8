"""The idea obslib stands on: a request becomes one record, and each signal is a function of that record."""

import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, ClassVar, Final, Generic, NamedTuple, Protocol, Self, TypeVar, overload

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext

from obslib import names
from obslib._random_digits import RandomDigits

#: The most values `bind` keeps for one request; further keys are left out.
MAX_BOUND_VALUES: Final = 32
#: How many of `RequestRecord.id_digits` are the trace's; the rest is the span's.
TRACE_DIGITS: Final = 32
SPAN_DIGITS: Final = 16
TRACE_PART: Final = slice(TRACE_DIGITS)
SPAN_PART: Final = slice(TRACE_DIGITS, None)
Scope = MutableMapping[str, Any]
_NO_FAILURES: Final = frozenset({"", names.ERROR_CLIENT_DISCONNECT})


#: Makes the id of a request that brings none.
random_request_id: Final = RandomDigits(32).draw


class Mounts(NamedTuple):
    """The mounts that a request has passed."""

    #: Their templates, one after the other.
    template: str
    #: What was in the scope when the last one was entered.
    route: object
    context: object


AnyValue = TypeVar("AnyValue")


class _Rare(Generic[AnyValue]):
    """A field that few requests have: a record has no place for it until it is set, and is made the faster for that."""

    _lock: ClassVar[Any]

    def __init__(self, default: AnyValue) -> None:
        self._default = default

    @classmethod
    def reset_after_fork(cls) -> None:
        """Forget a lock that one of the parent's threads may have held."""
        cls._lock = threading.RLock()

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, record: None, owner: type) -> Self: ...
    @overload
    def __get__(self, record: "RequestRecord", owner: type) -> AnyValue: ...
    def __get__(self, record: "RequestRecord | None", owner: type) -> "Self | AnyValue":
        if record is None:
            return self
        return self._default if record.rare is None else record.rare.get(self._name, self._default)

    def __set__(self, record: "RequestRecord", value: AnyValue) -> None:
        if record.rare is None:
            made: dict[str, Any] = {}  # here: an allocation may throw a coroutine away, which would come back to here
            with self._lock:  # user code may bind values in several threads
                if record.rare is None:
                    record.rare = made
        record.rare[self._name] = value


_Rare.reset_after_fork()
os.register_at_fork(after_in_child=_Rare.reset_after_fork)


class RequestRecord:
    """Everything the three signals say about one request.

    Written by the middleware (and by `obslib.bind`), complete when the request is over, and read-only for
    recorders by convention. The traces recorder starts first and fills `span` and `sampled`.
    """

    __slots__ = (
        "caller",
        "client_address",
        "duration_ns",
        "error_type",
        "headers",
        "http_version",
        "id_digits",
        "method",
        "path",
        "query",
        "rare",
        "request_body_bytes",
        "request_id",
        "response_body_bytes",
        "route",
        "sampled",
        "scheme",
        "span",
        "start_clock_ns",
        "start_unix_ns",
        "status_code",
    )

    #: Where lines logged while this request is served go; None to the pipeline that was set up last.
    log_pipeline: ClassVar[object] = None
    #: Told of its background tasks.
    background: ClassVar["TaskRecorder | None"] = None
    #: Makes an id for a request that has none.
    new_request_id = staticmethod(random_request_id)

    #: A known request method, or `names.OTHER`.
    method: str
    path: str
    #: `http`, `https` or `names.OTHER`.
    scheme: str
    http_version: str
    #: Header values by lower-case name; of several of one name the last, or of connections all, as RFC 9110 joins
    #: lists.
    headers: Mapping[bytes, bytes]
    client_address: str
    #: `""` where it would stand in no line and no span, while nobody has asked for it.
    request_id: str
    #: The query string, secrets replaced; filled by the traces recorder.
    query: str
    #: Nanoseconds on the monotonic clock, and since 1970-01-01 UTC.
    start_clock_ns: int
    start_unix_ns: int
    #: One reading of the clock, which every signal reports.
    duration_ns: int
    #: The template that matched, or `""`.
    route: str
    #: 0 until a response starts.
    status_code: int
    request_body_bytes: int
    response_body_bytes: int
    #: `""`, a 5xx code, `client_disconnect` or `incomplete_response`.
    error_type: str
    #: 32 lower-case hexadecimal digits of the trace id and 16 of the span id, or `""`; set by the traces recorder.
    id_digits: str
    sampled: bool
    #: The caller's span, if this request continues its trace.
    caller: SpanContext | None
    #: Until the span ends, if it is obslib's own and nobody has touched it: a record that is sampled and has no span is
    #: one whose span is still to be encoded. Of any other, until the request is recorded.
    span: Span | None
    #: The fields below that this request has; None for the ordinary one.
    rare: dict[str, Any] | None
    #: The caller's own method where that is none we know, or `""`.
    original_method = _Rare("")
    #: The mounts passed so far.
    mounts = _Rare[Mounts | None](None)
    #: Whether the response is to end with trailers.
    has_trailers = _Rare(False)
    #: Of a response that is sent in several pieces, when the first of them was; else 0.
    time_to_first_byte_ns = _Rare(0)
    client_disconnected = _Rare(False)
    exception = _Rare[BaseException | None](None)
    #: What `obslib.bind` was given.
    bound = _Rare[dict[str, Any] | None](None)
    #: Whether it failed, or refers to what is the user's: an exception, bound values.
    is_urgent = _Rare(False)

    @classmethod
    def begin(
        cls,
        method: str,
        path: str,
        scheme: str,
        http_version: str,
        headers: Mapping[bytes, bytes],
        client_address: str,
        request_id: str,
        start_clock_ns: int,
        start_unix_ns: int,
    ) -> Self:
        """Make the record of a request that begins. Not `__init__`: to call a class costs more than this does."""
        record = object.__new__(cls)
        record.method = method
        record.path = path
        record.scheme = scheme
        record.http_version = http_version
        record.headers = headers
        record.client_address = client_address
        record.start_clock_ns = start_clock_ns
        record.start_unix_ns = start_unix_ns
        record.request_id = request_id
        record.query = ""
        record.duration_ns = 0
        record.route = ""
        record.status_code = 0
        record.request_body_bytes = 0
        record.response_body_bytes = 0
        record.error_type = ""
        record.id_digits = ""
        record.sampled = False
        record.caller = None
        record.span = None
        record.rare = None
        return record

    @property
    def trace_id(self) -> str:
        """32 lower-case hexadecimal digits, or `""`."""
        return self.id_digits[TRACE_PART]

    @property
    def span_id(self) -> str:
        """16 lower-case hexadecimal digits, or `""`."""
        return self.id_digits[SPAN_PART]

    @property
    def user_agent(self) -> str:
        """What the caller says it is, or `""`."""
        return self.headers.get(b"user-agent", b"").decode("latin-1")

    @property
    def is_failure(self) -> bool:
        """Whether it is the service that failed: a client that leaves is none of its failures."""
        return self.error_type not in _NO_FAILURES


class Recorder(Protocol):
    """One signal: told when a request is over. Must not await and must not block."""

    @property
    def signal(self) -> str:
        """The value of the label `signal` when this recorder fails."""

    def finished(self, records: Iterable[RequestRecord]) -> None:
        """
        Called soon after requests are over, in any thread but not in two at once; see `_backlog`.

        Takes one record after the other. If it raises it is called again, with those that it has not taken.
        """

    def hand_over(self) -> None:
        """Called after a row of `finished`: pass on what they have made, all of it together."""


class SpanRecorder(Recorder, Protocol):
    """The recorder of traces: a span can be seen by user code, so it starts and ends when the request does."""

    def started(self, record: RequestRecord, scope: Scope) -> Context | None:
        """Called before the application sees the request; returns the context in which it is to be served."""

    def ended(self, record: RequestRecord) -> None:
        """Called once, after the last byte of the response or when it is certain that none will follow."""


class TaskRecorder(Protocol):
    """Told of background tasks."""

    async def run(self, task_name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Await a task's work and say how it went; what it raises goes on."""


AnyRecord = TypeVar("AnyRecord", bound=RequestRecord)


def bind_record(
    record_class: type[AnyRecord],
    log_pipeline: object,
    background: TaskRecorder | None,
    new_request_id: Callable[[], str],
) -> type[AnyRecord]:
    """Return the class of one application's records: what all of them have in common are attributes of it."""
    return type(
        record_class.__name__,
        (record_class,),
        {
            "__slots__": (),
            "log_pipeline": log_pipeline,
            "background": background,
            "new_request_id": staticmethod(new_request_id),
        },
    )


#: The record of the request that is being served here, set once per request by the middleware.
current_record: ContextVar[RequestRecord | None] = ContextVar("obslib_record", default=None)


def bind(**values: Any) -> None:
    """
    Add values to every later log line of this request, its access line included.

    Works from async and sync endpoints, dependencies, threads and below `BaseHTTPMiddleware`, because the values live
    in the request's record rather than in the context that happens to be current. Outside a request it does nothing.

    Args:
        **values: Anything that can be logged. At most 32 keys a request; later keys are left out.
    """
    record = current_record.get()
    if record is None:
        return
    bound = record.bound
    if bound is None:
        bound = record.bound = {}
        record.is_urgent = True
    for key, value in values.items():
        if key in bound or len(bound) < MAX_BOUND_VALUES:
            bound[key] = value


def request_id() -> str:
    """Return the id of the request that is being served here, `""` outside of one."""
    record = current_record.get()
    if record is None:
        return ""
    if not record.request_id:
        record.request_id = record.new_request_id()
    return record.request_id
