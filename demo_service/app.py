"""The shop's application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
from fastapi import FastAPI, Request
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

import obslib
from demo_service import faults as faults_module
from demo_service import orders, problems, products
from demo_service.body_limit import BodyLimitLayer
from demo_service.cache import Cache
from demo_service.capacity import DEFAULT, Capacity
from demo_service.config import Config
from demo_service.database import Database, DatabaseUnavailableError
from demo_service.faults import FaultLayer, Faults
from demo_service.health import Health
from demo_service.metrics import ShopMetrics
from demo_service.payments_client import PaymentsClient
from demo_service.problems import Problem
from demo_service.rate_limit import RateLimit, RateLimitLayer
from demo_service.relay import Relay
from demo_service.shop import Shop
from demo_service.slots import SlotLayer

_DEPENDENCIES = ("database", "cache", "payments", "queue")


def create_app(
    config: Config | None = None,
    *,
    settings: obslib.Settings | None = None,
    capacity: Capacity = DEFAULT,
    health: Health | None = None,
    payments_transport: httpx.AsyncBaseTransport | None = None,
) -> FastAPI:
    """
    Return the shop.

    Args:
        config: What the operator set; from the environment if not given, as for `obslib doctor`.
        settings: obslib's; from the environment if not given.
        capacity: What this replica carries.
        health: What `/readyz` says, for a server that wants to announce its end.
        payments_transport: Another way to payments than the network.
    """
    config = config or Config.from_env()
    app = FastAPI(title="shop", docs_url=None, redoc_url=None, lifespan=_lifespan)
    # First of all: engines and clients made before it would stay without telemetry.
    obs = obslib.instrument(
        app, settings or obslib.Settings.from_env(service_name="shop", excluded_paths=("/healthz", "/readyz"))
    )
    faults = Faults(_DEPENDENCIES)
    metrics = ShopMetrics(obs)
    relay = Relay(config, metrics=metrics, faults=faults)
    shop = Shop(
        database=Database(config.database_url, connections=capacity.database_connections, faults=faults),
        cache=Cache(config.cache_url, metrics=metrics, faults=faults),
        payments=PaymentsClient(
            config.payments_url, failed=metrics.payment.failed, faults=faults, transport=payments_transport
        ),
        metrics=metrics,
        wake_relay=relay.wake,
    )
    rate_limit = RateLimit(config.rate_limit_url, capacity=capacity, metrics=metrics)
    health = health or Health()
    health.watch(database=shop.database.unusable, degradable=(shop.cache.outage, relay.outage, rate_limit.outage))
    app.state.obs, app.state.shop, app.state.relay, app.state.faults = obs, shop, relay, faults
    problems.install(app)
    app.add_exception_handler(DatabaseUnavailableError, _database_unavailable)
    for router in (products.router, orders.router, health.router()):
        app.include_router(router)
    if config.faults_token:
        app.include_router(faults_module.router(faults, config.faults_token))

    # The last one added is the first to see a request.
    app.add_middleware(FaultLayer, faults=faults)
    app.add_middleware(SlotLayer, capacity=capacity, metrics=metrics)
    app.add_middleware(RateLimitLayer, rate_limit=rate_limit, metrics=metrics)
    app.add_middleware(BodyLimitLayer, limit_bytes=capacity.body_limit_bytes)
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=5)
    if config.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(config.trusted_proxies))
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    shop: Shop = app.state.shop
    relay: Relay = app.state.relay
    preparing = asyncio.create_task(_prepare(shop, relay), name="prepare-database")
    try:
        yield
    finally:
        preparing.cancel()
        with suppress(asyncio.CancelledError):
            await preparing
        await asyncio.to_thread(relay.stop)
        app.state.faults.clear()
        await shop.payments.close()
        await shop.cache.close()
        await shop.database.close()


async def _prepare(shop: Shop, relay: Relay) -> None:
    await shop.database.prepare()
    relay.start()


async def _database_unavailable(_request: Request, _error: Exception) -> Response:
    return Problem(
        503, "The database is not available; try again.", kind="database-unavailable", headers={"Retry-After": "2"}
    ).response()
