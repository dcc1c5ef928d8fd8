"""The calls a service makes, as metrics: durations with bounded labels."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from opentelemetry import trace

from obslib import names
from obslib._children import HistogramChild
from obslib._connection_pools import ConnectionPool, PoolMetrics
from obslib._current_context import CURRENT_CONTEXT
from obslib._first_values import FirstValues
from obslib._instruments import Instruments
from obslib._record import RequestRecord

MAX_HOSTS: Final = 32
MAX_DB_OPERATIONS: Final = 64
MAX_ERROR_TYPES: Final = 32
_NANOSECONDS: Final = 1e9

AnyResult = TypeVar("AnyResult")


class ClientMetrics:
    """
    Counts one application's calls; called through `safely`, which keeps errors from the call.

    Args:
        clock_ns: Monotonic clock.
        now_unix_ns: The wall clock.
        serves: Tells whether it is this application that serves a request.
        on_error: Told the exception when counting fails; must not raise.
    """

    def __init__(
        self,
        instruments: Instruments,
        clock_ns: Callable[[], int],
        now_unix_ns: Callable[[], int],
        *,
        serves: Callable[[RequestRecord], bool],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self.clock_ns: Final = clock_ns
        self.serves: Final = serves
        self._now_unix_ns = now_unix_ns
        self._on_error = on_error
        self._http_duration = instruments.histogram(
            names.HTTP_CLIENT_REQUEST_DURATION,
            "Duration of requests to other services, until their response's headers.",
            (names.LABEL_METHOD, names.LABEL_STATUS_CODE, names.LABEL_SERVER_ADDRESS, names.LABEL_ERROR_TYPE),
        )
        self._db_duration = instruments.histogram(
            names.DB_CLIENT_OPERATION_DURATION,
            "Duration of operations of databases and caches, as their client sees it.",
            (names.LABEL_DB_SYSTEM, names.LABEL_DB_OPERATION, names.LABEL_ERROR_TYPE),
            buckets=names.DB_DURATION_BUCKETS_SECONDS,
        )
        self._pools = PoolMetrics(instruments)

        self._host = FirstValues(MAX_HOSTS, instruments, self._http_duration.name)
        self._http_error = FirstValues(MAX_ERROR_TYPES, instruments, self._http_duration.name)
        self._db_operation = FirstValues(MAX_DB_OPERATIONS, instruments, self._db_duration.name)
        self._db_error = FirstValues(MAX_ERROR_TYPES, instruments, self._db_duration.name)

    def safely(self, function: Callable[..., AnyResult], *arguments: Any) -> AnyResult | None:
        """Return `function(self, *arguments)`, or None where it raises."""
        try:
            return function(self, *arguments)
        except Exception as error:  # noqa: BLE001 -- the guard: telemetry never reaches the call
            self._on_error(error)
            return None

    def http_request(
        self, method: str, host: str, status_code: int, duration_ns: int, error: BaseException | None
    ) -> None:
        """
        Count a request.

        Args:
            status_code: The response's; any number where an error came in its place.
        """
        if error is not None:
            status, error_type = "", self._http_error(type(error).__qualname__)
        else:
            status = str(status_code) if 100 <= status_code <= 599 else names.OTHER
            error_type = status if status_code >= 400 else ""
        method = method if method in names.KNOWN_METHODS else names.OTHER
        self._observe(self._http_duration.labels(method, status, self._host(host), error_type), duration_ns)

    def db_operation(self, system: str, operation: str, duration_ns: int, error: BaseException | None) -> None:
        """
        Count an operation of a database or cache.

        Args:
            system: As `db.system.name`.
            operation: The command, e.g. `SELECT`.
        """
        operation = self._db_operation(operation)
        self._observe(self._db_duration.labels(system, operation, self._db_error_type(error)), duration_ns)

    def show(self, pool: ConnectionPool) -> None:
        """Show a pool from now on."""
        self._pools.show(pool)

    def connection_obtained(self, pool: ConnectionPool, duration_ns: int, error: BaseException | None) -> None:
        """Count the end of waiting for a connection."""
        self._pools.obtained(pool, duration_ns / _NANOSECONDS, self._db_error_type(error))

    def hand_over(self) -> None:
        """Bring the gauges up to date before they are read. Does not raise."""
        self.safely(lambda metrics: metrics._pools.update())  # noqa: SLF001 -- its own

    def _observe(self, child: HistogramChild, duration_ns: int) -> None:
        """Count a call, and where it is traced keep the span that it was made in."""
        seconds = duration_ns / _NANOSECONDS
        span = trace.get_current_span(CURRENT_CONTEXT.get()).get_span_context()
        if not (span.is_valid and span.trace_flags.sampled):
            child.observe(seconds)
            return
        ids = trace.format_trace_id(span.trace_id), trace.format_span_id(span.span_id)
        child.observe(seconds, (*ids, seconds, self._now_unix_ns() / _NANOSECONDS))

    def _db_error_type(self, error: BaseException | None) -> str:
        return "" if error is None else self._db_error(type(error).__qualname__)
