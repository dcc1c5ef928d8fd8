"""What the autoscaler asks Prometheus, and believes of the answers."""

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import httpx

from autoscaler.decide import Override, Sample, Signals
from obslib import names
from prometheus import foreign, recorded
from prometheus.policy import Service
from prometheus.promql import selector

OVERRIDE_UNTIL: Final = "autoscaler_override_until_timestamp_seconds"
OVERRIDE_SET: Final = "autoscaler_override_set_timestamp_seconds"
OVERRIDE_REPLICAS: Final = "autoscaler_override_replicas"

_SERIES: Final = (
    recorded.SCALE_DESIRED,
    recorded.SCALE_RUNNING,
    recorded.SCALE_DEMAND,
    recorded.SCALE_DEMAND_COMPLETE,
    recorded.UP,
)
#: A full window of every series of one service is some ten thousand bytes.
_LONGEST_ANSWER_BYTES: Final = 4 * 1024 * 1024
_ANSWER_SECONDS: Final = 5.0
_BURN: Final = "SLOErrorBudgetBurn"
_INEFFECTIVE: Final = "ScaleIneffective"
#: A person's order ends by itself after a day at most.
LONGEST_OVERRIDE_SECONDS: Final = 24 * 3600
#: 9999-12-31: no clock shows a later moment, and no text can be made of it.
_LAST_MOMENT_SECONDS: Final = 253402214400
#: Older than so many evaluations, a count says nothing about now.
_STALE_SAMPLES: Final = 3


class Flaw(StrEnum):
    """What was wrong with an answer, as a label."""

    UNREACHABLE = "unreachable"
    STATUS = "status"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"


class PrometheusError(Exception):
    """There is no answer that can be used; `flaw` says of which kind, the message is a sentence."""

    def __init__(self, flaw: Flaw, sentence: str) -> None:
        super().__init__(sentence)
        self.flaw = flaw


Series = tuple[Mapping[str, str], Sequence[Sample]]


