"""The thread that hands committed jobs to the broker; one in each replica, none of them needed."""

import asyncio
import math
import random
import threading
import time
from contextlib import suppress
from typing import Final

from kombu.exceptions import KombuError
from kombu.exceptions import OperationalError as BrokerError
from opentelemetry import context, propagate
from opentelemetry.instrumentation.utils import suppress_instrumentation

import obslib
from demo_service import customers, outbox
from demo_service.broker import create_celery, publish
from demo_service.config import Config
from demo_service.database import Database, DatabaseUnavailableError
from demo_service.faults import Faults
from demo_service.metrics import ShopMetrics
from demo_service.outage import Outage

log = obslib.get_logger(__name__)

_PASS_SECONDS: Final = 1.0
#: How often it is counted who buys: the number moves slowly, and an order wakes the relay at once.
_COUNT_SECONDS: Final = 5.0
_BATCH: Final = 20
_RELEASE_SECONDS: Final = 2.0
_JOIN_SECONDS: Final = 5.0


class Relay:
    """
    Publishes due jobs, in the trace of the request that placed the order.

    Publishing blocks, hence a thread; it has its own event loop and so its own database connection.
    """

    def __init__(self, config: Config, *, metrics: ShopMetrics, faults: Faults) -> None:
        self._database_url = config.database_url
        # Here, where a setting that cannot work still ends the start, and not the thread.
        self._celery = create_celery(config, consuming=False)
        self._metrics = metrics
        self._faults = faults
        self._thread = threading.Thread(target=self._run, name="outbox-relay", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._stopping = threading.Event()
        self._counted = -math.inf
        self.outage = Outage("queue")
        metrics.backlog.set(math.nan)
        metrics.active_customers.set(math.nan)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Say that there is a new job; safe from any thread."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop has closed meanwhile: nobody is left to wake
                loop.call_soon_threadsafe(self._wake.set)

    def stop(self) -> None:
        """Finish the job in hand and stop; whatever is not published stays in the outbox."""
        self._stopping.set()
        self.wake()
        if self._thread.ident is None:
            return
        self._thread.join(_JOIN_SECONDS)
        if self._thread.is_alive():
            log.warning("relay_not_stopped")

    def _run(self) -> None:
        asyncio.run(self._relay())

    async def _relay(self) -> None:
        self._loop = asyncio.get_running_loop()
        database = Database(self._database_url, connections=1, faults=self._faults)
        try:
            while not self._stopping.is_set():
                self._wake.clear()
                more = await self._guarded_pass(database)
                if not more:
                    await self._rest()
        finally:
            self._loop = None
            await database.close()
            self._celery.close()

    async def _rest(self) -> None:
        # Replicas spread their passes; an order placed here ends the rest at once.
        try:
            async with asyncio.timeout(_PASS_SECONDS * random.uniform(0.7, 1.3)):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _guarded_pass(self, database: Database) -> bool:
        try:
            return await self._pass(database)
        except DatabaseUnavailableError as error:
            self._metrics.backlog.set(math.nan)
            self._metrics.active_customers.set(math.nan)
            self._counted = -math.inf
            log.warning("relay_database_unavailable", reason=repr(error.__cause__))
            return False
        except Exception:  # the loop's guard: a relay that died would strand every order of this replica
            log.exception("relay_pass_failed")
            return False

    async def _pass(self, database: Database) -> bool:
        """Publish one batch; return whether there may be more at once."""
        # Nobody's request waits for these statements: they would be traces of their own, one a second.
        with suppress_instrumentation():
            total, due = await outbox.backlog(database)
            self._metrics.backlog.set(total)
            await self._count_customers(database)
            if not due or self.outage.paused():
                return False
            jobs = await outbox.claim(database, _BATCH)
        failed = [job.order_id for job in jobs if not self._publish(job)]
        if failed:
            with suppress_instrumentation():
                await outbox.release(database, failed, delay_seconds=_RELEASE_SECONDS)
        return len(jobs) == _BATCH and not failed

    async def _count_customers(self, database: Database) -> None:
        if time.monotonic() < self._counted + _COUNT_SECONDS:
            return
        self._metrics.active_customers.set(await customers.active(database))
        self._counted = time.monotonic()

    def _publish(self, job: outbox.Job) -> bool:
        if self.outage.paused() or self._stopping.is_set():
            return False
        token = context.attach(propagate.extract(job.trace_context))
        try:
            self._faults.check("queue")
            publish(self._celery, job.order_id, expires_seconds=job.lease_seconds)
        except (BrokerError, KombuError, OSError) as error:
            self.outage.failed(error)
            self._metrics.published.labels("failed").inc()
            return False
        else:
            self.outage.worked()
            self._metrics.published.labels("published").inc()
            log.info("job_published", order_id=job.order_id, attempts=job.attempts + 1)
            return True
        finally:
            context.detach(token)
