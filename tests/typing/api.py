"""The public API as users call it. mypy and pyright, both strict, must find nothing; this is never executed."""

from collections.abc import Mapping
from pathlib import Path
from typing import assert_type

from fastapi import FastAPI
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import TracerProvider
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

import obslib.testing
from obslib import Observability, Settings, exceptions, names

app = FastAPI()
assert_type(obslib.instrument(app), Observability)
assert_type(obslib.instrument(Starlette(), Settings(service_name="shop", log_format="json")), Observability)
assert_type(
    obslib.instrument_process(Settings.from_env({"OTEL_SERVICE_NAME": "worker"}, metrics_port=9100)), Observability
)

settings = Settings.from_env()
assert_type(settings, Settings)
assert_type(settings.otlp_headers, Mapping[str, str])
assert_type(settings.metrics_port, int | None)
assert_type(settings.log_level_number, int)

with obslib.instrument(app, settings) as observability:
    assert_type(observability, Observability)
    assert_type(observability.registry, CollectorRegistry)
    assert_type(observability.tracer_provider, TracerProvider)
    orders = observability.counter("shop_orders_total", "Orders accepted.", ("status",), max_label_sets=10)
    orders.labels("paid").inc()
    stock = observability.gauge("shop_stock", "Articles in stock.")
    stock.labels().set(12)
    observability.gauge("shop_queue_depth", "Orders that wait.", function=lambda: 3.0)
    weight = observability.histogram("shop_parcel_bytes", "Sizes.", buckets=names.BODY_SIZE_BUCKETS_BYTES)
    weight.labels().observe(1024)
    assert_type(observability.flush(1.0), bool)
    assert_type(observability.shutdown(timeout_seconds=2.0), bool)

log = obslib.get_logger(__name__)
log.info("order_placed", total_euros=12.5)
log.bind(order_id="o-1").warning("order_late")
obslib.bind(order_id="o-1", items=3)
assert_type(obslib.request_id(), str)
assert_type(obslib.__version__, str)
metric: str = names.HTTP_SERVER_REQUEST_DURATION


def refuse(path: Path) -> str:
    """Handle each error as its class allows."""
    try:
        obslib.instrument(app, Settings(otlp_certificate_file=str(path)))
    except exceptions.AlreadyInstrumentedError as error:
        return assert_type(str(error), str)
    except (exceptions.ConfigurationError, exceptions.MissingExtraError) as error:
        return str(error)
    except exceptions.ObslibError:
        raise
    return ""


def test_with_a_fixture(obslib_capture: obslib.testing.Capture) -> None:
    """Use what the pytest plugin offers."""
    telemetry = obslib_capture(app, Settings(service_name="shop"), new_request_id=lambda: "r-1")
    assert_type(telemetry, obslib.testing.Captured)


def test_with_a_block() -> None:
    """Use what the fixture stands on."""
    with obslib.testing.capture(app) as telemetry:
        telemetry.clock.advance(0.5)
        assert_type(telemetry.spans, list[ReadableSpan])
        assert_type(telemetry.sample(names.HTTP_SERVER_ACTIVE_REQUESTS, {names.LABEL_METHOD: "GET"}), float | None)
        assert_type(telemetry.metrics_text(openmetrics=True), str)
        with telemetry.tracer_provider.get_tracer("shop").start_as_current_span("price"):
            telemetry.clear()