class PrometheusApi:
    """
    Asks one Prometheus.

    Args:
        url: its address.
        http: the client to ask with.

    """

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self._url = url
        self._http = http

    async def signals(self, service: Service, now: float, *, window_seconds: float, sample_seconds: float) -> Signals:
        """
        What is known about a service.

        Args:
            service: whose.
            now: the time of the question, in seconds since the epoch.
            window_seconds: how far back to look.
            sample_seconds: how often the rules are evaluated.

        Raises:
            PrometheusError: there is no answer that can be used.

        """
        window = math.ceil(window_seconds * 1000)
        found: dict[str, Sequence[Sample]] = {}
        for labels, samples in await self._query(_any_of(_SERIES, service) + f"[{window}ms]", now):
            # Only the demand has one series for each signal.
            name = labels.get("__name__", "") + labels.get(names.LABEL_SIGNAL, "")
            if name in found:
                raise PrometheusError(Flaw.MALFORMED, f"Prometheus has {name} of {service.name} twice.")
            found[name] = samples
        alerts = await self._query(
            selector(
                foreign.ALERTS,
                f'{foreign.LABEL_ALERT}=~"{_BURN}|{_INEFFECTIVE}"',
                foreign.FIRING,
                **_identity(service),
            ),
            now,
        )
        firing = {labels.get(foreign.LABEL_ALERT) for labels, _ in alerts}
        fresh = now - _STALE_SAMPLES * sample_seconds
        demand = {
            name.removeprefix(recorded.SCALE_DEMAND): _newest(samples, fresh)
            for name, samples in found.items()
            if name.startswith(recorded.SCALE_DEMAND)
        }
        return Signals(
            desired=found.get(recorded.SCALE_DESIRED, ()),
            running=found.get(recorded.SCALE_RUNNING, ()),
            demand={signal: count for signal, count in demand.items() if count is not None},
            complete=_newest(found.get(recorded.SCALE_DEMAND_COMPLETE, ()), fresh),
            scraped=_newest(found.get(recorded.UP, ()), fresh),
            burning=_BURN in firing,
            ineffective=_INEFFECTIVE in firing,
        )

    async def override(self, service: Service, now: float) -> Override | None:
        """
        What a person ordered of an autoscaler that has been restarted since; None when nothing holds.

        Raises:
            PrometheusError: there is no answer that can be used.

        """
        found: dict[str, dict[str, float]] = {}
        for name in (OVERRIDE_SET, OVERRIDE_UNTIL, OVERRIDE_REPLICAS):
            series = selector(name, service=service.name)
            for labels, samples in await self._query(f"last_over_time({series}[{LONGEST_OVERRIDE_SECONDS}s])", now):
                found.setdefault(labels.get("instance", ""), {})[name] = samples[-1].value
        whole = [values for values in found.values() if len(values) == 3]
        if not whole:
            return None
        newest = max(whole, key=lambda values: values[OVERRIDE_SET])
        until, replicas = newest[OVERRIDE_UNTIL], newest[OVERRIDE_REPLICAS]
        # Whatever it says, no order holds for longer than one may.
        if not now < until <= now + LONGEST_OVERRIDE_SECONDS or math.isinf(replicas):
            return None
        return Override(
            replicas=None if math.isnan(replicas) else int(replicas),
            until_seconds=until,
            why="set before the autoscaler was restarted",
        )

    async def running(self, service: Service, now: float) -> int | None:
        """
        How many replicas the rules count, None when they count none.

        Raises:
            PrometheusError: there is no answer that can be used.

        """
        series = await self._query(selector(recorded.SCALE_RUNNING, **_identity(service)), now)
        value = series[0][1][-1].value if series else math.nan
        return int(value) if math.isfinite(value) else None

    async def _query(self, query: str, now: float) -> list[Series]:
        form = {"query": query, "time": f"{now:.3f}", "timeout": f"{_ANSWER_SECONDS:g}s"}
        try:
            # httpx has no limit for all of it: an answer that drips would never be over.
            async with (
                asyncio.timeout(_ANSWER_SECONDS),
                self._http.stream("POST", f"{self._url}/api/v1/query", data=form, timeout=_ANSWER_SECONDS) as answer,
            ):
                body = await _bounded(answer)
                status = answer.status_code
        except TimeoutError:
            raise PrometheusError(
                Flaw.UNREACHABLE, f"Prometheus gives no whole answer within {_ANSWER_SECONDS:g} s."
            ) from None
        except httpx.HTTPError as error:
            raise PrometheusError(
                Flaw.UNREACHABLE, f"Prometheus gives no answer ({type(error).__name__}): {error}"
            ) from None
        if status != httpx.codes.OK:
            raise PrometheusError(Flaw.STATUS, f"Prometheus answers {status}: {_excerpt(body)}")
        try:
            return _series(json.loads(body))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            raise PrometheusError(Flaw.MALFORMED, f"This is no answer of Prometheus: {_excerpt(body)}") from None


async def _bounded(answer: httpx.Response) -> bytes:
    body = bytearray()
    async for part in answer.aiter_bytes():
        body += part
        if len(body) > _LONGEST_ANSWER_BYTES:
            raise PrometheusError(Flaw.TOO_LARGE, f"Prometheus answers with more than {_LONGEST_ANSWER_BYTES} bytes.")
    return bytes(body)


def _series(document: Any) -> list[Series]:  # Any: JSON of a foreign API
    if document["status"] != "success":
        raise ValueError
    return [
        (
            {str(label): str(value) for label, value in entry["metric"].items()},
            _samples(entry["values"] if "values" in entry else [entry["value"]]),
        )
        for entry in document["data"]["result"]
    ]


def _samples(pairs: Any) -> list[Sample]:  # Any: as above
    samples = [Sample(at_seconds=float(at), value=float(value)) for at, value in pairs]
    if not samples or not all(0 <= sample.at_seconds < _LAST_MOMENT_SECONDS for sample in samples):
        raise ValueError
    return samples


def _newest(samples: Sequence[Sample], not_before: float) -> float | None:
    if not samples or samples[-1].at_seconds < not_before:
        return None
    return samples[-1].value


def _identity(service: Service) -> dict[str, str]:
    # An empty matcher asks for series without the label: the same name in a namespace is another service.
    return {"namespace": "", **service.identity}


def _any_of(series: Sequence[str], service: Service) -> str:
    return selector("", f'__name__=~"{"|".join(series)}"', **_identity(service))


def _excerpt(body: bytes) -> str:
    text = body[:120].decode("utf-8", "replace")
    return repr(text) + ("…" if len(body) > 120 else "")
