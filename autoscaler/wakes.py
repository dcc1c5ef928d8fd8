"""Reasons to look at a service now. None says what to do: that is read from Prometheus."""

from dataclasses import dataclass
from enum import StrEnum

from opentelemetry.trace import SpanContext


class Path(StrEnum):
    """Which way a reason came."""

    ALERT = "alert"
    TICK = "tick"
    OPERATOR = "operator"
    AGAIN = "again"


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
