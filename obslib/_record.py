"""The idea obslib stands on: a request becomes one record, and each signal is a function of that record."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, ClassVar, Final, Protocol, TypeVar

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext

from obslib import names

#: The most values `bind` keeps for one request; further keys are left out.
MAX_BOUND_VALUES: Final = 32
Scope = MutableMapping[str, Any]
_NO_IDS: Final = ("", "")
_NO_FAILURES: Final = frozenset({"", names.ERROR_CLIENT_DISCONNECT})


class RequestRecord:
    """Everything the three signals say about one request.

    Written by the middleware (and by `obslib.bind`), complete when the request is over, and read-only for
    recorders by convention. The traces recorder starts first and fills `span` and `sampled`.
    """

    __slots__ = (
        "_ids",
        "bound",
        "caller",
        "client_address",
        "client_disconnected",
        "duration_ns",
        "error_type",
        "exception",
        "headers",
        "http_version",
        "is_urgent",
        "method",
        "mount_context",
        "mount_route",
        "mount_template",
        "original_method",
        "otel_context",
        "path",
        "query",
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
        "time_to_first_byte_ns",
    )

    #: Where lines logged while this request is served go; None to the pipeline that was set up last.
    log_pipeline: ClassVar[object] = None
    #: Told of its background tasks.
    background: ClassVar["TaskRecorder | None"] = None

    def __init__(
        self, method: str, path: str, scheme: str, http_version: str, start_clock_ns: int, start_unix_ns: int
    ) -> None:
        #: A known request method, or `names.OTHER` with the caller's own beside it.
        self.method = method
        self.original_method = ""
        self.path = path
        #: `http`, `https` or `names.OTHER`.
        self.scheme = scheme
        self.http_version = http_version
        #: Header values by lower-case name; several of one name are joined as RFC 9110 joins lists.
        self.headers: Mapping[bytes, bytes] = {}
        self.client_address = ""
        self.request_id = ""
        #: The query string, secrets replaced; filled by the traces recorder.
        self.query = ""
        #: Nanoseconds on the monotonic clock, and since 1970-01-01 UTC.
        self.start_clock_ns = start_clock_ns
        self.start_unix_ns = start_unix_ns
        #: One reading of the clock, which every signal reports.
        self.duration_ns = 0
        #: Of a response that is sent in several pieces, when the first of them was; else 0.
        self.time_to_first_byte_ns = 0
        #: The template that matched, or `""`.
        self.route = ""
        #: 0 until a response starts.
        self.status_code = 0
        self.request_body_bytes = 0
        self.response_body_bytes = 0
        #: `""`, a 5xx code, `client_disconnect` or `incomplete_response`.
        self.error_type = ""
        self.exception: BaseException | None = None
        self.client_disconnected = False
        #: Whether it failed, or refers to what is the user's: an exception, bound values.
        self.is_urgent = False
        self._ids: tuple[str, str] | None = None
        self.sampled = False
        #: The caller's span, if this request continues its trace.
        self.caller: SpanContext | None = None
        #: Until the request is recorded.
        self.span: Span | None = None
        #: What `obslib.bind` was given.
        self.bound: dict[str, Any] | None = None
        #: The OpenTelemetry context in which the request is served; set by the traces recorder.
        self.otel_context: Context | None = None
        #: The templates of the mounts passed so far, and what was in the scope when the last one was entered.
        self.mount_template = ""
        self.mount_route: object = None
        self.mount_context: object = None

    @property
    def trace_id(self) -> str:
        """32 lower-case hexadecimal digits, or `""`."""
        return self.ids[0]

    @property
    def span_id(self) -> str:
        """16 lower-case hexadecimal digits, or `""`."""
        return self.ids[1]

    @property
    def ids(self) -> tuple[str, str]:
        """Trace id and span id."""
        return self._ids or self._read_ids()

    def _read_ids(self) -> tuple[str, str]:
        span = self.span
        if span is None:
            return _NO_IDS
        own_ids = getattr(span, "id_bytes", None)
        if own_ids is not None:
            digits = own_ids().hex()
        else:
            context = span.get_span_context()
            if not context.is_valid:
                return _NO_IDS
            digits = f"{context.trace_id:032x}{context.span_id:016x}"
        self._ids = made = digits[:32], digits[32:]
        return made

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

    def finished(self, record: RequestRecord) -> None:
        """Called once, soon after the request is over, in any thread but not in two at once; see `_backlog`."""

    def hand_over(self) -> None:
        """Called after a row of `finished`: pass on what they have made, all of it together."""


class SpanRecorder(Recorder, Protocol):
    """The recorder of traces: a span can be seen by user code, so it starts and ends when the request does."""

    def started(self, record: RequestRecord, scope: Scope) -> None:
        """Called before the application sees the request."""

    def ended(self, record: RequestRecord) -> None:
        """Called once, after the last byte of the response or when it is certain that none will follow."""


class TaskRecorder(Protocol):
    """Told of background tasks."""

    async def run(self, task_name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Await a task's work and say how it went; what it raises goes on."""


AnyRecord = TypeVar("AnyRecord", bound=RequestRecord)


def bind_record(
    record_class: type[AnyRecord], log_pipeline: object, background: TaskRecorder | None
) -> type[AnyRecord]:
    """Return the class of one application's records: what all of them have in common are attributes of it."""
    return type(
        record_class.__name__,
        (record_class,),
        {"__slots__": (), "log_pipeline": log_pipeline, "background": background},
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
    return "" if record is None else record.request_id
