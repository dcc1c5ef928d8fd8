"""
Jobs that were committed with their orders and are not done yet.

A row is leased while its job is with the broker. Brokers lose the running job of a killed worker, so a lease that ends
without fulfilment means: publish again. At most `WINDOW` jobs are leased at once: what waits for a slow worker waits
here, where it is counted, and not in the broker, where its lease would run out and double it.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from demo_service.database import Database, Turn
from demo_service.tables import outbox

WINDOW: Final = 100
#: A window of jobs at the worker's pace takes 5 s; a lease doubles with each attempt.
_LEASE_SECONDS: Final = 15.0
_MAX_LEASE_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Job:
    """A fulfilment to publish."""

    order_id: str
    trace_context: Mapping[str, str]
    attempts: int
    lease_seconds: float


def lease_seconds(attempts: int) -> float:
    """Return how long a job may take that was published so many times before."""
    return min(_LEASE_SECONDS * 2.0 ** min(attempts, 10), _MAX_LEASE_SECONDS)


async def backlog(database: Database) -> tuple[int, int]:
    """Return how many jobs are not done, and how many of them could be published now."""
    is_due = outbox.c.leased_until_us <= _now_us()
    query = select(func.count(), func.count().filter(is_due)).select_from(outbox)
    async with database.reading() as connection:
        total, due = (await connection.execute(query)).one()
    return int(total), int(due)


async def claim(database: Database, limit: int) -> list[Job]:
    """Lease the oldest jobs that are due; no other replica gets them until the lease ends."""
    now_us = _now_us()
    async with database.writing() as connection:
        # Two that count at once would both find room, and lease more than the window together.
        await database.take_turns(connection, Turn.CLAIM)
        leased = await connection.scalar(
            select(func.count()).select_from(outbox).where(outbox.c.leased_until_us > now_us)
        )
        query = (
            select(outbox)
            .where(outbox.c.leased_until_us <= now_us)
            .order_by(outbox.c.leased_until_us, outbox.c.created_us)
            .limit(max(0, min(limit, WINDOW - int(leased or 0))))
            .with_for_update(skip_locked=True)
        )
        rows = (await connection.execute(query)).mappings().all()
        jobs = [
            Job(row["order_id"], row["trace_context"], row["attempts"], lease_seconds(row["attempts"])) for row in rows
        ]
        for job in jobs:
            await connection.execute(
                update(outbox)
                .where(outbox.c.order_id == job.order_id)
                .values(leased_until_us=now_us + int(job.lease_seconds * 1e6), attempts=job.attempts + 1)
            )
    return jobs


async def release(database: Database, order_ids: list[str], *, delay_seconds: float) -> None:
    """Give leases back, so that the jobs are published again after the delay."""
    until_us = _now_us() + int(delay_seconds * 1e6)
    async with database.writing() as connection:
        await connection.execute(
            update(outbox).where(outbox.c.order_id.in_(order_ids)).values(leased_until_us=until_us)
        )


async def remove(connection: AsyncConnection, order_id: str) -> None:
    """Take a job off the list, in the transaction that finishes it."""
    await connection.execute(delete(outbox).where(outbox.c.order_id == order_id))


def _now_us() -> int:
    return time.time_ns() // 1000
