"""SQLAlchemy: statements and pools in metrics, on real SQLite databases, sync and async."""

import asyncio
import gc
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, exc, text
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from starlette.applications import Starlette

from obslib import _sqlalchemy_calls, names
from obslib.settings import Settings
from obslib.testing import capture
from tests.obslib.redis_cases import operations, pool_values, until_waiting

SETTINGS = Settings(service_name="shop", extra_registries=(), instrumentations=("sqlalchemy",))
DEADLINE_SECONDS = 180


def test_statements_are_counted(tmp_path: Path) -> None:
    """Each statement counts once, of an engine made before, too; words that are no operation are `_OTHER`."""
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    with capture(Starlette(), SETTINGS) as telemetry:
        with engine.connect() as connection:
            connection.execute(text("CREATE TABLE products (id integer)"))
            connection.execute(text("\n  insert\ninto products VALUES (:id)"), [{"id": 1}, {"id": 2}])
            assert connection.execute(text("SELECT\tid FROM products")).scalars().all() == [1, 2]
            connection.execute(text("-- a comment\nSELECT 1"))
            connection.execute(text("COMMIT;"))
            with pytest.raises(exc.OperationalError):
                connection.execute(text("SELECT * FROM nowhere"))
            with pytest.raises(exc.OperationalError):
                connection.execute(text("my-secret-password"))
        assert operations(telemetry) == {
            ("sqlite", "CREATE", ""): 1,
            ("sqlite", "INSERT", ""): 1,
            ("sqlite", "SELECT", ""): 1,
            ("sqlite", "_OTHER", ""): 1,
            ("sqlite", "COMMIT", ""): 1,
            ("sqlite", "SELECT", "OperationalError"): 1,
            ("sqlite", "_OTHER", "OperationalError"): 1,
        }
    engine.dispose()


async def test_statements_of_async_engines_are_counted(tmp_path: Path) -> None:
    """The same through aiosqlite, and who waits for a connection is seen while waiting."""
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{tmp_path}/shop.db", pool_size=1, max_overflow=1, pool_timeout=DEADLINE_SECONDS
    )
    pool = "shop.db"

    async def third() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 3"))

    with capture(Starlette(), SETTINGS) as telemetry:
        async with engine.connect() as one, engine.connect() as two:
            await one.execute(text("SELECT 1"))
            await two.execute(text("SELECT 2"))
            waiting = asyncio.create_task(third())
            await until_waiting(telemetry, {(pool,): 1})
            assert pool_values(telemetry, names.DB_CLIENT_CONNECTIONS) == {(pool, "used"): 2, (pool, "idle"): 0}
        await waiting
        assert operations(telemetry) == {("sqlite", "SELECT", ""): 3}
        assert pool_values(telemetry, names.DB_CLIENT_CONNECTION_MAX) == {(pool,): 2}
        assert pool_values(telemetry, names.DB_CLIENT_CONNECTION_PENDING_REQUESTS) == {(pool,): 0}
        assert pool_values(telemetry, names.DB_CLIENT_CONNECTIONS) == {(pool, "used"): 0, (pool, "idle"): 1}
        assert pool_values(telemetry, f"{names.DB_CLIENT_CONNECTION_WAIT_TIME}_count") == {(pool, ""): 3}
        await engine.dispose()


