"""Work that a response leaves behind: timed apart from its request, a child of its span, and never lost if it fails."""

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from starlette.background import BackgroundTask

from obslib import names
from obslib._current_context import CURRENT_CONTEXT
from obslib._framework import SharedPatch
from obslib._instruments import Instruments
from obslib._logs import LogPipeline, mark_recorded
from obslib._record import current_record
from obslib._span_attributes import record_exception

_ERROR: Final = Status(StatusCode.ERROR)


class BackgroundRecorder:
    """
    Says in each signal how background tasks went.

    Args:
        instruments: Count them; None where metrics are off.
        log_pipeline: Gets a line for each that fails; None where logs are off.
        on_error: Told the signal and the exception when telemetry fails; must not raise.
        clock_ns: Monotonic clock.
    """

    def __init__(
        self,
        instruments: Instruments | None,
        log_pipeline: LogPipeline | None,
        on_error: Callable[[str, BaseException], None],
        clock_ns: Callable[[], int],
        hide: Callable[[str], str] = str,
    ) -> None:
        self._hide = hide
        #: Makes the spans; None where there are none, or contrib makes them.
        self.tracer: Tracer | None = None
        self._log_pipeline = log_pipeline
        self._on_error = on_error
        self._clock_ns = clock_ns
        self._duration = None
        if instruments is not None:
            self._duration = instruments.histogram(
                names.BACKGROUND_TASK_DURATION,
                "Duration of background tasks, which run when the response has been sent.",
                (names.LABEL_FUNCTION, names.LABEL_ERROR_TYPE),
                buckets=names.BACKGROUND_BUCKETS_SECONDS,
            )

    async def run(self, task_name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Await a task's work and say how it went; what it raises goes on to whoever waits for it."""
        span, token = None, None
        if self.tracer is not None:
            try:
                span = self.tracer.start_span(f"background {task_name}", kind=SpanKind.INTERNAL)
                span.set_attribute(names.ATTR_CODE_FUNCTION_NAME, task_name)
                token = CURRENT_CONTEXT.set(trace.set_span_in_context(span))
            except Exception as error:  # noqa: BLE001 -- the guard: a user's span processor may raise anything
                self._on_error("traces", error)
        failure: BaseException | None = None
        started_ns = self._clock_ns()
        try:
            await work()
        except BaseException as error:
            failure = error
            raise
        finally:
            seconds = (self._clock_ns() - started_ns) / 1e9
            for signal, report in (
                ("metrics", partial(self._observe, task_name, seconds, failure)),
                ("logs", partial(self._log, task_name, seconds, failure)),
                ("traces", partial(_end, span, failure, self._hide)),
            ):
                try:
                    report()
                except Exception as error:  # noqa: BLE001 -- the guard: one failing signal never silences another
                    self._on_error(signal, error)
            if token is not None:
                with contextlib.suppress(
                    ValueError
                ):  # closed in somebody else's context, where nothing is to be undone
                    CURRENT_CONTEXT.reset(token)

    def _observe(self, task_name: str, seconds: float, failure: BaseException | None) -> None:
        if self._duration is not None:
            self._duration.labels(task_name, _error_type(failure)).observe(seconds)

    def _log(self, task_name: str, seconds: float, failure: BaseException | None) -> None:
        if self._log_pipeline is None or not isinstance(failure, Exception):
            return
        values: dict[str, Any] = {
            names.LABEL_FUNCTION: task_name,
            names.LOG_DURATION: seconds,
            "exc_info": failure,
        }
        self._log_pipeline.log("error", names.BACKGROUND_LOGGER, names.BACKGROUND_FAILED_EVENT, values)
        mark_recorded(failure)


def _error_type(failure: BaseException | None) -> str:
    if failure is None:
        return ""
    return names.ERROR_EXCEPTION if isinstance(failure, Exception) else names.ERROR_CANCELLED


def _end(span: Span | None, failure: BaseException | None, hide: Callable[[str], str]) -> None:
    if span is None:
        return
    if isinstance(failure, Exception):
        record_exception(span, failure, hide)
    if failure is not None:
        span.set_attribute(names.ATTR_ERROR_TYPE, type(failure).__qualname__)
        span.set_status(_ERROR)
    span.end()


def _observed(original: Callable[[BackgroundTask], Awaitable[None]]) -> Callable[[BackgroundTask], Awaitable[None]]:
    async def call(self: BackgroundTask) -> None:
        record = current_record.get()
        if record is None or record.background is None:
            await original(self)
        else:
            await record.background.run(_name_of(self.func), partial(original, self))

    return call


def _name_of(function: object) -> str:
    """Return e.g. `send_receipt` or `Mailer.send`, of a wrapped function its own name; never a user's value."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


#: A single task's `__call__`; those of a list of tasks run one by one through it.
BACKGROUND_PATCH: Final = SharedPatch(BackgroundTask, "__call__", _observed)
