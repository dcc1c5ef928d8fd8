"""Reasons to look at a service now. None says what to do: that is read from Prometheus."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from opentelemetry.trace import SpanContext


class Path(StrEnum):
    """Which way a reason came."""

    ALERT = "alert"
    TICK = "tick"
    OPERATOR = "operator"
    AGAIN = "again"


#: After which an order to add replicas is timed; a person's own need no stopwatch.
TIMED_PATHS: Final = (Path.ALERT, Path.TICK, Path.AGAIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """
    One reason.

    Args:
        path: which way it came.
        received_seconds: by the monotonic clock.
        alert: Alertmanager's fingerprint of the alert; empty for other ways.
        alert_group: its group's key.
        request: the span of the request that brought it, for a link.

    """

    path: Path
    received_seconds: float
    alert: str = ""
    alert_group: str = ""
    request: SpanContext | None = None
