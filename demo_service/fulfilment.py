"""What the worker does with an order: settle its payment if need be, then fulfil it, once."""

import asyncio
import time

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

import obslib
from demo_service import outbox, tables
from demo_service.database import Database
from demo_service.metrics import WorkerMetrics
from demo_service.payments_client import (
    PaymentConflictError,
    PaymentDeclinedError,
    PaymentsClient,
    PaymentUnavailableError,
)
from demo_service.tables import Row

log = obslib.get_logger(__name__)


class Fulfilment:
    """
    Fulfils orders; may be told the same order any number of times, in any number of processes.

    Args:
        job_seconds: How long the pretended work takes.
    """

    def __init__(
        self, database: Database, payments: PaymentsClient, *, metrics: WorkerMetrics, job_seconds: float
    ) -> None:
        self._database = database
        self._payments = payments
        self._metrics = metrics
        self._job_seconds = job_seconds

    async def fulfil(self, order_id: str) -> str:
        """Return how it went: `fulfilled`, `duplicate`, `declined`, `postponed` or `unknown`."""
        order = await self._order(order_id)
        if order is None:
            log.error("order_unknown", order_id=order_id)
            return "unknown"
        if order["status"] in {"fulfilled", "declined"}:
            return "duplicate"
        if order["status"] == "payment_pending":
            settled = await self._settle(order)
            if settled != "paid":
                return settled
        await asyncio.sleep(self._job_seconds)
        try:
            async with self._database.writing() as connection:
                await connection.execute(
                    insert(tables.fulfilments).values(order_id=order_id, fulfilled_us=time.time_ns() // 1000)
                )
                await self._finish(connection, order_id, "fulfilled")
        except IntegrityError:
            return "duplicate"
        if order["status"] == "payment_pending":
            self._metrics.payment.revenue.inc(order["total_cents"] / 100)
        log.info("order_fulfilled", order_id=order_id)
        return "fulfilled"

    async def close(self) -> None:
        """Close every connection."""
        await self._payments.close()
        await self._database.close()

    async def _order(self, order_id: str) -> Row | None:
        query = select(tables.orders).where(tables.orders.c.id == order_id)
        async with self._database.reading() as connection:
            return (await connection.execute(query)).mappings().one_or_none()

    async def _settle(self, order: Row) -> str:
        order_id = order["id"]
        try:
            await self._payments.authorise(order_id, order["total_cents"])
        except PaymentUnavailableError as error:
            # The job's lease ends and the relay publishes it again, less often each time.
            log.warning("payment_still_pending", order_id=order_id, reason=str(error))
            return "postponed"
        except (PaymentDeclinedError, PaymentConflictError) as error:
            async with self._database.writing() as connection:
                await self._finish(connection, order_id, "declined")
            log.warning("payment_declined", order_id=order_id, reason=repr(error))
            return "declined"
        return "paid"

    async def _finish(self, connection: AsyncConnection, order_id: str, status: str) -> None:
        await connection.execute(update(tables.orders).where(tables.orders.c.id == order_id).values(status=status))
        await outbox.remove(connection, order_id)
