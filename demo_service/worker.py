"""The process that fulfils orders: a Celery worker with one job at a time, scaled by processes."""

import asyncio
import contextvars
import logging
import socket
import time
from typing import Final

from celery import signals

import obslib
from demo_service.broker import QUEUE, TASK, create_celery
from demo_service.capacity import Capacity
from demo_service.config import Config
from demo_service.database import Database
from demo_service.faults import Faults
from demo_service.fulfilment import Fulfilment
from demo_service.metrics import WorkerMetrics
from demo_service.payments_client import PaymentsClient

log = obslib.get_logger(__name__)

_DATABASE_CONNECTIONS: Final = 1


def run(config: Config, *, metrics_port: int, capacity: Capacity) -> int:
    """Work until SIGTERM, finish the job in hand, and return the exit status."""
    # Not redis: here it is Celery's broker only, and its polling and acknowledging are part of no job.
    settings = obslib.Settings.from_env(
        service_name="worker", metrics_port=metrics_port, instrumentations=("httpx", "sqlalchemy", "celery")
    )
    with obslib.instrument_process(settings) as obs, asyncio.Runner() as runner:
        metrics = WorkerMetrics(obs)
        fulfilment = runner.run(_fulfilment(config, metrics, capacity))
        try:
            return _consume(config, runner, fulfilment, metrics)
        finally:
            runner.run(fulfilment.close())


async def _fulfilment(config: Config, metrics: WorkerMetrics, capacity: Capacity) -> Fulfilment:
    faults = Faults()
    return Fulfilment(
        Database(config.database_url, connections=_DATABASE_CONNECTIONS, faults=faults),
        PaymentsClient(config.payments_url, failed=metrics.payment.failed, faults=faults),
        metrics=metrics,
        job_seconds=capacity.job_seconds,
    )


def _consume(config: Config, runner: asyncio.Runner, fulfilment: Fulfilment, metrics: WorkerMetrics) -> int:
    celery = create_celery(config, consuming=True)

    @celery.task(name=TASK)  # type: ignore[untyped-decorator] # celery is not typed
    def fulfil_order(order_id: str) -> None:
        started = time.perf_counter()
        outcome = "failed"
        try:
            # The runner keeps its own context: without a copy of ours the job would leave its trace.
            outcome = runner.run(fulfilment.fulfil(order_id), context=contextvars.copy_context())
        finally:
            metrics.jobs.labels(outcome).inc()
            metrics.job_duration.observe(time.perf_counter() - started)

    # Celery tells each job twice, in sentences; the job's own events and the metrics say it all.
    logging.getLogger("celery").setLevel(logging.WARNING)
    # A receiver for this signal is how Celery is told to leave logging alone.
    signals.setup_logging.connect(_leave_logging_alone)
    worker = celery.Worker(
        pool="solo",
        queues=[QUEUE],
        hostname=f"worker@{socket.gethostname()}",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    log.info("worker_started")
    worker.start()
    log.info("worker_stopped")
    return int(worker.exitcode or 0)


def _leave_logging_alone(**_arguments: object) -> None:
    """Do nothing, on purpose."""
