"""The last decisions with what they were made from, so that anyone can ask why it scaled."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from autoscaler.decide import Decision, Direction, Sample, State

_KEPT: Final = 1000
_SAMPLES_SHOWN: Final = 4


@dataclass(slots=True, kw_only=True)
class Entry:
    """
    One decision, or the same decision made several times in a row.

    Args:
        service: whose.
        first_seconds: when it was made, since the epoch.
        decision: what it was.
        state: what it was made from, the first time; of long series the end.
        desired_samples: how many of the desired number there were.
        woken_by: what made the autoscaler look.
        trace_id: of the trace that shows it.
        last_seconds: when it was last made again.
        times: how often it was made.
        failure: why the order was not accepted.

    """

    service: str
    first_seconds: float
    decision: Decision
    state: State
    desired_samples: int = 0
    woken_by: Sequence[str] = ()
    trace_id: str = ""
    last_seconds: float = 0.0
    times: int = 1
    failure: str = field(default="")

    def to_json(self) -> dict[str, Any]:  # Any: JSON
        signals, replicas = self.state.signals, self.state.replicas
        override = self.state.override
        return {
            "time": _rfc3339(self.first_seconds),
            "service": self.service,
            "direction": self.decision.direction,
            "cause": self.decision.reason,
            "reason": self.decision.sentence,
            "running": replicas.running if replicas else None,
            "ordered": replicas.target if replicas else None,
            "desired": _number(self.decision.desired),
            "target": self.decision.target,
            "failure": self.failure,
            "times": self.times,
            "last_time": _rfc3339(self.last_seconds or self.first_seconds),
            "woken_by": list(self.woken_by),
            "trace_id": self.trace_id,
            "inputs": {
                "desired": _samples(signals.desired),
                "desired_samples": self.desired_samples,
                "running": _samples(signals.running),
                "demand": {signal: _number(count) for signal, count in signals.demand.items()},
                "signals_complete": _number(signals.complete),
                "replicas_scraped": _number(signals.scraped),
                "error_budget_burning": signals.burning,
                "last_scale_out_ineffective": signals.ineffective,
                "ordered_out_at": _moment(self.state.ordered_out_at),
                "ordered_in_at": _moment(self.state.ordered_in_at),
                "override": {"replicas": override.replicas, "until": _rfc3339(override.until_seconds)}
                if override
                else None,
            },
        }


class Journal:
    """Keeps the last decisions, in memory: Prometheus, logs and traces have the others."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=_KEPT)
        self._newest: dict[str, Entry] = {}

    def is_news(self, service: str, state: State, decision: Decision) -> bool:
        """Whether a decision differs from the last one about the service; holding on for the same reason does not."""
        last = self._newest.get(service)
        return (
            last is None
            or decision.direction is not Direction.HOLD
            or (last.decision.direction, last.decision.reason, last.decision.desired)
            != (decision.direction, decision.reason, decision.desired)
            or last.state.replicas != state.replicas
        )

    def again(self, service: str, now: float) -> None:
        """Note that the last decision about a service was made once more."""
        entry = self._newest[service]
        entry.last_seconds = now
        entry.times += 1

    def add(self, entry: Entry) -> None:
        """Keep a decision, without the samples that nobody is shown; the oldest goes."""
        signals = entry.state.signals
        entry.desired_samples = len(signals.desired)
        shown = replace(signals, desired=signals.desired[-_SAMPLES_SHOWN:], running=signals.running[-_SAMPLES_SHOWN:])
        entry.state = replace(entry.state, signals=shown)
        self._entries.append(entry)
        self._newest[entry.service] = entry

    def last(self, limit: int, service: str | None = None) -> list[Entry]:
        """
        The newest decisions, newest first.

        Args:
            limit: how many at most.
            service: only those about it.

        """
        wanted = (entry for entry in reversed(self._entries) if service in {None, entry.service})
        return [entry for entry, _ in zip(wanted, range(limit), strict=False)]


def _samples(samples: Sequence[Sample]) -> list[list[float | str | None]]:
    return [[_rfc3339(sample.at_seconds), _number(sample.value)] for sample in samples]


def _number(value: float | None) -> float | str | None:
    """JSON has no NaN and no infinity."""
    if value is None:
        return None
    if not math.isfinite(value):
        return str(value)
    return int(value) if value == int(value) else value


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else _rfc3339(seconds)


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
