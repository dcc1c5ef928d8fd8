"""redis: commands, pipelines and pools in metrics; against a stand-in here, and a real server in tests/integration."""

import gc
from pathlib import Path

import pytest
import redis
from starlette.applications import Starlette

from obslib import names
from obslib.testing import capture
from tests.obslib.redis_cases import (
    SETTINGS,
    commands_of_a_client_are_counted,
    commands_of_an_async_client_are_counted,
    operations,
    pool_values,
)
from tests.obslib.redis_standin import redis_standin


def test_commands_of_a_client_are_counted() -> None:
    """Commands, pipelines, transactions and errors count once each, and connections come back to their pool."""
    with redis_standin() as port:
        commands_of_a_client_are_counted(port)


async def test_commands_of_an_async_client_are_counted() -> None:
    """The same for redis.asyncio, and its pool."""
    with redis_standin() as port:
        await commands_of_an_async_client_are_counted(port)


def test_a_server_that_is_away(tmp_path: Path) -> None:
    """What never reached a server counts with the error, as does waiting for a connection."""
    with capture(Starlette(), SETTINGS) as telemetry, redis.Redis(unix_socket_path=f"{tmp_path}/none.sock") as client:
        with pytest.raises(redis.ConnectionError):
            client.get("key")
        assert operations(telemetry) == {("redis", "GET", "ConnectionError"): 1}
        waits = pool_values(telemetry, f"{names.DB_CLIENT_CONNECTION_WAIT_TIME}_count")
        assert waits == {("none.sock/0", "ConnectionError"): 1}
        assert telemetry.samples(names.DB_CLIENT_CONNECTION_MAX) == {}  # nobody has set a limit


def test_a_connection_that_was_dropped_is_not_used_for_ever() -> None:
    """A connection that its pool has forgotten is not used once it is gone; a pool that is gone reads 0."""
    with redis_standin() as port, capture(Starlette(), SETTINGS) as telemetry:
        client = redis.Redis(port=port)
        connection = client.connection_pool.get_connection()
        pool = f"localhost:{port}/0"
        assert pool_values(telemetry, names.DB_CLIENT_CONNECTIONS) == {(pool, "used"): 1}
        connection.disconnect()  # type: ignore[no-untyped-call] # redis does not type it
        client.connection_pool.reset()
        del connection
        gc.collect()
        assert pool_values(telemetry, names.DB_CLIENT_CONNECTIONS) == {(pool, "used"): 0}
        connection = client.connection_pool.get_connection()
        connection.disconnect()  # type: ignore[no-untyped-call] # redis does not type it
        del connection, client
        gc.collect()
        assert pool_values(telemetry, names.DB_CLIENT_CONNECTIONS) == {(pool, "used"): 0}


def test_a_connection_from_before() -> None:
    """One that was taken before anybody counted is given back like any other."""
    with redis_standin() as port:
        pool = redis.ConnectionPool(port=port)
        connection = pool.get_connection()
        with capture(Starlette(), SETTINGS) as telemetry:
            pool.release(connection)
            assert pool_values(telemetry, names.DB_CLIENT_CONNECTIONS) == {}
        assert pool.get_connection() is connection
        pool.disconnect()


def test_everything_is_put_back() -> None:
    """Afterwards the classes have their own methods, and connections in use then can be given back."""
    before = dict(vars(redis.Redis)), dict(vars(redis.ConnectionPool)), dict(vars(redis.client.Pipeline))
    with redis_standin() as port:
        with capture(Starlette(), SETTINGS):
            pool = redis.ConnectionPool(port=port)
            connection = pool.get_connection()
            assert (dict(vars(redis.Redis)), dict(vars(redis.ConnectionPool))) != before[:2]
        pool.release(connection)
        pool.disconnect()
    assert (dict(vars(redis.Redis)), dict(vars(redis.ConnectionPool)), dict(vars(redis.client.Pipeline))) == before
