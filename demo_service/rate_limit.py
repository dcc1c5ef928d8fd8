"""So many requests a minute for each client; when the store is away, everybody may pass."""

import math
import time
from typing import Final

from limits import RateLimitItemPerSecond
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError
from limits.storage import storage_from_string
from starlette.types import ASGIApp, Receive, Scope, Send

from demo_service.capacity import Capacity
from demo_service.clients import limited_party
from demo_service.metrics import ShopMetrics
from demo_service.outage import Outage
from demo_service.problems import Problem

_TIMEOUT_SECONDS: Final = 0.2


class RateLimit:
    """
    The requests each client has left.

    Args:
        url: `memory://`, or `redis://…` where replicas share the limits.
    """

    def __init__(self, url: str, *, capacity: Capacity, metrics: ShopMetrics) -> None:
        options: dict[str, float | str | bool] = {"wrap_exceptions": True}
        if not url.startswith("memory://"):
            options |= {
                "implementation": "redispy",
                "socket_timeout": _TIMEOUT_SECONDS,
                "socket_connect_timeout": _TIMEOUT_SECONDS,
            }
        self._limiter = SlidingWindowCounterRateLimiter(storage_from_string(f"async+{url}", **options))
        self._item = RateLimitItemPerSecond(capacity.requests_per_key, capacity.rate_window_seconds)
        self._metrics = metrics
        self.outage = Outage("rate_limit")

    async def retry_after_seconds(self, party: str) -> int | None:
        """Count one request; return None if it may pass, else when to try again."""
        if self.outage.paused():
            self._metrics.rate_limit_errors.inc()
            return None
        try:
            if await self._limiter.hit(self._item, party):
                self.outage.worked()
                return None
            reset_time, _remaining = await self._limiter.get_window_stats(self._item, party)
        except StorageError as error:
            self.outage.failed(error)
            self._metrics.rate_limit_errors.inc()
            return None
        return max(1, math.ceil(reset_time - time.time()))


class RateLimitLayer:
    """ASGI layer around the API only: who watches or operates the service is never limited."""

    def __init__(self, app: ASGIApp, *, rate_limit: RateLimit, metrics: ShopMetrics) -> None:
        self._app = app
        self._rate_limit = rate_limit
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            seconds = await self._rate_limit.retry_after_seconds(limited_party(scope))
            if seconds is not None:
                self._metrics.rate_limited.inc()
                problem = Problem(
                    429, f"Try again in {seconds} s.", kind="rate-limited", headers={"Retry-After": str(seconds)}
                )
                await problem.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)
