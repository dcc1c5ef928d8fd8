"""A shop and its payments in one process: the real applications, a database file of their own, no network."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

import obslib
from demo_service import app as shop_app
from demo_service import payments
from demo_service.capacity import Capacity
from demo_service.config import Config
from demo_service.database import Database
from demo_service.faults import Faults
from demo_service.fulfilment import Fulfilment
from demo_service.health import Health
from demo_service.metrics import WorkerMetrics
from demo_service.payments_client import PaymentsClient

QUICK = Capacity(io_seconds=0, job_seconds=0, payment_seconds=0, requests_per_key=10_000)
TOKEN = "a-token-for-tests-only"
ORDER = {"items": [{"product_id": 3, "quantity": 2}]}


def quiet(service: str) -> obslib.Settings:
    """Settings that send nothing and touch no global."""
    return obslib.Settings(
        service_name=service,
        traces_exporter="none",
        logs_enabled=False,
        global_tracer_provider=False,
        instrumentations=(),
        extra_registries=(),
    )


def config_in(folder: Path, **overrides: Any) -> Config:
    """The configuration of a shop that keeps everything in one folder."""
    values = {
        "database_url": f"sqlite+aiosqlite:///{folder}/shop.sqlite3",
        "broker_url": f"filesystem://{folder}/queue",
        "payments_url": "http://payments",
        "faults_token": TOKEN,
    }
    return Config(**{**values, **overrides})


@dataclass
class RunningShop:
    """A replica that has started, and a way to talk to it."""

    app: FastAPI
    client: httpx.AsyncClient
    health: Health

    async def order(self, key: str, *, json: Any = ORDER, **headers: str) -> httpx.Response:
        """Place an order."""
        return await self.client.post("/v1/orders", json=json, headers={"Idempotency-Key": key, **headers})

    def sample(self, name: str, **labels: str) -> float | None:
        """Return one of its metrics."""
        found: float | None = self.app.state.obs.registry.get_sample_value(name, labels)
        return found

    async def set_fault(self, **fault: Any) -> httpx.Response:
        """Switch a fault on."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return await self.client.put("/faults", json={"duration_seconds": 60, **fault}, headers=headers)

    async def clear_fault(self) -> httpx.Response:
        """Switch the fault off."""
        return await self.client.delete("/faults", headers={"Authorization": f"Bearer {TOKEN}"})


class OwnedPayments(httpx.AsyncBaseTransport):
    """A way to payments, whose telemetry ends with it."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._inner = httpx.ASGITransport(app=app)

    async def aclose(self) -> None:
        self._app.state.obs.shutdown()


class UnreachablePayments(OwnedPayments):
    """Refuses every connection until it is told not to."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(app)
        self.reachable = False
        self.asked = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if not self.reachable:
            raise httpx.ConnectError("refused")
        return await self._inner.handle_async_request(request)


class SlowPayments(OwnedPayments):
    """Answers when it is told to: whoever asked holds a slot until then."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(app)
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.set()
        await self.may_answer.wait()
        return await self._inner.handle_async_request(request)


def payments_app(config: Config) -> FastAPI:
    """Return payments itself, with its own way to make server spans."""
    return payments.create_app(config, settings=quiet("payments"), capacity=QUICK)


@asynccontextmanager
async def running_shop(
    config: Config,
    *,
    capacity: Capacity = QUICK,
    transport: httpx.AsyncBaseTransport | None = None,
    ready: bool = True,
    address: str = "192.0.2.7",
) -> AsyncIterator[RunningShop]:
    """Start a replica, wait until it is ready, and stop it."""
    health = Health()
    async with AsyncExitStack() as stack:
        if transport is None:
            inner = payments_app(config)
            stack.callback(inner.state.obs.shutdown)
            transport = httpx.ASGITransport(app=inner)
        app = shop_app.create_app(
            config, settings=quiet("shop"), capacity=capacity, health=health, payments_transport=transport
        )
        stack.callback(app.state.obs.shutdown)
        await stack.enter_async_context(_lifespan(app))
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app, raise_app_exceptions=False, client=(address, 4711)),
                base_url="http://shop",
            )
        )
        shop = RunningShop(app, client, health)
        if ready:
            await until(lambda: _is_ready(client))
        yield shop


@asynccontextmanager
async def worker_on(
    config: Config, shop: RunningShop, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[Fulfilment]:
    """Return what a worker does with each job, without the queue."""
    faults = Faults()
    with obslib.instrument_process(quiet("worker")) as obs:
        metrics = WorkerMetrics(obs)
        database = Database(config.database_url, connections=2, faults=faults)
        client = PaymentsClient(
            config.payments_url,
            failed=metrics.payment.failed,
            faults=faults,
            transport=transport or httpx.ASGITransport(app=shop.app),
        )
        fulfilment = Fulfilment(database, client, metrics=metrics, job_seconds=0)
        try:
            yield fulfilment
        finally:
            await fulfilment.close()


async def until(condition: Callable[[], Awaitable[object]], *, deadline_seconds: float = 60) -> None:
    """Wait for a condition; the deadline is only there to end a failing test."""
    end = time.monotonic() + deadline_seconds
    while not await condition():
        assert time.monotonic() < end, "the condition never came true"
        await asyncio.sleep(0.01)


def messages(folder: Path) -> list[Path]:
    """Return the jobs that wait in the queue."""
    return sorted((folder / "queue" / "messages").glob("*.msg"))


async def _is_ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 200


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the lifespan as a server does: httpx does not."""
    to_app: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    from_app: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
    task = asyncio.create_task(
        app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, to_app.get, from_app.put)
    )
    await to_app.put({"type": "lifespan.startup"})
    assert (await from_app.get())["type"] == "lifespan.startup.complete"
    try:
        yield
    finally:
        await to_app.put({"type": "lifespan.shutdown"})
        assert (await from_app.get())["type"] == "lifespan.shutdown.complete"
        await task
