"""The metrics: a Recorder over children that are found by one look-up."""

import platform
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import prometheus_client

from obslib import names
from obslib._children import RequestSeries
from obslib._instruments import Instruments
from obslib._record import SPAN_PART, TRACE_PART, RequestRecord
from obslib._version import __version__

#: Duration children made at start, so that a first error is an increase Prometheus can see.
MAX_ZERO_CHILDREN: Final = 500
#: Of a metric's label sets they take one in so many: the requests that come need the others.
_ZERO_CHILDREN_SHARE: Final = 4


class MetricsRecorder:
    """Records durations with exemplars, requests in flight and body sizes."""

    signal: Final = "metrics"

    def __init__(self, instruments: Instruments) -> None:
        self._duration = instruments.histogram(
            names.HTTP_SERVER_REQUEST_DURATION,
            "Duration of requests, until the last byte of the response.",
            (
                names.LABEL_METHOD,
                names.LABEL_ROUTE,
                names.LABEL_STATUS_CODE,
                names.LABEL_SCHEME,
                names.LABEL_ERROR_TYPE,
            ),
        )
        self._active = instruments.gauge(
            names.HTTP_SERVER_ACTIVE_REQUESTS, "Requests in flight.", (names.LABEL_METHOD, names.LABEL_SCHEME)
        )
        self._request_size = instruments.histogram(
            names.HTTP_SERVER_REQUEST_BODY_SIZE,
            "Bytes of request bodies, as counted while they were read.",
            (names.LABEL_METHOD, names.LABEL_ROUTE),
            buckets=names.BODY_SIZE_BUCKETS_BYTES,
        )
        self._response_size = instruments.histogram(
            names.HTTP_SERVER_RESPONSE_BODY_SIZE,
            "Bytes of response bodies, as counted while they were sent.",
            (names.LABEL_METHOD, names.LABEL_ROUTE),
            buckets=names.BODY_SIZE_BUCKETS_BYTES,
        )
        self._time_to_first_byte = instruments.histogram(
            names.HTTP_SERVER_TIME_TO_FIRST_BYTE,
            "Time until the first byte of responses that are sent in several pieces.",
            (names.LABEL_METHOD, names.LABEL_ROUTE),
        )
        self._max_zero_children = min(MAX_ZERO_CHILDREN, instruments.max_label_sets // _ZERO_CHILDREN_SHARE)
        self._lock = threading.Lock()
        self._series: dict[tuple[str, str, int, str, str], RequestSeries] = {}

    def finished(self, records: Iterable[RequestRecord]) -> None:
        """Count requests, with their durations and sizes."""
        find, previous = self._series.get, None
        with self._lock:
            for record in records:
                key = (record.method, record.route, record.status_code, record.scheme, record.error_type)
                series = find(key) or self._find_series(*key)
                if series is not previous:
                    series.forget_lines()
                    previous = series
                seconds = record.duration_ns / 1e9
                exemplar = None
                if record.sampled:
                    digits = record.id_digits
                    unix_seconds = (record.start_unix_ns + record.duration_ns) / 1e9
                    exemplar = (digits[TRACE_PART], digits[SPAN_PART], seconds, unix_seconds)
                if record.rare is not None and record.time_to_first_byte_ns:
                    first = self._time_to_first_byte.labels(record.method, record.route)
                    first.observe(record.time_to_first_byte_ns / 1e9)
                series.count(seconds, record.request_body_bytes, record.response_body_bytes, exemplar)

    def hand_over(self) -> None:
        """Do nothing: everything is counted."""

    def count_in_flight(self, in_flight: Iterable[RequestRecord]) -> None:
        """Set the gauge to what is in flight now."""
        counts = Counter((record.method, record.scheme) for record in in_flight)
        for method, _, _, scheme, _ in tuple(self._series):
            counts.setdefault((method, scheme), 0)
        for labels, count in counts.items():
            self._active.labels(*labels).set(count)

    def reset_after_fork(self) -> None:
        """Forget the parent's requests, and the lock that one of its threads may have held."""
        self._lock = threading.Lock()
        self._series.clear()
        for child in self._active.children():
            child.set(0)

    def make_zero_children(self, routes: Iterable[tuple[str, str]]) -> None:
        """
        Make a duration child with status 500 for each known method and route, as far as the budget goes.

        And say that nothing is in flight: who sums it over replicas must be able to tell idle from silent.
        """
        made = 0
        self._active.labels("GET", "http")
        for method, route in routes:
            if method in names.KNOWN_METHODS and method not in {"HEAD", "OPTIONS"} and made < self._max_zero_children:
                self._duration.labels(method, route, "500", "http", "500")
                self._active.labels(method, "http")
                made += 1

    def _find_series(self, method: str, route: str, status_code: int, scheme: str, error_type: str) -> RequestSeries:
        series = RequestSeries(
            self._lock,
            self._duration.labels(method, route, str(status_code) if status_code else "", scheme, error_type),
            self._request_size.labels(method, route),
            self._response_size.labels(method, route),
        )
        self._series[method, route, status_code, scheme, error_type] = series
        return series


class SelfTelemetry:
    """What obslib says about itself."""

    def __init__(self, instruments: Instruments) -> None:
        self.spans_dropped = instruments.counter(
            names.SPANS_DROPPED, "Spans that were not delivered, by reason.", (names.LABEL_REASON,)
        )
        self.spans_exported = instruments.counter(names.SPANS_EXPORTED, "Spans that a collector accepted.")
        self.log_lines_dropped = instruments.counter(
            names.LOG_LINES_DROPPED, "Log lines that were not written, by reason.", (names.LABEL_REASON,)
        )
        self.internal_errors = instruments.counter(
            names.INTERNAL_ERRORS, "Errors inside telemetry that no request noticed, by signal.", (names.LABEL_SIGNAL,)
        )
        for reason in (names.DROPPED_QUEUE_FULL, names.DROPPED_EXPORT_FAILED, names.DROPPED_REJECTED):
            self.spans_dropped.labels(reason)
        self.log_lines_dropped.labels(names.DROPPED_BUFFER_FULL)
        for signal in ("metrics", "logs", "traces"):
            self.internal_errors.labels(signal)


def describe_process(instruments: Instruments, resource_attributes: Mapping[str, str]) -> None:
    """Make `obslib_build_info` and `target_info`, the latter with the resource's attributes as labels."""
    instruments.info(
        names.BUILD_INFO,
        "Versions of obslib and of what it stands on.",
        {
            "version": __version__,
            "python": platform.python_version(),
            "prometheus_client": getattr(prometheus_client, "__version__", ""),
        },
    )
    instruments.info(
        names.TARGET_INFO,
        "The resource whose telemetry this is.",
        {_label_name(name): value for name, value in resource_attributes.items() if value},
    )


def _label_name(attribute: str) -> str:
    text = "".join(character if character.isalnum() and character.isascii() else "_" for character in attribute)
    return f"_{text}" if text[:1].isdigit() else text
