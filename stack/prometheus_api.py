"""What the stack asks Prometheus."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from obslib import names


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

    Every method raises `httpx.HTTPError` when there is no answer.

    """

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self._url = url
        self._http = http

    async def value(self, query: str) -> float | None:
        """The first value of an instant query, None when it returns nothing."""
        result = (await self._get("query", query=query))["result"]
        return float(result[0]["value"][1]) if result else None

    async def targets(self) -> dict[str, ScrapedTarget]:
        """The active targets by instance."""
        active = (await self._get("targets", state="active"))["activeTargets"]
        return {
            target.replica: target
            for entry in active
            for target in [
                ScrapedTarget(
                    replica=entry["labels"].get(names.LABEL_INSTANCE, ""),
                    last_scrape=epoch_seconds(entry["lastScrape"]),
                )
            ]
        }

    async def _get(self, endpoint: str, **parameters: str) -> Any:  # Any: JSON of a foreign API
        answer = await self._http.get(f"{self._url}/api/v1/{endpoint}", params=parameters)
        answer.raise_for_status()
        return answer.json()["data"]


def epoch_seconds(timestamp: str) -> float:
    """
    Seconds since the epoch of a Go timestamp, which has up to nine decimals; the zero time is 0.

    Args:
        timestamp: such as `2026-11-22T15:17:01.360105331Z`.

    """
    moment = datetime.fromisoformat(timestamp)
    return 0.0 if moment.year == 1 else moment.timestamp()
