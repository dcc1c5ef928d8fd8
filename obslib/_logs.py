"""The logs: every line in one JSON shape, each with the ids of its request, and one access line a request."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, Final, cast

from opentelemetry import trace

from obslib import names
from obslib._access_line import AccessLine, record_failed
from obslib._log_render import Clock, JsonRenderer, exception_values
from obslib._record import RequestRecord, current_record
from obslib._redaction import Redactor
from obslib._sink import LineSink
from obslib.settings import LEVELS, Settings

#: See `mark_recorded`.
RECORDED: Final = "_obslib_recorded"
LEVEL_NAMES: Final = {"warn": "warning", "exception": "error", "fatal": "critical", "msg": "info"}
_LEVEL_NUMBERS: Final = {name.lower(): number for name, number in LEVELS.items()}


class LogPipeline:
    """
    A Recorder, and the way every other line takes to stdout: complete, redact, render, hand to the sink.

    Args:
        write: Takes a rendered line and whether it is an error.
        now_unix_ns: The wall clock.
    """

    signal: Final = "logs"

    def __init__(
        self, settings: Settings, write: Callable[[bytes, bool], None], now_unix_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self.service_name = settings.service_name
        self.level_number = settings.log_level_number
        self._access_log = settings.access_log
        self._write = write
        self._now_unix_ns = now_unix_ns
        self._clock = Clock()
        self._redactor = Redactor(settings.redacted_keys)
        self.for_people = _for_people(settings)
        self._render = (_console_renderer if self.for_people else JsonRenderer)(self._redactor.text)
        self._access_line = AccessLine(settings.service_name)
        #: Pieces of access lines.
        self._rendered: list[str] = []

    def finished(self, records: Iterable[RequestRecord]) -> None:
        """Write the access lines."""
        if not self._access_log:
            return
        pieces, format_time, for_people = self._access_line.pieces, self._clock.format, self.for_people
        rendered = self._rendered
        for record in records:
            if for_people or record.rare is not None:
                self._write_unusual(record)
                rendered = self._rendered
            else:
                rendered += pieces(record, format_time(record.start_unix_ns + record.duration_ns))

    def _write_unusual(self, record: RequestRecord) -> None:
        """Write the access line of a request that failed, or that has more to say than most, or for people."""
        failed = record_failed(record.status_code, record.error_type)
        says_more = record.exception is not None or record.bound is not None or record.time_to_first_byte_ns
        if says_more or self.for_people:
            self.hand_over()
            values = access_values(record, self.timestamp(record), self.service_name)
            self.write_access_line(record, values, is_error=failed)
            return
        self._rendered += self._access_line.pieces(record, self.timestamp(record))
        if failed:
            self.hand_over(is_error=True)

    def timestamp(self, record: RequestRecord) -> str:
        """Return when a record ended, as lines write it."""
        return self._clock.format(record.start_unix_ns + record.duration_ns)

    def write_access_line(self, record: RequestRecord, values: dict[str, Any], *, is_error: bool) -> None:
        """Write a record's access line, to whose values what was bound and the exception are added."""
        if record.bound:
            for key, value in self._redactor.redact(dict(record.bound)).items():
                values.setdefault(key, value)
        if record.exception is not None:
            values.update(self._redactor.redact(exception_values(record.exception)))
            mark_recorded(record.exception)
        self._write(self._render(values), is_error)

    def hand_over(self, *, is_error: bool = False) -> None:
        """Write the access lines that have been rendered."""
        if self._rendered:
            pieces, self._rendered = self._rendered, []
            self._write("".join(pieces).encode(), is_error)

    def log(self, level: str, logger_name: str, event: object, values: MutableMapping[str, Any]) -> None:
        """Write one line if its level is wanted; `exc_info` among the values becomes the exception's keys."""
        if _LEVEL_NUMBERS.get(level, logging.INFO) >= self.level_number:
            _expand_exception(values)
            self.emit(level, logger_name, event, values)

    def emit(
        self, level: str, logger_name: str, event: object, values: MutableMapping[str, Any], unix_ns: int | None = None
    ) -> None:
        """
        Write one line.

        Args:
            level: Lower-case name of the level.
            values: Further keys; they do not override those every line has.
            unix_ns: When it happened; now if not given.
        """
        record = current_record.get()
        line: dict[str, Any] = {
            names.LOG_TIMESTAMP: self._clock.format(self._now_unix_ns() if unix_ns is None else unix_ns),
            names.LOG_LEVEL: level,
            names.LOG_EVENT: event,
            names.LOG_LOGGER: logger_name,
            names.LOG_SERVICE: self.service_name,
            **_current_ids(record),
        }
        if record is not None and record.bound:
            for key, value in record.bound.items():
                line.setdefault(key, value)
        for key, value in values.items():
            line.setdefault(key, value) if key in _RESERVED else line.__setitem__(key, value)
        self._write(self._render(self._redactor.redact(line)), _LEVEL_NUMBERS.get(level, 0) >= logging.ERROR)


