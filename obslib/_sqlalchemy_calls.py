"""SQLAlchemy: statements, through its own events for all engines, and their pools of connections."""

import weakref
from pathlib import PurePath
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext
from sqlalchemy.pool import Pool, QueuePool

from obslib import names
from obslib._calls import Call, Counters, Obtaining, timed
from obslib._client_metrics import ClientMetrics
from obslib._connection_pools import ConnectionPool
from obslib._method_patch import MethodPatch

COUNTERS: Final = Counters()

#: The dialects that the conventions' `db.system.name` calls otherwise.
_SYSTEMS: Final = {"mssql": "microsoft.sql_server", "oracle": "oracle.db"}
#: Statements may be anybody's text: what is none of these is `_OTHER`.
_OPERATIONS: Final = frozenset(
    {
        "ALTER", "ANALYZE", "BEGIN", "CALL", "COMMIT", "COPY", "CREATE", "DELETE", "DROP", "EXEC", "EXECUTE", "EXPLAIN",
        "GRANT", "INSERT", "LISTEN", "LOCK", "MERGE", "NOTIFY", "PRAGMA", "REFRESH", "RELEASE", "REPLACE", "REVOKE",
        "ROLLBACK", "SAVEPOINT", "SELECT", "SET", "SHOW", "TRUNCATE", "UPDATE", "UPSERT", "VACUUM", "VALUES", "WITH",
    }
)  # fmt: skip
_LONGEST: Final = max(map(len, _OPERATIONS))
#: The attribute of an execution's context that holds its `Call`.
_CALL: Final = "_obslib_call"


class _SqlAlchemyPool(ConnectionPool):
    """A pool that says how it is; others than queues do not."""

    def __init__(self, pool: QueuePool, name: str) -> None:
        super().__init__(name)
        self._pool = weakref.ref(pool)

    def connections(self) -> dict[str, int]:
        pool = self._pool()
        if pool is None:
            return {}
        return {names.CONNECTION_USED: pool.checkedout(), names.CONNECTION_IDLE: pool.checkedin()}

    def max_connections(self) -> int | None:
        pool = self._pool()
        # The library tells its size, and not by how much it may exceed that.
        overflow = getattr(pool, "_max_overflow", -1)
        return None if pool is None or overflow < 0 else pool.size() + overflow


_POOLS: Final[weakref.WeakKeyDictionary[Pool, _SqlAlchemyPool]] = weakref.WeakKeyDictionary()


def _pool_name(engine: Engine) -> str:
    """Return the name its owner gave it, else where it leads to, as the conventions advise."""
    if engine.pool.logging_name:
        return engine.pool.logging_name
    url = engine.url
    if url.host is None:
        return PurePath(url.database or engine.dialect.name).name
    return f"{url.host}:{url.port}/{url.database}" if url.port else f"{url.host}/{url.database}"


def _begin_obtaining(metrics: ClientMetrics, engine: Engine, _arguments: tuple[Any, ...]) -> Call | None:
    pool = engine.pool
    if not isinstance(pool, QueuePool):
        return None
    known = _POOLS.get(pool)
    if known is None:
        known = _POOLS.setdefault(pool, _SqlAlchemyPool(pool, _pool_name(engine)))
    return Obtaining(metrics, known)


def _operation(statement: str) -> str:
    words = statement.lstrip()[: _LONGEST + 1].split(maxsplit=1)
    operation = words[0].rstrip(";").upper() if words else ""
    return operation if operation in _OPERATIONS else names.OTHER


def _begin_statement(metrics: ClientMetrics, context: Any, arguments: tuple[Connection, str]) -> None:
    connection, statement = arguments
    system = connection.dialect.name
    setattr(context, _CALL, Call(metrics, _count, _SYSTEMS.get(system, system), statement))


def _count(
    metrics: ClientMetrics, system: str, statement: str, _result: Any, duration_ns: int, error: BaseException | None
) -> None:
    metrics.db_operation(system, _operation(statement), duration_ns, error)


def _before(
    connection: Connection, _cursor: Any, statement: str, _parameters: Any, context: Any, _executemany: bool
) -> None:
    metrics = COUNTERS.current()
    if metrics is not None:
        metrics.safely(_begin_statement, context, (connection, statement))


def _after(
    _connection: Connection, _cursor: Any, _statement: str, _parameters: Any, context: Any, _executemany: bool
) -> None:
    _end(context, None)


def _failed(failure: ExceptionContext) -> None:
    _end(failure.execution_context, failure.sqlalchemy_exception or failure.original_exception)


def _end(context: Any, error: BaseException | None) -> None:
    call: Call | None = getattr(context, _CALL, None)
    if call is not None:
        delattr(context, _CALL)
        call.end(error)


_LISTENERS: Final = (("before_cursor_execute", _before), ("after_cursor_execute", _after), ("handle_error", _failed))
_PATCH: Final = MethodPatch(Engine, "raw_connection", timed(COUNTERS, _begin_obtaining))


def install() -> None:
    """Let calls be counted, of engines that exist, too."""
    for name, listener in _LISTENERS:
        event.listen(Engine, name, listener)
    _PATCH.put_in()


def uninstall() -> None:
    """Undo."""
    _PATCH.take_out()
    for name, listener in _LISTENERS:
        event.remove(Engine, name, listener)
