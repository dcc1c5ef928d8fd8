"""The database: short transactions, a bounded pool, and one exception for whatever takes it away."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import Any, Final

# As a module: obslib replaces `create_async_engine` there when the application is instrumented.
import sqlalchemy.ext.asyncio as sqlalchemy_asyncio
from opentelemetry.instrumentation.utils import suppress_instrumentation
from sqlalchemy import event, func, insert, select, text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection

import obslib
from demo_service import tables
from demo_service.faults import Faults

log = obslib.get_logger(__name__)

_POOL_TIMEOUT_SECONDS: Final = 2.0
_BUSY_TIMEOUT_SECONDS: Final = 5.0
_CONNECT_TIMEOUT_SECONDS: Final = 2.0
_PING_TIMEOUT_SECONDS: Final = 1.0
_BACK_OFF_SECONDS: Final = (0.2, 5.0)
_SQLITE: Final = {"timeout": _BUSY_TIMEOUT_SECONDS}
# Without the second one a server that keeps its connections and says nothing holds every request for ever.
_POSTGRESQL: Final = {"timeout": _CONNECT_TIMEOUT_SECONDS, "command_timeout": _BUSY_TIMEOUT_SECONDS}


class Turn(IntEnum):
    """What only one transaction may do at a time; as advisory locks, any numbers that nobody else locks on."""

    SCHEMA = 7_305_141
    CLAIM = 7_305_142


class DatabaseUnavailableError(Exception):
    """The database cannot answer now; nothing was committed."""


class Database:
    """
    One process' way to the shop's data.

    Create it after the application is instrumented, and use it in one event loop.

    Args:
        url: `sqlite+aiosqlite://…` or `postgresql+asyncpg://…`.
        connections: The most it may open.
        faults: May tell it to fail.
    """

    def __init__(self, url: str, *, connections: int, faults: Faults) -> None:
        self._faults = faults
        self._prepared = False
        self._reason = "starting"
        sqlite = make_url(url).get_backend_name() == "sqlite"
        refusals = () if sqlite else _refusals()
        self._failures: tuple[type[Exception], ...] = (DBAPIError, PoolTimeoutError, OSError, *refusals)
        self._engine = sqlalchemy_asyncio.create_async_engine(
            url,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=_POOL_TIMEOUT_SECONDS,
            pool_pre_ping=not sqlite,
            connect_args=_SQLITE if sqlite else _POSTGRESQL,
        )
        self._sqlite = sqlite
        if sqlite:
            event.listen(self._engine.sync_engine, "connect", _configure_sqlite)
            event.listen(self._engine.sync_engine, "begin", _begin_sqlite)
        # The same pool, with a mark that the begin event reads.
        self._writing_engine = self._engine.execution_options(shop_writes=True)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """
        Open a transaction that only reads.

        Raises:
            DatabaseUnavailableError: The database cannot answer.
        """
        async with self._guarded(), self._engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """
        Open a transaction that takes SQLite's write lock at once and commits at the end.

        A deferred transaction that turns to writing fails as soon as another process wrote meanwhile, whatever the
        busy timeout: https://www.sqlite.org/lang_transaction.html#immediate.

        Raises:
            DatabaseUnavailableError: The database cannot answer.
            sqlalchemy.exc.IntegrityError: A constraint refused the change.
        """
        async with self._guarded(), self._writing_engine.begin() as connection:
            yield connection

    async def take_turns(self, connection: AsyncConnection, turn: Turn) -> None:
        """Wait for transactions that hold this lock; SQLite's writers wait for each other anyway."""
        if not self._sqlite:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": turn})

    async def unusable(self) -> str:
        """Return why the database cannot be used, `""` if it is prepared and answers within a second."""
        if not self._prepared:
            return self._reason
        try:
            async with asyncio.timeout(_PING_TIMEOUT_SECONDS), self.reading() as connection:
                await connection.execute(select(1))
        except (DatabaseUnavailableError, TimeoutError) as error:
            return _reason(error)
        return ""

    async def prepare(self) -> None:
        """Create the schema and the products where they are missing, trying until it works."""
        delay_seconds, longest_seconds = _BACK_OFF_SECONDS
        while not self._prepared:
            try:
                await self._create()
            except DatabaseUnavailableError as error:
                self._reason = _reason(error)
                log.warning("database_unavailable", reason=self._reason, retry_seconds=delay_seconds)
                await asyncio.sleep(delay_seconds * random.uniform(0.5, 1.0))
                delay_seconds = min(delay_seconds * 2, longest_seconds)
            else:
                self._prepared = True
                log.info("database_ready")

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    async def _create(self) -> None:
        # No request asked for these statements: each would be a trace of its own.
        with suppress_instrumentation():
            await self._create_untraced()

    async def _create_untraced(self) -> None:
        async with self.writing() as connection:
            await self.take_turns(connection, Turn.SCHEMA)
            await connection.run_sync(tables.metadata.create_all)
            if not await connection.scalar(select(func.count()).select_from(tables.products)):
                await connection.execute(insert(tables.products), tables.seed_products())

    @asynccontextmanager
    async def _guarded(self) -> AsyncIterator[None]:
        try:
            self._faults.check("database")
            yield
        except self._failures as error:
            if isinstance(error, (IntegrityError, ProgrammingError, DataError)):
                raise
            raise DatabaseUnavailableError from error


def _refusals() -> tuple[type[Exception], ...]:
    """Return what asyncpg raises while it connects: only later does SQLAlchemy make DBAPI errors of it."""
    import asyncpg  # noqa: PLC0415 -- only where the database is PostgreSQL

    return (asyncpg.PostgresError, asyncpg.InterfaceError)


def _reason(error: Exception) -> str:
    """Name the driver's own error: SQLAlchemy's text repeats statements and parameters."""
    cause = error.__cause__ or error
    return repr(getattr(cause, "orig", None) or cause)


def _configure_sqlite(connection: Any, _record: object) -> None:
    # SQLAlchemy's recipe: the driver must not begin transactions itself
    # (https://docs.sqlalchemy.org/en/21/dialects/sqlite.html, "Serializable isolation / Savepoints").
    connection.isolation_level = None
    cursor = connection.cursor()
    # The mode stays with the file; in it readers never wait for the writer.
    cursor.execute("PRAGMA journal_mode = WAL")
    # A killed process loses nothing; a power cut may lose the last commits, which a demo can bear.
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("shop_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