async def test_a_statement_that_is_cancelled_counts(tmp_path: Path) -> None:
    """A caller who gives up leaves an operation with that as its error, and nobody waiting."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/shop.db", pool_size=1, max_overflow=0)
    with capture(Starlette(), SETTINGS) as telemetry:
        async with engine.connect():
            waiting = asyncio.create_task(engine.connect().__aenter__())
            await until_waiting(telemetry, {("shop.db",): 1})
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert pool_values(telemetry, names.DB_CLIENT_CONNECTION_PENDING_REQUESTS) == {("shop.db",): 0}
        waits = pool_values(telemetry, f"{names.DB_CLIENT_CONNECTION_WAIT_TIME}_count")
        assert waits == {("shop.db", ""): 1, ("shop.db", "CancelledError"): 1}
    await engine.dispose()


def test_an_exhausted_pool_is_seen(tmp_path: Path) -> None:
    """Who got no connection in time counts with the error, and while waiting as waiting."""
    engine = create_engine(
        f"sqlite:///{tmp_path}/shop.db", pool_size=1, max_overflow=0, pool_timeout=0.05, pool_logging_name="orders"
    )
    with capture(Starlette(), SETTINGS) as telemetry:
        with engine.connect(), pytest.raises(exc.TimeoutError):
            engine.connect()
        waits = pool_values(telemetry, f"{names.DB_CLIENT_CONNECTION_WAIT_TIME}_count")
    assert waits == {("orders", ""): 1, ("orders", "TimeoutError"): 1}
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql+asyncpg://user:password@db.internal:5432/shop", "db.internal:5432/shop"),
        ("postgresql+asyncpg://user:password@db.internal/shop", "db.internal/shop"),
    ],
)
async def test_the_name_of_a_pool(url: str, name: str) -> None:
    """A pool is named after where it leads, as the conventions say: no user, no password."""
    engine = create_async_engine(url, pool_size=0)

    def refuse(*_arguments: Any) -> None:
        raise OSError("no network in tests")

    event.listen(engine.sync_engine, "do_connect", refuse)
    with capture(Starlette(), SETTINGS) as telemetry:
        with pytest.raises(OSError, match="no network"):
            async with engine.connect():
                pass
        waits = pool_values(telemetry, f"{names.DB_CLIENT_CONNECTION_WAIT_TIME}_count")
        assert waits == {(name, "OSError"): 1}
        assert pool_values(telemetry, names.DB_CLIENT_CONNECTION_MAX) == {}  # pool_size=0 is no limit


def test_pools_that_do_not_say_how_they_are() -> None:
    """Other pools than queues have no gauges, and their statements count."""
    with capture(Starlette(), SETTINGS) as telemetry:
        with create_engine("sqlite://", poolclass=NullPool).connect() as connection:
            connection.execute(text("SELECT 1"))
        assert operations(telemetry) == {("sqlite", "SELECT", ""): 1}
        assert pool_values(telemetry, names.DB_CLIENT_CONNECTIONS) == {}
        assert telemetry.sample(names.INTERNAL_ERRORS, {names.LABEL_SIGNAL: "metrics"}) == 0


def test_an_engine_that_is_gone_has_no_connections(tmp_path: Path) -> None:
    """What an engine left behind reads 0; two pools of one name count together."""
    with capture(Starlette(), SETTINGS) as telemetry:
        engines = [create_engine(f"sqlite:///{tmp_path}/shop.db", pool_size=2, max_overflow=1) for _ in range(2)]
        with engines[0].connect(), engines[1].connect():
            assert pool_values(telemetry, names.DB_CLIENT_CONNECTIONS)["shop.db", "used"] == 2
            assert pool_values(telemetry, names.DB_CLIENT_CONNECTION_MAX) == {("shop.db",): 6}
        for engine in engines:
            engine.dispose()
        del engine, engines
        gc.collect()
        assert set(pool_values(telemetry, names.DB_CLIENT_CONNECTIONS).values()) == {0}
        assert pool_values(telemetry, names.DB_CLIENT_CONNECTION_MAX) == {("shop.db",): 0}


def test_an_engine_that_goes_while_it_is_read(tmp_path: Path) -> None:
    """A pool that is gone between being found and being asked has nothing."""
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    with capture(Starlette(), SETTINGS):
        engine.connect().close()
        known = _sqlalchemy_calls._POOLS[engine.pool]
        assert known.connections() == {names.CONNECTION_USED: 0, names.CONNECTION_IDLE: 1}
        engine.dispose(close=True)
        del engine
        gc.collect()
        assert (known.connections(), known.max_connections()) == ({}, None)


def test_everything_is_put_back(tmp_path: Path) -> None:
    """Afterwards SQLAlchemy's class is as it was, and no statement reaches a listener; a second time works as well."""
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    before = vars(Engine)["raw_connection"]
    for _ in range(2):
        with capture(Starlette(), SETTINGS) as telemetry:
            assert vars(Engine)["raw_connection"] is not before
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
            counted = operations(telemetry)
        assert vars(Engine)["raw_connection"] is before
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        assert operations(telemetry) == counted == {("sqlite", "SELECT", ""): 1}
    engine.dispose()


def test_threads_count_each(tmp_path: Path) -> None:
    """Statements of many threads at once are all counted."""
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db", pool_size=4)

    def select() -> None:
        for _ in range(50):
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))

    with capture(Starlette(), SETTINGS) as telemetry:
        threads = [threading.Thread(target=select) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert operations(telemetry) == {("sqlite", "SELECT", ""): 200}
        assert pool_values(telemetry, names.DB_CLIENT_CONNECTION_PENDING_REQUESTS) == {("shop.db",): 0}
    engine.dispose()
