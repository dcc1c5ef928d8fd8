"""The cache: text by key, for seconds. Its absence costs time, never an answer."""

import warnings
from typing import Final

from cashews import Cache as CashewsCache
from cashews.exceptions import CacheError
from redis.exceptions import RedisError

from demo_service.faults import Faults
from demo_service.metrics import ShopMetrics
from demo_service.outage import Outage

_TIMEOUT_SECONDS: Final = 0.2
_MAX_ENTRIES: Final = 1000
#: cashews' own around redis' and the system's; ValueError is a text in Redis that is not JSON.
_FAILURES: Final = (CacheError, RedisError, OSError, ValueError)


class Cache:
    """
    Text that is cheap to lose.

    Values are JSON in Redis: cashews' default, pickle, would let whoever writes there run code here.

    Args:
        url: `mem://` or `redis://…`.
    """

    def __init__(self, url: str, *, metrics: ShopMetrics, faults: Faults) -> None:
        self._cache = CashewsCache()
        if url.startswith("mem://"):
            self._cache.setup(url, size=_MAX_ENTRIES)
        else:
            self._cache.setup(
                url,
                suppress=False,
                pickle_type="json",
                socket_timeout=_TIMEOUT_SECONDS,
                socket_connect_timeout=_TIMEOUT_SECONDS,
                wait_for_connection_timeout=_TIMEOUT_SECONDS,
            )
        self._faults = faults
        self.outage = Outage("cache")
        self._hits = metrics.cache_lookups.labels("hit")
        self._misses = metrics.cache_lookups.labels("miss")
        self._errors = metrics.cache_lookups.labels("error")

    async def get(self, key: str) -> str | None:
        """Return the text, or None if it is not there or the cache is away."""
        if self.outage.paused():
            self._errors.inc()
            return None
        try:
            self._faults.check("cache")
            value = await self._cache.get(key)
        except _FAILURES as error:
            self.outage.failed(error)
            self._errors.inc()
            return None
        self.outage.worked()
        if not isinstance(value, str):
            self._misses.inc()
            return None
        self._hits.inc()
        return value

    async def set(self, key: str, value: str, *, expire_seconds: float) -> None:
        """Keep the text, if the cache is there."""
        if self.outage.paused():
            return
        try:
            self._faults.check("cache")
            await self._cache.set(key, value, expire=expire_seconds)
        except _FAILURES as error:
            self.outage.failed(error)

    async def close(self) -> None:
        """Close the connections."""
        with warnings.catch_warnings():
            # cashews 7.6 closes with a name that redis 5 replaced.
            warnings.filterwarnings("ignore", "Call to deprecated close", DeprecationWarning)
            await self._cache.close()
