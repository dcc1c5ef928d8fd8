"""`Observability`: the only lifetime, and the only side effects, each paired with its undo."""

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from obslib import names
from obslib._attach import attach
from obslib._framework import switch_native_telemetry_off
from obslib._instruments import Counter, Gauge, Histogram
from obslib._otlp import OtlpConfig, OtlpSpanProcessor
from obslib._outbound import instrument_libraries
from obslib._provider import ObslibTracerProvider, make_resource, obtain_provider, remove_processor
from obslib._redaction import Redactor
from obslib._sink import LineSink
from obslib._stdlib_bridge import StdlibBridge
from obslib._telemetry import Telemetry
from obslib._traces import make_propagator
from obslib._worker_group import find_group
from obslib.exceptions import ConfigurationError
from obslib.settings import LEVELS, UNKNOWN_SERVICE, Settings

if TYPE_CHECKING:
    from obslib._metrics_server import MetricsServer
    from obslib._workers import Worker

#: How much of what is left of a deadline spans may use up: lines come after them, and tell what became of them.
_SPANS_SHARE: Final = 0.9
APP_ATTRIBUTE: Final = "_obslib_observability"


class Observability:
    """
    What `instrument()` returns: the one object to hold, and the one call to undo everything.

    As a context manager it shuts down at the end of the block.
    """

    def __init__(self, settings: Settings, app: Starlette | None) -> None:
        self.settings: Final = settings
        self._app = app
        self._undos: list[Callable[[], object]] = []
        self._sink = LineSink(
            buffer_bytes=settings.log_buffer_bytes,
            overflow=settings.logs_overflow,
            flush_interval_seconds=settings.log_flush_interval_seconds,
            on_dropped=lambda reason, lines: self._telemetry.self_telemetry.log_lines_dropped.labels(reason).inc(lines),
            before_writing=self._before_writing,
        )
        self._telemetry = Telemetry(settings, write=self._sink.write, on_waiting=self._sink.expect)
        self._bridge = StdlibBridge(settings.log_level_number) if settings.logs_enabled else None
        self._resource = make_resource(settings)
        self._processor = _make_processor(settings, self._resource, self._telemetry)
        self._metrics_server = _make_metrics_server(settings, self._telemetry)
        #: Which of a process' applications this is: the same in each worker.
        self._ordinal = len(LIVE)
        self._worker: Worker | None = None
        self._refusal: ConfigurationError | None = None
        self._lock = threading.RLock()
        self._is_shut_down = False
        #: Whether threads and sockets of this process are up; the first event that reaches the application starts them.
        self.running: bool = False
        self.tracer_provider: trace.TracerProvider = trace.NoOpTracerProvider()
        try:
            self._set_up()
        except BaseException:
            self._undo_all(_Deadline(0))
            raise
        LIVE.add(self)

    # --- what users call ---------------------------------------------------------------------------------------------

    @property
    def registry(self) -> CollectorRegistry:
        """obslib's own registry: its metrics, and those made by `counter`, `gauge` and `histogram`."""
        return self._telemetry.registry

    def counter(
        self, name: str, documentation: str, labels: Sequence[str] = (), *, max_label_sets: int | None = None
    ) -> Counter:
        """
        Make a counter.

        Args:
            name: Ends in `_total`, with the unit before it where there is one.
            labels: Names of labels whose values are bounded: never a path, an address or any user's value.
            max_label_sets: Further label sets share one in which every label is `_OTHER`.

        Raises:
            ConfigurationError: The name is taken or ends wrongly, or a label cannot be one.
        """
        return self._telemetry.instruments.counter(name, documentation, labels, max_label_sets=max_label_sets)

    def gauge(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        *,
        function: Callable[[], float] | None = None,
        max_label_sets: int | None = None,
    ) -> Gauge:
        """
        Make a gauge.

        Args:
            function: Read at each scrape instead of a value that is set; must be quick, and not block.

        Raises:
            ConfigurationError: The name is taken, or a label cannot be one.
        """
        return self._telemetry.instruments.gauge(
            name, documentation, labels, function=function, max_label_sets=max_label_sets
        )

    def histogram(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float] = names.DURATION_BUCKETS_SECONDS,
        max_label_sets: int | None = None,
    ) -> Histogram:
        """
        Make a histogram.

        Args:
            name: Ends in the unit: `_seconds`, `_bytes`.
            buckets: Upper bounds that rise, in that unit; `+Inf` is added.

        Raises:
            ConfigurationError: The name is taken, or buckets or a label cannot be such.
        """
        return self._telemetry.instruments.histogram(
            name, documentation, labels, buckets=buckets, max_label_sets=max_label_sets
        )

    def set_log_level(self, level: str) -> None:
        """
        Let through the lines of another level and above, from now on.

        Args:
            level: One of those that `Settings.log_level` takes, in any case.

        Raises:
            ConfigurationError: It is none of them.
        """
        level_number = LEVELS.get(level.upper())
        if level_number is None:
            raise ConfigurationError(f"The log level must be one of {', '.join(LEVELS)}, not {level!r}.")
        self._telemetry.log_pipeline.level_number = level_number
        if self._bridge is not None:
            self._bridge.set_level(level_number)

    def flush(self, timeout_seconds: float | None = None) -> bool:
        """
        Send the spans and write the lines there are; tell whether all of them went out in time.

        Args:
            timeout_seconds: For everything; `Settings.shutdown_timeout_seconds` if not given.
        """
        deadline = _Deadline(self.settings.shutdown_timeout_seconds if timeout_seconds is None else timeout_seconds)
        complete = self._telemetry.backlog.flush(deadline.left_seconds())
        if self._processor is not None:
            complete &= self._processor.force_flush(int(deadline.left_seconds() * 1000))
        return self._sink.flush(deadline.left_seconds()) and complete

    def shutdown(self, timeout_seconds: float | None = None) -> bool:
        """
        Flush, stop, and put everything back that `instrument()` changed. A second call does nothing.

        Args:
            timeout_seconds: For everything; `Settings.shutdown_timeout_seconds` if not given.

        Returns:
            Whether everything went out in time; what did not is counted.
        """
        with self._lock:
            if self._is_shut_down:
                return True
            self._is_shut_down = True
            deadline = _Deadline(self.settings.shutdown_timeout_seconds if timeout_seconds is None else timeout_seconds)
            complete = self._stop(deadline)
            self._undo_all(deadline)
            if self._worker is not None:
                self._worker.leave()
                self._worker = None
            LIVE.discard(self)
            return complete

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    # --- what the layer calls ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start what this process needs: threads and sockets. Does not raise."""
        with self._lock:
            if self.running or self._is_shut_down:
                return
            self.running = True
            try:
                self._meet_siblings_guarded()
                self._look_around()
                if self._telemetry.runtime_metrics is not None:
                    self._telemetry.runtime_metrics.start()
                self._sink.start()
                if not self._telemetry.log_pipeline.for_people:  # who read lines in the order in which things happened
                    self._telemetry.backlog.open()
                if self._processor is not None:
                    self._processor.start()
                self.open_port()
            except Exception as error:  # noqa: BLE001 -- the guard: this runs inside a request or the lifespan
                self._telemetry.errors.internal("lifetime", error)

    def startup_complete(self) -> None:
        """
        Look again: the application's own start may have changed something.

        Raises:
            ConfigurationError: The worker processes cannot meet. Raised here it fails the application's start.
        """
        if self._refusal is not None:
            # A server whose application does not start ends at once: what there is to say goes out now.
            self.pause()
            raise self._refusal
        self._look_around()

    def meet_siblings(self) -> None:
        """
        Take a slot if this process is one of several workers.

        Raises:
            ConfigurationError: The workers cannot meet; the sentence says what to change.
        """
        settings = self.settings
        is_shown = settings.metrics_enabled and (settings.metrics_path or settings.metrics_port)
        if self._worker is not None or not is_shown:
            return
        group = find_group(settings.worker_group, settings.service_name, self._ordinal)
        if group is None:
            return
        from obslib._workers import Worker  # noqa: PLC0415 -- most services are one process

        telemetry = self._telemetry
        self._worker = Worker(
            group,
            settings.worker_directory,
            telemetry.instruments,
            telemetry.foreign,
            telemetry.exposition,
            on_error=partial(telemetry.errors.internal, "metrics"),
        )

    def open_port(self) -> None:
        """
        Serve the metrics on their own port where they have one, unless a sibling does.

        Raises:
            OSError: The port is taken or not allowed.
        """
        if self._metrics_server is None:
            return
        if self._worker is None:
            self._metrics_server.start()
        else:
            self._worker.serve_port(self._metrics_server)

    def _meet_siblings_guarded(self) -> None:
        self._refusal = None
        try:
            self.meet_siblings()
        except ConfigurationError as error:
            self._refusal = error
            self._telemetry.errors.internal("metrics", error)

    def _look_around(self) -> None:
        """Take over handlers that a server has configured, and learn which routes and libraries there are."""
        if self._bridge is not None:
            self._bridge.install()
        if self._app is not None:
            self._telemetry.make_zero_children(self._app)
        self._telemetry.join_libraries()

    def _before_writing(self) -> None:
        self._telemetry.backlog.work_off()

    def pause(self) -> None:
        """Flush and stop at the end of a lifespan; the next event starts again."""
        with self._lock:
            self._stop(_Deadline(self.settings.shutdown_timeout_seconds))

    def reset_after_fork(self) -> None:
        """A child starts afresh: threads are not inherited, and the parent sends what is the parent's."""
        self._lock = threading.RLock()
        self.running = False
        self._telemetry.reset_after_fork()
        self._sink.reset_after_fork()
        if self._metrics_server is not None:
            self._metrics_server.stop()
        if self._worker is not None:
            self._worker.abandon()
            self._worker = None

    # --- set-up ------------------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        settings = self.settings
        app = self._app
        if app is not None:
            self._undos.append(switch_native_telemetry_off(app))
        # Before the spans: what wraps the same methods is taken off in the opposite order.
        self._undos.append(self._telemetry.count_calls())
        provider = self._set_up_traces() if settings.traces_enabled else None
        self._undos.append(attach(self._telemetry, app, provider, self))
        if app is not None:
            setattr(app, APP_ATTRIBUTE, self)
            self._undos.append(lambda: delattr(app, APP_ATTRIBUTE))
        if self._bridge is not None:
            self._set_up_loggers(self._bridge)
        atexit.register(self._at_exit)
        self._undos.append(lambda: atexit.unregister(self._at_exit))
        self._warn_about_settings()

    def _set_up_traces(self) -> trace.TracerProvider:
        settings = self.settings
        propagator = make_propagator(settings.propagators)
        before = propagate.get_global_textmap()
        propagate.set_global_textmap(propagator)
        self._undos.append(lambda: propagate.set_global_textmap(before))
        provider, should_be_global = obtain_provider(settings, self._resource, self._processor)
        if should_be_global:
            trace.set_tracer_provider(provider)
        self.tracer_provider = provider
        if isinstance(provider, TracerProvider) and self._processor is not None:
            self._undos.append(partial(remove_processor, provider, self._processor))
        if isinstance(provider, ObslibTracerProvider):
            gate = provider.gate
            self._undos.append(lambda: setattr(gate, "is_open", False))
        self._undos.append(instrument_libraries(settings.instrumentations, provider, Redactor(settings.redacted_keys)))
        return provider

    def _set_up_loggers(self, bridge: StdlibBridge) -> None:
        from obslib._structlog import configure_structlog  # noqa: PLC0415 -- see obslib.get_logger

        self._undos.append(configure_structlog())
        bridge.install()
        self._undos.append(bridge.uninstall)

    def _warn_about_settings(self) -> None:
        errors = self._telemetry.errors
        for sentence in self.settings.ignored:
            errors.report(sentence, "obslib_setting_ignored", {"reason": sentence})
        if self.settings.service_name == UNKNOWN_SERVICE:
            fix = "Set OTEL_SERVICE_NAME, or give Settings a service_name."
            errors.report("service_name", "obslib_service_name_missing", {"fix": fix})

    # --- the end -----------------------------------------------------------------------------------------------------

    def _stop(self, deadline: "_Deadline") -> bool:
        """Send, write and stop, spans first: what goes wrong with them is worth a line."""
        if not self.running:
            return True
        self.running = False
        if self._telemetry.runtime_metrics is not None:
            self._telemetry.runtime_metrics.stop()
        complete = self._telemetry.backlog.close(deadline.left_seconds())
        if self._processor is not None:
            complete &= self._processor.close(deadline.left_seconds() * _SPANS_SHARE)
        if self._worker is not None:
            self._worker.leave_port()
        elif self._metrics_server is not None:
            self._metrics_server.stop()
        complete &= self._sink.close(deadline.left_seconds())
        if self._worker is not None:
            # The slot is kept until the process ends: what comes after the end of a lifespan is counted, too.
            self._worker.before_answer()
        return complete

    def _at_exit(self) -> None:
        self._stop(_Deadline(self.settings.shutdown_timeout_seconds))

    def _undo_all(self, deadline: "_Deadline") -> None:
        while self._undos:
            self._undos.pop()()
        if isinstance(self.tracer_provider, TracerProvider) and self._processor is not None:
            self._processor.shutdown(deadline.left_seconds())


