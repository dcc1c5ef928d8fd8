"""What the stack asks Prometheus."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import httpx

from obslib import names

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ScrapedTarget:
    """A target as Prometheus sees it; `last_scrape` is in seconds since the epoch."""

    replica: str
    last_scrape: float


class PrometheusApi:
    """
    Asks one Prometheus.

    Args:
        url: its address.
        http: the client to ask with.

    Every method raises `httpx.HTTPError` when there is no answer, or one that is not Prometheus'.

    """

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self._url = url
        self._http = http

    async def value(self, query: str) -> float | None:
        """The first value of an instant query, None when it returns nothing."""
        return await self._get(_first_value, "query", query=query)

    async def targets(self) -> dict[str, ScrapedTarget]:
        """The active targets by instance."""
        return await self._get(_targets, "targets", state="active")

    async def _get(self, read: Callable[[Any], T], endpoint: str, **parameters: str) -> T:  # Any: JSON of a foreign API
        answer = await self._http.get(f"{self._url}/api/v1/{endpoint}", params=parameters)
        answer.raise_for_status()
        try:
            return read(answer.json()["data"])
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise httpx.DecodingError("This is no answer of Prometheus.", request=answer.request) from error


def _first_value(data: Any) -> float | None:  # Any: as above
    return float(data["result"][0]["value"][1]) if data["result"] else None


def _targets(data: Any) -> dict[str, ScrapedTarget]:  # Any: as above
    found = [
        ScrapedTarget(
            replica=entry["labels"].get(names.LABEL_INSTANCE, ""), last_scrape=epoch_seconds(entry["lastScrape"])
        )
        for entry in data["activeTargets"]
    ]
    return {target.replica: target for target in found}


def epoch_seconds(timestamp: str) -> float:
    """
    Seconds since the epoch of a Go timestamp, which has up to nine decimals; the zero time is 0.

    Args:
        timestamp: such as `2026-11-22T15:17:01.360105331Z`.

    """
    moment = datetime.fromisoformat(timestamp)
    return 0.0 if moment.year == 1 else moment.timestamp()
