"""Everything one service's telemetry is made of, put together without touching anything outside."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from opentelemetry import trace
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from obslib import names
from obslib._background import BackgroundRecorder
from obslib._backlog import Backlog
from obslib._call_sources import Subscription
from obslib._client_metrics import ClientMetrics
from obslib._connection_record import ConnectionRecorder
from obslib._contrib import ContribRecorder
from obslib._errors import ErrorReporter
from obslib._exposition import LONE_WORKER, Exposition
from obslib._foreign import ForeignMetrics
from obslib._framework import ASGIApp, known_routes
from obslib._instruments import Instruments
from obslib._late_spans import make_late_spans
from obslib._logs import LogPipeline
from obslib._metrics import MetricsRecorder, SelfTelemetry, describe_process
from obslib._middleware import Lifetime, ObservedLayer
from obslib._outbound import check_names
from obslib._provider import resource_attributes
from obslib._record import Recorder, SpanRecorder
from obslib._redaction import Redactor
from obslib._runtime import RuntimeMetrics
from obslib._span_factory import SpanFactory, make_factory
from obslib._traces import TracesRecorder, make_propagator
from obslib._version import __version__
from obslib._websocket_recorders import ConnectionLog, ConnectionMetrics, ConnectionTraces, ContribConnections
from obslib.settings import Settings


class Telemetry:
    """
    The parts, made once at set-up.

    Args:
        write: Takes rendered log lines.
        on_waiting: Told when requests wait in the backlog: whoever is told calls `backlog.work_off` before long.
        now_unix_ns: The wall clock.
        monotonic_ns: The clock that durations are read from.
        new_request_id: Makes request ids; random ones if not given.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        write: Callable[[bytes, bool], None],
        on_waiting: Callable[[], None] = lambda: None,
        now_unix_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.perf_counter_ns,
        new_request_id: Callable[[], str] | None = None,
    ) -> None:
        self.settings = settings
        self._now_unix_ns = now_unix_ns
        self._monotonic_ns = monotonic_ns
        self._new_request_id = new_request_id
        self.registry = CollectorRegistry()
        self.metrics_recorder: MetricsRecorder | None = None
        self.runtime_metrics: RuntimeMetrics | None = None
        self.client_metrics: ClientMetrics | None = None
        self.instruments = Instruments(
            self.registry,
            settings.max_label_sets,
            before_reading=self._before_reading,
            on_error=self._on_metrics_error,
        )
        self.self_telemetry = SelfTelemetry(self.instruments)
        describe_process(self.instruments, resource_attributes(settings))
        self.log_pipeline = LogPipeline(settings, write, now_unix_ns)
        self.errors = ErrorReporter(lambda signal: self.self_telemetry.internal_errors.labels(signal).inc(), self._log)
        self.backlog = Backlog(self.errors.internal, on_waiting)
        registries = [registry for registry in settings.extra_registries if registry is not self.registry]
        self.foreign = ForeignMetrics(registries, self._on_metrics_error)
        self.exposition = Exposition(
            self.instruments,
            self.foreign,
            worker=LONE_WORKER,
            token=settings.metrics_token,
            on_error=self._on_metrics_error,
        )
        self.metrics_recorder = MetricsRecorder(self.instruments) if settings.metrics_enabled else None
        self.connection_metrics = ConnectionMetrics(self.instruments) if settings.metrics_enabled else None
        self._background = BackgroundRecorder(
            self.instruments if settings.metrics_enabled else None,
            self.log_pipeline if settings.logs_enabled else None,
            self.errors.internal,
            monotonic_ns,
            Redactor(settings.redacted_keys).text,
        )
        self.runtime_metrics = (
            RuntimeMetrics(self.instruments) if settings.metrics_enabled and settings.runtime_metrics_enabled else None
        )
        self.client_metrics = self._make_client_metrics() if settings.metrics_enabled else None
        self._subscription = (
            None if self.client_metrics is None else Subscription(settings.instrumentations, self.client_metrics)
        )
        self.contrib_recorder: ContribRecorder | None = None

    def reset_after_fork(self) -> None:
        """Forget the parent's requests and counts: the parent records and shows them."""
        self.backlog.reset_after_fork()
        self.instruments.reset_after_fork()
        self.foreign.carry(())
        self.exposition.join(LONE_WORKER, None)
        if self.metrics_recorder is not None:
            self.metrics_recorder.reset_after_fork()
        if self.connection_metrics is not None:
            self.connection_metrics.reset_after_fork()
        if self.runtime_metrics is not None:
            self.runtime_metrics.reset_after_fork()

    def _before_reading(self) -> None:
        self.backlog.work_off()
        if self.metrics_recorder is not None:
            self.metrics_recorder.count_in_flight(tuple(self.backlog.in_flight))
        if self.runtime_metrics is not None:
            self.runtime_metrics.hand_over()
        if self.client_metrics is not None:
            self.client_metrics.hand_over()

    def _on_metrics_error(self, error: BaseException) -> None:
        self.errors.internal("metrics", error)

    def _log(self, level: str, event: str, values: dict[str, Any]) -> None:
        if self.settings.logs_enabled:
            self.log_pipeline.log(level, "obslib", event, values)

    def count_calls(self) -> Callable[[], None]:
        """
        Count the calls of the chosen libraries; return the undo.

        Raises:
            ConfigurationError: A library's name is unknown.
        """
        check_names(self.settings.instrumentations)
        self.join_libraries()
        return lambda: None if self._subscription is None else self._subscription.leave()

    def join_libraries(self) -> None:
        """Count the calls of the chosen libraries that have been imported meanwhile, too. Does not raise."""
        if self._subscription is None:
            return
        try:
            self._subscription.join()
        except Exception as error:  # noqa: BLE001 -- the guard: a library's new version must not fail the start
            self._on_metrics_error(error)

    def _make_client_metrics(self) -> ClientMetrics:
        return ClientMetrics(
            self.instruments,
            self._monotonic_ns,
            self._now_unix_ns,
            serves=lambda record: record.background is self._background,
            on_error=self._on_metrics_error,
        )

    def make_layer(self, app: ASGIApp, provider: trace.TracerProvider | None, lifetime: Lifetime) -> ObservedLayer:
        """Return the layer that records requests of an application."""
        settings = self.settings
        recorders: list[Recorder] = []
        if self.metrics_recorder is not None:
            recorders.append(self.metrics_recorder)
        if settings.logs_enabled:
            recorders.append(self.log_pipeline)
        spans = None if provider is None else self._traces(provider)
        on_own_path = settings.metrics_enabled and settings.metrics_path and settings.metrics_port is None
        return ObservedLayer(
            app,
            settings=settings,
            spans=spans,
            recorders=recorders,
            connection_recorders=self._connection_recorders(provider),
            backlog=self.backlog,
            log_pipeline=self.log_pipeline if settings.logs_enabled else None,
            background=self._background,
            exposition=self.exposition if on_own_path else None,
            lifetime=lifetime,
            on_error=self.errors.internal,
            new_request_id=self._new_request_id,
            clock_ns=self._monotonic_ns,
            now_unix_ns=self._now_unix_ns,
        )

    def make_zero_children(self, app: Starlette) -> None:
        """Make the series that known routes begin with. Does not raise."""
        if self.metrics_recorder is None:
            return
        try:
            self.metrics_recorder.make_zero_children(known_routes(app))
        except Exception as error:  # noqa: BLE001 -- the guard: a framework's new version must not fail the start
            self._on_metrics_error(error)

    def _connection_recorders(self, provider: trace.TracerProvider | None) -> list[ConnectionRecorder]:
        settings = self.settings
        recorders: list[ConnectionRecorder] = []
        if self.contrib_recorder is not None:
            recorders.append(ContribConnections(self.contrib_recorder))
        elif provider is not None:
            # One span a connection: the SDK may make it. And every connection is slower than requests should be.
            lasting = replace(settings, traces_keep_slower_than_seconds=None)
            recorders.append(ConnectionTraces(self._traces_recorder(provider, None, lasting)))
        if self.connection_metrics is not None:
            recorders.append(self.connection_metrics)
        if settings.logs_enabled and settings.access_log:
            recorders.append(ConnectionLog(self.log_pipeline))
        return recorders

    def _traces(self, provider: trace.TracerProvider) -> SpanRecorder:
        if self.settings.engine == "contrib":
            self.contrib_recorder = ContribRecorder(self.settings, self.errors.internal)
            return self.contrib_recorder
        tracer = self._background.tracer = provider.get_tracer("obslib", __version__)
        factory = make_factory(provider, tracer, self.settings, self._request_id_attribute)
        return self._traces_recorder(provider, factory, self.settings)

    @property
    def _request_id_attribute(self) -> str:
        return f"{names.ATTR_RESPONSE_HEADER_PREFIX}{self.settings.request_id_header.lower()}"

    def _traces_recorder(
        self, provider: trace.TracerProvider, factory: SpanFactory | None, settings: Settings
    ) -> TracesRecorder:
        return TracesRecorder(
            provider.get_tracer("obslib", __version__),
            factory,
            make_propagator(settings.propagators),
            settings,
            Redactor(settings.redacted_keys),
            self._request_id_attribute,
            make_late_spans(provider, settings, self._request_id_attribute),
        )
