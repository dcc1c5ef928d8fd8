"""What is counted of redis' clients, against whichever server listens."""

import asyncio
import time

import pytest
import redis
import redis.asyncio
from redis.asyncio.connection import BlockingConnectionPool as AsyncBlockingConnectionPool
from starlette.applications import Starlette

from obslib import names
from obslib.settings import Settings
from obslib.testing import Captured, capture

SETTINGS = Settings(service_name="shop", extra_registries=(), instrumentations=("redis",))
DEADLINE_SECONDS = 180

OPERATIONS = {
    ("redis", "SET", ""): 2,
    ("redis", "GET", ""): 1,
    ("redis", "PIPELINE", ""): 1,
    ("redis", "WATCH", ""): 1,
    ("redis", "NO_SUCH", "ResponseError"): 1,
}


def operations(telemetry: Captured) -> dict[tuple[str, ...], float]:
    """Return how many operations were counted: system, command, error type → count."""
    keys = names.LABEL_DB_SYSTEM, names.LABEL_DB_OPERATION, names.LABEL_ERROR_TYPE
    found = telemetry.samples(f"{names.DB_CLIENT_OPERATION_DURATION}_count")
    return {tuple(dict(labels)[key] for key in keys): count for labels, count in found.items()}


def pool_values(telemetry: Captured, metric: str) -> dict[tuple[str, ...], float]:
    """Return a pool metric's samples by the values of its labels."""
    found = telemetry.samples(metric)
    return {tuple(value for name, value in labels if name != "worker"): count for labels, count in found.items()}


async def until_waiting(telemetry: Captured, expected: dict[tuple[str, ...], float]) -> None:
    """Let others go on until so many wait for connections, by pool."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while pool_values(telemetry, names.DB_CLIENT_CONNECTION_PENDING_REQUESTS) != expected:
        assert time.monotonic() < deadline
        await asyncio.sleep(0)


def commands_of_a_client_are_counted(port: int) -> None:
    """Commands, pipelines, transactions and errors count once each, and connections come back to their pool."""
    with capture(Starlette(), SETTINGS) as telemetry, redis.Redis(port=port, max_connections=3) as client:
        client.set("key", "x")
        client.execute_command(b"set", "key", "x")
        assert client.get("key") == b"x"
        with client.pipeline() as pipeline:
            pipeline.watch("key")
            pipeline.multi()
            pipeline.set("key", "x")
            pipeline.get("key")
            pipeline.execute()
        with pytest.raises(redis.ResponseError):
            client.execute_command("NO_SUCH COMMAND")
        assert operations(telemetry) == OPERATIONS
        pool = f"localhost:{port}/0"
        assert pool_values(telemetry, names.DB_CLIENT_CONNECTIONS) == {(pool, "used"): 0}
        assert pool_values(telemetry, names.DB_CLIENT_CONNECTION_MAX) == {(pool,): 3}
        assert pool_values(telemetry, names.DB_CLIENT_CONNECTION_PENDING_REQUESTS) == {(pool,): 0}
        assert pool_values(telemetry, f"{names.DB_CLIENT_CONNECTION_WAIT_TIME}_count")[pool, ""] >= 5


async def commands_of_an_async_client_are_counted(port: int) -> None:
    """The same for redis.asyncio, whose pool's users and waiters are seen while they use it and wait."""
    pool = AsyncBlockingConnectionPool(host="127.0.0.1", port=port, max_connections=1, timeout=DEADLINE_SECONDS)
    name = f"127.0.0.1:{port}/0"
    with capture(Starlette(), SETTINGS) as telemetry:
        async with redis.asyncio.Redis.from_pool(pool) as client:
            await client.set("key", "x")
            await client.execute_command(b"set", "key", "x")  # type: ignore[no-untyped-call] # redis does not type it
            async with client.pipeline() as pipeline:
                await pipeline.watch("key")
                assert pool_values(telemetry, names.DB_CLIENT_CONNECTIONS) == {(name, "used"): 1}
                getting = asyncio.ensure_future(client.get("key"))
                await until_waiting(telemetry, {(name,): 1})
                pipeline.multi()  # type: ignore[no-untyped-call] # redis does not type it
                pipeline.set("key", "x")
                pipeline.get("key")
                await pipeline.execute()
            assert await getting == b"x"
            with pytest.raises(redis.ResponseError):
                await client.execute_command("NO_SUCH COMMAND")  # type: ignore[no-untyped-call] # redis does not type it
            assert operations(telemetry) == OPERATIONS
            assert pool_values(telemetry, names.DB_CLIENT_CONNECTIONS) == {(name, "used"): 0}
            assert pool_values(telemetry, names.DB_CLIENT_CONNECTION_PENDING_REQUESTS) == {(name,): 0}
