"""A replica's capacity: so many requests at once, each with its pretended I/O; the others wait, in flight."""

import asyncio
import random

from starlette.types import ASGIApp, Receive, Scope, Send

from demo_service.capacity import Capacity
from demo_service.metrics import ShopMetrics
from demo_service.problems import Problem

_SPREAD = 0.25


class SlotLayer:
    """ASGI layer around the API only: health, metrics and faults answer however full the replica is."""

    def __init__(self, app: ASGIApp, *, capacity: Capacity, metrics: ShopMetrics) -> None:
        self._app = app
        self._capacity = capacity
        self._metrics = metrics
        self._slots = asyncio.Semaphore(capacity.slots)
        self._waiting = 0
        metrics.slots.set(capacity.slots)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        if self._waiting >= self._capacity.queue_limit:
            self._metrics.overloaded.inc()
            problem = Problem(503, "Too many requests are waiting.", kind="overloaded", headers={"Retry-After": "5"})
            await problem.response()(scope, receive, send)
            return
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        self._metrics.slots_busy.inc()
        try:
            await asyncio.sleep(self._capacity.io_seconds * random.uniform(1 - _SPREAD, 1 + _SPREAD))
            await self._app(scope, receive, send)
        finally:
            self._metrics.slots_busy.dec()
            self._slots.release()