def mark_recorded(exception: BaseException) -> None:
    """Note that a line of ours tells of an exception, so that a server's own is not a second one."""
    with contextlib.suppress(AttributeError):  # an exception class with __slots__
        exception.__dict__[RECORDED] = True


def access_values(record: RequestRecord, timestamp: str, service_name: str) -> dict[str, Any]:
    """Return the keys and values of an access line, but for what was bound and the exception."""
    values = {
        names.LOG_TIMESTAMP: timestamp,
        names.LOG_LEVEL: "error" if record_failed(record.status_code, record.error_type) else "info",
        names.LOG_EVENT: names.ACCESS_EVENT,
        names.LOG_LOGGER: names.ACCESS_LOGGER,
        names.LOG_SERVICE: service_name,
        names.LOG_TRACE_ID: record.trace_id,
        names.LOG_SPAN_ID: record.span_id,
        names.LOG_REQUEST_ID: record.request_id,
        names.LABEL_METHOD: record.method,
        names.LABEL_ROUTE: record.route,
        names.LABEL_STATUS_CODE: record.status_code or None,
        names.LABEL_ERROR_TYPE: record.error_type,
        names.LABEL_SCHEME: record.scheme,
        names.LOG_URL_PATH: record.path,
        names.LOG_DURATION: record.duration_ns / 1e9,
        names.LOG_REQUEST_BODY_SIZE: record.request_body_bytes,
        names.LOG_RESPONSE_BODY_SIZE: record.response_body_bytes,
        names.LOG_CLIENT_ADDRESS: record.client_address,
        names.LOG_USER_AGENT: record.user_agent,
    }
    if record.time_to_first_byte_ns:
        values[names.LOG_TIME_TO_FIRST_BYTE] = record.time_to_first_byte_ns / 1e9
    return values


_RESERVED: Final = frozenset(
    {names.LOG_TIMESTAMP, names.LOG_LEVEL, names.LOG_EVENT, names.LOG_LOGGER, names.LOG_SERVICE,
     names.LOG_TRACE_ID, names.LOG_SPAN_ID, names.LOG_REQUEST_ID}
)  # fmt: skip


def _current_ids(record: RequestRecord | None) -> dict[str, str]:
    """Return the ids of the current span, and of the request around it."""
    span = trace.get_current_span()
    if record is not None and (span is record.span or span is trace.INVALID_SPAN):
        return {
            names.LOG_TRACE_ID: record.trace_id,
            names.LOG_SPAN_ID: record.span_id,
            names.LOG_REQUEST_ID: record.request_id,
        }
    context = span.get_span_context()
    return {
        names.LOG_TRACE_ID: format(context.trace_id, "032x") if context.is_valid else "",
        names.LOG_SPAN_ID: format(context.span_id, "016x") if context.is_valid else "",
        names.LOG_REQUEST_ID: "" if record is None else record.request_id,
    }


def _for_people(settings: Settings) -> bool:
    if settings.log_format == "auto":
        return sys.stdout is not None and sys.stdout.isatty()
    return settings.log_format == "console"


def _console_renderer(hide: Callable[[str], str]) -> Callable[[dict[str, Any]], bytes]:
    from obslib._log_console import ConsoleRenderer  # noqa: PLC0415 -- structlog's, and rarely wanted: see get_logger

    return ConsoleRenderer(hide)


def _expand_exception(event_dict: MutableMapping[str, Any]) -> None:
    """Replace `exc_info` (True, an exception or a triple) by the exception's keys."""
    exc_info = event_dict.pop("exc_info", None)
    if not exc_info:
        return
    exception = exc_info
    if isinstance(exc_info, tuple):
        exception = exc_info[1]
    elif not isinstance(exc_info, BaseException):
        exception = sys.exception()
    if isinstance(exception, BaseException):
        event_dict.update(exception_values(exception))


class _Pipelines:
    """Which pipeline a line takes: its request's, else the one set up last, else one that only prints."""

    def __init__(self) -> None:
        self._active: list[LogPipeline] = []
        self._unconfigured: LogPipeline | None = None

    def push(self, pipeline: LogPipeline) -> None:
        self._active.append(pipeline)

    def remove(self, pipeline: LogPipeline) -> None:
        self._active = [other for other in self._active if other is not pipeline]

    def current(self) -> LogPipeline:
        record = current_record.get()
        if record is not None and record.log_pipeline is not None:
            return cast(LogPipeline, record.log_pipeline)
        if self._active:
            return self._active[-1]
        if self._unconfigured is None:
            self._unconfigured = _printing_pipeline()
        return self._unconfigured


def _printing_pipeline() -> LogPipeline:
    sink = LineSink(
        buffer_bytes=1 << 20, overflow="drop", flush_interval_seconds=1, on_dropped=lambda _reason, _count: None
    )
    return LogPipeline(Settings(), sink.write)


PIPELINES: Final = _Pipelines()
