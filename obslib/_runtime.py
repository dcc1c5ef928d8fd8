"""The process a service runs in, as metrics: event loop, threads, garbage collections, limits."""

import asyncio

from anyio import CapacityLimiter
from anyio.to_thread import current_default_thread_limiter

from obslib import names
from obslib._gc_pauses import GcPauses
from obslib._instruments import Histogram, Instruments
from obslib._limits import ProcessLimits
from obslib._loop_lag import LoopLagSampler


class RuntimeMetrics:
    """
    Facts of the process: two applications in one process each have them, and they agree.

    What an event loop is needed for appears when there is one: a program without has no such series.
    """

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments
        self._gc_pauses = GcPauses(instruments)
        self._lag: Histogram | None = None
        self._limiter: CapacityLimiter
        self._sampler: LoopLagSampler | None = None
        limits = ProcessLimits()
        instruments.gauge(
            names.PROCESS_CPU_LIMIT,
            "Cores the process may use: its control groups' quota, else the machine's.",
            function=limits.cpu_cores,
        )
        instruments.gauge(
            names.PROCESS_MEMORY_LIMIT,
            "Bytes the process may use: its control groups' limit, else the machine's.",
            function=limits.memory_bytes,
        )

    def start(self) -> None:
        """Begin; with the event loop's part if one runs here."""
        self._gc_pauses.start()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a program without ASGI, or a server on trio
            return
        self._limiter = current_default_thread_limiter()
        if self._lag is None:
            self._lag = self._make_loop_metrics()
        if self._sampler is not None:
            self._sampler.stop()
        self._sampler = LoopLagSampler(loop, self._lag.labels().observe)

    def stop(self) -> None:
        """Leave no timer and no callback behind."""
        self._gc_pauses.stop()
        if self._sampler is not None:
            self._sampler.stop()
            self._sampler = None

    def reset_after_fork(self) -> None:
        """Leave the parent's event loop alone."""
        self._gc_pauses.stop()
        if self._sampler is not None:
            self._sampler.abandon()
            self._sampler = None

    def hand_over(self) -> None:
        """Bring the metrics up to date before they are read."""
        self._gc_pauses.hand_over()

    def _make_loop_metrics(self) -> Histogram:
        gauge = self._instruments.gauge
        gauge(
            names.ANYIO_THREAD_LIMITER_BORROWED,
            "Threads that run sync endpoints and dependencies now.",
            function=lambda: self._limiter.statistics().borrowed_tokens,
        )
        gauge(
            names.ANYIO_THREAD_LIMITER_MAX,
            "Threads that may run sync endpoints and dependencies at once.",
            function=lambda: self._limiter.statistics().total_tokens,
        )
        gauge(
            names.ANYIO_THREAD_LIMITER_WAITING,
            "Tasks that wait for such a thread.",
            function=lambda: self._limiter.statistics().tasks_waiting,
        )
        return self._instruments.histogram(
            names.ASYNCIO_EVENT_LOOP_LAG,
            "How much later than asked for the event loop called back: a sample every quarter of a second or so.",
            buckets=names.LAG_BUCKETS_SECONDS,
        )
