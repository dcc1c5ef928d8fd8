"""Who buys: how many customers have ordered lately."""

import time
from typing import Final

from sqlalchemy import distinct, func, select

from demo_service.database import Database
from demo_service.tables import orders

ACTIVE_SECONDS: Final = 300


async def active(database: Database) -> int:
    """Return how many customers have placed an order in the last `ACTIVE_SECONDS`; those without a key are one."""
    since_us = time.time_ns() // 1000 - ACTIVE_SECONDS * 1_000_000
    query = select(func.count(distinct(orders.c.client))).where(orders.c.created_us > since_us)
    async with database.reading() as connection:
        return int(await connection.scalar(query) or 0)
