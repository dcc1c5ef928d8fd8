"""Pools of connections to databases and caches: what is used and idle, who waits, and for how long."""

import threading
import weakref
from typing import Final

from obslib import names
from obslib._first_values import FirstValues
from obslib._instruments import Instruments

MAX_POOLS: Final = 32


class ConnectionPool:
    """
    What is known of one pool of a library's, whoever looks.

    It must not hold the library's pool: it lives as long as that does.
    """

    def __init__(self, name: str) -> None:
        self.name: Final = name
        # A set, because adding to it and taking from it is one step each, whichever threads do.
        self.waiting: Final[set[object]] = set()

    def connections(self) -> dict[str, int]:
        """Return how many connections there are in each state that is known."""
        raise NotImplementedError

    def max_connections(self) -> int | None:
        """Return how many there may be; None where nobody says."""
        raise NotImplementedError


class PoolMetrics:
    """The pools that one application has used; those of one name count together."""

    def __init__(self, instruments: Instruments) -> None:
        label = (names.LABEL_POOL,)
        self._count = instruments.gauge(
            names.DB_CLIENT_CONNECTIONS,
            "Connections of a pool, used and idle.",
            (names.LABEL_POOL, names.LABEL_CONNECTION_STATE),
        )
        self._max = instruments.gauge(names.DB_CLIENT_CONNECTION_MAX, "Connections a pool may open.", label)
        self._pending = instruments.gauge(
            names.DB_CLIENT_CONNECTION_PENDING_REQUESTS, "Callers that wait for a pool's connection.", label
        )
        self._wait_time = instruments.histogram(
            names.DB_CLIENT_CONNECTION_WAIT_TIME,
            "Time until a pool gave a connection, opening one included, or did not.",
            (names.LABEL_POOL, names.LABEL_ERROR_TYPE),
            buckets=names.DB_DURATION_BUCKETS_SECONDS,
        )
        self._name = FirstValues(MAX_POOLS, instruments, names.DB_CLIENT_CONNECTIONS)
        self._lock = threading.Lock()
        self._shown: weakref.WeakKeyDictionary[ConnectionPool, str] = weakref.WeakKeyDictionary()
        self._counts: dict[tuple[str, str], int] = {}
        self._limits: dict[str, int] = {}
        self._waiting: dict[str, int] = {}

    def show(self, pool: ConnectionPool) -> None:
        """Show a pool from now on."""
        if pool not in self._shown:
            with self._lock:
                self._shown[pool] = self._name(pool.name)

    def obtained(self, pool: ConnectionPool, seconds: float, error_type: str) -> None:
        """Count the end of somebody's waiting."""
        self._wait_time.labels(self._shown[pool], error_type).observe(seconds)

    def update(self) -> None:
        """Bring the gauges up to date; a pool that is gone has nothing."""
        with self._lock:
            if not self._shown and not self._waiting:
                return
            for known in (self._counts, self._limits, self._waiting):
                for key in known:
                    known[key] = 0  # type: ignore[index] # each with keys of its own
            for pool, name in list(self._shown.items()):
                self._add(pool, name)
            for (name, state), connections in self._counts.items():
                self._count.labels(name, state).set(connections)
            for name, limit in self._limits.items():
                self._max.labels(name).set(limit)
            for name, waiting in self._waiting.items():
                self._pending.labels(name).set(waiting)

    def _add(self, pool: ConnectionPool, name: str) -> None:
        self._waiting[name] = self._waiting.get(name, 0) + len(pool.waiting)
        for state, connections in pool.connections().items():
            self._counts[name, state] = self._counts.get((name, state), 0) + connections
        limit = pool.max_connections()
        if limit is not None:
            self._limits[name] = self._limits.get(name, 0) + limit
