"""For the tests of services: what one application's telemetry says, with a fixed clock and fixed ids.

>>> from obslib.testing import capture
>>> with capture(app) as telemetry:  # doctest: +SKIP
...     client.get("/products/1")
...     assert telemetry.spans[0].name == "GET /products/{product_id}"

Under pytest the fixture `obslib_capture` does the same until the test ends: `telemetry = obslib_capture(app)`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final, Protocol

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from obslib import _exposition
from obslib._attach import attach
from obslib._framework import check_app, switch_native_telemetry_off
from obslib._provider import Gate, ObslibTracerProvider, make_resource, make_sampler
from obslib._telemetry import Telemetry
from obslib.settings import Settings

#: 2026-01-01T00:00:00Z, where a `FixedClock` starts.
START_UNIX_NS: Final = 1_767_225_600_000_000_000


class FixedClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, start_unix_ns: int = START_UNIX_NS) -> None:
        self._now_ns = start_unix_ns

    def __call__(self) -> int:
        """Return the time in nanoseconds, as a wall clock and as a monotonic one."""
        return self._now_ns

    def advance(self, seconds: float) -> None:
        """Let that much time pass."""
        self._now_ns += round(seconds * 1e9)


class SequentialIds(IdGenerator):
    """Trace and span ids that count up from 1."""

    def __init__(self) -> None:
        self._traces = 0
        self._spans = 0

    def generate_trace_id(self) -> int:
        """Return the next trace id."""
        self._traces += 1
        return self._traces

    def generate_span_id(self) -> int:
        """Return the next span id."""
        self._spans += 1
        return self._spans


class Captured:
    """What one application's telemetry has said so far."""

    def __init__(
        self,
        telemetry: Any,  # only `capture` makes these; a type of its own would make all of obslib's inside public
        exporter: InMemorySpanExporter,
        lines: list[bytes],
        clock: FixedClock,
        tracer_provider: ObslibTracerProvider,
    ) -> None:
        self._telemetry: Telemetry = telemetry
        self._exporter = exporter
        self._lines = lines
        #: `clock.advance(seconds)` lets time pass.
        self.clock: Final = clock
        #: Makes spans that are captured, too.
        self.tracer_provider: Final = tracer_provider

    @property
    def spans(self) -> list[ReadableSpan]:
        """The finished spans, in the order in which they ended."""
        return list(self._exporter.get_finished_spans())

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log lines, parsed."""
        return [json.loads(line) for line in self._lines]

    @property
    def text(self) -> str:
        """The log lines as they were written."""
        return b"".join(self._lines).decode()

    @property
    def access_lines(self) -> list[dict[str, Any]]:
        """The access lines alone."""
        return [line for line in self.lines if line["logger"] == "obslib.access"]

    @property
    def registry(self) -> CollectorRegistry:
        """The registry of obslib's metrics."""
        return self._telemetry.registry

    def sample(self, name: str, labels: Mapping[str, str] | None = None) -> float | None:
        """Return the value of one series, or None if there is no such series."""
        return self.registry.get_sample_value(name, dict(labels or {}))

    def samples(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Return every series of a sample name as it is scraped: sorted label pairs → value."""
        text = self._telemetry.exposition.render(_exposition.TEXT).decode()
        return {
            tuple(sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        }

    def metrics_text(self, *, openmetrics: bool = False) -> str:
        """Return what `/metrics` answers."""
        content_type = _exposition.OPENMETRICS if openmetrics else _exposition.TEXT
        return self._telemetry.exposition.render(content_type).decode()

    def clear(self) -> None:
        """Forget spans and lines; counts stay."""
        self._exporter.clear()
        self._lines.clear()


class Capture(Protocol):
    """
    What the pytest fixture `obslib_capture` is: `capture`, until the end of the test.

    The fixture is there wherever obslib is installed; nothing needs to be imported or configured for it.
    """

    def __call__(
        self, app: Starlette, settings: Settings | None = None, *, new_request_id: Callable[[], str] | None = None
    ) -> Captured:
        """Instrument an application until the test ends; see `capture`."""


class _NoLifetime:
    """Nothing to start: everything is kept in memory."""

    running: bool = True

    def start(self) -> None: ...

    def startup_complete(self) -> None: ...

    def pause(self) -> None: ...


@contextmanager
def capture(
    app: Starlette, settings: Settings | None = None, *, new_request_id: Callable[[], str] | None = None
) -> Iterator[Captured]:
    """
    Instrument an application for the time of a block, keeping what it says in memory.

    No global is set: neither the tracer provider nor structlog's configuration nor the standard library's handlers. The
    calls of httpx, SQLAlchemy and redis are counted, and make no spans.

    Args:
        app: Not instrumented otherwise.
        settings: Only what is given; the environment is not read.
        new_request_id: Makes request ids; they count up if not given.
    """
    app = check_app(app)
    settings = Settings(service_name="captured", extra_registries=()) if settings is None else settings
    clock = FixedClock()
    lines: list[bytes] = []
    telemetry = Telemetry(
        settings,
        write=lambda line, _is_error: lines.append(line),
        now_unix_ns=clock,
        monotonic_ns=clock,
        new_request_id=new_request_id or _counting_request_ids(),
    )
    exporter = InMemorySpanExporter()
    provider = ObslibTracerProvider(make_resource(settings), Gate(make_sampler(settings)), SequentialIds())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    captured = Captured(telemetry, exporter, lines, clock, provider)
    with ExitStack() as undos:
        undos.callback(switch_native_telemetry_off(app))
        undos.callback(telemetry.count_calls())
        undos.callback(attach(telemetry, app, provider if settings.traces_enabled else None, _NoLifetime()))
        telemetry.make_zero_children(app)
        yield captured


def _counting_request_ids() -> Callable[[], str]:
    made = 0

    def next_id() -> str:
        nonlocal made
        made += 1
        return f"request-{made}"

    return next_id
