"""Faults that an operator switches on to see what the telemetry says; they end by themselves."""

import asyncio
import hmac
import random
import threading
import time
from collections.abc import Callable
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

import obslib
from demo_service.problems import Problem

log = obslib.get_logger(__name__)

_BURN_SLICE_SECONDS: Final = 0.02


class InjectedFailureError(ConnectionError):
    """A dependency was told to fail; it looks like a lost connection on purpose."""


class InjectedError(RuntimeError):
    """A request was told to fail."""


class Fault(BaseModel):
    """What goes wrong, and for how long."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    duration_seconds: Annotated[float, Field(ge=1, le=3600)]
    latency_seconds: Annotated[float, Field(ge=0, le=10)] = 0
    error_rate: Annotated[float, Field(ge=0, le=1)] = 0
    failing_dependency: Annotated[str | None, Field(max_length=32)] = None
    cpu_cores: Annotated[float, Field(ge=0, le=1)] = 0


class Faults:
    """
    The faults of one process: at most one set at a time.

    Args:
        dependencies: Names that may be told to fail here.
        clock: Monotonic seconds.
    """

    def __init__(self, dependencies: tuple[str, ...] = (), *, clock: Callable[[], float] = time.monotonic) -> None:
        self.dependencies = dependencies
        self._clock = clock
        self._fault: Fault | None = None
        self._until = 0.0
        self._burner_stop = threading.Event()

    def active(self) -> Fault | None:
        """Return the fault in force."""
        if self._fault is not None and self._clock() >= self._until:
            self.clear()
        return self._fault

    def remaining_seconds(self) -> float:
        """Return how long the fault in force will last."""
        return max(0.0, self._until - self._clock()) if self.active() else 0.0

    def set(self, fault: Fault) -> None:
        """Replace whatever is in force."""
        self.clear()
        self._until = self._clock() + fault.duration_seconds
        self._fault = fault
        log.warning("fault_set", **fault.model_dump())
        if fault.cpu_cores:
            self._burner_stop = threading.Event()
            threading.Thread(
                target=_burn,
                args=(fault.cpu_cores, fault.duration_seconds, self._burner_stop),
                name="fault-cpu-burner",
                daemon=True,
            ).start()

    def clear(self) -> None:
        """End the fault in force."""
        self._burner_stop.set()
        if self._fault is not None:
            self._fault = None
            log.warning("fault_cleared")

    def check(self, dependency: str) -> None:
        """Raise if this dependency is told to fail."""
        fault = self._fault and self.active()
        if fault and fault.failing_dependency == dependency:
            raise InjectedFailureError(f"{dependency} is told to fail")


def _burn(cores: float, duration_seconds: float, stop: threading.Event) -> None:
    """Keep a share of one core busy, in slices, so that the rest of the process still gets its turns."""
    until = time.monotonic() + duration_seconds
    busy_seconds = cores * _BURN_SLICE_SECONDS
    while time.monotonic() < until and not stop.is_set():
        slice_end = time.monotonic() + busy_seconds
        while time.monotonic() < slice_end:
            pass
        stop.wait(max(0.0005, _BURN_SLICE_SECONDS - busy_seconds))


class FaultLayer:
    """ASGI layer that delays or fails requests to the API; health, metrics and `/faults` stay as they are."""

    def __init__(self, app: ASGIApp, *, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            fault = self._faults.active()
            if fault is not None:
                await asyncio.sleep(fault.latency_seconds)
                if random.random() < fault.error_rate:
                    raise InjectedError("this request is told to fail")
        await self._app(scope, receive, send)


def router(faults: Faults, token: str) -> APIRouter:
    """Return the endpoint that sets, shows and ends faults, for those who hold the token."""

    async def authorised(request: Request) -> None:
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise Problem(401, "A bearer token is needed.", headers={"WWW-Authenticate": "Bearer"})

    routes = APIRouter(prefix="/faults", tags=["faults"], dependencies=[Depends(authorised)])

    @routes.get("")
    async def show() -> dict[str, object]:
        fault = faults.active()
        return {
            "fault": fault.model_dump() if fault else None,
            "remaining_seconds": round(faults.remaining_seconds(), 3),
            "dependencies": list(faults.dependencies),
        }

    @routes.put("")
    async def replace(fault: Fault) -> dict[str, object]:
        if fault.failing_dependency not in (None, *faults.dependencies):
            known = ", ".join(faults.dependencies) or "none here"
            raise Problem(422, f"failing_dependency must be one of: {known}.", kind="invalid-request")
        faults.set(fault)
        return await show()

    @routes.delete("", status_code=204, response_class=Response)
    async def end() -> Response:
        faults.clear()
        return Response(status_code=204)

    return routes
