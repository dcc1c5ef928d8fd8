"""Which application a call that this process makes belongs to, and how long it takes."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from opentelemetry import context as otel_context

from obslib._client_metrics import ClientMetrics
from obslib._connection_pools import ConnectionPool
from obslib._current_context import CURRENT_CONTEXT
from obslib._method_patch import Wrap
from obslib._record import current_record

#: opentelemetry-api's keys, as its instrumentation packages read them: excluded routes and senders of spans set them.
_SUPPRESS: Final = otel_context._SUPPRESS_INSTRUMENTATION_KEY  # noqa: SLF001
_SUPPRESS_HTTP: Final = otel_context._SUPPRESS_HTTP_INSTRUMENTATION_KEY  # noqa: SLF001


class Counters:
    """
    The applications of this process that count one library's calls.

    A call counts once: for the application whose request it is made for, background tasks included, or for none where
    that one does not count; outside of any request, for the application that was set up first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: tuple[ClientMetrics, ...] = ()

    def push(self, metrics: ClientMetrics) -> None:
        """Let an application count."""
        with self._lock:
            self._all = (*self._all, metrics)

    def remove(self, metrics: ClientMetrics) -> None:
        """Let it count no more."""
        with self._lock:
            self._all = tuple(each for each in self._all if each is not metrics)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._all)

    def current(self) -> ClientMetrics | None:
        """Return who counts a call made here and now; None where nobody shall."""
        counters = self._all
        if not counters or CURRENT_CONTEXT.get().get(_SUPPRESS):
            return None
        record = current_record.get()
        if record is None:
            return counters[0]
        for metrics in counters:
            if metrics.serves(record):
                return metrics
        return None


def is_http_suppressed() -> bool:
    """Tell whether requests over HTTP, and nothing else, shall not be counted here and now."""
    return bool(CURRENT_CONTEXT.get().get(_SUPPRESS_HTTP))


class Call:
    """
    A block that is timed, and counted when it returns or raises.

    Args:
        count: Called as `count(metrics, *details, result, duration_ns, error)`.
    """

    __slots__ = ("_count", "_details", "_metrics", "_started_ns", "result")

    def __init__(self, metrics: ClientMetrics, count: Callable[..., None], *details: Any) -> None:
        self._metrics = metrics
        self._count = count
        self._details = details
        #: What the call has returned; None until it has.
        self.result: Any = None
        self._started_ns = metrics.clock_ns()

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(error)

    def end(self, error: BaseException | None) -> None:
        """Count it. Does not raise."""
        metrics = self._metrics
        metrics.safely(self._count, *self._details, self.result, metrics.clock_ns() - self._started_ns, error)


class Obtaining(Call):
    """
    A block in which a connection is waited for.

    Args:
        obtained: Told the connection.
    """

    __slots__ = ("_obtained", "_pool")

    def __init__(
        self, metrics: ClientMetrics, pool: ConnectionPool, obtained: Callable[[Any], None] = lambda _connection: None
    ) -> None:
        super().__init__(metrics, self._end)
        self._pool = pool
        self._obtained = obtained
        metrics.show(pool)

    def __enter__(self) -> None:
        self._pool.waiting.add(self)

    def _end(self, metrics: ClientMetrics, connection: Any, duration_ns: int, error: BaseException | None) -> None:
        self._pool.waiting.discard(self)
        metrics.connection_obtained(self._pool, duration_ns, error)
        if error is None:
            self._obtained(connection)


#: Begins to time a call: who counts it, the object whose method is called, and the arguments; None not to.
Begin = Callable[[ClientMetrics, Any, tuple[Any, ...]], Call | None]


def timed(counters: Counters, begin: Begin) -> Wrap:
    """Return what makes a method a timed one."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def method(owner: Any, *args: Any, **kwargs: Any) -> Any:
            metrics = counters.current()
            call = None if metrics is None else metrics.safely(begin, owner, args)
            if call is None:
                return original(owner, *args, **kwargs)
            with call:
                call.result = original(owner, *args, **kwargs)
            return call.result

        return method

    return wrap


def timed_coroutine(counters: Counters, begin: Begin) -> Wrap:
    """Return what makes a method that is awaited a timed one."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        async def method(owner: Any, *args: Any, **kwargs: Any) -> Any:
            metrics = counters.current()
            call = None if metrics is None else metrics.safely(begin, owner, args)
            if call is None:
                return await original(owner, *args, **kwargs)
            with call:
                call.result = await original(owner, *args, **kwargs)
            return call.result

        return method

    return wrap
