"""`/healthz`: the process is alive. `/readyz`: it should get requests."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from demo_service.outage import Outage


class Health:
    """
    What a load balancer is told.

    Only what this replica alone can answer for makes it unready: start-up, draining, its database. One outage of a
    shared cache or queue would take every replica out at once, so those are reported and change nothing.
    """

    def __init__(self) -> None:
        self.draining = False
        self._database: Callable[[], Awaitable[str]] | None = None
        self._degradable: tuple[Outage, ...] = ()

    def watch(self, *, database: Callable[[], Awaitable[str]], degradable: tuple[Outage, ...]) -> None:
        """
        Say what readiness depends on.

        Args:
            database: Returns why the database is unusable, `""` if it is usable.
            degradable: What is reported and changes nothing.
        """
        self._database = database
        self._degradable = degradable

    def router(self) -> APIRouter:
        """Return the two routes."""
        routes = APIRouter(tags=["health"])

        @routes.get("/healthz")
        async def healthz() -> Response:
            return JSONResponse({"status": "alive"})

        @routes.get("/readyz")
        async def readyz() -> Response:
            reason = await self._database() if self._database else ""
            checks = {"database": reason or "ok"} if self._database else {}
            checks |= {outage.name: "degraded" if outage.failing else "ok" for outage in self._degradable}
            status = "draining" if self.draining else "unavailable" if reason else "ready"
            return JSONResponse(
                {"status": status, "checks": checks},
                status_code=200 if status == "ready" else 503,
                headers={"Cache-Control": "no-store"},
            )

        return routes