class _Deadline:
    """One deadline for several steps."""

    def __init__(self, timeout_seconds: float) -> None:
        self._end_seconds = time.monotonic() + timeout_seconds

    def left_seconds(self) -> float:
        return max(0.0, self._end_seconds - time.monotonic())


def _make_metrics_server(settings: Settings, telemetry: Telemetry) -> "MetricsServer | None":
    if not settings.metrics_enabled or settings.metrics_port is None:
        return None
    from obslib._metrics_server import MetricsServer  # noqa: PLC0415 -- most services answer on their own port

    return MetricsServer(telemetry.exposition, settings.metrics_host, settings.metrics_port, settings.metrics_path)


def _make_processor(settings: Settings, resource: Resource, telemetry: Telemetry) -> OtlpSpanProcessor | None:
    if not settings.traces_enabled or settings.traces_exporter == "none":
        return None
    own = telemetry.self_telemetry

    def on_error(reason: str) -> None:
        values = {"reason": reason, "endpoint": settings.otlp_traces_endpoint}
        telemetry.errors.report("export", "obslib_spans_not_exported", values)

    return OtlpSpanProcessor(
        resource,
        OtlpConfig.of(settings),
        on_dropped=lambda reason, spans: own.spans_dropped.labels(reason).inc(spans),
        on_exported=lambda spans: own.spans_exported.labels().inc(spans),
        on_error=on_error,
    )


#: Held weakly, for the child of a fork and for a second `instrument_process()`.
LIVE: Final[weakref.WeakSet[Observability]] = weakref.WeakSet()


def _reset_after_fork() -> None:
    for observability in LIVE:
        observability.reset_after_fork()


os.register_at_fork(after_in_child=_reset_after_fork)
