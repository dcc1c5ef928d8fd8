"""redis: commands and pipelines of its clients, and their pools of connections; not those of clusters."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import PurePath
from typing import Any, Final

import redis.asyncio
import redis.client
import redis.connection

from obslib import names
from obslib._calls import Call, Counters, Obtaining, timed, timed_coroutine
from obslib._client_metrics import ClientMetrics
from obslib._connection_pools import ConnectionPool
from obslib._method_patch import MethodPatch, MethodPatches

COUNTERS: Final = Counters()

_SYSTEM: Final = "redis"
_PIPELINE: Final = "PIPELINE"
#: What its pools say where nobody has set a limit.
_UNLIMITED: Final = 2**31


class _RedisPool(ConnectionPool):
    """A pool of redis': we see ourselves which connections are used, since the library does not say in public."""

    def __init__(self, pool: Any) -> None:
        options = pool.connection_kwargs
        place = (
            f"{options['host']}:{options.get('port', 6379)}" if "host" in options else PurePath(options["path"]).name
        )
        super().__init__(f"{place}/{options.get('db') or 0}")
        self._max_connections: int = pool.max_connections
        #: Weak, since one that breaks may be dropped and never given back.
        self.used: Final[weakref.WeakSet[Any]] = weakref.WeakSet()

    def connections(self) -> dict[str, int]:
        return {names.CONNECTION_USED: len(self.used)}

    def max_connections(self) -> int | None:
        return self._max_connections if self._max_connections < _UNLIMITED else None


_POOLS: Final[weakref.WeakKeyDictionary[Any, _RedisPool]] = weakref.WeakKeyDictionary()


def _begin_command(metrics: ClientMetrics, _client: Any, arguments: tuple[Any, ...]) -> Call:
    return Call(metrics, _count_command, arguments[0])


def _begin_pipeline(metrics: ClientMetrics, _pipeline: Any, _arguments: tuple[Any, ...]) -> Call:
    return Call(metrics, _count_command, _PIPELINE)


def _count_command(
    metrics: ClientMetrics, command: str | bytes, _result: Any, duration_ns: int, error: BaseException | None
) -> None:
    text = command.decode() if isinstance(command, bytes) else command
    # Some are given with their first argument: CONFIG GET.
    metrics.db_operation(_SYSTEM, text.partition(" ")[0].upper(), duration_ns, error)


def _begin_obtaining(metrics: ClientMetrics, pool: Any, _arguments: tuple[Any, ...]) -> Call:
    known = _POOLS.get(pool)
    if known is None:
        known = _POOLS.setdefault(pool, _RedisPool(pool))
    return Obtaining(metrics, known, known.used.add)


def _wrap_release(original: Callable[..., Any]) -> Callable[..., Any]:
    def release(pool: Any, connection: Any, *args: Any, **kwargs: Any) -> Any:
        known = _POOLS.get(pool)
        if known is not None:
            with suppress(TypeError):  # what cannot be referred to weakly is not among the used ones either
                known.used.discard(connection)
        return original(pool, connection, *args, **kwargs)

    return release


def _patches() -> Iterator[MethodPatch]:
    for client, timed_method in ((redis.Redis, timed), (redis.asyncio.Redis, timed_coroutine)):
        yield MethodPatch(client, "execute_command", timed_method(COUNTERS, _begin_command))
    for pipeline, timed_method in ((redis.client.Pipeline, timed), (redis.asyncio.client.Pipeline, timed_coroutine)):
        yield MethodPatch(pipeline, "execute", timed_method(COUNTERS, _begin_pipeline))
        yield MethodPatch(pipeline, "immediate_execute_command", timed_method(COUNTERS, _begin_command))
    for connections, timed_method in ((redis.connection, timed), (redis.asyncio.connection, timed_coroutine)):
        for pool in (connections.ConnectionPool, connections.BlockingConnectionPool):
            yield MethodPatch(pool, "get_connection", timed_method(COUNTERS, _begin_obtaining))
            yield MethodPatch(pool, "release", _wrap_release)


_PATCHES: Final = MethodPatches(*_patches())
#: Lets calls be counted, and undoes that.
install, uninstall = _PATCHES.put_in, _PATCHES.take_out
