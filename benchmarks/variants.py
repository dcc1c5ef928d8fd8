"""The ways to run the application that are compared with each other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from fastapi import FastAPI

from benchmarks import peers

#: How many series the variants for the scrape have.
SERIES: Final = 10_000


def _nothing() -> None:
    return


def _leave_bare(_app: FastAPI) -> None:
    return


def _instrument_with_obslib(app: FastAPI) -> None:
    import obslib  # noqa: PLC0415 -- the bare application and the peers must not pay for it

    obslib.instrument(app)


def _instrument_and_fill(app: FastAPI) -> None:
    import obslib  # noqa: PLC0415 -- see above

    settings = obslib.Settings.from_env(max_label_sets=2 * SERIES)
    series = obslib.instrument(app, settings).counter("bench_series_total", "Many series.", labels=("key",))
    for number in range(SERIES):
        series.labels(f"key-{number}").inc(number)


@dataclass(frozen=True, kw_only=True, eq=False)
class Variant:
    """
    One way to run it.

    Args:
        name: Unique; also the service's name in what it emits.
        title: For people.
        instrument: Applied to the finished application.
        prepare: Called before the application is made.
        environment: What the server process finds beside the bench's own variables.
        spans: How many spans a request must leave at the collector.
        lines: How many lines a request must leave in the log.
    """

    name: str
    title: str
    instrument: Callable[[FastAPI], None] = _leave_bare
    prepare: Callable[[], None] = _nothing
    environment: Mapping[str, str] = field(default_factory=dict)
    spans: int = 0
    lines: int = 0


_NO_METRICS: Final = {"OBSLIB_METRICS_ENABLED": "false"}
_NO_LOGS: Final = {"OBSLIB_LOGS_ENABLED": "false"}
_NO_TRACES: Final = {"OBSLIB_TRACES_ENABLED": "false"}
_UNSAMPLED: Final = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}

BARE: Final = Variant(name="bare", title="bare")
CONTROL: Final = Variant(name="control", title="bare again")

ALL: Final = Variant(name="obslib", title="obslib, all signals", instrument=_instrument_with_obslib, spans=1, lines=1)
UNSAMPLED: Final = Variant(
    name="obslib-unsampled",
    title="obslib, unsampled",
    instrument=_instrument_with_obslib,
    environment=_UNSAMPLED,
    lines=1,
)
METRICS: Final = Variant(
    name="obslib-metrics",
    title="obslib, metrics only",
    instrument=_instrument_with_obslib,
    environment=_NO_LOGS | _NO_TRACES,
)
LOGS: Final = Variant(
    name="obslib-logs",
    title="obslib, logs only",
    instrument=_instrument_with_obslib,
    environment=_NO_METRICS | _NO_TRACES,
    lines=1,
)
TRACES: Final = Variant(
    name="obslib-traces",
    title="obslib, traces only",
    instrument=_instrument_with_obslib,
    environment=_NO_METRICS | _NO_LOGS,
    spans=1,
)
OURS: Final = (ALL, UNSAMPLED, METRICS, LOGS, TRACES)

TRIO: Final = Variant(name="trio", title="usual trio", instrument=peers.trio, spans=1, lines=1)
CONTRIB: Final = Variant(name="contrib", title="contrib", instrument=peers.contrib, spans=3)
CONTRIB_SERVER_SPAN: Final = Variant(
    name="contrib-server-span", title="contrib, no send/receive", instrument=peers.contrib_server_span, spans=1
)
CONTRIB_UNSAMPLED: Final = Variant(
    name="contrib-unsampled",
    title="contrib, unsampled",
    instrument=peers.contrib_server_span,
    environment=_UNSAMPLED,
)
NATIVE: Final = Variant(
    name="native", title="FastAPI native", prepare=peers.prepare_native, instrument=peers.native, spans=4
)
PFI: Final = Variant(name="pfi", title="PFI", instrument=peers.pfi)
STARLETTE_EXPORTER: Final = Variant(
    name="starlette-exporter", title="starlette_exporter", instrument=peers.starlette_exporter
)
STRUCTLOG: Final = Variant(name="structlog", title="structlog line", instrument=peers.structlog_line, lines=1)
LOGFIRE: Final = Variant(
    name="logfire", title="logfire", instrument=peers.logfire, environment={"PYDANTIC_DISABLE_PLUGINS": ""}, spans=1
)
PEERS: Final = (
    TRIO,
    CONTRIB,
    CONTRIB_SERVER_SPAN,
    CONTRIB_UNSAMPLED,
    NATIVE,
    PFI,
    STARLETTE_EXPORTER,
    STRUCTLOG,
    LOGFIRE,
)

FILLED: Final = Variant(name="obslib-filled", title="obslib", instrument=_instrument_and_fill, spans=1, lines=1)
PFI_FILLED: Final = Variant(name="pfi-filled", title="PFI", instrument=lambda app: peers.pfi_filled(app, SERIES))

BY_NAME: Final = {variant.name: variant for variant in (BARE, CONTROL, *OURS, *PEERS, FILLED, PFI_FILLED)}
