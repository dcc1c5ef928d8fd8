"""
The peers, set up as their own documentation does, or kinder.

They are imported only in the process that measures them; they live in an environment of their own (the dependency group
`bench`).
"""
# ruff: noqa: PLC0415 -- see above

import logging
import sys
import time
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from starlette.types import ASGIApp, Message, Receive, Scope, Send


def _provider() -> TracerProvider:
    """
    Make a provider that sends over OTLP/HTTP in batches, as the environment says.

    It is not made the global one: FastAPI would then trace each request a second time, at the peer's expense.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _end_with(app: FastAPI, shut_down: Callable[[], object]) -> None:
    """Flush when the application's lifespan ends: uvicorn runs no atexit after SIGTERM."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        shut_down()

    app.router.lifespan_context = lifespan


def contrib(app: FastAPI) -> None:
    """opentelemetry-instrumentation-fastapi as it comes: a span for each ASGI message."""
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    provider = _provider()
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
    _end_with(app, provider.shutdown)


def contrib_server_span(app: FastAPI) -> None:
    """opentelemetry-instrumentation-fastapi with the server span alone."""
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    provider = _provider()
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider, exclude_spans=["receive", "send"])
    _end_with(app, provider.shutdown)


def prepare_native() -> None:
    """FastAPI's own telemetry, which begins when a tracer provider is global."""
    trace.set_tracer_provider(_provider())


def native(app: FastAPI) -> None:
    """The same; nothing to add but its end."""
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    _end_with(app, provider.shutdown)


def pfi(app: FastAPI) -> None:
    """prometheus-fastapi-instrumentator, as its README shows it."""
    from prometheus_fastapi_instrumentator import Instrumentator

    Instrumentator().instrument(app).expose(app)


def pfi_filled(app: FastAPI, series: int) -> None:
    """The same with many series of prometheus_client beside its own."""
    from prometheus_client import Counter

    pfi(app)
    counter = Counter("bench_series", "Many series.", ("key",))
    for number in range(series):
        counter.labels(f"key-{number}").inc(number)


def starlette_exporter(app: FastAPI) -> None:
    """starlette_exporter, as its README shows it."""
    from starlette_exporter import PrometheusMiddleware, handle_metrics

    app.add_middleware(PrometheusMiddleware)
    app.add_route("/metrics", handle_metrics)


def structlog_line(app: FastAPI) -> None:
    """
    One access line a request by structlog through the standard library, as structlog's documentation sets it up.

    The layer that writes it is pure ASGI; the usual `@app.middleware("http")` costs more than the line.
    """
    _configure_structlog()
    app.add_middleware(_AccessLine)


def trio(app: FastAPI) -> None:
    """contrib without send and receive spans, PFI, and a structlog line with the span's ids."""
    pfi(app)
    structlog_line(app)
    contrib_server_span(app)


def logfire(app: FastAPI) -> None:
    """logfire as its documentation shows it, sending to the OTLP endpoint of the environment only."""
    import logfire as product

    product.configure(send_to_logfire=False, console=False, inspect_arguments=False)
    product.instrument_fastapi(app)
    _end_with(app, product.shutdown)


def _add_ids(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format(context.trace_id, "032x")
        event["span_id"] = format(context.span_id, "016x")
    return event


def _configure_structlog() -> None:
    import structlog

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _add_ids,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.getLogger().handlers = [handler]
    logging.getLogger().setLevel(logging.INFO)


class _AccessLine:
    def __init__(self, app: ASGIApp) -> None:
        import structlog

        self._app = app
        self._log = structlog.get_logger("access")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def send_and_look(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_look)
        finally:
            route = scope.get("route")
            self._log.info(
                "http_request",
                http_request_method=scope["method"],
                http_route=getattr(route, "path", ""),
                http_response_status_code=status,
                duration_seconds=time.perf_counter() - started,
            )
